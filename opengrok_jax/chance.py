"""Uniform numbers that are a pure function of where they are used: no order, no shard, no device.

The draw of a mask is keyed by what it belongs to. Masking makes the first one offline with NumPy,
training may make another one in every epoch on its devices; the code is the same, the bits are
the same.

    key       64 bits of SHA-256 of (seed, example id, purpose)
    counter   (index of the token, epoch)
    u         upper 24 bits of the first word of Threefry-2x32 with 20 rounds, times 2**-24

Threefry is the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1,
2, 3" (SC11), and the one of JAX. It is written out here because the acquisition side knows no JAX,
and because no version of a library may ever change a mask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from opengrok_jax.records import canonical_json

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def keys(seed: int, ids: Iterable[str], purpose: str) -> np.ndarray:
    """The key of each example for one purpose; uint32 [N, 2]."""
    digests = (
        hashlib.sha256(
            canonical_json([seed, name, purpose]).encode(errors="surrogatepass")
        ).digest()[:8]
        for name in ids
    )
    return np.frombuffer(b"".join(digests), ">u4").astype(np.uint32).reshape(-1, 2)


def uniform(key: Any, index: Any, epoch: Any) -> Any:
    """Uniforms in [0,1), one for each token.

    Args:
      key: uint32 [..., 2], as `keys` gives them, of each token.
      index: uint32 [...], of the token in its example.
      epoch: uint32 [...], 0 for the draw that is stored.

    Returns:
      float32 [...], multiples of 2**-24; NumPy or JAX as the arguments are.
    """
    word, _ = threefry(key[..., 0], key[..., 1], index, epoch)
    return (word >> 8).astype(np.float32) * np.float32(2.0**-24)


def threefry(key0: Any, key1: Any, counter0: Any, counter1: Any) -> tuple[Any, Any]:
    """Threefry-2x32, 20 rounds: two words out of two words of key and two of counter.

    Args:
      key0, key1, counter0, counter1: uint32 arrays of one shape of at least one axis.
    """
    schedule = (key0, key1, key0 ^ key1 ^ np.uint32(_PARITY))
    x, y = counter0 + key0, counter1 + key1
    for group in range(5):
        for turn in _ROTATIONS[group % 2]:
            x = x + y
            y = x ^ ((y << turn) | (y >> (32 - turn)))
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return x, y


def of_tokens(seed: int, ids: Iterable[str], purpose: str, lengths: np.ndarray) -> np.ndarray:
    """The uniforms of epoch 0 for all tokens of some examples, one after the other.

    Args:
      seed, ids, purpose: as in `keys`.
      lengths: int [N], tokens of each example.

    Returns:
      float32 [sum of lengths].
    """
    key = np.repeat(keys(seed, ids, purpose), lengths, axis=0)
    index = indices(lengths).astype(np.uint32)
    return uniform(key, index, np.zeros_like(index))


def indices(lengths: np.ndarray) -> np.ndarray:
    """The place of every token in its own example; int64.

    >>> indices(np.array([2, 0, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    lengths = np.asarray(lengths, np.int64)
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(before, lengths)
