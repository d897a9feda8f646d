"""Rotary positions: angles per token, partial rotation, LongRoPE, reset at each packed segment."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from opengrok_jax.model.config import Phi3Config


def segment_positions(segment_ids: Int[Array, "B T"]) -> Int[Array, "B T"]:
    """The index of each token within its own segment; segments are contiguous.

    segment_ids  1 1 1 2 2 0 0
    positions    0 1 2 0 1 0 1
    """
    index = _indices(segment_ids)
    return index - jax.lax.cummax(jnp.where(_starts(segment_ids), index, 0), axis=1)


def segment_lengths(
    segment_ids: Int[Array, "B T"], positions: Int[Array, "B T"]
) -> Int[Array, "B T"]:
    """The length of the segment each token belongs to: the position of its last token, plus one.

    segment_ids  1 1 1 2 2 0 0
    positions    0 1 2 0 1 0 1
    lengths      3 3 3 2 2 2 2
    """
    index = _indices(segment_ids)
    is_last = jnp.roll(_starts(segment_ids), -1, axis=1)  # the row's first token is always a start
    past_the_end = jnp.full_like(index, segment_ids.shape[1])
    last = jax.lax.cummin(jnp.where(is_last, index, past_the_end), axis=1, reverse=True)
    return jnp.take_along_axis(positions, last, axis=1) + 1


def inverse_frequencies(config: Phi3Config, *, long: bool) -> Float32[np.ndarray, " R"]:
    """Radians per position of each rotated pair, float32; `long` picks LongRoPE's long factors."""
    exponents = np.arange(0, config.rotary_dim, 2, dtype=np.float32) / np.float32(config.rotary_dim)
    # NumPy's float32 power is off by two units in the last place, which at position 131071 is an
    # angle of 0.02; rounded from float64 it is that of torch, nearly always to the bit.
    base = np.power(np.float32(config.rope_theta), exponents, dtype=np.float64).astype(np.float32)
    if (rope := config.rope_scaling) is not None:
        base *= np.asarray(rope.long_factor if long else rope.short_factor, np.float32)
    return np.float32(1) / base


def attention_scaling(config: Phi3Config) -> float:
    """What LongRoPE multiplies sine and cosine by, at every length (1 without LongRoPE)."""
    rope, original = config.rope_scaling, config.original_max_position_embeddings
    if rope is None or original is None:
        return 1.0
    if rope.attention_factor is not None:
        return rope.attention_factor
    factor = config.max_position_embeddings / original if rope.factor is None else rope.factor
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def rope_angles(
    config: Phi3Config, positions: Int[Array, "B T"], lengths: Int[Array, "B T"]
) -> tuple[Float32[Array, "B T R"], Float32[Array, "B T R"]]:
    """Cosine and sine of each token's rotation, scaled, float32.

    With LongRoPE a token turns by the long factors if its own segment is longer than
    `original_max_position_embeddings`. transformers decides once for the whole batch, by its
    longest row; deciding per segment gives the same for one sequence and keeps the result of an
    example independent of its neighbours.
    """
    frequencies = jnp.asarray(inverse_frequencies(config, long=False))[None, None, :]
    if (original := config.original_max_position_embeddings) is not None:  # with LongRoPE only
        is_long = lengths[..., None] > original
        long = jnp.asarray(inverse_frequencies(config, long=True))[None, None, :]
        frequencies = jnp.where(is_long, long, frequencies)
    angles = positions[..., None].astype(jnp.float32) * frequencies
    scale = attention_scaling(config)
    return jnp.cos(angles) * scale, jnp.sin(angles) * scale


def apply_rope(
    x: Float[Array, "B T heads H"], cos: Float32[Array, "B T R"], sin: Float32[Array, "B T R"]
) -> Float[Array, "B T heads H"]:
    """Rotates channel i with channel i + R of every head; channels from 2 R on stay as they are.

    Computed in float32 (bfloat16 cannot tell position 257 from 256), returned in the dtype of x.
    """
    pairs = cos.shape[-1]
    cos, sin = cos[:, :, None, :], sin[:, :, None, :]
    first = x[..., :pairs].astype(jnp.float32)
    second = x[..., pairs : 2 * pairs].astype(jnp.float32)
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return jnp.concatenate([turned.astype(x.dtype), x[..., 2 * pairs :]], axis=-1)


def _starts(segment_ids: jax.Array) -> jax.Array:
    """True where a segment begins, (B, T)."""
    changes = segment_ids[:, 1:] != segment_ids[:, :-1]
    return jnp.concatenate([jnp.ones_like(segment_ids[:, :1], bool), changes], axis=1)


def _indices(segment_ids: jax.Array) -> jax.Array:
    """0 .. T-1 in every row, (B, T)."""
    return jax.lax.broadcasted_iota(segment_ids.dtype, segment_ids.shape, 1)
