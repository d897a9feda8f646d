"""Attention on a TPU: splash, JAX's own Pallas kernel, told by ids who sees whom.

Splash takes the segments of queries and keys apart, which is all that packing and the rule
"exclude" need. What it makes of a query that sees no key, an average over what it visits, is thrown
away here, and with it the gradient.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from opengrok_jax.model.blockwise import SAVED
from opengrok_jax.model.segments import HIDDEN, pad_to, sees_a_key

LANES = 128  # of a TPU's vector register; a block of tokens is a multiple of it
_BLOCKS = (512, 384, 256, LANES)  # larger ones visit fewer, smaller ones waste less on the diagonal


def splash(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    query_ids: Int[Array, "B T"],
    key_ids: Int[Array, "B T"],
    sliding_window: int | None = None,
    *,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Attention by the ids of `segments.py`, each segment one run; the dtype of v.

    Rows are filled up with padding to a multiple of 128 tokens. A query that sees no key gets
    zeros and passes no gradient. `interpret` runs the kernel without a TPU: slow, and for tests.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import SegmentIds

    tokens, width = q.shape[1], q.shape[3]
    kernel = _kernel(tokens + -tokens % LANES, q.shape[2], sliding_window, interpret)

    def heads_first(x: jax.Array) -> jax.Array:
        return pad_to(x, LANES).transpose(0, 2, 1, 3)

    ids = SegmentIds(pad_to(query_ids, LANES), pad_to(key_ids, LANES, HIDDEN))
    scaled = (q.astype(jnp.float32) * width**-0.5).astype(q.dtype)  # splash has no scale of its own
    run = jax.vmap(lambda q, k, v, ids: kernel(q, k, v, segment_ids=ids))
    mixed = run(heads_first(scaled), heads_first(k), heads_first(v), ids)
    mixed = mixed.transpose(0, 2, 1, 3)[:, :tokens]
    seen = sees_a_key(query_ids, key_ids, sliding_window)
    return jnp.where(seen[:, :, None, None], mixed, jnp.zeros_like(mixed)).astype(v.dtype)


def _kernel(tokens: int, heads: int, window: int | None, interpret: bool) -> Any:
    """The kernel for rows of `tokens`, a multiple of 128; its mask is computed, never stored."""
    # Pallas takes a second to import, and only a TPU wants it.
    from jax.experimental.pallas.ops.tpu import splash_attention as library

    size, shape = next(b for b in _BLOCKS if tokens % b == 0), (tokens, tokens)
    sees = (
        library.CausalMask(shape)
        if window is None
        else library.LocalMask(shape, (window - 1, 0), offset=0)
    )
    blocks = library.BlockSizes(
        *(size, size, size),  # forward: queries, keys, keys multiplied at once
        *(size, size, size),  # backward to the keys and values
        *(size, size),  # backward to the queries
    )
    return library.make_splash_mha(
        library.MultiHeadMask([sees] * heads),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=1,
        residual_checkpoint_name=SAVED,
        interpret=interpret,
    )
