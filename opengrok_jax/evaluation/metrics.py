"""The official metrics and their bootstrap intervals, both from the same counts.

Every metric here is a function of three counts per label: rows that are right, rows that have the
label, rows that were given it. Counts add up over rows, so a bootstrap resample costs one weighted
sum and no second pass over the posts.

    gold       a a b b          label        a  b
    predicted  a b b -          right        1  1
                                gold         2  2
                                predicted    1  2       "-" could not be read: wrong, no label
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.tasks import METRICS, Entity, Task
from opengrok_jax.records import Score

RIGHT, GOLD, PREDICTED = range(3)


def score(
    task: Task, predictor: str, predictions: Sequence[Prediction], *, resamples: int, seed: int
) -> Score:
    """The task's metric over all its predictions, with its 95 % bootstrap interval."""
    if task.types:
        counts = entity_counts(
            [_entities(p.gold) for p in predictions], [_entities(p.predicted) for p in predictions]
        )
    else:
        counts = label_counts(
            [str(p.gold) for p in predictions],
            [None if p.predicted is None else str(p.predicted) for p in predictions],
            task.labels,
        )
    low, high = bootstrap(counts, task.metric, task.labels, resamples=resamples, seed=seed)
    return Score(
        task=task.name,
        metric=task.metric,
        predictor=predictor,
        value=float(value(counts.sum(axis=0), task.metric, task.labels)),
        low=low,
        high=high,
        rows=len(predictions),
        unparsable=sum(p.predicted is None for p in predictions) / len(predictions),
    )


def label_counts(
    gold: Sequence[str], predicted: Sequence[str | None], labels: tuple[str, ...]
) -> Int64[np.ndarray, "rows labels 3"]:
    """Per row and label: right, gold, predicted, each 0 or 1; None is an unreadable answer."""
    names = np.array(labels)
    is_gold = np.array(gold)[:, None] == names
    is_predicted = np.array([p or "" for p in predicted])[:, None] == names
    return np.stack([is_gold & is_predicted, is_gold, is_predicted], axis=-1).astype(np.int64)


def entity_counts(
    gold: Sequence[tuple[Entity, ...]], predicted: Sequence[tuple[Entity, ...]]
) -> Int64[np.ndarray, "rows 1 3"]:
    """Per post: how many distinct (type, surface form) pairs are right, in gold, predicted."""
    rows = [
        (len(set(g) & set(p)), len(set(g)), len(set(p)))
        for g, p in zip(gold, predicted, strict=True)
    ]
    return np.array(rows, np.int64)[:, None, :]


def value(
    counts: Int64[np.ndarray, "*resamples labels 3"], metric: str, labels: tuple[str, ...]
) -> Float64[np.ndarray, "*resamples"]:
    """A metric of summed counts, in [0, 1].

        accuracy      right rows / all rows
        f1:LABEL      2 right / (gold + predicted) of that label
        entity_f1     the same of all (type, surface form) pairs together (micro)
        macro_f1      mean of the labels' F1, without labels neither in gold nor predicted
        macro_recall  mean of right / gold, without labels not in gold

    What would be 0/0 counts as 0, except that it is left out of a mean: scikit-learn's
    zero_division=nan, and the same as TweetEval's script wherever every label occurs.

    Raises:
      ConfigError: the metric is unknown.
    """
    right, gold, predicted = np.moveaxis(counts.astype(np.float64), -1, 0)
    kind, _, of_label = metric.partition(":")
    # 0/0 is expected below, and handled.
    with np.errstate(invalid="ignore"):
        if metric == "accuracy":
            result = right.sum(axis=-1) / gold.sum(axis=-1)
        elif metric == "entity_f1":
            result = 2 * right.sum(axis=-1) / (gold + predicted).sum(axis=-1)
        elif metric == "macro_recall":
            result = _mean_of_defined(right / gold)
        elif metric == "macro_f1":
            result = _mean_of_defined(2 * right / (gold + predicted))
        elif kind == "f1" and of_label in labels:
            result = (2 * right / (gold + predicted))[..., labels.index(of_label)]
        else:
            raise ConfigError(
                f"metric {metric!r} is unknown for labels {', '.join(labels)}; choose one of "
                f"{', '.join(METRICS)}"
            )
    return np.asarray(np.nan_to_num(result, nan=0.0))


def bootstrap(
    counts: Int64[np.ndarray, "rows labels 3"],
    metric: str,
    labels: tuple[str, ...],
    *,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the metric over resampled rows (percentile bootstrap).

    Efron & Tibshirani, An Introduction to the Bootstrap, chapter 13. The draw depends only on the
    seed and the number of rows, so two predictors of one task are resampled alike.
    """
    rows = len(counts)
    # Few distinct rows of counts exist, so it is enough to count how often each was drawn.
    kinds, kind_of_row = np.unique(counts.reshape(rows, -1), axis=0, return_inverse=True)
    random = np.random.default_rng(seed)
    drawn = np.stack(
        [
            np.bincount(kind_of_row[random.integers(0, rows, rows)], minlength=len(kinds))
            for _ in range(resamples)
        ]
    )
    sums = (drawn @ kinds).reshape(resamples, *counts.shape[1:])
    low, high = np.percentile(value(sums, metric, labels), [2.5, 97.5])
    return float(low), float(high)


def _mean_of_defined(
    values: Float64[np.ndarray, "*resamples labels"],
) -> Float64[np.ndarray, "*resamples"]:
    defined = ~np.isnan(values)
    return np.asarray(np.where(defined, values, 0.0).sum(axis=-1) / defined.sum(axis=-1))


def _entities(answer: str | tuple[Entity, ...] | None) -> tuple[Entity, ...]:
    """An unreadable answer finds nothing and is one wrong entity, also where there is none."""
    if answer is None:
        return (("", ""),)
    assert not isinstance(answer, str), "a label among entities"
    return answer
