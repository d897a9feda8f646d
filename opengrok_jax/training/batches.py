"""Rows of examples become arrays; nothing here depends on a device or on time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt32

from opengrok_jax.errors import DataError
from opengrok_jax.records import MaskedExample
from opengrok_jax.soft_file import ABSENT, SoftFile, response_positions
from opengrok_jax.tokenizer import RESPONSE
from opengrok_jax.training.packing import loss_capacity, pack
from opengrok_jax.training.redraw import Redraw, example_keys

Normalize = Literal["token", "example"]
LossWeight = Literal["uniform", "keep_prob"]


class Soft(NamedTuple):
    """The teacher's distributions, k slots at each position; see soft_file.py.

    Attributes:
      ids: of the student's vocabulary; `ABSENT` where there is no token.
      logprobs: natural logarithms.
    """

    ids: Int32[Any, "... T k"]
    logprobs: Float32[Any, "... T k"]


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
      soft: of what is predicted here; None where the objective reads none.
      redraw: what another key_mask is drawn from; None = key_mask is taken as it is.
    """

    tokens: Int32[Any, "... T"]
    segment_ids: Int32[Any, "... T"]
    positions: Int32[Any, "... T"]
    key_mask: Bool[Any, "... T"]
    targets: Int32[Any, "... T"]
    loss_weight: Float32[Any, "... T"]
    norm_weight: Float32[Any, "... T"]
    soft: Soft | None = None
    redraw: Redraw | None = None


def check_examples(
    examples: Sequence[MaskedExample],
    *,
    row_tokens: int,
    vocab_size: int,
    where: str,
    redrawn: bool = False,
) -> None:
    """Refuses examples that training would have to cut, skip or guess about.

    Args:
      examples: of one split.
      row_tokens: T; an example must fit into one row.
      vocab_size: V of the model.
      where: the file, for the message.
      redrawn: masks will be drawn again from keep_prob.

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
        if not example.key_mask[0] or (redrawn and example.keep_prob[0] < 1):
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


def fill(
    rows: Sequence[Sequence[int]],
    examples: Sequence[MaskedExample],
    *,
    row_tokens: int,
    normalize: Normalize,
    loss_by: LossWeight = "uniform",
    soft_file: SoftFile | None = None,
    redraw_keys: UInt32[np.ndarray, "N 2"] | None = None,
    epochs: Sequence[int] = (),
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

    With `loss_by` "keep_prob" the loss of a token counts as much as it is likely to stay visible,
    instead of its key being hidden. "token" is then the weighted mean over response tokens; with
    "example" the divisor stays the number of examples. Of the last example above:

        keep_prob      1 .5 .4 1
        loss_weight    0 .4 1  0          the token predicted at t is t + 1
        norm_weight    0 .4 1  0          normalize = "token"
        norm_weight    0 1  0  0          normalize = "example"

    Args:
      rows: indices into `examples` per row; an empty row is all padding.
      examples: of the split; each passed `check_examples`.
      row_tokens: T.
      normalize: "token" or "example".
      loss_by: "uniform" or "keep_prob".
      soft_file: gives `soft`.
      redraw_keys: of all examples; gives `redraw`.
      epochs: of each row, where there are keys.
    """
    shape = (len(rows), row_tokens)
    soft = None if soft_file is None else _no_soft(shape, soft_file.k)
    tokens, segment_ids, positions, targets = (np.zeros(shape, np.int32) for _ in range(4))
    loss_weight, norm_weight = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    key_mask = np.zeros(shape, bool)
    redraw = None if redraw_keys is None else Redraw.empty(shape)
    for b, row in enumerate(rows):
        start = 0
        for segment, index in enumerate(row, start=1):
            example = examples[index]
            end = start + len(example.tokens)
            tokens[b, start:end] = example.tokens
            segment_ids[b, start:end] = segment
            positions[b, start:end] = np.arange(end - start)
            key_mask[b, start:end] = example.key_mask
            bearing = response_positions(example) + start
            targets[b, bearing] = tokens[b, bearing + 1]
            counts = 1 if loss_by == "uniform" else example.keep_prob[bearing - start + 1]
            loss_weight[b, bearing] = counts
            if normalize == "token":
                norm_weight[b, bearing] = counts
            else:
                norm_weight[b, bearing[:1]] = 1
            if soft and soft_file and (stored := soft_file.rows(example)):
                soft.ids[b, bearing], soft.logprobs[b, bearing] = stored.ids, stored.logprobs
            if redraw and redraw_keys is not None:
                redraw.keep_prob[b, start:end] = example.keep_prob
                redraw.key[b, start:end] = redraw_keys[index]
                redraw.epoch[b, start:end] = epochs[b]
            start = end
        positions[b, start:] = np.arange(row_tokens - start)
    assert key_mask[(positions == 0) & (segment_ids > 0)].all()
    arrays = (tokens, segment_ids, positions, key_mask, targets, loss_weight, norm_weight)
    return Batch(*arrays, soft, redraw)


def _no_soft(shape: tuple[int, int], k: int) -> Soft:
    return Soft(np.full((*shape, k), ABSENT, np.int32), np.zeros((*shape, k), np.float32))


@dataclass(frozen=True, kw_only=True)
class Packed:
    """One split with its materialised plan.

    Attributes:
      examples: of the split; each passed `check_examples`.
      rows: indices of the examples in each row.
      order: (steps, B) rows of each step, -1 = padding.
      row_tokens, normalize, loss_by, soft_file, redraw_keys: as in `fill`.
    """

    examples: Sequence[MaskedExample]
    rows: Sequence[Sequence[int]]
    order: Int32[np.ndarray, "steps B"]
    row_tokens: int
    normalize: Normalize
    loss_by: LossWeight = "uniform"
    soft_file: SoftFile | None = None
    redraw_keys: UInt32[np.ndarray, "N 2"] | None = None

    def batch(self, index: int) -> Batch:
        """The arrays of step `index`, counted from 0."""
        rows = [self.rows[row] if row >= 0 else () for row in self.order[index]]
        # An epoch is a permutation of all rows, one after the other without a gap.
        seen = index * self.order.shape[1] + np.arange(self.order.shape[1])
        return fill(
            rows,
            self.examples,
            row_tokens=self.row_tokens,
            normalize=self.normalize,
            loss_by=self.loss_by,
            soft_file=self.soft_file,
            redraw_keys=self.redraw_keys,
            epochs=(seen // len(self.rows)).tolist(),
        )

    def ids(self, index: int) -> list[str]:
        """The examples of step `index`."""
        rows = [self.rows[row] for row in self.order[index] if row >= 0]
        return [self.examples[i].id for row in rows for i in row]

    def bearing(self) -> Int32[np.ndarray, " rows"]:
        """Loss-bearing positions of each row."""
        counts = [len(response_positions(example)) for example in self.examples]
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
    loss_by: LossWeight = "uniform",
    soft_file: SoftFile | None = None,
    redraw_seed: int | None = None,
) -> Packed:
    """Packs a split; `order` says which rows each step takes, given their number.

    With `redraw_seed` the mask is drawn again in each epoch.
    """
    rows = pack([len(example.tokens) for example in examples], row_tokens)
    return Packed(
        examples=examples,
        rows=rows,
        order=order(len(rows)),
        row_tokens=row_tokens,
        normalize=normalize,
        loss_by=loss_by,
        soft_file=soft_file,
        redraw_keys=None if redraw_seed is None else example_keys(redraw_seed, examples),
    )
