import doctest

from sklearn.metrics import confusion_matrix

from opengrok_jax.evaluation import confusion
from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.tasks import Task


def task(kind, **more) -> Task:
    metric = {"label": "macro_f1", "labels": "micro_f1", "entities": "entity_f1", "tags": "span_f1"}
    return Task(name="t", instruction="{post}", kind=kind, metric=metric[kind], **more)


def said(gold, predicted) -> Prediction:
    return Prediction(id="x", text="a b c", gold=gold, predicted=predicted)


def test_the_drawing():
    """
    gold         a a b       labels a b      a  [1 0 1]   (a, b, unreadable)
    given        a - b                       b  [0 1 0]
    """
    runs = [[said("a", "a"), said("a", None), said("b", "b")]]
    table = confusion.confusion(task("label", labels=("a", "b")), runs)
    assert table.columns == ("a", "b", "unreadable")
    assert table.rows == ((1, 0, 1), (0, 1, 0))


def test_it_is_scikit_learns_and_sums_over_seeds():
    gold, given = "abcabcaabb", "abacbcabba"
    run = [said(g, p) for g, p in zip(gold, given, strict=True)]
    table = confusion.confusion(task("label", labels=("a", "b", "c")), [run, run])
    assert table.columns == ("a", "b", "c")
    expected = confusion_matrix([*gold], [*given], labels=["a", "b", "c"])
    assert [[*row] for row in table.rows] == (2 * expected).tolist()


def test_labels_entities_and_tags_by_themselves():
    several = confusion.of_labels(
        task("labels", labels=("x", "y")), [[said(("x", "y"), ("x",)), said(("y",), None)]]
    )
    assert [(o.label, o.gold, o.given, o.right) for o in several] == [
        ("x", 1, 1, 1),
        ("y", 2, 0, 0),
    ]
    assert [o.f1 for o in several] == [1.0, 0.0]
    pairs = confusion.of_labels(
        task("entities", types=("person", "work")),
        [[said((("person", "Ada"), ("work", "Z")), (("person", "Ada"), ("", "odd line")))]],
    )
    assert [(o.gold, o.given, o.right) for o in pairs] == [(1, 1, 1), (1, 0, 0)]
    tags = confusion.of_labels(
        task("tags", types=("per",)),
        [[said(("B-per", "I-per", "O"), ("B-per", "O", "B-per")), said(("O", "O", "B-per"), None)]],
    )
    # A span counts where it begins and ends alike: the first is too short, the second is not there.
    assert [(o.gold, o.given, o.right) for o in tags] == [(2, 2, 0)]


def test_doctests():
    assert doctest.testmod(confusion).failed == 0
