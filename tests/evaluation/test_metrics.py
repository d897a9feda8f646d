import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.metrics import bootstrap, entity_counts, label_counts, score, value
from opengrok_jax.evaluation.tasks import Task

AB = ("a", "b")
GOLD, PREDICTED = ["a", "a", "b", "b"], ["a", "b", "b", None]


def metric_of(name: str, gold: list, predicted: list, labels: tuple[str, ...]) -> float:
    return float(value(label_counts(gold, predicted, labels).sum(axis=0), name, labels))


def test_the_drawing_in_the_docstring() -> None:
    counts = label_counts(GOLD, ["a", "b", "b", None], AB).sum(axis=0)
    # rows: a, b; columns: right, gold, predicted
    assert counts.tolist() == [[1, 2, 1], [1, 2, 2]]


def test_hand_computed_labels() -> None:
    assert metric_of("accuracy", GOLD, PREDICTED, AB) == 2 / 4
    # recall a = 1/2, b = 1/2
    assert metric_of("macro_recall", GOLD, PREDICTED, AB) == 0.5
    # F1 a = 2*1/(2+1) = 2/3, b = 2*1/(2+2) = 1/2
    assert metric_of("macro_f1", GOLD, PREDICTED, AB) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metric_of("f1:a", GOLD, PREDICTED, AB) == pytest.approx(2 / 3)
    assert metric_of("f1:b", GOLD, PREDICTED, AB) == pytest.approx(1 / 2)


def test_a_label_that_occurs_nowhere_is_left_out_of_the_mean() -> None:
    assert metric_of("macro_f1", ["a"], ["a"], AB) == 1.0
    assert metric_of("macro_recall", ["a"], ["b"], AB) == 0.0
    assert metric_of("f1:b", ["a"], ["a"], AB) == 0.0  # 0/0
    # answered though it is nowhere in gold: F1 of b is 0 and counts, recall of b does not exist
    assert metric_of("macro_f1", ["a", "a"], ["a", "b"], AB) == pytest.approx((2 / 3 + 0) / 2)
    assert metric_of("macro_recall", ["a", "a"], ["a", "b"], AB) == 0.5


def test_hand_computed_entities() -> None:
    gold = [(("person", "Ada"), ("location", "Rome")), (), (("work", "It"),)]
    predicted = [(("person", "Ada"), ("person", "Rome")), (("work", "X"),), ()]
    counts = entity_counts(gold, predicted)
    assert counts[:, 0].tolist() == [[1, 2, 2], [0, 0, 1], [0, 1, 0]]
    assert value(counts.sum(axis=0), "entity_f1", ()) == pytest.approx(2 * 1 / (3 + 3))
    nothing = entity_counts([()], [()])
    assert value(nothing.sum(axis=0), "entity_f1", ()) == 0.0


def test_unknown_metric() -> None:
    with pytest.raises(ConfigError, match="'f1:c' is unknown"):
        metric_of("f1:c", GOLD, PREDICTED, AB)


rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", None])),
    min_size=1,
    max_size=40,
)


@given(rows)
def test_values_are_those_of_scikit_learn(pairs: list) -> None:
    labels = ("a", "b", "c")
    gold, predicted = [g for g, _ in pairs], [p for _, p in pairs]
    theirs = [p or "-" for p in predicted]
    known: Any = {"labels": list(labels), "zero_division": np.nan}

    def near(name: str, expected: float) -> None:
        expected = 0.0 if math.isnan(expected) else expected
        assert metric_of(name, gold, predicted, labels) == pytest.approx(expected)

    near("accuracy", sklearn_metrics.accuracy_score(gold, theirs))
    near("macro_f1", sklearn_metrics.f1_score(gold, theirs, average="macro", **known))
    near("macro_recall", sklearn_metrics.recall_score(gold, theirs, average="macro", **known))
    each: Any = {**known, "average": None}
    per_label = np.asarray(sklearn_metrics.f1_score(gold, theirs, **each))
    for label, expected in zip(labels, per_label, strict=True):
        near(f"f1:{label}", expected)


def test_the_constant_answer_on_tweeteval(shared_data) -> None:
    from opengrok_jax.evaluation.tasks import load_items, make_task

    # Floors computed independently, with TweetEval's own script: emotion 14.1, sentiment 33.3.
    for name, constant, floor in (("emotion", "anger", 14.1), ("sentiment", "neutral", 33.3)):
        file = shared_data / "tweeteval" / f"{name}.test.jsonl.gz"
        task = make_task(name, {"file": str(file)})
        gold = [str(item.gold) for item in load_items(task)]
        got = metric_of(task.metric, gold, [constant] * len(gold), task.labels)
        assert round(100 * got, 1) == floor


@given(rows, st.integers(0, 5))
def test_the_bootstrap_is_the_plain_one(pairs: list, seed: int) -> None:
    labels = ("a", "b", "c")
    gold, predicted = [g for g, _ in pairs], [p for _, p in pairs]
    counts = label_counts(gold, predicted, labels)
    random, plain = np.random.default_rng(seed), []
    for _ in range(20):
        drawn = random.integers(0, len(gold), len(gold))
        plain.append(
            metric_of("macro_f1", [gold[i] for i in drawn], [predicted[i] for i in drawn], labels)
        )
    low, high = bootstrap(counts, "macro_f1", labels, resamples=20, seed=seed)
    assert (low, high) == pytest.approx(tuple(np.percentile(plain, [2.5, 97.5])))


def test_the_interval_of_accuracy_is_the_binomial_one() -> None:
    gold, predicted = ["a"] * 400, ["a"] * 300 + ["b"] * 100
    low, high = bootstrap(label_counts(gold, predicted, AB), "accuracy", AB, resamples=4000, seed=0)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)


def test_a_perfect_predictor_has_no_spread() -> None:
    counts = label_counts(["a", "b"] * 20, ["a", "b"] * 20, AB)
    assert bootstrap(counts, "macro_f1", AB, resamples=200, seed=1) == (1.0, 1.0)


def prediction(gold, predicted) -> Prediction:
    return Prediction(id="x", text="x", gold=gold, predicted=predicted)


def test_score_of_labels(mood: Task) -> None:
    found = [prediction("good", "good"), prediction("bad", None), prediction("bad", "bad")]
    got = score(mood, "student (generation)", found, resamples=50, seed=3)
    assert (got.task, got.metric, got.predictor) == ("mood", "macro_f1", "student (generation)")
    assert got.value == pytest.approx((1 + 2 / 3) / 2)
    assert 0 <= got.low <= got.value <= got.high <= 1
    assert (got.rows, got.unparsable) == (3, pytest.approx(1 / 3))
    assert got == score(mood, "student (generation)", found, resamples=50, seed=3)


def test_an_unreadable_list_is_one_wrong_entity(names: Task) -> None:
    ada = (("person", "Ada"),)
    found = [prediction(ada, ada), prediction((), None)]
    got = score(names, "student (generation)", found, resamples=10, seed=0)
    assert (got.value, got.unparsable) == (pytest.approx(2 * 1 / (1 + 2)), 0.5)
