"""Rotary positions against the drawings, a complex-number oracle, and transformers."""

import math
import re
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.model import hf_config
from opengrok_jax.model.config import LongRope, Phi3Config
from opengrok_jax.model.rope import (
    apply_rope,
    attention_scaling,
    inverse_frequencies,
    rope_angles,
    segment_lengths,
    segment_positions,
)

LONG = LongRope((1.0, 1.1, 1.2), (2.0, 4.0, 8.0))


def config(**changes: Any) -> Phi3Config:
    """Heads of 10 channels, of which 6 turn."""
    return Phi3Config.tiny(
        61,
        **{"hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 3}
        | {"partial_rotary_factor": 0.6, "max_position_embeddings": 44}
        | changes,
    )


@pytest.mark.parametrize("function", [segment_positions, segment_lengths])
def test_the_drawings_in_the_docstrings(function: Callable[..., Any]) -> None:
    drawn = {
        name: jnp.array([[int(x) for x in row.split()]])
        for name, row in re.findall(
            r"^ *(\w+) +((?:\d )+\d)$", function.__doc__ or "", re.MULTILINE
        )
    }
    *given_names, result = drawn
    np.testing.assert_array_equal(function(*(drawn[n] for n in given_names)), drawn[result])
    assert result == function.__name__.removeprefix("segment_")


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), padding=st.integers(0, 4))
def test_positions_and_lengths_of_packed_rows(lengths: list[int], padding: int) -> None:
    total = 24  # one shape, one compilation
    numbers = [n for n, length in enumerate(lengths, 1) for _ in range(length)][: total - padding]
    row = numbers + [0] * (total - len(numbers))
    positions = segment_positions(jnp.array([row]))
    assert positions[0].tolist() == [row[:i].count(s) for i, s in enumerate(row)]
    assert segment_lengths(jnp.array([row]), positions)[0].tolist() == [row.count(s) for s in row]


def test_rotation_is_a_complex_product_and_leaves_the_rest() -> None:
    chosen = config(rope_theta=97.0)
    positions = jnp.array([[0, 1, 2, 0, 1, 40]])
    x = np.random.default_rng(0).normal(size=(1, 6, 3, 10)).astype(np.float32)
    cos, sin = rope_angles(chosen, positions, positions + 1)
    got = np.asarray(apply_rope(jnp.asarray(x), cos, sin))
    turn = np.exp(1j * np.asarray(positions)[0][:, None] * 97.0 ** -(np.arange(3) * 2 / 6))
    want = (x[..., :3] + 1j * x[..., 3:6]) * turn[None, :, None, :]
    np.testing.assert_allclose(got[..., :3], want.real, atol=1e-5)
    np.testing.assert_allclose(got[..., 3:6], want.imag, atol=1e-5)
    np.testing.assert_array_equal(got[..., 6:], x[..., 6:])


def test_bfloat16_still_tells_neighbouring_positions_apart() -> None:
    x = jnp.ones((1, 2, 1, 10), jnp.bfloat16)
    angles = rope_angles(config(), jnp.array([[256, 257]]), jnp.array([[300, 300]]))
    out = apply_rope(x, *angles)
    assert out.dtype == jnp.bfloat16
    assert np.abs(np.asarray(out[0, 0] - out[0, 1], np.float32)).max() > 0.3


def test_long_factors_follow_each_segment_not_the_row() -> None:
    chosen = config(rope_scaling=LONG, original_max_position_embeddings=4)
    segments = jnp.array([[1] * 4 + [2] * 5 + [0] * 2])
    positions = segment_positions(segments)
    cos, _ = rope_angles(chosen, positions, segment_lengths(segments, positions))
    scale = math.sqrt(1 + math.log(44 / 4) / math.log(4))
    for rows, long in [(slice(0, 4), False), (slice(4, 9), True)]:
        angles = np.asarray(positions)[0, rows, None] * inverse_frequencies(chosen, long=long)
        np.testing.assert_allclose(cos[0, rows], np.cos(angles) * scale, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "more", [{}, {"factor": 5.0}, {"factor": 0.5}, {"attention_factor": 1.7}], ids=str
)
def test_frequencies_and_scaling_equal_transformers(more: dict[str, float]) -> None:
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")
    pytest.importorskip("torch", reason="parity needs torch")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    factors = {"short_factor": [1.0, 1.1, 1.2], "long_factor": [2.0, 4.0, 8.0]}
    raw: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 30,
        "num_attention_heads": 3,
        "rope_theta": 97.0,
        "max_position_embeddings": 44,
        "original_max_position_embeddings": 4,
        "partial_rotary_factor": 0.6,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "rope_scaling": {"type": "longrope", **factors, **more},
    }
    ours = hf_config.read({**raw, "model_type": "phi3"})
    theirs = transformers.Phi3Config(**raw)
    for length, long in [(4, False), (5, True)]:
        frequencies, scaling = ROPE_INIT_FUNCTIONS["longrope"](theirs, "cpu", seq_len=length)
        np.testing.assert_allclose(
            inverse_frequencies(ours, long=long), frequencies.numpy(), rtol=1e-6
        )
        assert attention_scaling(ours) == pytest.approx(scaling, rel=1e-12)


@pytest.mark.parametrize(("theta", "width"), [(1e4, 96), (1e4, 128), (2.5e5, 128)])
def test_frequencies_of_the_published_sizes_are_those_of_torch(theta: float, width: int) -> None:
    """To the last bit but one: a unit in the last place turns the last position by 0.01."""
    torch = pytest.importorskip("torch", reason="parity needs torch")
    ours = inverse_frequencies(Phi3Config.tiny(hidden_size=4 * width, rope_theta=theta), long=False)
    theirs = 1.0 / theta ** (torch.arange(0, width, 2, dtype=torch.float) / width)
    np.testing.assert_array_max_ulp(ours, theirs.numpy(), maxulp=1)
