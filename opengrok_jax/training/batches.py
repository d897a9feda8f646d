"""Examples become rows, rows become batches; nothing here depends on a device or on time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from opengrok_jax.errors import DataError
from opengrok_jax.records import MaskedExample
from opengrok_jax.tokenizer import RESPONSE

Normalize = Literal["token", "example"]

CAPACITY_MULTIPLE = 64  # a capacity that hardly ever changes with the data: fewer recompilations


class Batch(NamedTuple):
    """Packed rows, (B, T) each, or (M, b, T) once cut into microbatches; NumPy or JAX arrays.

    Attributes:
      tokens: ids; 0 where there is padding.
      segment_ids: 1, 2, .. for the examples of a row, 0 = padding.
      positions: index within the segment.
      key_mask: True = may be attended to.
      targets: the token to predict at this position; 0 where loss_weight is 0.
      loss_weight: factor of this position's loss.
      norm_weight: its part of the number that the summed loss is divided by.
    """

    tokens: Int32[Any, "... T"]
    segment_ids: Int32[Any, "... T"]
    positions: Int32[Any, "... T"]
    key_mask: Bool[Any, "... T"]
    targets: Int32[Any, "... T"]
    loss_weight: Float32[Any, "... T"]
    norm_weight: Float32[Any, "... T"]


def check_examples(
    examples: Sequence[MaskedExample], *, row_tokens: int, vocab_size: int, where: str
) -> None:
    """Refuses examples that training would have to cut, skip or guess about.

    Args:
      examples: of one split.
      row_tokens: T; an example must fit into one row.
      vocab_size: V of the model.
      where: the file, for the message.

    Raises:
      DataError: an example has no response token to predict, is longer than a row, hides its
        first token, or holds an id outside of the vocabulary; names the example.
    """
    for example in examples:
        length, name = len(example.tokens), f"{where}: example {example.id}"
        if length > row_tokens:
            raise DataError(
                f"{name} has {length} tokens, a row holds {row_tokens}; raise row_tokens, or drop "
                "the example before the mask is built"
            )
        if not (example.roles[1:] == RESPONSE).any():
            raise DataError(
                f"{name} has no response token to learn from; drop it, or build the mask anew"
            )
        if not example.key_mask[0]:
            raise DataError(
                f"{name} hides its first token, which would leave queries without any key; build "
                "the mask anew with `opengrok mask`"
            )
        low, high = int(example.tokens.min()), int(example.tokens.max())
        if low < 0 or high >= vocab_size:
            raise DataError(
                f"{name} holds token id {low if low < 0 else high}, the model's vocabulary is 0 to "
                f"{vocab_size - 1}; use the tokenizer that belongs to the model"
            )


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


def fill(
    rows: Sequence[Sequence[int]],
    examples: Sequence[MaskedExample],
    *,
    row_tokens: int,
    normalize: Normalize,
) -> Batch:
    """The arrays of some rows. Position t bears loss if t+1 is of the same example's response.

        roles          0 1 0 2 2   0 1 2 2
        tokens         5 6 7 8 9   5 4 8 9   0 0 0
        segment_ids    1 1 1 1 1   2 2 2 2   0 0 0
        positions      0 1 2 3 4   0 1 2 3   0 1 2
        key_mask       1 0 1 1 1   1 1 1 0   0 0 0
        targets        0 0 8 9 0   0 8 9 0   0 0 0
        loss_weight    0 0 1 1 0   0 1 1 0   0 0 0
        norm_weight    0 0 1 1 0   0 1 1 0   0 0 0    normalize = "token"
        norm_weight    0 0 1 0 0   0 1 0 0   0 0 0    normalize = "example"

    sum(loss_weight * loss) / sum(norm_weight) is thus the mean over response tokens, or (the
    paper's) the mean over examples of their summed response loss, whatever the packing. Weights
    go by role, never by token id: an end-of-answer token that equals the padding is learnt.

    Args:
      rows: indices into `examples` per row; an empty row is all padding.
      examples: of the split; each passed `check_examples`.
      row_tokens: T.
      normalize: "token" or "example".
    """
    shape = (len(rows), row_tokens)
    tokens, segment_ids, positions, targets = (np.zeros(shape, np.int32) for _ in range(4))
    loss_weight, norm_weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    key_mask = np.zeros(shape, bool)
    for b, row in enumerate(rows):
        start = 0
        for segment, index in enumerate(row, start=1):
            example = examples[index]
            end = start + len(example.tokens)
            tokens[b, start:end] = example.tokens
            segment_ids[b, start:end] = segment
            positions[b, start:end] = np.arange(end - start)
            key_mask[b, start:end] = example.key_mask
            bearing = np.flatnonzero(example.roles[1:] == RESPONSE) + start
            targets[b, bearing] = tokens[b, bearing + 1]
            loss_weight[b, bearing] = 1
            norm_weight[b, bearing if normalize == "token" else bearing[:1]] = 1
            start = end
        positions[b, start:] = np.arange(row_tokens - start)
    assert key_mask[(positions == 0) & (segment_ids > 0)].all()
    return Batch(tokens, segment_ids, positions, key_mask, targets, loss_weight, norm_weight)


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


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One split with its materialised plan.

    Attributes:
      examples: of the split; each passed `check_examples`.
      rows: indices of the examples in each row.
      order: (steps, B) rows of each step, -1 = padding.
      row_tokens, normalize: as in `fill`.
    """

    examples: Sequence[MaskedExample]
    rows: Sequence[Sequence[int]]
    order: Int32[np.ndarray, "steps B"]
    row_tokens: int
    normalize: Normalize

    def batch(self, index: int) -> Batch:
        """The arrays of step `index`, counted from 0."""
        rows = [self.rows[row] if row >= 0 else () for row in self.order[index]]
        return fill(rows, self.examples, row_tokens=self.row_tokens, normalize=self.normalize)

    def ids(self, index: int) -> list[str]:
        """The examples of step `index`."""
        rows = [self.rows[row] for row in self.order[index] if row >= 0]
        return [self.examples[i].id for row in rows for i in row]

    def bearing(self) -> Int32[np.ndarray, " rows"]:
        """Loss-bearing positions of each row."""
        counts = [int((example.roles[1:] == RESPONSE).sum()) for example in self.examples]
        return np.array([sum(counts[i] for i in row) for row in self.rows], np.int32)

    def capacity(self, parts: int) -> int:
        """C when each batch is gathered in so many parts."""
        return loss_capacity(self.order, self.bearing(), parts=parts, row_tokens=self.row_tokens)

    def efficiency(self) -> float:
        """Share of the rows' tokens that is no padding."""
        used = sum(len(example.tokens) for example in self.examples)
        return used / (len(self.rows) * self.row_tokens)


def packed(
    examples: Sequence[MaskedExample],
    order: Callable[[int], Int32[np.ndarray, "steps B"]],
    *,
    row_tokens: int,
    normalize: Normalize,
) -> Packed:
    """Packs a split; `order` says which rows each step takes, given their number."""
    rows = pack([len(example.tokens) for example in examples], row_tokens)
    return Packed(
        examples=examples,
        rows=rows,
        order=order(len(rows)),
        row_tokens=row_tokens,
        normalize=normalize,
    )
