"""Rows of unequal length as batches of few distinct shapes: so little is compiled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Int32

from opengrok_jax.errors import ConfigError


def check_room(what: str, length: int, new_tokens: int, context: int) -> None:
    """Refuses a row that does not fit; nothing is ever cut silently.

    Args:
      what: names the row in the error.
      length: its tokens, without the answer that is yet to be generated.
      new_tokens: room that the answer needs.

    Raises:
      ConfigError: the row is empty, or longer than the context less `new_tokens`.
    """
    if length == 0:
        raise ConfigError(f"{what} is empty; a prompt needs at least one token")
    if length + new_tokens > context:
        raise ConfigError(
            f"{what} has {length} tokens; with {new_tokens} for the answer that is more than the "
            f"student's context of {context}; shorten or drop it, allow fewer new tokens, or "
            "take a student of longer context"
        )


def padded_length(length: int, context: int) -> int:
    """The next of 32, 48, 64, 96, 128, 192, ... and at most the context.

    Few distinct lengths mean few compilations; at most a third of a row is padding.

    >>> [padded_length(n, 100) for n in (1, 32, 33, 49, 65, 97)]
    [32, 32, 48, 64, 96, 100]
    """
    size = 32
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, context)


def batches(
    lengths: Sequence[int], batch_size: int, context: int
) -> Iterator[tuple[list[int], int]]:
    """(indices, padded length) of each batch: rows of like length, the longest first.

        lengths     40 9 12 70 9     batch_size 2
        batches     [3 0] 96,  [2 1] 32,  [4] 32

    So what does not fit into memory shows at once, and only the cheapest batch is not full.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(lengths), batch_size):
        rows = longest_first[start : start + batch_size]
        yield rows, padded_length(lengths[rows[0]], context)


def pad_rows(
    rows: Sequence[Int32[np.ndarray, " _"]], count: int, length: int
) -> tuple[Int32[np.ndarray, "count length"], Int32[np.ndarray, " count"]]:
    """The rows flush left in a (count, length) array of zeros, and their lengths, 0 for no row.

    rows  [7 8 9] [5]     tokens   7 8 9 0     lengths  3
                                   5 0 0 0              1
                                   0 0 0 0              0
    """
    tokens, lengths = np.zeros((count, length), np.int32), np.zeros(count, np.int32)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = row
        lengths[at] = len(row)
    return tokens, lengths


def row_segments(lengths: Int[Array, " B"], length: int) -> Int32[Array, "B {length}"]:
    """Segment 1 up to each row's length, 0 = padding after it.

    lengths 3 1     segments  1 1 1 0
                              1 0 0 0
    """
    index = jax.lax.broadcasted_iota(jnp.int32, (lengths.shape[0], length), 1)
    return (index < lengths[:, None]).astype(jnp.int32)
