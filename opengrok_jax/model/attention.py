"""Who attends to whom: causal attention over packed segments under the three key-mask rules.

dense      forms the (T, T) scores in float32: the oracle that the others have to equal
blockwise  any backend, a block of scores at a time (blockwise.py)
splash     JAX's kernel for TPUs (splash.py)
cudnn      NVIDIA's kernel for GPUs, told of the masks by extra channels (channels.py)
"""

from __future__ import annotations

from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.blockwise import CPU_TILES, WIDE_TILES, Tiles, blockwise
from opengrok_jax.model.channels import channels, has_cudnn, takes
from opengrok_jax.model.segments import ids_of_keys
from opengrok_jax.model.sharding import on_each_device
from opengrok_jax.model.splash import LANES, splash

Implementation = Literal["auto", "dense", "blockwise", "splash", "cudnn"]
Rule = Literal["none", "multiply", "exclude"]


def check_rule(rule: str, key_mask: object) -> None:
    """Raises ConfigError for an unknown rule and for a rule that lacks its key mask."""
    if rule not in get_args(Rule):
        raise ConfigError(f"mask rule {rule!r} is unknown; choose one of {list(get_args(Rule))}")
    if rule != "none" and key_mask is None:
        raise ConfigError(f"mask rule {rule!r} needs a key_mask; give one, or use rule 'none'")


def visible_keys(
    key_mask: Bool[Array, "B T"] | None,
    segment_ids: Int[Array, "B T"],
    rule: Rule,
    sliding_window: int | None = None,
) -> Bool[Array, "B T T"]:
    """[b, i, j]: may query i put weight on key j?

    Yes if both are of the same segment (0 is padding: it neither sees nor is seen), j is not after
    i, j is among the last `sliding_window` keys up to and including i (as in transformers 5: key
    position > query position - sliding_window), and, under `exclude` only, key_mask[j] is True.

        segment_ids  1 1 1 1 2 2 0      sliding_window 3
        key_mask     1 0 1 1 1 0 0

        query    none, multiply      exclude
          0      1 0 0 0 0 0 0       1 0 0 0 0 0 0
          1      1 1 0 0 0 0 0       1 0 0 0 0 0 0
          2      1 1 1 0 0 0 0       1 0 1 0 0 0 0
          3      0 1 1 1 0 0 0       0 0 1 1 0 0 0
          4      0 0 0 0 1 0 0       0 0 0 0 1 0 0
          5      0 0 0 0 1 1 0       0 0 0 0 1 0 0
          6      0 0 0 0 0 0 0       0 0 0 0 0 0 0

    Raises ConfigError for an unknown rule or a missing key mask.
    """
    check_rule(rule, key_mask)
    at = jax.lax.broadcasted_iota(jnp.int32, segment_ids.shape, 1)
    query_at, key_at = at[:, :, None], at[:, None, :]
    visible = (segment_ids[:, :, None] == segment_ids[:, None, :]) & (segment_ids != 0)[:, :, None]
    visible &= key_at <= query_at
    if sliding_window is not None:
        visible &= key_at > query_at - sliding_window
    if rule == "exclude" and key_mask is not None:
        visible &= key_mask[:, None, :]
    return visible


def visible_in_cache(
    at: Int[Array, " B"],
    length: int,
    key_mask: Bool[Array, "B {length}"] | None,
    rule: Rule,
    sliding_window: int | None = None,
) -> Bool[Array, "B 1 {length}"]:
    """`visible_keys` for one query a row, the one at index `at`, over a cache of `length` keys.

        at 2 0      sliding_window 2      key_mask  1 0 1 1
                                                    1 1 1 1

        none, multiply   0 1 1 0      exclude   0 0 1 0
                         1 0 0 0                1 0 0 0

    Raises ConfigError for an unknown rule or a missing key mask.
    """
    check_rule(rule, key_mask)
    key_at = jax.lax.broadcasted_iota(jnp.int32, (at.shape[0], length), 1)
    visible = key_at <= at[:, None]
    if sliding_window is not None:
        visible &= key_at > at[:, None] - sliding_window
    if rule == "exclude" and key_mask is not None:
        visible &= key_mask
    return visible[:, None, :]


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    key_mask: Bool[Array, "B T"] | None,
    segment_ids: Int[Array, "B T"],
    rule: Rule,
    sliding_window: int | None = None,
    implementation: Implementation = "auto",
) -> Float[Array, "B T N H"]:
    """Softmax attention over the visible keys, scale 1/sqrt(H); q and k come after RoPE.

    Query head n reads key-value head n // (N / K). Softmax in float32; the result has the dtype
    of v. The rules, for key_mask m:

      none      m plays no part.
      multiply  the paper's equation, literally: softmax(m_j (q_i . k_j) / sqrt(H)). A masked key
                gets score 0, and so a weight that rivals any other score near 0: this does NOT
                hide it, its value is still read. Computed by zeroing the masked keys, which is
                the same: (q . k) m = q . (m k).
      exclude   what the paper says it wants: a masked key gets no weight, from itself neither.

    A query that sees no key (padding, or `exclude` with everything before it masked) gets zeros,
    and passes no gradient to anything. All implementations give the same, up to rounding, and only
    `dense` forms (T, T); see `choose` for "auto". `splash` off a TPU is interpreted, which takes
    long, and `cudnn` needs a GPU. They want each segment to be one run of neighbours. Raises
    ConfigError as `visible_keys` does.
    """
    check_rule(rule, key_mask)
    platform = target_platform()
    chosen = choose(platform, q) if implementation == "auto" else implementation
    multiplier = key_mask if rule == "multiply" else None
    if chosen == "dense":
        visible = visible_keys(key_mask, segment_ids, rule, sliding_window)
        return attend(q, k, v, visible, multiplier)
    key_ids = ids_of_keys(segment_ids, key_mask if rule == "exclude" else None)
    tiles = _tiles(platform)
    kernel = {
        "blockwise": partial(blockwise, sliding_window=sliding_window, tiles=tiles),
        "splash": partial(splash, sliding_window=sliding_window, interpret=platform != "tpu"),
        "cudnn": partial(channels, sliding_window=sliding_window),
    }[chosen]
    heads, ids = ("batch", None, "heads", None), ("batch", None)
    arrays = (q, _masked(k, multiplier), v, segment_ids, key_ids)
    return on_each_device(kernel, arrays, (heads, heads, heads, ids, ids), heads)


def choose(platform: str, q: Shaped[Array | jax.ShapeDtypeStruct, "B T N H"]) -> Implementation:
    """What "auto" is for such queries on "cpu", "tpu" or "gpu": a kernel by blocks, unless the row
    is no more than one block. On a GPU that is cuDNN's where it takes the heads: an H200 needs 3.1
    ms for 8 rows of 2,048 tokens, forward and backward, where `blockwise` needs 9 to 17
    (docs/benchmarks.md).
    """
    kernel, block = (
        ("splash", LANES) if platform == "tpu" else ("blockwise", _tiles(platform).block)
    )
    if q.shape[1] <= block:
        return "dense"
    return "cudnn" if platform == "gpu" and takes(q) and has_cudnn() else kernel


def target_platform() -> str:
    """What is compiled for: the mesh of `jax.set_mesh` says it, else it is the default device.

    They differ where a program for a TPU is compiled on a machine that has none.
    """
    device = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    return jax.default_backend() if device is None else device.platform


def _tiles(platform: str) -> Tiles:
    return CPU_TILES if platform == "cpu" else WIDE_TILES


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    visible: Bool[Array, "B T S"],
    multiplier: Bool[Array, "B S"] | None = None,
) -> Float[Array, "B T N H"]:
    """What `attention` does once it is known who sees whom; S keys may stand beside T queries.

    `multiplier` is the key mask of the rule "multiply": where it is False the key is zeroed.
    """
    visible = visible[:, None, None, :, :]
    k = _masked(k, multiplier)
    batch, tokens, heads, width = q.shape
    grouped = q.reshape(batch, tokens, k.shape[2], heads // k.shape[2], width)
    scores = jnp.einsum("btkgh,bskh->bkgts", grouped, k, preferred_element_type=jnp.float32)
    # A finite floor, not -inf, by which a row without a visible key would be NaN on its way to 0
    # (and jax_debug_nans, which is for finding real ones, would stop there).
    scores = jnp.where(visible, scores * width**-0.5, jnp.finfo(jnp.float32).min)
    weights = jnp.where(visible, jax.nn.softmax(scores, axis=-1), 0.0).astype(v.dtype)
    mixed = jnp.einsum("bkgts,bskh->btkgh", weights, v, preferred_element_type=jnp.float32)
    return mixed.reshape(q.shape).astype(v.dtype)


def _masked(
    k: Float[Array, "B S K H"], multiplier: Bool[Array, "B S"] | None
) -> Float[Array, "B S K H"]:
    return (
        k if multiplier is None else jnp.where(multiplier[:, :, None, None], k, jnp.zeros_like(k))
    )
