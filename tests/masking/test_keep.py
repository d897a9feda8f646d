import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from opengrok_jax import chance
from opengrok_jax.errors import ConfigError
from opengrok_jax.masking import keep
from opengrok_jax.masking.keep import PRESETS, Weights

ROLES = [0, 1, 1, 0, 0, 2, 2, 2]
FINITE = st.floats(-30, 30)
ONES = Weights(alpha=1.0, beta=1.0, gamma=1.0, delta=1.0)


def four(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Made-up factors: tfidf, pos, dep, random."""
    rng = np.random.default_rng(seed)
    some = [rng.random(count, np.float32) for _ in range(2)]
    flags = [rng.integers(0, 2, count).astype(np.uint8) for _ in range(2)]
    return some[0], flags[0], flags[1], some[1]


def maskable(roles, scope):
    return keep.maskable(np.array(roles, np.int8), scope)


# ---- the drawing, the formula -------------------------------------------------------------------


def test_the_drawing_of_maskable():
    assert maskable(ROLES, "prompt+response").astype(int).tolist() == [0, 1, 1, 0, 0, 1, 1, 0]
    assert maskable(ROLES, "prompt").astype(int).tolist() == [0, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("scope", keep.SCOPES)
def test_the_first_and_the_last_token_stay_whatever_their_role(scope):
    assert maskable([1, 1, 1], scope).tolist() == [False, True, False]
    assert maskable([1], scope).tolist() == [False]
    assert maskable([], scope).tolist() == []


@given(st.lists(st.lists(st.sampled_from([0, 1, 2]), max_size=6), max_size=6))
def test_many_examples_are_each_as_alone(chats):
    flat = np.array([role for chat in chats for role in chat], np.int8)
    together = keep.maskable(flat, "prompt+response", np.array([len(c) for c in chats], int))
    alone = [maskable(chat, "prompt+response") for chat in chats]
    np.testing.assert_array_equal(together, np.concatenate([np.zeros(0, bool), *alone]))


@given(st.lists(FINITE, min_size=1))
def test_sigmoid(values):
    expected = [1 / (1 + math.exp(-x)) for x in values]
    np.testing.assert_allclose(keep.sigmoid(np.array(values)), expected, rtol=1e-9, atol=1e-15)


def test_sigmoid_does_not_overflow():
    assert keep.sigmoid(np.array([-1e6, 0.0, 1e6])).tolist() == [0.0, 0.5, 1.0]


def test_the_papers_formula_token_by_token():
    tfidf, pos, dep, random = four(50)
    free = np.arange(50) % 3 > 0
    sums = keep.logits(tfidf, pos, dep, random, PRESETS["paper"])
    found = keep.keep_prob(sums, PRESETS["paper"].bias, free)
    assert found.dtype == np.float32
    for at in range(50):
        total = float(tfidf[at]) + int(pos[at]) + int(dep[at]) + float(random[at])
        expected = 1 / (1 + math.exp(-total)) if free[at] else 1.0
        assert found[at] == pytest.approx(expected, rel=1e-6)
    assert (found >= 0.5).all(), "without a bias nothing falls below one half"


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "delta"])
def test_every_weight_changes_the_result(name):
    base = Weights(alpha=0.5, beta=0.6, gamma=0.7, delta=0.8)
    other = dataclasses.replace(base, **{name: 0.3})
    assert not np.array_equal(keep.logits(*four(9), base), keep.logits(*four(9), other))


# ---- calibration --------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 4), min_size=1, max_size=50), st.floats(0.001, 0.999))
def test_calibrate_hits_the_target(values, target):
    values = np.array(values)
    bias = keep.calibrate(keep.sums_of(values, ONES), target)
    assert keep.sigmoid(values + bias).mean() == pytest.approx(target, abs=1e-9)
    solved = optimize.brentq(lambda b: (1 / (1 + np.exp(-values - b))).mean() - target, -80, 80)
    assert keep.sigmoid(values + solved).mean() == pytest.approx(target, abs=1e-9)


@pytest.mark.parametrize("scale", [0.0, 1.0, -3.0, 40.0])
def test_the_stated_bound_of_the_histogram_holds(scale):
    weights = Weights(alpha=scale, beta=scale, gamma=-scale, delta=scale)
    values = keep.logits(*four(5000), weights)
    sums = keep.sums_of(values, weights)
    bound = 0.0121 * ((sums.high - sums.low) / keep.BINS) ** 2 + 1e-14
    for bias in (-20.0, -2.0, 0.0, 1.5, 30.0):
        true = math.fsum(keep.sigmoid(values + bias)) / len(values)
        assert abs(keep.mean_keep_prob(sums, bias) - true) <= bound


@given(st.lists(st.floats(0, 4), min_size=1, max_size=60), st.integers(1, 7), st.randoms())
def test_any_split_and_order_adds_up_to_the_same_bits(values, pieces, random):
    whole = keep.sums_of(np.array(values), ONES)
    shuffled = [*values]
    random.shuffle(shuffled)
    parts = [keep.sums_of(np.array(shuffled[at::pieces]), ONES) for at in range(pieces)]
    total = parts[0]
    for part in parts[1:]:
        total += part
    np.testing.assert_array_equal(total.counts, whole.counts)
    np.testing.assert_array_equal(total.residuals, whole.residuals)
    assert keep.calibrate(total, 0.85) == keep.calibrate(whole, 0.85)


def test_calibrate_of_equal_sums_is_the_logit():
    bias = keep.calibrate(keep.sums_of(np.full(5, 2.0), ONES), 0.85)
    assert bias == pytest.approx(math.log(0.85 / 0.15) - 2.0, abs=1e-9)


@pytest.mark.parametrize("preset", [n for n, w in PRESETS.items() if w.target_keep_rate])
def test_a_corpus_is_hidden_at_the_target_rate(preset):
    weights = PRESETS[preset]
    values = keep.logits(*four(8000), weights)
    bias = keep.calibrate(keep.sums_of(values, weights), 0.85)
    found = keep.keep_prob(values, bias, np.ones(8000, bool))
    shown = chance.of_tokens(1, ["a"], "draw", np.array([8000])) < found
    assert found.mean(dtype=np.float64) == pytest.approx(0.85, abs=1e-6)
    deviation = math.sqrt(float((found * (1 - found)).sum(dtype=np.float64))) / len(shown)
    assert abs(shown.mean() - 0.85) < 4 * deviation


def test_each_preset_but_two_is_one_factor_alone():
    alone = {n: w for n, w in PRESETS.items() if n not in ("paper", "balanced")}
    names = {"tfidf": "alpha", "pos": "beta", "dep": "gamma", "random": "delta"}
    assert alone.keys() == names.keys()
    for name, weights in alone.items():
        given = dataclasses.asdict(weights)
        assert {n for n in ("alpha", "beta", "gamma", "delta") if given[n]} == {names[name]}


def test_residuals_are_whole_parts_of_a_bin():
    sums = keep.sums_of(np.array([0.3]), ONES)
    (at,) = np.flatnonzero(sums.counts)
    width = Fraction(4, keep.BINS)
    exact = (Fraction(0.3) / width - int(at) - Fraction(1, 2)) * 2**24
    assert abs(int(sums.residuals[at]) - exact) <= 1


# ---- settings -----------------------------------------------------------------------------------


GIVEN = Weights(alpha=1.0, beta=1.0, gamma=1.0, delta=1.0)


def test_a_preset_wins_and_no_preset_changes_nothing():
    assert keep.choose("paper", dataclasses.replace(GIVEN, alpha=7.0)) is PRESETS["paper"]
    assert keep.choose("", GIVEN) is GIVEN


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_themselves_allowed(preset):
    assert keep.choose("", PRESETS[preset]) is PRESETS[preset]


def test_an_unknown_preset_is_told_the_others():
    with pytest.raises(ConfigError, match="'papr' is unknown; choose one of paper, balanced"):
        keep.choose("papr", GIVEN)


def test_an_unknown_scope_is_told_the_others():
    with pytest.raises(ConfigError, match=r"'all' is unknown; choose one of prompt.response, pro"):
        keep.check_scope("all")


@pytest.mark.parametrize("target", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_target_outside_the_open_interval(target):
    with pytest.raises(ConfigError, match="target_keep_rate must lie between 0 and 1"):
        keep.choose("", dataclasses.replace(GIVEN, target_keep_rate=target))


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "delta", "bias"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_are_finite(name, value):
    with pytest.raises(ConfigError, match=f"{name} must be a finite number"):
        keep.choose("", dataclasses.replace(GIVEN, **{name: value}))


def test_a_bias_and_a_target_exclude_each_other():
    with pytest.raises(ConfigError, match="set target_keep_rate to None"):
        keep.choose("", dataclasses.replace(GIVEN, bias=1.0, target_keep_rate=0.8))
