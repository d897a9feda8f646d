import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.metrics import scorer
from opengrok_jax.evaluation.resampling import Resampled, difference, draws, interval, resample
from opengrok_jax.evaluation.tasks import Task

TASK = Task(name="t", instruction="{post}", labels=("a", "b", "c"), metric="macro_f1")


def scorer_of(metric: str, gold: Any, predicted: Any) -> Any:
    rows = [
        Prediction(id=str(i), text="", gold=g, predicted=p)
        for i, (g, p) in enumerate(zip(gold, predicted, strict=True))
    ]
    return scorer(TASK, metric, rows)


def mean_of(values: Any) -> Any:
    return lambda weights: weights @ np.asarray(values) / weights.sum(axis=1)


pairs = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=40)


@settings(max_examples=30)
@given(pairs, st.integers(0, 5))
def test_the_bootstrap_is_the_plain_one(pairs: list, seed: int) -> None:
    gold, predicted = zip(*pairs, strict=True)
    random, plain = np.random.default_rng(seed), []
    for _ in range(20):
        drawn = random.integers(0, len(gold), len(gold))
        again = scorer_of("macro_f1", [gold[i] for i in drawn], [predicted[i] for i in drawn])
        plain.append(again(np.ones((1, len(gold))))[0])
    (got,) = resample(
        [[scorer_of("macro_f1", gold, predicted)]], len(gold), resamples=20, seed=seed
    )
    assert got.draws == pytest.approx(plain)
    assert interval(got) == pytest.approx(tuple(np.percentile(plain, [2.5, 97.5])))


def test_chunks_change_nothing(monkeypatch) -> None:
    whole = np.concatenate([*draws(7, 50, 3)])
    monkeypatch.setattr("opengrok_jax.evaluation.resampling._CELLS", 21)
    parts = [*draws(7, 50, 3)]
    assert len(parts) == 17
    assert np.array_equal(np.concatenate(parts), whole)
    assert (whole.sum(axis=1) == 7).all()


def test_the_interval_of_accuracy_is_the_binomial_one() -> None:
    gold, predicted = ["a"] * 400, ["a"] * 300 + ["b"] * 100
    (got,) = resample([[scorer_of("accuracy", gold, predicted)]], 400, resamples=4000, seed=0)
    half = 1.96 * math.sqrt(0.75 * 0.25 / 400)
    assert interval(got) == pytest.approx((0.75 - half, 0.75 + half), abs=0.006)


def test_a_perfect_predictor_has_no_spread() -> None:
    gold = ["a", "b"] * 20
    (got,) = resample([[scorer_of("macro_f1", gold, gold)]], 40, resamples=200, seed=1)
    assert (got.value, *interval(got)) == (1.0, 1.0, 1.0)


def test_posts_of_weight_zero_play_no_part() -> None:
    gold, predicted = ["a"] * 6, ["a", "a", "b", "b", "b", "a"]
    weights = np.array([1.0, 1, 1, 0, 0, 1])
    (got,) = resample(
        [[scorer_of("accuracy", gold, predicted)]], 6, resamples=9, seed=0, weights=weights
    )
    assert got.value == 3 / 4


def test_the_difference_is_that_of_paired_draws() -> None:
    """Two systems with the same hard posts differ less than each moves by itself."""
    random = np.random.default_rng(0)
    hard = random.random(300)
    one, other = (hard > 0.5).astype(float), (hard > 0.52).astype(float)
    a, b = resample([[mean_of(one)], [mean_of(other)]], 300, resamples=2000, seed=1)
    low, high, p = difference(a, b)
    se = np.std(one - other) / math.sqrt(300)  # of the mean of paired differences
    assert high - low == pytest.approx(2 * 1.96 * se, rel=0.15)
    assert high - low < 0.3 * (interval(a)[1] - interval(a)[0])
    z = (one - other).mean() / se
    assert p == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), abs=0.02)
    assert difference(a, a) == (0.0, 0.0, 1.0)
    reverse = difference(b, a)
    assert (reverse[0], reverse[1], reverse[2]) == (pytest.approx(-high), pytest.approx(-low), p)


def test_two_equal_systems_are_told_apart_in_five_of_a_hundred() -> None:
    """Simulation: p below 0.05 where there is nothing, and the interval misses 0 as often."""
    random = np.random.default_rng(2)
    found = missed = 0
    for trial in range(300):
        one, other = (random.random((2, 150)) < 0.7).astype(float)
        a, b = resample([[mean_of(one)], [mean_of(other)]], 150, resamples=300, seed=trial)
        low, high, p = difference(a, b)
        found += p < 0.05
        missed += not low <= 0 <= high
    assert 0.02 <= found / 300 <= 0.085
    assert 0.02 <= missed / 300 <= 0.085


# ---- seeds --------------------------------------------------------------------------------------


def test_hand_computed_seeds() -> None:
    """Posts without spread: the t interval over three seeds, 2 degrees of freedom."""
    one = Resampled(values=(0.5, 0.6, 0.7), draws=np.full(100, 0.6))
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # t table, two-sided 5 %, 2 degrees
    assert interval(one) == pytest.approx((0.6 - half, 0.6 + half))
    other = Resampled(values=(0.5,), draws=np.full(100, 0.5))
    low, high, p = difference(one, other)
    assert (low, high) == pytest.approx((0.1 - half, 0.1 + half))
    # P(|t| > sqrt(3)) of 2 degrees = 1 - t / sqrt(2 + t^2), closed form
    t = 0.1 / (0.1 / math.sqrt(3))
    assert p == pytest.approx(1 - t / math.sqrt(2 + t * t))
    same = Resampled(values=(0.5, 0.5), draws=np.full(100, 0.5))
    assert difference(same, other) == (0.0, 0.0, 1.0)
    assert interval(same) == (0.5, 0.5)


def seeds_on_posts(random: np.random.Generator, seeds: int, posts: int, quality: float) -> Any:
    """Posts differ in how hard they are, seeds in how good they are; then a coin each."""
    hard = random.normal(0, 0.15, posts)
    good = random.normal(quality, 0.03, seeds)
    return (random.random((seeds, posts)) < np.clip(good[:, None] + hard[None], 0, 1)).astype(float)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_over_seeds_and_posts_covers(seeds: int) -> None:
    random, trials, covered, posts_only = np.random.default_rng(seeds), 200, 0, 0
    for trial in range(trials):
        right = seeds_on_posts(random, seeds, 200, 0.6)
        (got,) = resample([[mean_of(row) for row in right]], 200, resamples=100, seed=trial)
        low, high = interval(got)
        covered += low <= 0.6 <= high
        low, high = np.percentile(got.draws, [2.5, 97.5])
        posts_only += low <= 0.6 <= high
    assert covered / trials >= 0.93
    assert posts_only < covered  # leaving the seeds out would be too narrow


def test_two_equal_systems_of_three_seeds() -> None:
    random, found, trials = np.random.default_rng(7), 0, 300
    for trial in range(trials):
        both = seeds_on_posts(random, 6, 200, 0.6)
        systems = [[mean_of(row) for row in side] for side in (both[:3], both[3:])]
        a, b = resample(systems, 200, resamples=100, seed=trial)
        found += difference(a, b)[2] < 0.05
    assert found / trials <= 0.08
