import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.metrics import scorer, unparsable, value
from opengrok_jax.evaluation.tasks import METRICS, Kind, Task, known


def task_of(kind: Kind, labels: tuple[str, ...] = ()) -> Task:
    types = ("per", "loc") if kind in ("entities", "tags") else ()
    metric = METRICS[kind][0]
    return Task(
        name="t", instruction="{post}", kind=kind, labels=labels, types=types, metric=metric
    )


def predictions(pairs: Any, texts: Any = None) -> list[Prediction]:
    texts = texts or ["x"] * len(pairs)
    return [
        Prediction(id=str(i), text=t, gold=g, predicted=p)
        for i, ((g, p), t) in enumerate(zip(pairs, texts, strict=True))
    ]


def metric_of(task: Task, metric: str, pairs: Any, texts: Any = None) -> float:
    return value(scorer(task, metric, predictions(pairs, texts)), len(pairs))


# ---- one label ----------------------------------------------------------------------------------

AB = task_of("label", ("a", "b"))
ABC = task_of("label", ("a", "b", "c"))
DRAWN = [("a", "a"), ("a", "b"), ("b", "b"), ("b", None)]


def test_the_drawing_in_the_docstring() -> None:
    """
    gold       a a b b          label        a  b
    predicted  a b b -          right        1  1
                                gold         2  2
                                predicted    2  2       "-" could not be read: a wrong label
    """
    assert metric_of(AB, "accuracy", DRAWN) == 2 / 4
    assert metric_of(AB, "macro_recall", DRAWN) == 0.5
    assert metric_of(AB, "f1:a", DRAWN) == 2 * 1 / (2 + 2)
    assert metric_of(AB, "f1:b", DRAWN) == 2 * 1 / (2 + 2)
    assert metric_of(AB, "macro_f1", DRAWN) == 0.5
    assert unparsable(predictions(DRAWN)) == 0.25


def test_hand_computed_labels() -> None:
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b"), ("c", "a")]
    # a: right 1, gold 2, predicted 2; b: right 2, gold 2, predicted 3; c: 0, 1, 0
    assert metric_of(ABC, "f1:a", pairs) == pytest.approx(1 / 2)
    assert metric_of(ABC, "f1:b", pairs) == pytest.approx(4 / 5)
    assert metric_of(ABC, "f1:c", pairs) == 0
    assert metric_of(ABC, "macro_f1", pairs) == pytest.approx((1 / 2 + 4 / 5 + 0) / 3)
    assert metric_of(ABC, "mean_f1:a,b", pairs) == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert metric_of(ABC, "macro_recall", pairs) == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert metric_of(ABC, "accuracy", pairs) == 3 / 5


def test_a_label_that_occurs_nowhere_is_left_out_of_the_mean() -> None:
    assert metric_of(AB, "macro_f1", [("a", "a")]) == 1.0
    assert metric_of(AB, "macro_recall", [("a", "b")]) == 0.0
    assert metric_of(AB, "f1:b", [("a", "a")]) == 0.0  # 0/0
    # answered though it is nowhere in gold: F1 of b is 0 and counts, recall of b does not exist
    assert metric_of(AB, "macro_f1", [("a", "a"), ("a", "b")]) == pytest.approx((2 / 3 + 0) / 2)
    assert metric_of(AB, "macro_recall", [("a", "a"), ("a", "b")]) == 0.5


rows = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", None])),
    min_size=1,
    max_size=40,
)
AFTER = {"a": "b", "b": "c", "c": "a"}


@settings(max_examples=40)
@given(rows, st.data())
def test_values_are_those_of_scikit_learn_under_any_weights(
    pairs: list, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(pairs), max_size=len(pairs)))
    if not any(weights):
        weights[0] = 1
    gold = [g for g, _ in pairs]
    theirs = [p or AFTER[g] for g, p in pairs]
    known: Any = {"labels": ["a", "b", "c"], "zero_division": np.nan, "sample_weight": weights}

    def near(name: str, expected: Any) -> None:
        expected = 0.0 if math.isnan(expected) else expected
        got = scorer(ABC, name, predictions(pairs))(np.array([weights], float))[0]
        assert got == pytest.approx(float(expected))

    near("accuracy", sklearn_metrics.accuracy_score(gold, theirs, sample_weight=weights))
    near("macro_f1", sklearn_metrics.f1_score(gold, theirs, average="macro", **known))
    near("macro_recall", sklearn_metrics.recall_score(gold, theirs, average="macro", **known))
    each = np.asarray(sklearn_metrics.f1_score(gold, theirs, **{**known, "average": None}))
    for label, expected in zip("abc", each, strict=True):
        near(f"f1:{label}", expected)
    near("mean_f1:a,c", np.nan_to_num(each)[[0, 2]].mean())


# ---- several labels -----------------------------------------------------------------------------

MULTI = task_of("labels", ("a", "b", "c"))


def test_hand_computed_sets_of_labels() -> None:
    pairs = [(("a", "b"), ("a",)), (("b",), ("b",)), (("c",), None), (("a",), ("a", "b"))]
    # a: right 2 gold 2 predicted 2; b: right 1 gold 2 predicted 2; c: right 0 gold 1 predicted 0
    assert metric_of(MULTI, "micro_f1", pairs) == pytest.approx(2 * 3 / (5 + 4))
    assert metric_of(MULTI, "macro_f1", pairs) == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert metric_of(MULTI, "f1:b", pairs) == pytest.approx(1 / 2)
    assert metric_of(MULTI, "exact_match", pairs) == 1 / 4
    # A label that nobody has counts 0 here, as in scikit-learn's indicator matrices.
    assert metric_of(MULTI, "macro_f1", [(("a",), ("a",))]) == pytest.approx(1 / 3)


sets = st.sets(st.sampled_from("abc")).map(lambda s: tuple(sorted(s)))


@settings(max_examples=40)
@given(st.lists(st.tuples(sets.filter(bool), sets), min_size=1, max_size=20))
def test_sets_of_labels_are_those_of_scikit_learn(pairs: list) -> None:
    gold, given_ = (
        np.array([[x in s for x in "abc"] for s in side]) for side in zip(*pairs, strict=True)
    )
    options: Any = {"zero_division": 0.0}
    for average in ("micro", "macro"):
        expected = sklearn_metrics.f1_score(gold, given_, average=average, **options)
        assert metric_of(MULTI, f"{average}_f1", pairs) == pytest.approx(expected)
    expected = sklearn_metrics.accuracy_score(gold, given_)
    assert metric_of(MULTI, "exact_match", pairs) == pytest.approx(expected)


# ---- entities -----------------------------------------------------------------------------------


def test_hand_computed_pairs() -> None:
    task = task_of("entities")
    pairs = [
        ((("per", "Ada"), ("loc", "Rome")), (("per", "Ada"), ("per", "Rome"))),
        ((), (("loc", "X"),)),
        ((("loc", "It"),), ()),
    ]
    assert metric_of(task, "entity_f1", pairs) == pytest.approx(2 * 1 / (3 + 3))
    assert metric_of(task, "entity_f1", [((), ())]) == 0.0
    assert metric_of(task, "entity_f1", [*pairs, ((), None)]) == pytest.approx(2 * 1 / (3 + 4))


TAGS = task_of("tags")


def test_hand_computed_spans() -> None:
    texts = ["Ada in Rome", "Ada in Rome", "Rome"]
    pairs = [
        (("B-per", "O", "B-loc"), ("B-per", "O", "B-per")),  # one right, one of the wrong type
        (("B-per", "O", "B-loc"), ("O", "O", "I-loc")),  # an I that begins: right
        (("O",), ("B-loc",)),
    ]
    assert metric_of(TAGS, "span_f1", pairs, texts) == pytest.approx(2 * 2 / (4 + 4))
    assert metric_of(TAGS, "span_f1_untyped", pairs, texts) == pytest.approx(2 * 3 / (4 + 4))
    # per: right 1 of 2 and 2; loc: right 1 of 2 and 2
    assert metric_of(TAGS, "span_macro_f1", pairs, texts) == pytest.approx(1 / 2)
    # forms in gold: Ada/per Rome/loc; predicted: Ada/per Rome/per Rome/loc; found: both of gold
    assert metric_of(TAGS, "surface_f1", pairs, texts) == pytest.approx(2 * 2 / (2 + 3))
    # Without the second post Rome/loc is in gold and, in the third, predicted; but never both there.
    weights = np.array([[1.0, 0.0, 1.0]])
    got = scorer(TAGS, "surface_f1", predictions(pairs, texts))(weights)[0]
    assert got == pytest.approx(2 * 1 / (2 + 3))
    nothing = [(("O",), None)]
    assert metric_of(TAGS, "span_f1", nothing) == 0.0
    assert metric_of(TAGS, "surface_f1", nothing) == 0.0


tags = st.lists(st.sampled_from(["O", "B-per", "I-per", "B-loc", "I-loc"]), min_size=3, max_size=3)


@settings(max_examples=40)
@given(st.lists(st.tuples(tags, tags), min_size=1, max_size=8))
@pytest.mark.filterwarnings("ignore")
def test_spans_are_those_of_seqeval(pairs: list) -> None:
    theirs = pytest.importorskip("seqeval.metrics", reason="extra 'test'")
    gold, given_ = ([[*side] for side in sides] for sides in zip(*pairs, strict=True))
    ours = [(tuple(g), tuple(p)) for g, p in pairs]
    texts = ["x y z"] * len(ours)
    for average, metric in (("micro", "span_f1"), ("macro", "span_macro_f1")):
        if not any(tag != "O" for row in (*gold, *given_) for tag in row):
            continue
        expected = theirs.f1_score(gold, given_, average=average, zero_division=0)
        assert metric_of(TAGS, metric, ours, texts) == pytest.approx(expected)


# ---- summaries and clusters ---------------------------------------------------------------------


def test_summaries() -> None:
    task = task_of("summary")
    pairs = [(("a b", "c d"), "c d"), (("a b",), None)]
    assert metric_of(task, "rouge1", pairs) == 0.5
    assert metric_of(task, "rouge2", pairs) == 0.5
    assert metric_of(task, "rougeL:first", pairs) == 0.0


CLUSTERS = task_of("clusters")


def test_hand_computed_clusters() -> None:
    pairs = [("1", "x"), ("1", "x"), ("2", "x"), ("2", "y"), ("2", None)]
    # x: two of gold 1; y: one of gold 2; the unread: one of gold 2
    assert metric_of(CLUSTERS, "purity", pairs) == pytest.approx((2 + 1 + 1) / 5)
    assert metric_of(CLUSTERS, "nmi", [("1", "x"), ("2", "y")]) == pytest.approx(1)
    assert metric_of(CLUSTERS, "nmi", [("1", "x"), ("2", "x")]) == 0
    assert metric_of(CLUSTERS, "nmi", [("1", "x"), ("1", "x")]) == 1


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from("xyz")), min_size=1, max_size=30))
def test_clusters_are_those_of_scikit_learn(pairs: list) -> None:
    gold, given_ = zip(*pairs, strict=True)
    expected = sklearn_metrics.normalized_mutual_info_score(gold, given_)
    assert metric_of(CLUSTERS, "nmi", pairs) == pytest.approx(expected, abs=1e-9)
    table = sklearn_metrics.cluster.contingency_matrix(gold, given_)
    assert metric_of(CLUSTERS, "purity", pairs) == pytest.approx(
        table.max(axis=0).sum() / len(pairs)
    )
    # A post drawn twice counts as two posts.
    doubled = scorer(CLUSTERS, "nmi", predictions(pairs))(np.full((1, len(pairs)), 2.0))[0]
    assert doubled == pytest.approx(expected, abs=1e-9)


def test_unknown_metric() -> None:
    for task in (AB, MULTI, TAGS, CLUSTERS, task_of("summary"), task_of("entities")):
        with pytest.raises(ConfigError, match="unknown for kind"):
            scorer(task, "bleu", predictions([(("O",), ("O",))]))
    with pytest.raises(ConfigError, match="needs one of the labels"):
        scorer(AB, "f1:c", predictions(DRAWN))


# ---- real files ---------------------------------------------------------------------------------


def test_the_constant_answer_on_tweeteval(shared_data) -> None:
    """Floors computed independently, with TweetEval's own script."""
    from opengrok_jax.evaluation.tasks import load_items, make_task

    floors = {"emotion": ("anger", 14.1), "offensive": ("not_offensive", 41.9)}
    for name, (constant, floor) in (floors | {"sentiment": ("neutral", 33.3)}).items():
        task = make_task(f"tweeteval-{name}", {}, str(shared_data))
        pairs = [(item.gold, constant) for item in load_items(task)]
        assert round(100 * metric_of(task, task.metric, pairs), 1) == floor


def test_published_tasks_have_the_official_metrics() -> None:
    official = {
        "tweeteval-emoji": "macro_f1",
        "tweeteval-emotion": "macro_f1",
        "tweeteval-hate": "macro_f1",
        "tweeteval-irony": "f1:irony",
        "tweeteval-offensive": "macro_f1",
        "tweeteval-sentiment": "macro_recall",
        "tweeteval-stance": "mean_f1:against,favor",
        "umsab": "macro_f1",
        "wnut17": "span_f1",
        "btc": "span_f1",
        "tweettopic": "micro_f1",
    }
    for name, metric in official.items():
        task = known(name)
        assert task is not None
        assert task.metric == metric
