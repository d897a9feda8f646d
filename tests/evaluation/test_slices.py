import numpy as np
import pytest
from sklearn.metrics import f1_score

from opengrok_jax.evaluation import slices
from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.outcomes import Outcome
from opengrok_jax.evaluation.tasks import Task
from opengrok_jax.records import Score

TEXTS = ["a", "a b", "a b #c", "a 🙂 b c", "1#2 x y z", "a b c d e f", "☀️ b c d e f g", "x"]


def test_kinds_of_posts():
    found = {(k.by, k.name): np.flatnonzero(k.chosen).tolist() for k in slices.kinds(TEXTS, None)}
    assert found["hashtags", "with hashtags"] == [2]  # "1#2" is none
    assert found["hashtags", "without hashtags"] == [0, 1, 3, 4, 5, 6, 7]
    assert found["emoji", "with emoji"] == [3, 6]
    lengths = [places for (by, _), places in found.items() if by == "length"]
    assert sorted(place for places in lengths for place in places) == list(range(8))
    assert found["length", "1 to 2 words"] == [0, 1, 7]
    assert not [by for by, _ in found if by == "masked"]


def test_thirds_of_what_is_masked():
    hidden = [0.0, 0.1, 0.1, 0.1, 0.2, 0.3, 0.4, 0.5]
    found = {k.name: k.chosen.sum() for k in slices.kinds(TEXTS, hidden) if k.by == "masked"}
    assert found == {"0 % to 10 % hidden": 4, "20 % hidden": 1, "30 % to 50 % hidden": 3}


def test_one_kind_that_is_all_posts_is_none():
    assert slices.kinds(["same words"] * 5, [0.1] * 5) == []


def outcome(posts: int) -> Outcome:
    random = np.random.default_rng(0)
    task = Task(name="t", instruction="{post}", labels=("a", "b"), metric="macro_f1")
    gold = random.choice(["a", "b"], posts)

    def run(right: float) -> tuple[Prediction, ...]:
        return tuple(
            Prediction(
                id=str(n),
                text="w " * (n % 9 + 1),
                gold=str(g),
                predicted=str(g) if random.random() < right else "a",
            )
            for n, g in enumerate(gold)
        )

    def score(who: str) -> Score:
        return Score(
            task="t", metric="macro_f1", predictor=who, value=0.5, low=0.0, high=1.0, rows=posts
        )

    return Outcome(
        task=task,
        scores=(score("student (likelihood)"), score("majority")),
        comparisons=(),
        predictions={"student (likelihood)": (run(0.7), run(0.9)), "majority": (run(0.1),)},
        groups=(),
        without_leaks=(),
    )


def test_a_slice_has_the_official_score_of_its_posts():
    one = outcome(90)
    texts = [p.text for p in one.predictions["majority"][0]]
    kinds = slices.kinds(texts, None)
    found = slices.scored(one, kinds, resamples=50, seed=0)
    assert len(found) == 3
    for kind in kinds:
        for part in found[kind.by, kind.name]:
            expected = [
                f1_score(
                    [p.gold for p, c in zip(run, kind.chosen, strict=True) if c],
                    [p.predicted for p, c in zip(run, kind.chosen, strict=True) if c],
                    average="macro",
                )
                for run in one.predictions[part.predictor]
            ]
            assert part.value == pytest.approx(np.mean(expected))
            assert part.low <= part.value <= part.high
            assert part.posts == kind.chosen.sum()


def test_kinds_of_too_few_posts_are_left_out():
    chosen = np.arange(30) < slices.FEWEST - 1
    few = slices.Kind(by="x", name="few", chosen=chosen)
    rest = slices.Kind(by="x", name="rest", chosen=~chosen)
    assert list(slices.scored(outcome(30), [few, rest], resamples=5, seed=0)) == [("x", "rest")]
