import dataclasses

import pytest

from opengrok_jax.evaluation.answers import predicting
from opengrok_jax.evaluation.ask import Answered, Question
from opengrok_jax.evaluation.leaks import Leaks
from opengrok_jax.evaluation.scoring import score_all
from opengrok_jax.evaluation.tasks import Task, load_items

GOLD = ("good", "bad", "so so", "bad", "so so")
BAD = ("bad",) * 5


def answered(items, name: str, *runs: tuple[str | None, ...]) -> Answered:
    return Answered(
        predictor=name,
        runs=tuple([predicting(i, p) for i, p in zip(items, run, strict=True)] for run in runs),
    )


@pytest.fixture
def scored(mood: Task):
    """A student of two seeds, one of them perfect and one as the floor, beside that floor."""
    items = tuple(
        dataclasses.replace(item, group="calm" if n < 3 else "storm")
        for n, item in enumerate(load_items(mood))
    )
    question = Question(task=mood, items=items, leaked=Leaks(exact=(3,), near=()))
    both = [answered(items, "student (likelihood)", GOLD, BAD), answered(items, "majority", BAD)]
    return score_all([question], {"mood": both}, bootstrap=200, seed=0)


def test_scores_by_hand(scored) -> None:
    student, floor = scored["scores"]
    # "bad" of all five: 2 right, 3 wrong, so F1 2*2/(2*2+3) of one label in three
    assert floor["value"] == pytest.approx(4 / 7 / 3)
    assert student["value"] == pytest.approx((1 + 4 / 7 / 3) / 2)
    assert (floor["rows"], floor["unparsable"]) == (5, 0.0)
    assert student["low"] <= student["value"] <= student["high"]


def test_parts_of_the_posts(scored) -> None:
    # without the leaked one, the fourth: 1 right, 3 wrong
    assert [row["rows"] for row in scored["without_leaks"]] == [4, 4]
    assert scored["without_leaks"][1]["value"] == pytest.approx(2 / 5 / 3)
    groups = {(row["group"], row["predictor"]): row for row in scored["groups"]}
    assert {g for g, _ in groups} == {"calm", "storm"}
    assert groups["calm", "majority"]["rows"] == 3
    assert groups["calm", "majority"]["value"] == pytest.approx(2 / 4 / 3)
    (note,) = scored["notes"]
    assert note.startswith("mood: 1 of 5 test posts stand among the training posts too, 1 word")
    assert "majority 0.133" in note


def test_only_the_student_is_compared(scored) -> None:
    (found,) = scored["comparisons"]
    assert (found["a"], found["b"]) == ("student (likelihood)", "majority")
    assert found["difference"] == pytest.approx((1 - 4 / 7 / 3) / 2)
    assert found["mcnemar"] is None  # two seeds are no single yes or no


def test_unreadable_answers_and_posts_that_stand_twice(mood: Task) -> None:
    (first, *_) = load_items(mood)
    items = (first, first)
    question = Question(task=mood, items=items, leaked=Leaks(exact=(), near=()))
    given = {"mood": [answered(items, "parrot", (None, "good"))]}
    result = score_all([question], given, bootstrap=50, seed=0)
    assert result["scores"][0]["unparsable"] == 0.5
    assert result["notes"] == ["mood: 1 of 2 test posts stand there a second time"]
    assert result["comparisons"] == result["groups"] == result["without_leaks"] == []
