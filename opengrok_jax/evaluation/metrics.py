"""The official metrics, each as a function of how often every post counts.

A metric of some predictions becomes a `Scorer`: weights of the posts in, values out. Ones give the
metric itself, a bootstrap draw gives that of a resample, zeros leave posts out (leaked ones, or
other languages): all from one definition.

    gold       a a b b          label        a  b
    predicted  a b b -          right        1  1
                                gold         2  2
                                predicted    2  2       "-" could not be read: a wrong label

An answer that could not be read counts as a wrong answer that a scorer can read: for a label the
one after the gold label in the task's order (TweetEval's files know no other way to be wrong), for
several labels none, for pairs one wrong pair, for tags no tag, for a summary the empty text, for a
cluster one cluster of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.rouge import rouge
from opengrok_jax.evaluation.spans import spans_of
from opengrok_jax.evaluation.tasks import Task

Weights = Float64[np.ndarray, "draws rows"]
Values = Float64[np.ndarray, " draws"]
Scorer = Callable[[Weights], Values]


def scorer(task: Task, metric: str, predictions: Sequence[Prediction]) -> Scorer:
    """A metric of a task over its predictions, in [0, 1] for any weights of the posts.

        accuracy         right posts / all posts
        f1:LABEL         2 right / (gold + predicted) of that label
        mean_f1:A,B      the mean of those of some labels: SemEval's stance
        macro_f1         mean of the labels' F1; of kind `label` without those neither in gold nor
                         predicted, of kind `labels` those count 0 (scikit-learn on indicators)
        macro_recall     mean of right / gold, without labels not in gold
        micro_f1         2 right / (gold + predicted) of all labels together
        exact_match      posts whose set of labels is right / all posts
        entity_f1        micro F1 of the distinct (type, name) pairs of each post
        span_f1          micro F1 of entities: exact span and type (CoNLL, WNUT 2017, seqeval)
        span_macro_f1    mean of the types' F1;   span_f1_untyped   the same spans, types ignored
        surface_f1       WNUT 2017: (name, type) counts once in the set; found if found in any place
        rouge1, ..       mean over the posts of ROUGE F1 against the best reference (":first": the
                         first one)
        nmi, purity      of two clusterings; mutual information over the mean of both entropies, as
                         scikit-learn's default; purity = share of posts in their cluster's majority

    What would be 0/0 counts as 0, except that it is left out of a mean where that is said above.

    Raises:
      ConfigError: the metric is unknown for the task's kind.
    """
    task.check_metric(metric)
    name, _, of_labels = metric.partition(":")
    if task.kind in ("label", "labels"):
        chosen = [task.labels.index(label) for label in of_labels.split(",") if label]
        if name == "exact_match":
            return _mean([float(p.predicted == p.gold) for p in predictions])
        counts = _label_counts(task, predictions)
        return _additive(counts, lambda sums: _of_labels(task, name, chosen, sums))
    if task.kind == "entities":
        pairs = [(p.gold, (("", ""),) if p.predicted is None else p.predicted) for p in predictions]
        return _additive(_set_counts(pairs), _micro_f1)
    if task.kind == "tags":
        return _surface_f1(predictions) if name == "surface_f1" else _spans(task, name, predictions)
    if task.kind == "summary":
        return _mean([_rouge(name, of_labels, p) for p in predictions])
    return _clustering(name, predictions)


def value(score: Scorer, rows: int) -> float:
    """The metric itself: every post counts once."""
    return float(score(np.ones((1, rows)))[0])


def unparsable(predictions: Sequence[Prediction]) -> float:
    """Share of answers that could not be read."""
    return sum(p.predicted is None for p in predictions) / len(predictions)


# ---- labels -----------------------------------------------------------------------------------


def wrong_label(task: Task, gold: Any) -> str:
    """What an answer that could not be read counts as: the label after `gold`, round about."""
    return task.labels[(task.labels.index(gold) + 1) % len(task.labels)]


def _label_counts(task: Task, predictions: Sequence[Prediction]) -> Any:
    """[rows, labels, 3]: right, gold, predicted, each 0 or 1."""
    at = {label: index for index, label in enumerate(task.labels)}
    is_gold, is_predicted = np.zeros((2, len(predictions), len(task.labels)))
    for row, p in enumerate(predictions):
        if task.kind == "label":
            gold = (p.gold,)
            given = (wrong_label(task, p.gold) if p.predicted is None else p.predicted,)
        else:
            gold, given = p.gold, p.predicted or ()
        is_gold[row, [at[str(label)] for label in gold]] = 1
        is_predicted[row, [at[str(label)] for label in given]] = 1
    return np.stack([is_gold * is_predicted, is_gold, is_predicted], axis=-1)


def _of_labels(task: Task, name: str, chosen: list[int], sums: Any) -> Values:
    right, gold, predicted = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore"):  # 0/0 is expected, and handled
        if name == "accuracy":
            result = right.sum(axis=-1) / gold.sum(axis=-1)
        elif name == "micro_f1":
            return _micro_f1(sums)
        elif name == "macro_recall":
            result = _mean_of_defined(right / gold)
        else:
            each = 2 * right / (gold + predicted)
            if name in ("f1", "mean_f1"):
                result = np.nan_to_num(each[..., chosen], nan=0.0).mean(axis=-1)
            elif task.kind == "labels":
                result = np.nan_to_num(each, nan=0.0).mean(axis=-1)
            else:
                result = _mean_of_defined(each)
    return np.nan_to_num(result, nan=0.0)


def _mean_of_defined(values: Any) -> Any:
    """The mean over the last axis without what is NaN; 0 where all of it is."""
    defined = ~np.isnan(values)
    return np.where(defined, values, 0.0).sum(axis=-1) / np.maximum(defined.sum(axis=-1), 1)


# ---- entities ---------------------------------------------------------------------------------


def _set_counts(pairs: Sequence[Any]) -> Any:
    """[rows, 1, 3] of sets: right, in gold, in predicted."""
    rows = [(len({*g} & {*p}), len({*g}), len({*p})) for g, p in pairs]
    return np.array(rows, np.float64)[:, None, :]


def _spans(task: Task, name: str, predictions: Sequence[Prediction]) -> Scorer:
    both = [(spans_of(p.gold), spans_of(p.predicted or ())) for p in predictions]
    if name == "span_macro_f1":

        def of_kind(kind: str) -> Any:
            return _set_counts([[[s for s in side if s.kind == kind] for side in r] for r in both])

        counts = np.concatenate([of_kind(kind) for kind in task.types], axis=1)
        return _additive(counts, lambda sums: _mean_of_defined(_f1(sums)))
    if name == "span_f1_untyped":
        places = [[[(s.start, s.stop) for s in side] for side in row] for row in both]
        return _additive(_set_counts(places), _micro_f1)
    return _additive(_set_counts(both), _micro_f1)


def _surface_f1(predictions: Sequence[Prediction]) -> Scorer:
    """A (name, type) is in gold, predicted or found, wherever a post that counts has it."""
    forms: dict[Any, int] = {}
    rows: list[list[int]] = [[], [], []]
    indices: list[list[int]] = [[], [], []]
    for row, p in enumerate(predictions):
        tokens = _tokens(p)
        gold, given = spans_of(p.gold), spans_of(p.predicted or ())
        for side, spans in enumerate((set(gold) & set(given), gold, given)):
            for span in spans:
                form = (tuple(tokens[span.start : span.stop]), span.kind)
                rows[side].append(row)
                indices[side].append(forms.setdefault(form, len(forms)))
    places = [
        (np.array(r, np.int64), np.array(i, np.int64)) for r, i in zip(rows, indices, strict=True)
    ]

    def score(weights: Weights) -> Values:
        sums = np.zeros((len(weights), 1, 3))
        for draw, weight in enumerate(weights):
            for side, (row, index) in enumerate(places):
                seen = np.bincount(index, weights=weight[row], minlength=len(forms))
                sums[draw, 0, side] = np.count_nonzero(seen)
        return _micro_f1(sums)

    return score


def _tokens(p: Prediction) -> list[str]:
    """The tokens that the tags stand for: the text was joined by single spaces."""
    tokens = p.text.split(" ")
    assert len(tokens) == len(p.gold), f"{p.id}: a token holds a space"
    return tokens


# ---- the rest ---------------------------------------------------------------------------------


def _rouge(name: str, which: str, p: Prediction) -> float:
    references = p.gold[:1] if which == "first" else p.gold
    return rouge(name, [str(r) for r in references], str(p.predicted or ""))


def _clustering(name: str, predictions: Sequence[Prediction]) -> Scorer:
    """From the counts of (cluster, gold) pairs, sorted by cluster."""
    given = np.unique([str(p.predicted or "") for p in predictions], return_inverse=True)[1]
    gold = np.unique([str(p.gold) for p in predictions], return_inverse=True)[1]
    pairs, pair_of_row = np.unique(np.stack([given, gold], axis=1), axis=0, return_inverse=True)
    starts = np.unique(pairs[:, 0], return_index=True)[1]

    def score(weights: Weights) -> Values:
        result = np.zeros(len(weights))
        for draw, weight in enumerate(weights):
            joint = np.bincount(pair_of_row.ravel(), weights=weight, minlength=len(pairs))
            if name == "purity":
                result[draw] = np.maximum.reduceat(joint, starts).sum() / joint.sum()
            else:
                result[draw] = _nmi(joint / joint.sum(), pairs)
        return result

    return score


def _nmi(joint: Any, pairs: Any) -> float:
    one, other = (np.bincount(pairs[:, side], weights=joint) for side in (0, 1))
    entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (one, other)]
    there = joint > 0
    expected = one[pairs[there, 0]] * other[pairs[there, 1]]
    shared = (joint[there] * np.log(joint[there] / expected)).sum()
    if max(entropies) == 0:
        return 1.0  # one cluster each: the same
    return float(max(shared, 0.0) / np.mean(entropies))


def _additive(counts: Any, of_sums: Callable[[Any], Values]) -> Scorer:
    """A metric of counts that add up over posts, [rows, ...]: one product of matrices."""
    flat = counts.reshape(len(counts), -1)
    return lambda weights: of_sums((weights @ flat).reshape(len(weights), *counts.shape[1:]))


def _mean(values: Sequence[float]) -> Scorer:
    array = np.array(values, np.float64)
    return lambda weights: weights @ array / weights.sum(axis=1)


def _f1(sums: Any) -> Any:
    right, gold, predicted = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore"):
        return 2 * right / (gold + predicted)


def _micro_f1(sums: Any) -> Values:
    return np.nan_to_num(_f1(sums.sum(axis=-2)), nan=0.0)
