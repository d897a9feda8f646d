import dataclasses
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from opengrok_jax.errors import ConfigError
from opengrok_jax.masking import keep
from opengrok_jax.masking.keep import PRESETS, Weights
from opengrok_jax.records import MaskedExample

ROLES = [0, 1, 1, 0, 0, 2, 2, 2]
FINITE = st.floats(-30, 30)


def example(name: str, roles=ROLES, seed: int = 0) -> MaskedExample:
    """An example with made-up factors; its mask says the opposite of what any draw gives."""
    count = len(roles)
    chance = np.random.default_rng([seed, len(name), *name.encode()])
    return MaskedExample(
        id=name,
        split="train",
        tokens=np.arange(count, dtype=np.int32),
        roles=np.array(roles, np.int8),
        tfidf=chance.random(count, np.float32),
        pos=chance.integers(0, 2, count).astype(np.float32),
        dep=chance.integers(0, 2, count).astype(np.float32),
        random=keep.uniform(seed, name, "random", count),
        keep_prob=np.full(count, -1, np.float32),
        key_mask=np.zeros(count, bool),
    )


def corpus(number: int, length: int = 40) -> list[MaskedExample]:
    roles = [0, *[1] * (length // 2), 0, 0, *[2] * (length // 2)]
    return [example(f"e{n}", roles) for n in range(number)]


# ---- the drawing, the formula -------------------------------------------------------------------


def test_the_drawing_of_maskable():
    roles = np.array(ROLES, np.int8)
    assert keep.maskable(roles, "prompt+response").astype(int).tolist() == [0, 1, 1, 0, 0, 1, 1, 0]
    assert keep.maskable(roles, "prompt").astype(int).tolist() == [0, 1, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("scope", keep.SCOPES)
def test_the_first_and_the_last_token_stay_whatever_their_role(scope):
    assert keep.maskable(np.ones(3, np.int8), scope).tolist() == [False, True, False]
    assert keep.maskable(np.ones(1, np.int8), scope).tolist() == [False]


@given(st.lists(FINITE, min_size=1))
def test_sigmoid(values):
    expected = [1 / (1 + math.exp(-x)) for x in values]
    np.testing.assert_allclose(keep.sigmoid(np.array(values)), expected, rtol=1e-9, atol=1e-15)


def test_sigmoid_does_not_overflow():
    assert keep.sigmoid(np.array([-1e6, 0.0, 1e6])).tolist() == [0.0, 0.5, 1.0]


def test_the_papers_formula_token_by_token():
    one = example("paper")
    (result,), used = keep.draw([one], PRESETS["paper"], scope="prompt+response", seed=3)
    assert used == Weights(alpha=1.0, beta=1.0, gamma=1.0, delta=1.0)
    for at in (1, 2, 5, 6):
        total = float(one.tfidf[at]) + one.pos[at] + one.dep[at] + float(one.random[at])
        assert result.keep_prob[at] == pytest.approx(1 / (1 + math.exp(-total)), rel=1e-6)
        assert result.keep_prob[at] >= 0.5, "without a bias nothing falls below one half"
    assert result.keep_prob.dtype == np.float32
    assert result.key_mask.dtype == bool


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Weights)])
def test_every_weight_changes_the_result(name):
    base = Weights(alpha=0.5, beta=0.6, gamma=0.7, delta=0.8, bias=-0.9)
    other = dataclasses.replace(base, **{name: 0.3})
    examples = corpus(2)
    before, _ = keep.draw(examples, base, scope="prompt", seed=0)
    after, _ = keep.draw(examples, other, scope="prompt", seed=0)
    assert not np.array_equal(before[0].keep_prob, after[0].keep_prob)


# ---- calibration --------------------------------------------------------------------------------


@given(st.lists(FINITE, min_size=1, max_size=50), st.floats(0.001, 0.999))
def test_calibrate_hits_the_target(sums, target):
    sums = np.array(sums)
    bias = keep.calibrate(sums, target)
    assert keep.sigmoid(sums + bias).mean() == pytest.approx(target, abs=2e-9)
    solved = optimize.brentq(lambda b: (1 / (1 + np.exp(-sums - b))).mean() - target, -80, 80)
    assert keep.sigmoid(sums + solved).mean() == pytest.approx(target, abs=1e-9)


def test_calibrate_of_equal_sums_is_the_logit():
    assert keep.calibrate(np.full(5, 2.0), 0.85) == pytest.approx(math.log(0.85 / 0.15) - 2.0)


@pytest.mark.parametrize("preset", [n for n, w in PRESETS.items() if w.target_keep_rate])
def test_a_corpus_is_hidden_at_the_target_rate(preset):
    examples, weights = keep.draw(corpus(200), PRESETS[preset], scope="prompt+response", seed=1)
    free = [keep.maskable(e.roles, "prompt+response") for e in examples]
    chance = np.concatenate([e.keep_prob[f] for e, f in zip(examples, free, strict=True)])
    shown = np.concatenate([e.key_mask[f] for e, f in zip(examples, free, strict=True)])
    assert chance.mean(dtype=np.float64) == pytest.approx(0.85, abs=1e-6)
    deviation = math.sqrt(float((chance * (1 - chance)).sum(dtype=np.float64))) / len(shown)
    assert abs(shown.mean() - 0.85) < 4 * deviation
    assert weights.bias != 0.0


def test_chance_hides_every_token_alike():
    examples, _ = keep.draw(corpus(3), PRESETS["chance"], scope="prompt", seed=0)
    free = keep.maskable(examples[0].roles, "prompt")
    assert examples[0].keep_prob[free] == pytest.approx(0.85)


# ---- the draw -----------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([0, 1, 2]), min_size=1, max_size=20), st.integers(), st.text())
def test_what_has_to_stay_visible_does(roles, seed, name):
    one = example(name.encode(errors="replace").decode(), roles)
    weights = Weights(alpha=-9.0, beta=-9.0, gamma=-9.0, delta=-9.0, bias=-9.0)
    for scope in keep.SCOPES:
        (result,), _ = keep.draw([one], weights, scope=scope, seed=seed)
        stays = ~keep.maskable(one.roles, scope)
        assert result.key_mask[stays].all()
        assert (result.keep_prob[stays] == 1.0).all()
        assert result.key_mask[0]
        u = keep.uniform(seed, one.id, "draw", len(roles))
        np.testing.assert_array_equal(result.key_mask, u < result.keep_prob)


def test_scope_prompt_leaves_the_response_visible():
    weights = Weights(alpha=0.0, beta=0.0, gamma=0.0, delta=0.0, bias=-3.0)
    whole, _ = keep.draw(corpus(5), weights, scope="prompt+response", seed=0)
    prompt, _ = keep.draw(corpus(5), weights, scope="prompt", seed=0)
    for a, b in zip(whole, prompt, strict=True):
        assert not a.key_mask[a.roles == 2].all()
        assert b.key_mask[b.roles == 2].all()
        np.testing.assert_array_equal(a.key_mask[a.roles == 1], b.key_mask[b.roles == 1])


def test_neither_order_nor_neighbours_change_a_mask():
    weights = Weights(alpha=1.0, beta=1.0, gamma=1.0, delta=1.0, bias=-1.0)
    examples = corpus(6)
    together, _ = keep.draw(examples, weights, scope="prompt", seed=5)
    backward, _ = keep.draw(examples[::-1], weights, scope="prompt", seed=5)
    for one, a, b in zip(examples, together, backward[::-1], strict=True):
        (alone,), _ = keep.draw([one], weights, scope="prompt", seed=5)
        np.testing.assert_array_equal(a.key_mask, b.key_mask)
        np.testing.assert_array_equal(a.key_mask, alone.key_mask)


def test_nothing_to_hide_is_fine():
    (result,), used = keep.draw([example("x", [0, 0])], PRESETS["balanced"], scope="prompt", seed=0)
    assert result.key_mask.all()
    assert used == PRESETS["balanced"]


# ---- chance -------------------------------------------------------------------------------------


def philox(counter: int, key: int) -> list[int]:
    """Philox 4x64 with ten rounds, written from the paper of Salmon et al. (SC11, table 2)."""
    word = 2**64 - 1
    c = [counter >> 64 * n & word for n in range(4)]
    k = [key & word, key >> 64]
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [b >> 64 ^ c[1] ^ k[0], b & word, a >> 64 ^ c[3] ^ k[1], a & word]
        k = [k[0] + 0x9E3779B97F4A7C15 & word, k[1] + 0xBB67AE8584CAA73B & word]
    return c


def test_uniform_is_philox_keyed_by_seed_id_and_purpose():
    name = json.dumps([7, "é1", "draw"], ensure_ascii=False, separators=(",", ":")).encode()
    key = int(hashlib.sha256(name).hexdigest()[:32], 16)
    bits = [*philox(1, key), *philox(2, key), *philox(3, key)][:10]  # NumPy counts from one
    expected = [(b >> 40) / 2**24 for b in bits]
    assert keep.uniform(7, "é1", "draw", 10).tolist() == expected


def test_a_longer_row_begins_like_the_shorter_one():
    np.testing.assert_array_equal(
        keep.uniform(0, "a", "draw", 100)[:7], keep.uniform(0, "a", "draw", 7)
    )
    assert keep.uniform(0, "a", "draw", 0).shape == (0,)


def test_uniform_is_uniform_and_its_streams_are_independent():
    count = 20_000
    streams = [
        keep.uniform(*name, count)
        for name in ((0, "a", "random"), (0, "a", "draw"), (0, "b", "draw"), (1, "a", "draw"))
    ]
    for stream in streams:
        assert stream.dtype == np.float32
        assert stream.min() >= 0.0
        assert stream.max() < 1.0
        assert stats.kstest(stream, "uniform").pvalue > 1e-3  # type: ignore[attr-defined]
    correlation = np.corrcoef(streams) - np.eye(4)
    assert np.abs(correlation).max() < 4 / math.sqrt(count)


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
