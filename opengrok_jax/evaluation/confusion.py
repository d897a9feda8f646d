"""What was taken for what: a table of gold against given labels, and each label by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.spans import spans_of
from opengrok_jax.evaluation.tasks import Task

UNREADABLE = "unreadable"


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """`rows[i][j]`: posts of gold label i that were given column j; summed over the seeds."""

    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class OfLabel:
    """A label or type: how often it is in gold, was given, and was given rightly; F1 of these."""

    label: str
    gold: int
    given: int
    right: int

    @property
    def f1(self) -> float:
        """2 right / (gold + given), 0 where there is neither."""
        return 2 * self.right / (self.gold + self.given) if self.gold + self.given else 0.0


def confusion(task: Task, runs: Sequence[Sequence[Prediction]]) -> Confusion:
    """The table of a task of kind "label"; a last column only where an answer was unreadable.

    gold         a a b       labels a b      a  [1 0 1]   (a, b, unreadable)
    given        a - b                       b  [0 1 0]
    """
    counts = Counter(
        (str(p.gold), UNREADABLE if p.predicted is None else str(p.predicted))
        for run in runs
        for p in run
    )
    unreadable = any(p.predicted is None for run in runs for p in run)
    columns = (*task.labels, *((UNREADABLE,) if unreadable else ()))
    return Confusion(
        labels=task.labels,
        columns=columns,
        rows=tuple(tuple(counts[gold, given] for given in columns) for gold in task.labels),
    )


def of_labels(task: Task, runs: Sequence[Sequence[Prediction]]) -> list[OfLabel]:
    """Each label (of kind "labels") or type of entity (of kind "entities" and "tags")."""
    gold, given, right = Counter(), Counter(), Counter()
    for run in runs:
        for p in run:
            for counter, pairs in zip((gold, given, right), _pairs(task, p), strict=True):
                counter.update(pairs)
    names = task.labels or task.types
    return [OfLabel(label=n, gold=gold[n], given=given[n], right=right[n]) for n in names]


def _pairs(task: Task, p: Prediction) -> tuple[list[str], list[str], list[str]]:
    if task.kind == "labels":
        gold, given = {*p.gold}, {*(p.predicted or ())}
        return [*gold], [*given], [*(gold & given)]
    if task.kind == "tags":
        spans, found = {*spans_of(p.gold)}, {*spans_of(p.predicted or ())}
        return tuple([s.kind for s in side] for side in (spans, found, spans & found))  # type: ignore[return-value]
    names, found = {*p.gold}, {*(p.predicted or ())}
    return tuple([kind for kind, _ in side] for side in (names, found, names & found))  # type: ignore[return-value]
