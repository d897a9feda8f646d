import numpy as np
import pytest

from opengrok_jax.evaluation import floors
from opengrok_jax.evaluation.tasks import Item, Task
from opengrok_jax.records import Cell, Example, Message


def example(post: str, response: str, *, intent: str = "mood", split: str = "train") -> Example:
    return Example(
        id=post,
        messages=(Message(role="user", content=f"How is it? {post}"),),
        response=response,
        split="valid" if split == "valid" else "train",
        cell=Cell(intent=intent),
        posts=(post,) if post else (),
        source="labelled",
        model_served="",
        rights="own",
    )


EXAMPLES = [
    example("lovely sunny day", "Good."),
    example("lovely cake", "good: they liked it"),
    example("awful rainy bus", "bad"),
    example("awful phone", "Bad, it broke"),
    example("awful queue", "bad"),
    example("meh soup", "so so"),
    example("lovely but late", "rather good"),  # not readable
    example("lovely valid", "good", split="valid"),
    example("lovely topic", "good", intent="topic"),
    example("", "good"),
]


def items(*texts: str) -> list[Item]:
    return [Item(id=str(i), text=text, gold="good") for i, text in enumerate(texts)]


def test_training_rows_are_those_the_student_saw(mood: Task) -> None:
    assert floors.training_rows(mood, EXAMPLES) == (
        ("lovely sunny day", "good"),
        ("lovely cake", "good"),
        ("awful rainy bus", "bad"),
        ("awful phone", "bad"),
        ("awful queue", "bad"),
        ("meh soup", "so so"),
    )


def test_a_task_of_entities_has_no_training_rows(names: Task) -> None:
    assert floors.training_rows(names, [example("x", "none", intent="names")]) == ()


def test_majority(mood: Task) -> None:
    rows = floors.training_rows(mood, EXAMPLES)
    found, note = floors.majority(mood, rows, items("x", "y"))
    assert ([p.predicted for p in found], note) == (["bad", "bad"], "")


def test_majority_of_a_tie_and_of_nothing_is_the_first_label(mood: Task) -> None:
    found, note = floors.majority(mood, [("x", "bad"), ("y", "so so")], items("x"))
    assert (found[0].predicted, note) == ("so so", "")
    found, note = floors.majority(mood, [], items("x"))
    assert found[0].predicted == "good"
    assert "no training example" in note
    assert "'good'" in note


def test_tfidf_regression_learns_the_words(mood: Task) -> None:
    rows = floors.training_rows(mood, EXAMPLES)
    found, note = floors.tfidf_regression(mood, rows, items("lovely", "awful", "meh"))
    assert ([p.predicted for p in found], note) == (["good", "bad", "so so"], "")
    for p in found:
        assert list(p.scores) == ["good", "so so", "bad"]
        assert np.exp(list(p.scores.values())).sum() == pytest.approx(1)
        assert p.predicted == max(p.scores, key=lambda label: p.scores[label])


def test_tfidf_regression_of_two_labels(mood: Task) -> None:
    rows = [("lovely", "good"), ("awful", "bad")]
    found, _ = floors.tfidf_regression(mood, rows, items("awful thing", "lovely thing"))
    assert [p.predicted for p in found] == ["bad", "good"]
    assert list(found[0].scores) == ["good", "bad"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "the 0 there are have none"),
        ([("x y", "bad"), ("z", "bad")], "the 2 there are have bad"),
        ([("💔", "bad"), ("!", "good")], "no training post holds a word"),
    ],
)
def test_tfidf_regression_says_why_it_is_left_out(mood: Task, rows: list, said: str) -> None:
    found, note = floors.tfidf_regression(mood, rows, items("x"))
    assert found == []
    assert note.startswith("mood: 'tf-idf + logistic regression' is left out")
    assert said in note


def test_always_none() -> None:
    assert [p.predicted for p in floors.always_none(items("Ada", "Rome"))] == [(), ()]
