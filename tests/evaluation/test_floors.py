from dataclasses import replace

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


def test_training_rows_of_entities(names: Task) -> None:
    rows = floors.training_rows(names, [example("x", "none", intent="names")])
    assert rows == (("x", ()),)


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


def task_of(kind: str, **more) -> Task:
    return Task(name="t", instruction="{post}", kind=kind, **more)  # type: ignore[arg-type]


def made(task: Task, examples: list[Example], items: list[Item]) -> dict[str, tuple]:
    return {name: (found, note) for name, found, note in floors.floors(task, examples, items, 0)}


def test_floors_of_several_labels() -> None:
    task = task_of("labels", labels=("cat", "dog", "fish"), metric="micro_f1")
    rows = [("purr purr", "cat"), ("purr bark", "dog; cat"), ("bark bark", "dog")] * 4
    examples = [example(f"{post} {n}", answer, intent="t") for n, (post, answer) in enumerate(rows)]
    found = made(
        task, [*examples, example("x", "no idea", intent="t")], items("purr", "bark bark", "x")
    )
    assert [p.predicted for p in found["majority"][0]] == [("cat",)] * 3
    tfidf = [p.predicted for p in found["tf-idf + logistic regression"][0]]
    assert tfidf[:2] == [("cat",), ("dog",)]
    assert all(p for p in tfidf)  # never nothing: every post has a topic
    nothing = made(task, [], items("x"))
    assert nothing["majority"][0][0].predicted == ("cat",)
    assert nothing["tf-idf + logistic regression"][0] == []


def test_floors_of_entities_and_tags(names: Task) -> None:
    examples = [
        example("Ada in Rome", "person: Ada\nlocation: Rome", intent="names"),
        example("Rome", "location: Rome", intent="names"),
        example("Rome", "person: Rome", intent="names"),
    ]
    found = made(names, examples, items("Ada and Adam", "Rome"))
    assert [p.predicted for p in found["always none"][0]] == [(), ()]
    assert [p.predicted for p in found["names of the training answers"][0]] == [
        (("person", "Ada"),),
        (("location", "Rome"),),
    ]
    task = task_of("tags", types=("person", "location"), metric="span_f1")
    row = Item(id="1", text="Ada , Rome", gold=("O",) * 3, tokens=("Ada", ",", "Rome"))
    of_tags = [replace(e, cell=Cell(intent="t")) for e in examples]
    found = made(task, of_tags, [row])
    assert found["always none"][0][0].predicted == ("O", "O", "O")
    known = found["names of the training answers"][0][0]
    assert known.predicted == ("B-person", "O", "B-location")
    assert (
        "no training answer lists a name"
        in made(task, [], [row])["names of the training answers"][1]
    )


def test_floors_of_summaries_and_clusters() -> None:
    found = made(task_of("summary", metric="rouge1"), [], items("a\nb\nc", ""))
    assert [p.predicted for p in found["first two lines"][0]] == ["a\nb", None]
    task = task_of("clusters", metric="nmi")
    posts = [
        Item(id=str(n), text=text, gold=gold)
        for n, (text, gold) in enumerate(
            [("red cat", "1"), ("big red cat", "1"), ("tax law", "2"), ("new tax law", "2")]
        )
    ]
    found = made(task, [], posts)
    assert {p.predicted for p in found["one cluster"][0]} == {"all"}
    a, b, c, d = (p.predicted for p in found["tf-idf + k-means"][0])
    assert a == b != c == d
    assert "two gold clusters" in made(task, [], posts[:2])["tf-idf + k-means"][1]
