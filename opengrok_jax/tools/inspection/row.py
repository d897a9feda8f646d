"""A packed training row as the model will see it.

The row is filled by the very code that fills batches, so what is shown is what is learnt from.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax.errors import ConfigError, DataError, needs_extra
from opengrok_jax.tokenizer import ROLES, ChatTokenizer
from opengrok_jax.tools.inspection import reading
from opengrok_jax.tools.inspection.tokens import spelled

PADDING = "padding"


@dataclass(frozen=True, kw_only=True)
class Position:
    """One position of the row; the fields of `training.batches.Batch`, and its token's text."""

    at: int
    segment: int
    position: int
    token: int
    text: str
    role: str
    special: bool
    visible: bool
    target: int
    target_text: str
    loss_weight: float
    norm_weight: float


@dataclass(frozen=True, kw_only=True)
class Document:
    """An example in the row: `segment` 1, 2, .. from `start` to `stop`."""

    segment: int
    id: str
    number: int
    start: int
    stop: int
    hidden: int
    bearing: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row.

    Attributes:
      number, rows: which of how many.
      epoch: whose mask this is.
      row_tokens, normalize, rule: settings of the training.
      steps: the first updates that take it in.
      documents: the examples in it.
      positions: all T of them, padding last.
    """

    number: int
    rows: int
    epoch: int
    row_tokens: int
    normalize: str
    rule: str
    steps: tuple[int, ...]
    documents: tuple[Document, ...]
    positions: tuple[Position, ...]


def packed_row(
    path: Path, number: int, training: dict[str, Any], chat: ChatTokenizer, epoch: int = 0
) -> Row:
    """Row `number` of the training split.

    Args:
      path: folder of the masked examples.
      number: from 0.
      training: the training section of a config; what it leaves out is as `finetune` has it.
      chat: the tokenizer that made the ids.
      epoch: whose mask to show, where `draw` is "per_epoch"; 0 is the stored one.

    Raises:
      ConfigError: an epoch, and the mask is the same in all of them.
      DataError: there is no such row, or an example of it cannot be learnt from.
    """
    with needs_extra("train"):
        from opengrok_jax.training import batches, finetune, packing, redraw
    signature = inspect.signature(finetune.run).parameters
    training = {name: one.default for name, one in signature.items()} | training
    redrawn = training["draw"] == "per_epoch"
    if epoch and not redrawn:
        raise ConfigError(
            f"epoch {epoch} was asked for, but training.draw is {training['draw']!r}: the mask is "
            "the same in every epoch"
        )
    sizes, splits = reading.lengths(path)
    of_train = np.flatnonzero(np.array(splits) == "train")
    row_tokens = int(training["row_tokens"])
    if len(of_train) and sizes[of_train].max() > row_tokens:
        longest = int(of_train[sizes[of_train].argmax()])
        raise DataError(
            f"example {longest} has {sizes[longest]} tokens, a row holds {row_tokens}; raise "
            "training.row_tokens, or lower masking.max_tokens"
        )
    rows = packing.pack(sizes[of_train].tolist(), row_tokens)
    if not 0 <= number < len(rows):
        raise DataError(f"there is no row {number}; the training split fills 0 to {len(rows) - 1}")
    numbers = [int(of_train[n]) for n in rows[number]]
    examples = reading.at(path, numbers)
    batches.check_examples(
        examples, row_tokens=row_tokens, vocab_size=chat.vocab_size, where=str(path)
    )
    batch = batches.fill(
        [range(len(examples))],
        examples,
        row_tokens=row_tokens,
        normalize=training["normalize"],
        loss_by=training["loss_weight"],
        redraw_keys=redraw.example_keys(reading.provenance(path)["seed"], examples)
        if redrawn
        else None,
        epochs=[epoch],
    )
    key_mask = redraw.visible(batch.key_mask, batch.positions, batch.redraw)[0]
    order = packing.data_order(
        len(rows),
        rows_per_batch=training["rows_per_batch"],
        epochs=training["epochs"],
        max_steps=training["max_steps"],
        seed=training["seed"],
    )
    segments, loss = batch.segment_ids[0], batch.loss_weight[0]
    roles = np.concatenate([example.roles for example in examples])
    documents = []
    for segment, (at, example) in enumerate(zip(numbers, examples, strict=True), start=1):
        here = np.flatnonzero(segments == segment)
        documents.append(
            Document(
                segment=segment,
                id=example.id,
                number=at,
                start=int(here[0]),
                stop=int(here[-1]) + 1,
                hidden=int((~key_mask[here]).sum()),
                bearing=int((loss[here] > 0).sum()),
            )
        )
    positions = [
        Position(
            at=t,
            segment=int(segments[t]),
            position=int(batch.positions[0, t]),
            token=int(batch.tokens[0, t]),
            text=spelled(chat, int(batch.tokens[0, t])) if segments[t] else "",
            role=ROLES[roles[t]] if segments[t] else PADDING,
            special=bool(segments[t]) and chat.is_special(int(batch.tokens[0, t])),
            visible=bool(key_mask[t]),
            target=int(batch.targets[0, t]),
            target_text=spelled(chat, int(batch.targets[0, t])) if loss[t] else "",
            loss_weight=float(loss[t]),
            norm_weight=float(batch.norm_weight[0, t]),
        )
        for t in range(row_tokens)
    ]
    return Row(
        number=number,
        rows=len(rows),
        epoch=epoch,
        row_tokens=row_tokens,
        normalize=training["normalize"],
        rule=training["rule"],
        steps=tuple((np.flatnonzero((order == number).any(axis=1))[:4] + 1).tolist()),
        documents=tuple(documents),
        positions=tuple(positions),
    )
