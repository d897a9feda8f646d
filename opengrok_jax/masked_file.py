"""Masked examples on disk: one Parquet file, one example a row, provenance in the schema."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax.errors import DataError, needs_extra
from opengrok_jax.records import MaskedExample
from opengrok_jax.storage import replacing

# One entry per token; the order is the order of the columns.
COLUMNS: dict[str, type[np.generic]] = {
    "tokens": np.int32,
    "roles": np.int8,
    "tfidf": np.float32,
    "pos": np.float32,
    "dep": np.float32,
    "random": np.float32,
    "keep_prob": np.float32,
    "key_mask": np.bool_,
}


def write_masked(path: Path, examples: Iterable[MaskedExample], provenance: dict[str, Any]) -> int:
    """Writes the examples atomically; answers their number.

    Args:
      path: the .parquet file.
      examples: in the order in which they shall lie on disk.
      provenance: JSON-able facts kept in the schema: tokenizer, vocab_size, mask settings ...
    """
    with needs_extra("mask"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    rows = list(examples)
    arrays: list[Any] = [
        pa.array([r.id for r in rows], pa.string()),
        pa.array([r.split for r in rows], pa.string()),
    ]
    for name, kind in COLUMNS.items():
        values = [np.asarray(getattr(r, name)) for r in rows]
        for row, value in zip(rows, values, strict=True):
            if value.dtype != kind or value.shape != row.tokens.shape:
                raise DataError(
                    f"example {row.id}: {name} must be {kind.__name__} {row.tokens.shape}, "
                    f"got {value.dtype} {value.shape}"
                )
        arrays.append(pa.array(values, pa.list_(pa.from_numpy_dtype(kind))))
    schema = pa.schema(
        [pa.field(n, a.type) for n, a in zip(["id", "split", *COLUMNS], arrays, strict=True)],
        metadata={"opengrok": json.dumps(provenance, sort_keys=True)},
    )
    with replacing(path) as file:
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd")
    return len(rows)


def read_masked(path: Path) -> tuple[list[MaskedExample], dict[str, Any]]:
    """The examples of a file that `write_masked` wrote, and their provenance.

    Raises:
      DataError: no such file, cut short, or not of this layout.
    """
    with needs_extra("train"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    if not path.is_file():
        raise DataError(f"{path}: no such file; `opengrok mask` writes it")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from None
    wanted = ["id", "split", *COLUMNS]
    metadata = table.schema.metadata or {}
    if table.column_names != wanted or b"opengrok" not in metadata:
        raise DataError(f"{path}: columns {table.column_names}; expected {wanted}")
    columns = {n: table.column(n).to_pylist() for n in ("id", "split")} | {
        n: [np.asarray(v.values).astype(kind) for v in table.column(n)]
        for n, kind in COLUMNS.items()
    }
    examples = [
        MaskedExample(**dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]
    return examples, json.loads(metadata[b"opengrok"])
