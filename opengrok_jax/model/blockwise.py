"""Attention block by block, on any backend: the scores of two blocks are all that ever exists.

Forward and backward follow FlashAttention-2 (arXiv:2307.08691): a softmax that is corrected as keys
come in, the logarithm of its denominator kept, the scores computed again on the way back. A row is
cut into blocks of tokens; a block of queries visits the blocks of keys from the first that holds a
key it may see up to its own. Packed short posts thus cost what they are long, not what the row is.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Float32, Int

from opengrok_jax.model.segments import HIDDEN, pad_to

# A finite floor: the difference of two infinite scores would be NaN.
_FLOOR = float(jnp.finfo(jnp.float32).min)
# The names of what the backward pass needs of the forward pass, for a remat policy that keeps it.
SAVED = "attention"

_Blocks = Float[Array, "_ R K _ H"]


class Tiles(NamedTuple):
    """How the work is cut.

    Attributes:
      block: tokens of a block.
      rows: rows of the batch taken together, 0 for all. A row alone visits only its own segments,
        and its blocks stay in a CPU's cache; together they fill a wider machine, and each visits
        what any of them needs.
    """

    block: int
    rows: int


CPU_TILES = Tiles(block=64, rows=1)  # the fastest of 32, 64, 128, 256; see scripts/bench
WIDE_TILES = Tiles(block=256, rows=0)  # for accelerators; measured in docs/benchmarks.md


class _Plan(NamedTuple):
    """What is static: tokens of a block, the window, 1/sqrt(H)."""

    block: int
    window: int | None
    scale: float


def blockwise(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    query_ids: Int[Array, "B T"],
    key_ids: Int[Array, "B T"],
    sliding_window: int | None = None,
    tiles: Tiles = CPU_TILES,
) -> Float[Array, "B T N H"]:
    """Attention by the ids of `segments.py`; O(T * block) memory, float32 softmax, dtype of v.

    A query that sees no key gets zeros and passes no gradient. T need not divide by the block.
    """
    (batch, tokens, heads, width), groups = q.shape, k.shape[2]
    block = min(tiles.block, tokens)
    rows = tiles.rows if tiles.rows and batch % tiles.rows == 0 else batch
    each, together = batch // rows, heads // groups

    def cut(x: jax.Array, per_group: int) -> jax.Array:
        """(B, T, n, H) -> (B / R, blocks, R, K, per_group * block, H)."""
        x = pad_to(x, block).reshape(each, rows, -1, block, groups, per_group, width)
        x = x.transpose(0, 2, 1, 4, 5, 3, 6)
        return x.reshape(each, -1, rows, groups, per_group * block, width)

    def cut_ids(ids: jax.Array, fill: int) -> jax.Array:
        return pad_to(ids, block, fill).reshape(each, rows, -1, block).transpose(0, 2, 1, 3)

    plan = _Plan(block, sliding_window, width**-0.5)
    ids = (cut_ids(query_ids, 0), cut_ids(key_ids, HIDDEN))
    some_rows = (cut(q, together), cut(k, 1), cut(v, 1), *ids)
    mixed = jax.lax.map(lambda x: _attend(plan, *x), some_rows)
    mixed = mixed.reshape(each, -1, rows, groups, together, block, width)
    mixed = mixed.transpose(0, 2, 1, 5, 3, 4, 6).reshape(batch, -1, heads, width)
    return mixed[:, :tokens]


def first_blocks(
    query_ids: Int[Array, "blocks R C"], key_ids: Int[Array, "blocks R C"], window: int | None
) -> Int[Array, " blocks"]:
    """For each block of queries the first block of keys to visit; its own number + 1 if none.

    Two blocks are skipped if in every row the range of ids on one side lies beside the other's;
    padding (0) and hidden keys (-1) belong to no range.

        query ids  1 1 1 | 1 2 2 | 2 2 3 | 3 3 0 | 0 0 0
        key ids    1 1 1 | 1 2 -1| 2 2 3 | 3 3 -1|-1 -1 -1

        first      0       0       1       2       5
    """
    low, high, blocks = jnp.iinfo(jnp.int32).min, jnp.iinfo(jnp.int32).max, query_ids.shape[0]

    def ranges(ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        least = jnp.where(ids > 0, ids, high).min(axis=-1)
        return least, jnp.where(ids > 0, ids, low).max(axis=-1)

    (query_least, query_most), (key_least, key_most) = ranges(query_ids), ranges(key_ids)
    meet = (query_least[:, None] <= key_most[None]) & (key_least[None] <= query_most[:, None])
    at = jnp.arange(blocks)
    wanted = jnp.any(meet, axis=-1) & (at[None, :] <= at[:, None])
    if window is not None:
        # The last key of block j against the first key of the window of the first query of block i.
        size = query_ids.shape[-1]
        wanted &= (at[None, :] + 1) * size > at[:, None] * size - window + 1
    return jnp.where(wanted.any(axis=1), jnp.argmax(wanted, axis=1), at + 1)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(
    plan: _Plan,
    q: _Blocks,
    k: _Blocks,
    v: _Blocks,
    query_ids: Int[Array, "_ R C"],
    key_ids: Int[Array, "_ R C"],
) -> _Blocks:
    return _forward(plan, q, k, v, query_ids, key_ids)[0]


def _forward(plan: _Plan, q: Any, k: Any, v: Any, query_ids: Any, key_ids: Any) -> tuple[Any, Any]:
    """The mixed values, and what the way back needs."""

    def some_queries(_: None, block: Any) -> tuple[None, tuple[jax.Array, jax.Array]]:
        at, q_i, ids, first = block

        def some_keys(j: jax.Array, carry: Any) -> Any:
            most, total, mixed = carry
            scores = _scores(plan, q_i, k[j])
            scores = jnp.where(_visible(plan, at, j, ids, key_ids[j], q_i), scores, _FLOOR)
            more = jnp.maximum(most, scores.max(axis=-1))
            weights, correction = jnp.exp(scores - more[..., None]), jnp.exp(most - more)
            mixed = mixed * correction[..., None] + _dot("rkts,rksh->rkth", weights, v[j])
            return more, total * correction + weights.sum(axis=-1), mixed

        start = jnp.zeros(q_i.shape[:-1], jnp.float32), jnp.zeros(q_i.shape, jnp.float32)
        carry = (jnp.full(q_i.shape[:-1], _FLOOR, jnp.float32), *start)
        most, total, mixed = jax.lax.fori_loop(first, at + 1, some_keys, carry)
        # Visited blocks may all be hidden from one of their queries; later ones wipe that out, but
        # nothing wipes it out for a query that never sees a key.
        blind = most == _FLOOR
        total = jnp.where(blind, 1.0, total)
        mixed = jnp.where(blind[..., None], 0.0, mixed / total[..., None])
        return None, (mixed.astype(v.dtype), jnp.where(blind, 0.0, most + jnp.log(total)))

    first = first_blocks(query_ids, key_ids, plan.window)
    blocks = (jnp.arange(q.shape[0]), q, query_ids, first)
    _, (mixed, log_total) = jax.lax.scan(some_queries, None, blocks)
    mixed, log_total = (checkpoint_name(x, SAVED) for x in (mixed, log_total))
    return mixed, (q, k, v, query_ids, key_ids, mixed, log_total)


def _backward(plan: _Plan, saved: Any, d_mixed: Any) -> tuple[Any, ...]:
    """Gradients of q, k and v; integers have none."""
    q, k, v, query_ids, key_ids, mixed, log_total = saved
    # sum_j weight_ij * d_weight_ij, without the weights
    delta = jnp.sum(d_mixed.astype(jnp.float32) * mixed.astype(jnp.float32), axis=-1)

    def some_queries(carry: Any, block: Any) -> tuple[Any, jax.Array]:
        at, q_i, ids, first, d_mixed_i, log_total_i, delta_i = block

        def some_keys(j: jax.Array, carry: Any) -> Any:
            dq_i, dk, dv = carry
            scores = _scores(plan, q_i, k[j]) - log_total_i[..., None]
            visible = _visible(plan, at, j, ids, key_ids[j], q_i)
            weights = jnp.exp(jnp.where(visible, scores, _FLOOR))
            d_weights = _dot("rkth,rksh->rkts", d_mixed_i, v[j])
            d_scores = weights * (d_weights - delta_i[..., None]) * plan.scale
            dq_i += _dot("rkts,rksh->rkth", d_scores, k[j])
            dk = dk.at[j].add(_dot("rkts,rkth->rksh", d_scores, q_i))
            return dq_i, dk, dv.at[j].add(_dot("rkts,rkth->rksh", weights, d_mixed_i))

        start = (jnp.zeros(q_i.shape, jnp.float32), *carry)
        dq_i, dk, dv = jax.lax.fori_loop(first, at + 1, some_keys, start)
        return (dk, dv), dq_i.astype(q.dtype)

    first = first_blocks(query_ids, key_ids, plan.window)
    blocks = (jnp.arange(q.shape[0]), q, query_ids, first, d_mixed, log_total, delta)
    zeros = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    (dk, dv), dq = jax.lax.scan(some_queries, zeros, blocks)
    return dq, dk.astype(k.dtype), dv.astype(v.dtype), None, None


_attend.defvjp(_forward, _backward)


def _scores(plan: _Plan, q: _Blocks | Any, k: Any) -> Float32[Array, "R K _ C"]:
    return _dot("rkth,rksh->rkts", q, k) * plan.scale


def _dot(equation: str, left: Any, right: Any) -> jax.Array:
    """Multiplied in the dtype of the second operand, summed in float32."""
    left = left.astype(right.dtype)
    return jnp.einsum(equation, left, right, preferred_element_type=jnp.float32)


def _visible(
    plan: _Plan,
    query_block: Any,
    key_block: Any,
    query_ids: Int[Array, "R C"],
    key_ids: Int[Array, "R C"],
    q: Any,
) -> Bool[Array, "R 1 _ C"]:
    """Whom the queries of a block see among the keys of another; heads of a group lie in a row."""
    inside = jnp.arange(plan.block)
    apart = (query_block - key_block) * plan.block + inside[:, None] - inside[None, :]
    near = apart >= 0 if plan.window is None else (apart >= 0) & (apart < plan.window)
    visible = (query_ids[:, :, None] == key_ids[:, None, :]) & near[None]
    return jnp.tile(visible, (1, q.shape[2] // plan.block, 1))[:, None]
