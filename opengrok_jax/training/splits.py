"""The examples of a masked file as two packed splits, held against what the model can take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from opengrok_jax.errors import DataError
from opengrok_jax.records import MaskedExample
from opengrok_jax.soft_file import SoftFile, response_positions
from opengrok_jax.training import packing
from opengrok_jax.training.batches import (
    LossWeight,
    Normalize,
    Packed,
    check_examples,
    packed,
)
from opengrok_jax.training.step import place


class _Chosen(Sequence[MaskedExample]):
    """Some examples of a sequence that makes them when they are asked for."""

    def __init__(self, examples: Sequence[MaskedExample], places: np.ndarray):
        self._examples, self._places = examples, places

    def __len__(self) -> int:
        """How many there are."""
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        """One of them; of a slice, a sequence like this one."""
        if isinstance(index, slice):
            return _Chosen(self._examples, self._places[index])
        return self._examples[int(self._places[index])]


def of_split(examples: Sequence[MaskedExample], name: str) -> Sequence[MaskedExample]:
    """The examples of one split, in order; none of them is held."""
    places = np.array([at for at, e in enumerate(examples) if e.split == name], np.int64)
    return _Chosen(examples, places)


def pack_splits(
    examples: Sequence[MaskedExample],
    *,
    masked_file: Path,
    vocab_size: int,
    row_tokens: int,
    rows_per_batch: int,
    microbatches: int,
    epochs: float,
    max_steps: int,
    eval_every: int,
    normalize: Normalize,
    seed: int,
    loss_weight: LossWeight = "uniform",
    soft_file: SoftFile | None = None,
    redraw_seed: int | None = None,
) -> tuple[Packed, Packed | None]:
    """The train split in the order in which it is learnt, and the validation split.

    Args:
      examples: of both splits, from `masked_file`.
      vocab_size: V of the model.
      row_tokens, rows_per_batch, microbatches, epochs, max_steps, eval_every, normalize, seed: as
        in `finetune.run`; with eval_every 0 there is no validation split.
      loss_weight: of the train split; the validation loss is that of every token alike, so that
        runs can be compared.
      soft_file: distributions for the train split.
      redraw_seed: of the masks of the train split, which change with each epoch; None = they stay
        as they are stored. The validation split always does.

    Raises:
      DataError: a split is empty, or an example cannot be learnt from.
    """
    check_examples(
        examples,
        row_tokens=row_tokens,
        vocab_size=vocab_size,
        where=str(masked_file),
        redrawn=redraw_seed is not None,
    )
    splits = {name: of_split(examples, name) for name in ("train", "valid")}
    for name in ("train", "valid") if eval_every else ("train",):
        if not splits[name]:
            raise DataError(
                f"{masked_file} has no {name} examples; raise the share of the split when the "
                "answers are curated" + (", or set eval_every to 0" if name == "valid" else "")
            )
    train = packed(
        splits["train"],
        lambda rows: packing.data_order(
            rows, rows_per_batch=rows_per_batch, epochs=epochs, max_steps=max_steps, seed=seed
        ),
        row_tokens=row_tokens,
        normalize=normalize,
        loss_by=loss_weight,
        soft_file=soft_file,
        redraw_seed=redraw_seed,
    )
    if not eval_every:
        return train, None
    in_order = partial(packing.in_order, rows_per_batch=rows_per_batch // microbatches)
    return train, packed(splits["valid"], in_order, row_tokens=row_tokens, normalize=normalize)


def soft_share(train: Packed, vocab_size: int) -> float:
    """Share of the response tokens of the train split that have a stored distribution.

    Raises:
      DataError: they belong to other tokens, hold an id outside of the vocabulary, or there are
        none.
    """
    assert train.soft_file is not None
    total = stored = 0
    for example in train.examples:
        total += len(response_positions(example))
        rows = train.soft_file.rows(example)
        if rows is None:
            continue
        if (highest := int(rows.ids.max())) >= vocab_size:
            raise DataError(
                f"the soft targets of example {example.id} hold token id {highest}, the model's "
                f"vocabulary is 0 to {vocab_size - 1}; make them with its tokenizer"
            )
        stored += int(np.any(rows.ids >= 0, axis=1).sum())
    if not stored:
        raise DataError(
            "no response token of the train split has a stored distribution; make soft targets "
            "for this masked file, or choose another distill.loss than 'topk'"
        )
    return stored / total


def mean_loss(
    one: Callable[..., tuple[jax.Array, jax.Array]],
    data: Packed,
    devices: Mesh,
    frozen: tuple[Any, ...],
    params: Any,
) -> tuple[float, list[str]]:
    """Loss over a whole split: all sums over all weights, divided once, added up in float64.

    Args:
      one: from `step.make_eval_step`.
      data: the split.
      devices: the mesh.
      frozen, params: of the model.

    Returns:
      The loss, and the ids of the examples in batches whose sums are not finite.
    """
    placed = (place(data.batch(i), devices) for i in range(len(data.order)))
    parts = [one(params, batch, *frozen) for batch in placed]
    sums = np.array(jax.device_get(parts), np.float64)
    bad = np.flatnonzero(~np.isfinite(sums).all(axis=1)).tolist()
    total, weight = np.sum(sums, axis=0)
    return float(total / weight), [name for index in bad for name in data.ids(index)]
