"""Asking: one system's predictions for every question, from the cache where it has them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrok_jax import progress
from opengrok_jax.cache import AnswerCache, key_of
from opengrok_jax.evaluation import leaks
from opengrok_jax.evaluation.answers import Prediction, predicting, read_answer
from opengrok_jax.evaluation.api_model import ApiModel, cost_in_words
from opengrok_jax.evaluation.outcomes import STUDENT, question_id
from opengrok_jax.evaluation.predict import Student
from opengrok_jax.evaluation.systems import Asked, System
from opengrok_jax.evaluation.tasks import Item, Task
from opengrok_jax.records import Message, to_json


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


def ask_system(
    system: System,
    questions: Sequence[Question],
    folder: Path,
    max_new_tokens: int,
    result: dict[str, Any],
) -> Iterator[tuple[str, Answered]]:
    """(task, what each of the system's predictors said), every run of it in its turn.

    Args:
      folder: of the answers, SYSTEM.KIND.jsonl.
      result: gets the system's "costs" and "padding".
    """
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
                path = folder / f"{slug(label)}.{kind.split('-')[0]}.jsonl"
                found = _predict(asked, question, kind, path, max_new_tokens, advance)
                table.setdefault((question.task.name, kind), []).append(found)
        if isinstance(asked, ApiModel) and asked.costs:
            result["costs"][system.name] = {**asked.costs, "words": cost_in_words(asked.costs)}
        if isinstance(asked, Student) and asked.wasted[1]:
            wasted, computed = asked.wasted
            result["padding"][label] = {
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


def asked_rows(questions: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """What is asked, word for word: rows for `opengrok mask-prompts`."""
    for question in questions:
        for item, prompt in zip(question.items, question.prompts, strict=True):
            message = Message(role="user", content=prompt)
            yield {"id": question_id(question.task.name, item.id), "messages": [to_json(message)]}


def slug(name: str) -> str:
    """A name as it stands in file names."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
