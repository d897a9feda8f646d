"""One pass of a model over a masked file: what `soft_targets` and `example_losses` share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import tokenizer_files
from opengrok_jax.errors import ConfigError
from opengrok_jax.model.opening import open_model
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.records import MaskedExample
from opengrok_jax.soft_file import response_positions
from opengrok_jax.training import batches, packing, settings


def prepared(
    examples: Sequence[MaskedExample],
    provenance: dict[str, Any],
    *,
    masked_file: Path,
    folder: Path,
    dtype: str,
    row_tokens: int,
    rows_per_batch: int,
) -> tuple[Phi3, batches.Packed]:
    """The model in `folder`, and the examples in packed rows that it can read.

    Args:
      examples, provenance: of `masked_file`, both splits.
      folder: a student's, or a Hugging Face folder of Phi-3.
      dtype: what its matrices are multiplied in.
      row_tokens: T, tokens of a row.
      rows_per_batch: rows that go through the model at once.

    Raises:
      ConfigError: no row at once, or its vocabulary is not that of the masked file.
      DataError: an example does not fit into a row, or has nothing to predict.
      CheckpointError: no model in the folder, or a broken one.
    """
    if rows_per_batch < 1:
        raise ConfigError(f"rows_per_batch is {rows_per_batch}; expected 1 or more")
    if tokenizer := tokenizer_files.handed_over(masked_file, provenance):
        tokenizer_files.check_same(tokenizer, folder)
    model = open_model(folder, dtype=dtype)
    vocab = model.config.vocab_size
    if settings.tokenizer_vocab(provenance, masked_file) > vocab:
        raise ConfigError(
            f"{masked_file} was made by a tokenizer of {provenance['vocab_size']} ids, the model "
            f"in {folder} has {vocab}; a teacher of another vocabulary is asked through an API"
        )
    batches.check_examples(
        examples, row_tokens=row_tokens, vocab_size=vocab, where=str(masked_file)
    )
    data = batches.packed(
        examples,
        lambda rows: packing.in_order(rows, rows_per_batch=rows_per_batch),
        row_tokens=row_tokens,
        normalize="token",
    )
    return model, data


def by_example(
    data: batches.Packed, index: int, *gathered: np.ndarray
) -> Iterator[tuple[MaskedExample, list[np.ndarray]]]:
    """Cuts what was gathered at the loss-bearing positions of a batch into its examples.

    row 0       example 2 (1 answer token)      row 1    example 1 (3), example 0 (2)
    gathered    a b c d e f - -                 C = 8; the rest is noise
    by example  a | b c d | e f

    Args:
      index: of the batch.
      gathered: (C, ...) arrays in row order, as `losses.gather` leaves them for one group.
    """
    start = 0
    for row in data.order[index]:
        for at in data.rows[row] if row >= 0 else ():
            example = data.examples[at]
            end = start + len(response_positions(example))
            yield example, [np.ascontiguousarray(x[start:end]) for x in gathered]
            start = end
