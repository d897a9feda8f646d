"""How much there is to learn, and so how many updates: from a masked file, or as one is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from opengrok_jax.masked_file import read_masked
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.training import batches, packing
from opengrok_jax.training.plan_analytic import Parts
from opengrok_jax.training.splits import of_split


class Data(NamedTuple):
    """What there is to learn.

    Attributes:
      source: where the numbers come from.
      rows: of a whole epoch.
      steps: updates in all.
      loss_share: part of the positions that bears loss.
      capacity: positions of a device and microbatch that may bear loss.
    """

    source: str
    rows: int
    steps: int
    loss_share: float
    capacity: int


def measure(
    given: Mapping[str, Any],
    parts: Parts,
    *,
    tokens: int,
    rows: int,
    masked_file: Path | None,
    config: Phi3Config,
) -> Data:
    """Packs a masked file, or takes the caller's word for how much there is.

    Args:
      given: the settings of a fine-tuning.
      parts: of the mesh.
      tokens, rows, masked_file: as in `plan.run`; none of them = no data set.
      config: of the model.

    Raises:
      DataError: examples that cannot be learnt from.
    """
    row_tokens, per_batch = given["row_tokens"], given["rows_per_batch"]
    groups = given["microbatches"] * parts.rows
    order: Any = {
        "rows_per_batch": per_batch,
        "epochs": given["epochs"],
        "max_steps": given["max_steps"],
        "seed": given["seed"],
    }
    if masked_file:
        examples = of_split(read_masked(masked_file, [])[0], "train")
        where = str(masked_file)
        batches.check_examples(
            examples, row_tokens=row_tokens, vocab_size=config.vocab_size, where=where
        )
        packed = batches.packed(
            examples,
            lambda count: packing.data_order(count, **order),
            row_tokens=row_tokens,
            normalize=given["normalize"],
        )
        bearing = int(packed.bearing().sum())
        return Data(
            source=where,
            rows=len(packed.rows),
            steps=len(packed.order),
            loss_share=bearing / (len(packed.rows) * row_tokens),
            capacity=packed.capacity(groups),
        )
    count = rows or -(-tokens // row_tokens)
    source = f"{rows} rows" if rows else f"{tokens} tokens" if tokens else ""
    total = max(round(given["epochs"] * count), 1)
    steps = -(-total // per_batch)
    steps = min(steps, given["max_steps"]) if given["max_steps"] else steps
    # Nothing is known of the answers: every position may bear loss.
    return Data(source, count, steps, 1.0, per_batch // groups * row_tokens)
