"""Single examples out of a folder of masked examples, however many it holds.

An example by its number costs one row group, one by its id the ids before it; lengths cost one
small column. Nothing else is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import masked_file, tokenizer_files
from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.errors import DataError, needs_extra
from opengrok_jax.records import MaskedExample


def provenance(path: Path) -> dict[str, Any]:
    """What the examples were made with; raises as `masked_file.manifest`."""
    return masked_file.manifest(path)["provenance"]


def count(path: Path) -> int:
    """How many examples there are."""
    return sum(part["rows"] for part in masked_file.manifest(path)["parts"])


def tokenizer(path: Path) -> tokenizers.ChatTokenizer:
    """The tokenizer that made the ids: the one beside the folder, else by its name."""
    made_with = provenance(path)
    beside = tokenizer_files.handed_over(path, made_with)
    return tokenizers.load(str(beside) if beside else made_with.get("tokenizer", ""))


def number_of(path: Path, name: str) -> int:
    """The number of the example with this id.

    Args:
      path: the folder.
      name: an id, or the beginning of one that no other begins with.

    Raises:
      DataError: there is none, or there are several.
    """
    at, found = 0, []
    for batch in masked_file.stream(path, ()):
        ids = batch.column("id").to_pylist()
        if name in ids:
            return at + ids.index(name)
        found += [(at + n, full) for n, full in enumerate(ids) if full.startswith(name)]
        at += len(ids)
    if len(found) == 1:
        return found[0][0]
    if found:
        some = ", ".join(full for _, full in found[:4])
        raise DataError(f"{len(found)} examples have ids that begin with {name!r}: {some}, ..")
    raise DataError(
        f"{path} has no example with the id {name!r}; --number 0 to {at - 1} shows one by its place"
    )


def at(path: Path, numbers: Sequence[int]) -> list[MaskedExample]:
    """The examples at these places, in this order; reads the row groups that hold them.

    Raises:
      DataError: a number is out of range, or the folder cannot be read.
    """
    total = count(path)
    for number in numbers:
        if not 0 <= number < total:
            raise DataError(f"there is no example {number}; {path} has 0 to {total - 1}")
    found: dict[int, MaskedExample] = {}
    wanted = np.unique(np.asarray(numbers, np.int64))
    for first, here, read in groups(path, wanted):
        for place, row in zip(here.tolist(), _examples(read().take(here)), strict=True):
            found[first + place] = row
    return [found[number] for number in numbers]


def groups(path: Path, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray, Any]]:
    """The row groups that hold some examples; no other is read, no other part opened.

    Args:
      path: the folder.
      wanted: ascending numbers of examples.

    Yields:
      The number of the group's first example, the places of the wanted ones in it, and what reads
      the group as an Arrow table.

    Raises:
      DataError: the folder cannot be read.
    """
    with needs_extra("train"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    first = 0
    for note in masked_file.manifest(path)["parts"]:
        file, start = path / note["name"], first
        first += note["rows"]
        if not ((wanted >= start) & (wanted < first)).any():
            continue
        try:
            with pq.ParquetFile(file, memory_map=True) as opened:
                for group in range(opened.num_row_groups):
                    rows = opened.metadata.row_group(group).num_rows
                    here = wanted[(wanted >= start) & (wanted < start + rows)] - start
                    if len(here):
                        yield start, here, _reader(opened, group)
                    start += rows
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: not a readable Parquet file: {error}") from None


def _reader(opened: Any, group: int) -> Any:
    def read(columns: Sequence[str] = tuple(masked_file.COLUMNS)) -> Any:
        return opened.read_row_group(group, columns=["id", "split", *columns])

    return read


def lengths(path: Path) -> tuple[np.ndarray, list[str]]:
    """Tokens and split of every example; int64 [N] and N names."""
    sizes, splits = [], []
    for batch in masked_file.stream(path, ("roles",)):
        sizes.append(np.diff(batch.column("roles").offsets.to_numpy()))
        splits += batch.column("split").to_pylist()
    return np.concatenate([np.zeros(0, np.int64), *sizes]).astype(np.int64), splits


def _examples(table: Any) -> list[MaskedExample]:
    columns = {name: table.column(name).to_pylist() for name in ("id", "split")} | {
        name: [np.asarray(value.values).astype(kind) for value in table.column(name)]
        for name, kind in masked_file.COLUMNS.items()
    }
    return [
        MaskedExample(**dict(zip(columns, row, strict=True)))
        for row in zip(*columns.values(), strict=True)
    ]
