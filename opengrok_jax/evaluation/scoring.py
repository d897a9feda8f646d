"""Scoring: values with intervals, comparisons, parts of the posts, and what a reader must know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from opengrok_jax import progress
from opengrok_jax.evaluation import metrics, resampling, significance
from opengrok_jax.evaluation.answers import parse_entities
from opengrok_jax.evaluation.ask import Answered, Question
from opengrok_jax.evaluation.resampling import Resampled
from opengrok_jax.evaluation.significance import Comparison
from opengrok_jax.evaluation.spans import tag_names
from opengrok_jax.evaluation.tasks import Task
from opengrok_jax.records import Score, to_json


def score_all(
    questions: Sequence[Question],
    answered: dict[str, list[Answered]],
    *,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Scores every predictor on every question.

    Args:
      answered: task name -> what each predictor said; those of the student are compared with all
        others.
      bootstrap: resamples behind each interval.
      seed: of the resampling.

    Returns:
      "scores" (`records.Score`), "comparisons" (`significance.Comparison`), "groups" and
      "without_leaks" (the task's metric on some of its posts) as plain rows; "notes" in words.
    """
    result: dict[str, Any] = {"scores": [], "notes": [], "groups": [], "without_leaks": []}
    compared: list[tuple[Question, Answered, Answered, Resampled, Resampled]] = []
    for question in questions:
        task, items, all_ = question.task, question.items, answered[question.task.name]
        for metric in (task.metric, *task.also):
            scorers = [[metrics.scorer(task, metric, run) for run in a.runs] for a in all_]
            drawn = resampling.resample(scorers, len(items), resamples=bootstrap, seed=seed)
            result["scores"] += [
                to_json(_score(task, metric, a, d)) for a, d in zip(all_, drawn, strict=True)
            ]
            if metric != task.metric:
                continue
            compared += [
                (question, a, b, da, db)
                for a, da in zip(all_, drawn, strict=True)
                for b, db in zip(all_, drawn, strict=True)
                if a.is_student and not b.is_student
            ]
            parts = {
                g: [i.group == g for i in items] for g in dict.fromkeys(i.group for i in items)
            }
            parts = {group: chosen for group, chosen in parts.items() if group}
            for group, chosen in parts.items():
                result["groups"] += _of_part(task, all_, scorers, np.array(chosen), group=group)
            if question.leaked.all:
                rest = np.ones(len(items), bool)
                rest[list(question.leaked.all)] = False
                result["without_leaks"] += _of_part(task, all_, scorers, rest)
        result["notes"] += _notes(question, all_, result["without_leaks"])
    result["comparisons"] = [to_json(c) for c in _comparisons(compared)]
    for row in result["comparisons"]:
        progress.say(f"evaluate: {row['task']}: {row['verdict']}")
    return result


def _score(task: Task, metric: str, answered: Answered, drawn: Resampled) -> Score:
    low, high = resampling.interval(drawn)
    return Score(
        task=task.name,
        metric=metric,
        predictor=answered.predictor,
        value=drawn.value,
        low=low,
        high=high,
        rows=len(answered.runs[0]),
        unparsable=float(np.mean([metrics.unparsable(run) for run in answered.runs])),
    )


def _of_part(
    task: Task, answered: Sequence[Answered], scorers: Any, chosen: np.ndarray, **more: str
) -> list[dict[str, Any]]:
    """The task's metric on some of its posts."""
    weights = chosen.astype(np.float64)[None]
    return [
        {
            "task": task.name,
            "metric": task.metric,
            **more,
            "predictor": a.predictor,
            "value": float(np.mean([score(weights)[0] for score in seeds])),
            "rows": int(chosen.sum()),
        }
        for a, seeds in zip(answered, scorers, strict=True)
        if chosen.any()
    ]


def _comparisons(
    compared: Sequence[tuple[Question, Answered, Answered, Resampled, Resampled]],
) -> list[Comparison]:
    """The student against everything else, on every task; corrected for their number."""
    found = [resampling.difference(da, db) for *_, da, db in compared]
    corrected = significance.holm([p for *_, p in found])
    result = []
    for (question, a, b, da, db), (low, high, p), p_corrected in zip(
        compared, found, corrected, strict=True
    ):
        whole = question.task.kind in ("label", "labels") and len(a.runs) == len(b.runs) == 1
        between = da.value - db.value
        result.append(
            Comparison(
                task=question.task.name,
                metric=question.task.metric,
                a=a.predictor,
                b=b.predictor,
                difference=between,
                low=low,
                high=high,
                p=p,
                p_corrected=p_corrected,
                mcnemar=significance.mcnemar(a.runs[0], b.runs[0]) if whole else None,
                verdict=significance.verdict(
                    a.predictor, b.predictor, between, low, high, p_corrected
                ),
            )
        )
    return result


def _notes(
    question: Question, answered: Sequence[Answered], without: Sequence[dict[str, Any]]
) -> list[str]:
    """What a reader of the scores has to know beside them."""
    task, items, notes = question.task, question.items, []
    if task.kind != "label":
        notes.append(
            f"{task.name}: no choice of one label, so models are scored by generation only"
        )
    twice = len(items) - len({item.text for item in items})
    if twice:
        notes.append(f"{task.name}: {twice} of {len(items)} test posts stand there a second time")
    if leaked := question.leaked.all:
        ids = ", ".join(items[i].id for i in leaked[:5]) + (", ..." if leaked[5:] else "")
        rest = "; ".join(
            f"{row['predictor']} {row['value']:.3f}" for row in without if row["task"] == task.name
        )
        notes.append(
            f"{task.name}: {len(leaked)} of {len(items)} test posts stand among the training posts "
            f"too, {len(question.leaked.exact)} word for word, {len(question.leaked.near)} nearly "
            f"({ids}); the scores flatter every predictor that was trained. Without them "
            f"({task.metric}): {rest or 'no post is left'}"
        )
    for one in answered:
        if task.kind == "tags" and "(generation)" in one.predictor:
            notes += _strangers(question, one)
        if task.kind == "clusters":
            count = len({str(p.predicted) for p in one.runs[0]})
            gold = len({str(p.gold) for p in one.runs[0]})
            notes.append(f"{task.name}: {one.predictor} makes {count} clusters; gold has {gold}")
    return notes


def _strangers(question: Question, one: Answered) -> list[str]:
    """How many of the names that a model lists stand nowhere in the post, if it lists any."""
    listed = absent = 0
    for run in one.runs:
        for item, p in zip(question.items, run, strict=True):
            names = parse_entities(p.answer, question.task.types) or ()
            listed += len(names)
            absent += len(tag_names(item.tokens, names)[1])
    if not listed:
        return []
    return [
        f"{question.task.name}: {absent} of {listed} names that {one.predictor} lists do not stand "
        "in the post; they are in no tag, so the official scorers do not count them"
    ]
