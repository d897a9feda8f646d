"""Masks as ids: what a kernel needs to know of who sees whom, in (B, T) and not in (B, T, T).

Query i sees key j if `query_ids[i] == key_ids[j]`, j is not after i, and j is among the last
`sliding_window` keys. Both the packing and the rule "exclude" fit into that: a key nobody may see
has the id HIDDEN, which no query has.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped

HIDDEN = -1


def ids_of_keys(
    segment_ids: Int[Array, "B T"], key_mask: Bool[Array, "B T"] | None
) -> Int[Array, "B T"]:
    """The segment of each key that may be seen, HIDDEN for padding and where key_mask is False.

    segment_ids  1  1  1  2  2  0
    key_mask     1  0  1  1  0  1
    key ids      1 -1  1  2 -1 -1
    """
    shown = segment_ids != 0
    if key_mask is not None:
        shown &= key_mask
    return jnp.where(shown, segment_ids, HIDDEN)


def sees_a_key(
    query_ids: Int[Array, "B T"],
    key_ids: Int[Array, "B T"],
    sliding_window: int | None = None,
) -> Bool[Array, "B T"]:
    """Which queries see any key, found in O(T); each segment is one run of neighbours.

    A kernel that knows only finite scores averages over hidden keys where nothing is to be seen;
    what it gives there has to be thrown away.

        query ids  1  1  1  2  2  2  0      sliding_window 2
        key ids   -1  1 -1  2 -1 -1 -1

        sees       0  1  1  1  1  0  0      and without a window: 0 1 1 1 1 1 0
    """
    index = jax.lax.broadcasted_iota(jnp.int32, query_ids.shape, 1)
    begins = query_ids[:, 1:] != query_ids[:, :-1]
    begins = jnp.pad(begins, ((0, 0), (1, 0)), constant_values=True)
    first = jax.lax.cummax(jnp.where(begins, index, 0), axis=1)
    if sliding_window is not None:
        first = jnp.maximum(first, index - (sliding_window - 1))
    last = jax.lax.cummax(jnp.where(key_ids == query_ids, index, -1), axis=1)
    return last >= first


def pad_to(x: Shaped[Array, "B T ..."], multiple: int, fill: int = 0) -> Shaped[Array, "B S ..."]:
    """x with `fill` behind its tokens, until their number divides by `multiple`."""
    missing = -x.shape[1] % multiple
    if not missing:
        return x
    widths = [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2)
    return jnp.pad(x, widths, constant_values=fill)
