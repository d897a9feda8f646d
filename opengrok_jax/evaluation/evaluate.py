"""Room 7's run: a student, its floors and others become predictions and scores.

evaluation/
  answers/SYSTEM.KIND.jsonl          what was answered, by what it was made of (`cache`)
  paid/SYSTEM/                       journals of models behind an API
  questions.jsonl                    what was asked, word for word: rows for `opengrok mask-prompts`
  predictions/TASK.PREDICTOR.jsonl   one `answers.Prediction` a line
  predictions/tweeteval/PREDICTOR/   the same for TweetEval's own script
  scores.json                        scores, notes, comparisons, what is beside them, and the tasks
                                     with the files of their predictions
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from opengrok_jax import progress, storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation import leaks, metrics, resampling, significance, tweeteval_export
from opengrok_jax.evaluation.answers import (
    Prediction,
    parse_entities,
    predicting,
    read_answer,
)
from opengrok_jax.evaluation.api_model import ApiModel, cost_in_words
from opengrok_jax.evaluation.cache import AnswerCache, key_of
from opengrok_jax.evaluation.floors import floors
from opengrok_jax.evaluation.outcomes import (
    PREDICTIONS,
    QUESTIONS,
    SCORES,
    STUDENT,
    question_id,
)
from opengrok_jax.evaluation.predict import KINDS, Student
from opengrok_jax.evaluation.prompt_masks import PromptMasks
from opengrok_jax.evaluation.resampling import Resampled
from opengrok_jax.evaluation.significance import Comparison
from opengrok_jax.evaluation.spans import tag_names
from opengrok_jax.evaluation.systems import (
    Asked,
    System,
    check_predictors,
    make_systems,
    student_system,
)
from opengrok_jax.evaluation.tasks import Item, Task, load_items, make_task
from opengrok_jax.model.attention import Rule
from opengrok_jax.records import Example, Message, Score, to_json

ANSWERS, PAID = "answers", "paid"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A task with its posts and the posts that leaked."""

    task: Task
    items: tuple[Item, ...]
    leaked: leaks.Leaks

    @property
    def prompts(self) -> tuple[str, ...]:
        """What every system is asked, word for word."""
        return tuple(self.task.ask(item) for item in self.items)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """All that one predictor said to one question: a list of predictions for each of its seeds."""

    predictor: str
    runs: tuple[list[Prediction], ...]

    @property
    def is_student(self) -> bool:
        """Whether it is the student of this run."""
        return self.predictor.startswith(STUDENT)


def run(
    *,
    student: Path,
    examples_file: Path,
    out: Path,
    tokenizer: str = "",
    tasks: dict[str, Any],
    data: str = "",
    predictors: tuple[str, ...] = ("likelihood", "generation"),
    systems: dict[str, Any] | None = None,
    limit: int = 0,
    max_new_tokens: int = 48,
    batch_size: int = 32,
    prompt_masks: str = "",
    rule: str = "none",
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, int]:
    """Scores the student and what it is compared with. The same command again goes on.

    Args:
      student: folder that `student.save_student` wrote.
      examples_file: kept.jsonl; its training examples teach the floors, and are looked for among
      the
        test posts.
      out: folder of this stage.
      tokenizer: folder or file, as in `tokenizer.load`; "" = the one in the student's folder, or
        else the small one that ships with us.
      tasks: name -> settings, as in `tasks.make_task`.
      data: folder in the layout of README, for published tasks; "" = the hub.
      predictors: some of `predict.KINDS`.
      systems: name -> settings, as in `systems`; whom the student is compared with.
      limit: posts of each task, 0 for all; chosen as `tasks.load_items` says.
      max_new_tokens: room for a generated answer; a longer one is cut and read as it is.
      batch_size: rows that a model reads at once.
      prompt_masks: masks of the tasks' prompts, as `opengrok mask-prompts` writes them: the
        student attends to what they leave; "" = to every token of the prompt.
      rule: how it reads them, "multiply" or "exclude"; "none" goes with no masks.
      bootstrap: resamples behind each interval.
      seed: of the resampling, and of k-means.

    Returns:
      {"scores": rows in scores.json, "tasks": tasks scored}.

    Raises:
      ConfigError: an argument, a task's or system's settings, or a post too long for the student.
      DataError: the examples or a task's file cannot be read.
      CheckpointError: there is no student in that folder, or a broken one.
      TeacherError: a model behind an API stopped answering.
    """
    _check(tasks, predictors, limit, max_new_tokens, batch_size, bootstrap, seed)
    masks = _masks(prompt_masks, rule)
    made = [make_task(name, settings, data) for name, settings in tasks.items()]
    others = make_systems(systems or {}, default=predictors, batch_size=batch_size, paid=out / PAID)
    loaded = [(task, load_items(task, limit)) for task in made]
    examples = storage.read_records(examples_file, Example)
    trained = [post for e in examples if e.split == "train" for post in e.posts]
    questions = [
        Question(task=t, items=items, leaked=leaks.find([i.text for i in items], trained))
        for t, items in loaded
    ]
    result: dict[str, Any] = {"notes": [], "costs": {}}
    answered: dict[str, list[Answered]] = {q.task.name: [] for q in questions}
    ours = student_system(student, tokenizer, predictors, batch_size, *masks)
    for system in (ours, *others):
        for name, found in _ask_system(system, questions, out, max_new_tokens, result):
            answered[name].append(found)
    for question in questions:
        for predictor, found, note in floors(question.task, examples, question.items, seed):
            if found:
                answered[question.task.name].append(Answered(predictor=predictor, runs=(found,)))
            result["notes"] += [note] if note else []
    storage.write_jsonl(out / QUESTIONS, _asked(questions))
    result["tasks"] = {
        q.task.name: _write(out / PREDICTIONS, q, answered[q.task.name]) for q in questions
    }
    _score_all(result, questions, answered, bootstrap, seed)
    order = (
        *("scores", "notes", "comparisons", "groups", "without_leaks", "costs", "padding"),
        "tasks",
    )
    storage.write_json(out / SCORES, {key: result[key] for key in order if key in result})
    return {"scores": len(result["scores"]), "tasks": len(made)}


# ---- asking -----------------------------------------------------------------------------------


def _ask_system(
    system: System,
    questions: Sequence[Question],
    out: Path,
    max_new_tokens: int,
    result: dict[str, Any],
) -> Iterator[tuple[str, Answered]]:
    """(task, what each of the system's predictors said), every run of it in its turn."""
    table: dict[tuple[str, str], list[list[Prediction]]] = {}
    for number, open_run in enumerate(system.runs, start=1):
        asked = open_run()
        label = system.name if len(system.runs) == 1 else f"{system.name}, seed {number}"
        jobs = [(q, kind) for q in questions for kind in system.predictors if _suits(q.task, kind)]
        for question, kind in jobs:  # a post that does not fit is found now, not hours later
            scored = kind != "generation"
            asked.check(
                f"task {question.task.name!r}",
                question.prompts,
                question.task.spelled if scored else (),
                0 if scored else max_new_tokens,
            )
        with progress.track(
            f"evaluate {label}", total=sum(len(q.items) for q, _ in jobs), unit="posts"
        ) as advance:
            for question, kind in jobs:
                path = out / ANSWERS / f"{_slug(label)}.{kind.split('-')[0]}.jsonl"
                found = _predict(asked, question, kind, path, max_new_tokens, advance)
                table.setdefault((question.task.name, kind), []).append(found)
        if isinstance(asked, ApiModel) and asked.costs:
            result["costs"][system.name] = {**asked.costs, "words": cost_in_words(asked.costs)}
        if isinstance(asked, Student) and asked.wasted[1]:
            wasted, computed = asked.wasted
            result.setdefault("padding", {})[label] = {
                "tokens": computed,
                "share": round(wasted / computed, 4),
            }
    seeds = f", mean of {len(system.runs)} seeds" if len(system.runs) > 1 else ""
    for (task, kind), runs in table.items():
        yield task, Answered(predictor=f"{system.name} ({kind}){seeds}", runs=tuple(runs))


def _suits(task: Task, kind: str) -> bool:
    """Likelihood chooses one of some labels; everything else has to be said."""
    return task.kind == "label" or kind == "generation"


def _predict(
    asked: Asked,
    question: Question,
    kind: str,
    path: Path,
    max_new_tokens: int,
    advance: Any,
) -> list[Prediction]:
    """The predictions, from the cache and, where it has none, from the model."""
    task, prompts = question.task, question.prompts
    scored = kind != "generation"
    how = {"labels": task.spelled} if scored else {"max_new_tokens": max_new_tokens}
    keys = [key_of(system=asked.made_of, prompt=prompt, **how) for prompt in prompts]
    cache = AnswerCache(path)
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in cache}
    new_keys, new_prompts = [*missing], [*missing.values()]
    advance(len(keys) - len(new_keys))

    def record(rows: Sequence[int], values: Sequence[Any]) -> None:
        cache.add((new_keys[row], value) for row, value in zip(rows, values, strict=True))
        advance(len(rows), note=f"{task.name}, {kind}")

    if new_keys and scored:
        asked.log_probs(new_prompts, task.spelled, record)
    elif new_keys:
        asked.answers(new_prompts, max_new_tokens, record)
    values = [cache[key] for key in keys]
    if not scored:
        return [
            predicting(i, None if v is None else read_answer(task, i, v), answer=v or "")
            for i, v in zip(question.items, values, strict=True)
        ]
    lengths = asked.label_tokens(task.spelled) if kind == "likelihood-per-token" else None
    return [likeliest(task, i, v, lengths) for i, v in zip(question.items, values, strict=True)]


def likeliest(
    task: Task, item: Item, logs: Sequence[float], lengths: Sequence[int] | None
) -> Prediction:
    """The label of the highest score; ties go to the one that comes first in the task's order."""
    divided = [log / n for log, n in zip(logs, lengths or [1] * len(logs), strict=True)]
    scores = dict(zip(task.labels, divided, strict=True))
    return predicting(item, max(scores, key=scores.__getitem__), scores=scores)


def _asked(questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    for question in questions:
        for item, prompt in zip(question.items, question.prompts, strict=True):
            message = Message(role="user", content=prompt)
            yield {"id": question_id(question.task.name, item.id), "messages": [to_json(message)]}


def _write(folder: Path, question: Question, answered: Sequence[Answered]) -> dict[str, Any]:
    """Writes the predictions of each predictor, and TweetEval's files of the same.

    Returns:
      What a reader of the predictions has to know of the task: its form, its metric, the files.
    """
    task = question.task
    files: dict[str, list[str]] = {}
    for one in answered:
        for number, found in enumerate(one.runs, start=1):
            slug = _slug(one.predictor) + (f"-{number}" if len(one.runs) > 1 else "")
            name = f"{task.name}.{slug}.jsonl"
            storage.write_jsonl(folder / name, found)
            files.setdefault(one.predictor, []).append(name)
            whole = not task.group or all(item.group for item in question.items)
            if task.name.startswith(tweeteval_export.PREFIX) and whole:
                tweeteval_export.export(folder / "tweeteval" / slug, task, question.items, found)
    form = {key: getattr(task, key) for key in ("kind", "labels", "types", "metric")}
    return {**form, "posts": len(question.items), "predictions": files}


# ---- scoring ----------------------------------------------------------------------------------


def _score_all(
    result: dict[str, Any],
    questions: Sequence[Question],
    answered: dict[str, list[Answered]],
    bootstrap: int,
    seed: int,
) -> None:
    """Adds scores, comparisons, groups and what remains without leaked posts."""
    result |= {"scores": [], "groups": [], "without_leaks": []}
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


def _check(
    tasks: dict[str, Any],
    predictors: tuple[str, ...],
    limit: int,
    max_new_tokens: int,
    batch_size: int,
    bootstrap: int,
    seed: int,
) -> None:
    if not tasks:
        raise ConfigError("evaluation.tasks is empty; name at least one task")
    check_predictors("evaluation.predictors", predictors, KINDS)
    for key, size in {"limit": limit, "seed": seed}.items():
        if size < 0:
            raise ConfigError(f"evaluation.{key}={size} must not be negative")
    sizes = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "bootstrap": bootstrap}
    for key, size in sizes.items():
        if size < 1:
            raise ConfigError(f"evaluation.{key}={size} must be positive")


def _masks(prompt_masks: str, rule: str) -> tuple[PromptMasks | None, Any]:
    """The masks of the student's prompts, and the rule that reads them."""
    if rule not in get_args(Rule) or (rule == "none") != (not prompt_masks):
        raise ConfigError(
            f"evaluation.rule is {rule!r} and evaluation.prompt_masks {prompt_masks!r}; expected "
            "'multiply' or 'exclude' with a masked file, or 'none' without one"
        )
    return (PromptMasks(Path(prompt_masks)) if prompt_masks else None), rule


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
