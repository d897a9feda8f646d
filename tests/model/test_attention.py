"""Attention against a NumPy oracle that follows the definitions in loops of float64."""

import re
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.attention import (
    Implementation,
    Rule,
    attention,
    check_rule,
    choose,
    target_platform,
    visible_in_cache,
    visible_keys,
)
from opengrok_jax.model.sharding import make_mesh

B, T, H = 2, 11, 5

run = jax.jit(attention, static_argnames=("rule", "sliding_window", "implementation"))
# Those that run on a CPU as they are meant to; the kernels for others have files of their own.
ON_A_CPU: tuple[Implementation, ...] = ("dense", "blockwise")


def oracle(q: Any, k: Any, v: Any, mask: Any, segments: Any, rule: str, window: int | None) -> Any:
    """softmax over the keys that may be seen; multiply: score * m, as the paper prints it."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros_like(q)
    per_group = q.shape[2] // k.shape[2]
    for b, i, n in np.ndindex(q.shape[:3]):
        scores = {}
        for j in range(i + 1):
            if segments[b, j] != segments[b, i] or segments[b, i] == 0:
                continue
            if window is not None and i - j >= window:
                continue
            if rule == "exclude" and not mask[b, j]:
                continue
            score = q[b, i, n] @ k[b, j, n // per_group] / np.sqrt(H)
            scores[j] = score * mask[b, j] if rule == "multiply" else score
        if scores:
            weights = np.exp(np.array(list(scores.values())) - max(scores.values()))
            values = np.stack([v[b, j, n // per_group] for j in scores])
            out[b, i, n] = weights @ values / weights.sum()
    return out


def random_inputs(seed: int, heads: int = 6, groups: int = 2) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    q, k, v = (rng.normal(0, 2, (B, T, n, H)).astype(np.float32) for n in (heads, groups, groups))
    mask = rng.random((B, T)) < 0.6
    lengths = rng.multinomial(T, np.ones(4) / 4, size=B)
    lengths[:, -1] = 0
    segments = np.zeros((B, T), np.int32)
    for b, row in enumerate(lengths):
        filled = np.repeat(np.arange(1, 5), row)
        segments[b, : len(filled)] = filled
    return q, k, v, mask, segments


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**31),
    rule=st.sampled_from(get_args(Rule)),
    heads=st.sampled_from([(3, 3), (6, 2), (5, 1)]),
    window=st.sampled_from([None, 1, 3]),
)
def test_equals_the_definition(seed: int, rule: Rule, heads: Any, window: int | None) -> None:
    q, k, v, mask, segments = random_inputs(seed, *heads)
    arrays = map(jnp.asarray, (q, k, v, mask, segments))
    got = attention(*arrays, rule=rule, sliding_window=window, implementation="dense")
    want = oracle(q, k, v, mask, segments, rule, window)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("implementation", ["blockwise", "splash"])
@pytest.mark.parametrize("rule", get_args(Rule))
def test_kernels_follow_the_rules(rule: Rule, implementation: Implementation) -> None:
    q, k, v, mask, segments = random_inputs(2)
    arrays = map(jnp.asarray, (q, k, v, mask, segments))
    got = run(*arrays, rule=rule, sliding_window=4, implementation=implementation)
    want = oracle(q, k, v, mask, segments, rule, 4)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


def test_auto_goes_by_what_is_compiled_for() -> None:
    def queries(tokens: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, tokens, 2, 96), jnp.bfloat16)

    for platform, longest, beyond in (
        ("cpu", 64, "blockwise"),
        ("gpu", 256, "blockwise"),  # a GPU that JAX has not found has no cuDNN
        ("tpu", 128, "splash"),
    ):
        assert choose(platform, queries(longest)) == "dense", "one block is dense attention"
        assert choose(platform, queries(longest + 1)) == beyond
    assert target_platform() == "cpu"
    with jax.set_mesh(make_mesh(fsdp=1, devices=jax.devices()[:1])):
        assert target_platform() == "cpu"


def test_the_drawing_in_the_docstring() -> None:
    drawing = visible_keys.__doc__ or ""
    given_rows = re.findall(r"^ +(?:segment_ids|key_mask) +((?:\d ){6}\d)", drawing, re.MULTILINE)
    segments, mask = (jnp.array([[int(x) for x in row.split()]]) for row in given_rows)
    rows = re.findall(r"^ +\d +((?:\d ){6}\d) +((?:\d ){6}\d)$", drawing, re.MULTILINE)
    assert len(rows) == 7
    columns: list[tuple[Rule, ...]] = [("none", "multiply"), ("exclude",)]
    for column, rules in enumerate(columns):
        drawn = np.array([[int(x) for x in row[column].split()] for row in rows], bool)
        for rule in rules:
            got = visible_keys(mask == 1, segments, rule, sliding_window=3)[0]
            np.testing.assert_array_equal(got, drawn, err_msg=rule)


def test_multiply_reads_the_value_of_a_masked_key_and_exclude_does_not() -> None:
    q, k, v, mask, segments = map(jnp.asarray, random_inputs(3))
    segments, mask = jnp.ones_like(segments), mask.at[:, 4].set(False)
    other_value, other_key = v.at[:, 4].add(9.0), k.at[:, 4].add(9.0)
    cases: list[tuple[Rule, bool]] = [("multiply", True), ("exclude", False)]
    for rule, reads_value in cases:
        before = run(q, k, v, mask, segments, rule=rule)
        after = run(q, k, other_value, mask, segments, rule=rule)
        assert (np.abs(after - before).max() > 0.1) == reads_value, rule
        same = run(q, other_key, v, mask, segments, rule=rule)
        np.testing.assert_array_equal(before, same, err_msg="the score of a masked key is fixed")


@pytest.mark.parametrize("implementation", ON_A_CPU)
@pytest.mark.parametrize("rule", get_args(Rule))
def test_padding_is_finite_and_has_no_influence(rule: Rule, implementation: Implementation) -> None:
    q, k, v, mask, segments = map(jnp.asarray, random_inputs(5))
    segments = segments.at[:, 7:].set(0).at[1].set(0)  # the second row is all padding
    padding = np.asarray(segments == 0)
    attend = partial(run, rule=rule, implementation=implementation)

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(attend(q, k, v, mask, segments)) + 1.0)

    with jax.debug_nans(True):  # not on the way either
        out = attend(q, k, v, mask, segments)
    assert np.isfinite(out).all()
    assert not np.asarray(out)[padding].any()
    for gradient in jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v):
        assert np.isfinite(gradient).all()
        assert not np.asarray(gradient)[padding].any()
    noise = jnp.where((segments == 0)[..., None, None], 50.0, 0.0)
    again = attend(q + noise, k + noise, v + noise, mask, segments)
    np.testing.assert_array_equal(np.asarray(out)[~padding], np.asarray(again)[~padding])


@pytest.mark.parametrize("implementation", ON_A_CPU)
def test_a_query_without_a_visible_key_gives_zeros_and_no_gradient(
    implementation: Implementation,
) -> None:
    q, k, v, _, segments = map(jnp.asarray, random_inputs(1))
    segments = jnp.ones_like(segments)
    mask = jnp.arange(T)[None, :] >= jnp.array([[2], [0]])  # row 0 hides its first two tokens
    hide = partial(run, rule="exclude", implementation=implementation)
    out = hide(q, k, v, mask, segments)
    assert not np.asarray(out)[0, :2].any()
    assert np.abs(out[0, 2:]).min() > 0
    gradient = jax.grad(lambda q: jnp.sum(hide(q, k, v, mask, segments)))(q)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[0, :2].any()


@pytest.mark.parametrize("implementation", ON_A_CPU)
def test_softmax_is_float32_under_bfloat16(implementation: Implementation) -> None:
    """513 equal scores: weights of 1/513 summed in bfloat16 would drift by far more than 1 %."""
    tokens = 513
    q = jnp.zeros((1, tokens, 1, 2), jnp.bfloat16)
    v = jnp.ones((1, tokens, 1, 2), jnp.bfloat16)
    segments = jnp.ones((1, tokens), jnp.int32)
    out = run(q, q, v, None, segments, rule="none", implementation=implementation)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(out, np.float32), 1.0, rtol=8e-3)


def test_errors_name_the_rules() -> None:
    segments = jnp.ones((1, 3), jnp.int32)
    with pytest.raises(ConfigError, match="needs a key_mask"):
        visible_keys(None, segments, "exclude")
    with pytest.raises(ConfigError, match=r"'hide' is unknown.*multiply"):
        check_rule("hide", None)


def test_the_drawing_of_one_query_over_a_cache() -> None:
    at = jnp.array([2, 0])
    mask = jnp.array([[1, 0, 1, 1], [1, 1, 1, 1]], bool)
    for rule in get_args(Rule):
        first = [0, 0, 1, 0] if rule == "exclude" else [0, 1, 1, 0]
        got = visible_in_cache(at, 4, mask, rule, sliding_window=2)
        assert got.astype(int).tolist() == [[first], [[1, 0, 0, 0]]]
    with pytest.raises(ConfigError, match="needs a key_mask"):
        visible_in_cache(at, 4, None, "exclude")


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("rule", get_args(Rule))
def test_a_query_over_a_cache_sees_what_it_sees_in_its_row(rule: Rule, window: int | None) -> None:
    mask = jnp.asarray(np.random.default_rng(0).random((1, T)) < 0.6)
    whole = visible_keys(mask, jnp.ones((1, T), jnp.int32), rule, window)
    for at in range(T):
        one = visible_in_cache(jnp.array([at]), T, mask, rule, window)
        assert one[0, 0].tolist() == whole[0, at].tolist()
