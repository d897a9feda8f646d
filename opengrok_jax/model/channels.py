"""Attention by any causal kernel that knows neither masks nor segments, such as cuDNN's.

Each head gets extra channels in which queries and keys carry +-1 codes of their segment, and hidden
keys the code of none. The dot product itself then lowers the score of every forbidden pair so far
below the allowed ones that its weight is 0 in float32. Phi-3's heads are 96 wide and such kernels
work in 128, so that the channels cost little there.

The mathematics is tested on a CPU, cuDNN itself by the tests marked `accelerator`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int, Shaped

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.blockwise import SAVED
from opengrok_jax.model.segments import HIDDEN, sees_a_key

# A forbidden pair scores at least twice this below an allowed one of the same dot product:
# exp(-2 * 52) is 0 in float32. Larger offsets would cost the allowed scores more of their digits.
_OFFSET = 52.0
_WIDTH_MULTIPLE = 8  # cuDNN's demand on the width of a head
_WIDEST = 128
_ARCHITECTURE = 8.0  # compute capability: Ampere


def channels(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    query_ids: Int[Array, "B T"],
    key_ids: Int[Array, "B T"],
    sliding_window: int | None = None,
    *,
    kernel: Literal["cudnn", "xla"] = "cudnn",
) -> Float[Array, "B T N H"]:
    """Attention by the ids of `segments.py`, each segment one run; the dtype of v.

    A query that sees no key gets zeros and passes no gradient. `kernel` "xla" forms the (T, T)
    scores: for tests. Raises ConfigError for a dtype or a width that cuDNN does not take.
    """
    width, wide = q.shape[3], _widened(q)
    query_code, key_code = codes(query_ids, key_ids, width)
    if kernel == "cudnn" and not takes(q):
        raise ConfigError(
            f"attention 'cudnn' got {q.dtype} heads of {wide} channels ({width} and the codes of "
            f"rows of {q.shape[1]} tokens); cuDNN takes bfloat16 and at most {_WIDEST}. Choose "
            "attention 'blockwise', or other sizes"
        )

    def widen(x: jax.Array, code: jax.Array | None = None) -> jax.Array:
        parts = [x]
        if code is not None:
            code = code.astype(x.dtype)[:, :, None, :]
            parts.append(jnp.broadcast_to(code, (*x.shape[:3], code.shape[3])))
        x = jnp.concatenate(parts, axis=-1)
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, wide - x.shape[3])))

    wide_q, wide_k, wide_v = (
        # What the backward kernel reads: so that remat "dots" keeps this, and not what it is of.
        checkpoint_name(x, SAVED)
        for x in (widen(q, query_code), widen(k, key_code), widen(v))
    )
    mixed = jax.nn.dot_product_attention(
        wide_q,
        wide_k,
        wide_v,
        scale=width**-0.5,
        is_causal=True,
        local_window_size=None if sliding_window is None else (sliding_window - 1, 0),
        implementation=kernel,
    )[..., :width]
    seen = sees_a_key(query_ids, key_ids, sliding_window)
    return jnp.where(seen[:, :, None, None], mixed, jnp.zeros_like(mixed)).astype(v.dtype)


def kernel_saveable(primitive: Any, *_: Any, **__: Any) -> bool:
    """A policy of `jax.checkpoint`: keeps what cuDNN's forward kernel gives.

    JAX names neither result, so that the kernel's own name has to do.
    """
    return primitive.name == "dot_product_attention_fwd_wrapper"


def takes(q: Shaped[Array | jax.ShapeDtypeStruct, "B T N H"]) -> bool:
    """Whether cuDNN's kernel takes heads of this dtype and width, with their codes."""
    return q.dtype in (jnp.bfloat16, jnp.float16) and _widened(q) <= _WIDEST


def has_cudnn() -> bool:
    """Whether the GPU that JAX found is of a kind that the kernel was written for."""
    capability = getattr(jax.local_devices()[0], "compute_capability", "")
    return capability.partition(".")[0].isdigit() and float(capability) >= _ARCHITECTURE


def _widened(q: Shaped[Array | jax.ShapeDtypeStruct, "B T N H"]) -> int:
    wide = q.shape[3] + _bits(q.shape[1])
    return wide + -wide % _WIDTH_MULTIPLE


def _bits(tokens: int) -> int:
    return tokens.bit_length()


def codes(
    query_ids: Int[Array, "B T"], key_ids: Int[Array, "B T"], width: int
) -> tuple[Float[Array, "B T E"], Float[Array, "B T E"]]:
    """The extra channels of queries and keys: one for each bit of the id, + or -.

    With T tokens there are at most T segments, so bit_length(T) bits tell them apart, and the code
    of 0, which no segment has, hides a key. For 3 tokens, lowest bit first, in units of the offset:

        query ids   1   + -        key ids   1   + -        products   2 -2  0
                    2   - +                  2   - +                  -2  2  0
                    0   - -                 -1   - -                   0  0  2

    A visible pair scores the number of bits, the same for all of them, which plays no part in the
    softmax; any other pair scores at least 2 less. (Padding sees hidden keys; it is thrown away.)
    """
    # The offset is what is left of one product after division by sqrt(H). Powers of two are exact
    # in every dtype, and so are the sums of their multiples.
    product = math.ceil(math.log2(_OFFSET * math.sqrt(width)))
    places = jnp.arange(_bits(query_ids.shape[1]))[None, None, :]

    def signs(ids: jax.Array, unit: float) -> jax.Array:
        return (((ids[:, :, None] >> places) & 1) * 2 - 1).astype(jnp.float32) * unit

    shown = jnp.where(key_ids == HIDDEN, 0, key_ids)
    return signs(query_ids, 2.0 ** (product // 2)), signs(shown, 2.0 ** (product - product // 2))
