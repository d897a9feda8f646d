"""Rows of unequal length as batches that waste little, in few shapes: each is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

WASTE = 0.08  # of all tokens: what we are content with
SHAPES = 12  # the most that are compiled for one question


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows that go through a model together.

    Attributes:
      rows: their indices.
      count: rows of the array, of which the last may be empty.
      length: tokens of each, padding included.
    """

    rows: tuple[int, ...]
    count: int
    length: int


def plan_batches(lengths: Sequence[int], batch_size: int, *, beside: int = 0) -> list[Batch]:
    """Batches of at most `batch_size` rows, the longest first, in as few shapes as waste allows.

        lengths   9 40 10 41 9 9     batch_size 2
        batches   [3 1] 2 x 41,   [2 0] 2 x 10,   [5 4] 2 x 10

    The rows, sorted, are cut into groups; each is padded to its longest row and split into batches
    of the same number of rows. The cuts are those that waste least (dynamic programming over the
    distinct lengths), their number the smallest that wastes no more than `WASTE`.

    Args:
      beside: tokens that each row has besides, none of them padding but in empty rows.
    """
    if not lengths:
        return []
    sizes, counts = np.unique(lengths, return_counts=True)
    planned: list[Batch] = []
    for cuts in _cuts(sizes, counts, batch_size, beside):
        planned = _batches(lengths, sizes, cuts, batch_size)
        if waste(planned, lengths, beside=beside) <= WASTE:
            break
    return planned


def waste(batches: Sequence[Batch], lengths: Sequence[int], *, beside: int = 0) -> float:
    """Share of padding among all tokens that go through the model."""
    computed = sum(b.count * (b.length + beside) for b in batches)
    return 1 - sum(length + beside for length in lengths) / computed if computed else 0.0


def _batches(
    lengths: Sequence[int], sizes: np.ndarray, cuts: list[int], batch_size: int
) -> list[Batch]:
    """The batches of the groups sizes[cuts[i]:cuts[i + 1]], the longest first."""
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    ranked = np.array([lengths[i] for i in longest_first])
    found = []
    for low, high in reversed([*pairwise(cuts)]):
        group = np.flatnonzero((ranked >= sizes[low]) & (ranked <= sizes[high - 1]))
        count = _rows_each(len(group), batch_size)
        for start in range(0, len(group), count):
            rows = tuple(longest_first[i] for i in group[start : start + count])
            found.append(Batch(rows=rows, count=count, length=int(sizes[high - 1])))
    return found


def _rows_each(rows: int, batch_size: int) -> int:
    """Rows of each batch, when they are as equal as can be."""
    batches = -(-rows // batch_size)
    return -(-rows // batches)


def _cuts(sizes: np.ndarray, counts: np.ndarray, batch_size: int, beside: int):
    """The best cuts into 1, 2, .. groups: indices of `sizes` where a group begins, and the end."""
    distinct = len(sizes)
    before = np.concatenate([[0], np.cumsum(counts)])

    def cost(low: int, high: int) -> int:
        rows = int(before[high] - before[low])
        each = _rows_each(rows, batch_size)
        return -(-rows // each) * each * (int(sizes[high - 1]) + beside)

    costs = [[cost(low, high) for low in range(high)] for high in range(1, distinct + 1)]
    best = [cost(0, high) for high in range(1, distinct + 1)]  # of the first `high` sizes
    starts: list[list[int]] = [[0] * distinct]
    for groups in range(1, min(SHAPES, distinct) + 1):
        if groups > 1:
            # best[high] with one group more: where does the last one begin?
            further, began = [10**18] * distinct, [0] * distinct
            for high in range(groups, distinct + 1):
                tried = np.array(best[groups - 2 : high - 1]) + costs[high - 1][groups - 1 : high]
                at = int(np.argmin(tried))
                further[high - 1], began[high - 1] = int(tried[at]), at + groups - 1
            best = further
            starts.append(began)
        cuts, high = [distinct], distinct
        for began in reversed(starts):
            high = began[high - 1] if high else 0
            cuts.append(high)
        yield sorted(set(cuts))
