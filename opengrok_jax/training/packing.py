"""Which example goes into which row and which row into which step; nothing depends on a device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

CAPACITY_MULTIPLE = 64  # a capacity that hardly ever changes with the data: fewer recompilations


def pack(lengths: Sequence[int], row_tokens: int) -> list[list[int]]:
    """Which example goes into which row: longest first, each into the fullest row it fits (BFD).

    lengths     5 3 4 2 1, row_tokens 8
    rows        [0, 1] [2, 3, 4]

    Args:
      lengths: tokens of each example, none above `row_tokens`.
      row_tokens: T.

    Returns:
      Per row the indices of its examples, in the order in which they lie in the row.
    """
    rows: list[list[int]] = []
    with_space: list[list[int]] = [[] for _ in range(row_tokens + 1)]  # free tokens -> rows
    occupied = 0  # bit n is set where with_space[n] holds a row: finds the best fit without a scan
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        assert 0 < length <= row_tokens, (index, length, row_tokens)
        fitting = occupied >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = with_space[space].pop()
            if not with_space[space]:
                occupied ^= 1 << space
        else:
            space, row = row_tokens, len(rows)
            rows.append([])
        rows[row].append(index)
        with_space[space - length].append(row)
        occupied |= 1 << (space - length)
    return rows


def data_order(
    rows: int, *, rows_per_batch: int, epochs: float, max_steps: int, seed: int
) -> Int32[np.ndarray, "steps B"]:
    """Which rows are trained on in which step: a pure function of (seed, step).

    Every epoch is a permutation of all rows; the epochs follow each other without a gap, so that a
    batch may end one and begin the next, and only the very last batch can have rows to spare.

        4 rows, 3 in a batch, 2 epochs, seed 0      0 2 1    3 | 3 2    1 0 -1

    Args:
      rows: R, how many there are.
      rows_per_batch: B.
      epochs: how often each row is seen; a fraction is allowed.
      max_steps: cut after so many steps; 0 = no limit.
      seed: of the permutations.

    Returns:
      Row indices; -1 is a row of padding. Fewer epochs or steps give the beginning of the same.
    """
    total = max(round(epochs * rows), 1)
    if max_steps:
        total = min(total, max_steps * rows_per_batch)
    whole = [_permutation(rows, seed, epoch) for epoch in range(-(-total // rows))]
    order = np.full(-(-total // rows_per_batch) * rows_per_batch, -1, np.int32)
    order[:total] = np.concatenate(whole)[:total]
    return order.reshape(-1, rows_per_batch)


def in_order(rows: int, *, rows_per_batch: int) -> Int32[np.ndarray, "steps B"]:
    """All rows once, first to last, for an evaluation; -1 is a row of padding."""
    order = np.full(-(-rows // rows_per_batch) * rows_per_batch, -1, np.int32)
    order[:rows] = np.arange(rows)
    return order.reshape(-1, rows_per_batch)


def _permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    # The raw Philox counter stream: unlike Generator.permutation it never changes with NumPy.
    draws = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(rows)
    return np.argsort(draws, kind="stable")


def loss_capacity(
    order: Int32[np.ndarray, "steps B"],
    bearing: Int32[np.ndarray, " rows"],
    *,
    parts: int,
    row_tokens: int,
) -> int:
    """C: the most loss-bearing positions that any part of any batch has, rounded up.

        bearing    3 5 2 4       of rows 0 to 3
        order      2 0 3 1       parts 2: (2 + 3), (4 + 5) -> 9 -> 64, at most 2 rows x T

    Args:
      order: rows of each step.
      bearing: loss-bearing positions of each row.
      parts: equal parts of a batch (microbatches x groups) that are gathered on their own.
      row_tokens: T.
    """
    counts = np.append(bearing, 0)[order]  # -1 finds the 0
    most = int(counts.reshape(len(order) * parts, -1).sum(axis=1).max())
    rounded = -(-most // CAPACITY_MULTIPLE) * CAPACITY_MULTIPLE
    return min(rounded, order.shape[1] // parts * row_tokens)
