"""Masked examples on disk: a folder of Parquet parts, one example a row, a manifest written last.

masked.parquet/
  part-00000.parquet ...   rows in the order of the examples; provenance in the schema
  manifest.json            rows, tokens and SHA-256 of each part, provenance; there = complete

A part is written at once or not at all. Readers go through the parts by row groups, mapped into
memory, and keep flat arrays: 6 bytes a token, and 4 more for each factor that was asked for.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from opengrok_jax import storage
from opengrok_jax.errors import DataError, needs_extra
from opengrok_jax.records import MaskedExample, Split

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
FACTORS = ("tfidf", "pos", "dep", "random", "keep_prob")
SPLITS: tuple[str, ...] = typing.get_args(Split)
ROWS_PER_PART = 100_000
ROWS_PER_GROUP = 8192
_WANTED = ["id", "split", *COLUMNS]


# ---- writing ------------------------------------------------------------------------------------


def part(folder: Path, number: int) -> Path:
    """The file of one part."""
    return folder / f"part-{number:05d}.parquet"


def write_part(
    folder: Path,
    number: int,
    *,
    ids: Sequence[str],
    splits: Sequence[str],
    lengths: np.ndarray,
    columns: Mapping[str, np.ndarray],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes one part atomically.

    Args:
      folder: of the parts.
      number: from 0.
      ids, splits: of each example.
      lengths: int [N], tokens of each example.
      columns: for each name in `COLUMNS` the values of all examples, one after the other.
      provenance: JSON-able facts for the schema.

    Returns:
      What the manifest notes of it.

    Raises:
      StorageError: the disk refused.
    """
    with needs_extra("mask"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    ends = np.cumsum(lengths, dtype=np.int64)
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32), pa.int32())
    arrays: list[Any] = [pa.array(ids, pa.string()), pa.array(splits, pa.string())]
    for name, kind in COLUMNS.items():
        values = columns[name]
        assert values.dtype == kind, (name, values.dtype)
        assert len(values) == (ends[-1] if len(ends) else 0), name
        arrays.append(pa.ListArray.from_arrays(offsets, pa.array(values)))
    schema = pa.schema(
        [pa.field(n, a.type) for n, a in zip(_WANTED, arrays, strict=True)],
        metadata={"opengrok": json.dumps(provenance, sort_keys=True)},
    )
    path = part(folder, number)
    with storage.replacing(path) as file:
        table = pa.Table.from_arrays(arrays, schema=schema)
        pq.write_table(table, file, compression="zstd", row_group_size=ROWS_PER_GROUP)
    return {
        "name": path.name,
        "rows": len(ids),
        "tokens": int(ends[-1]) if len(ends) else 0,
        "bytes": path.stat().st_size,
        "sha256": storage.file_sha256(path),
    }


def finish(folder: Path, notes: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> None:
    """Declares the folder complete.

    Args:
      notes: of all parts, as `write_part` gave them, in order.
      provenance: as in the schema of the parts.
    """
    value = {"parts": [dict(note) for note in notes], "provenance": dict(provenance)}
    storage.write_json(folder / storage.MANIFEST, value)


def begin(folder: Path) -> None:
    """Takes back the completeness of a folder whose parts are about to change."""
    with storage.storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / storage.MANIFEST).unlink(missing_ok=True)


def write_masked(
    path: Path,
    examples: Iterable[MaskedExample],
    provenance: Mapping[str, Any],
    rows_per_part: int = ROWS_PER_PART,
) -> int:
    """Writes the examples; answers their number.

    Args:
      path: the folder; what it held is replaced.
      examples: in the order in which they shall lie on disk.
      provenance: JSON-able facts: tokenizer, vocab_size, mask settings ...
      rows_per_part: examples of a part.

    Raises:
      DataError: an array of another dtype or length; names the example.
      StorageError: the disk refused.
    """
    notes: list[dict[str, Any]] = []
    held: list[MaskedExample] = []

    def flush() -> None:
        if not notes:
            begin(path)
        notes.append(_write_rows(path, len(notes), held, provenance))
        held.clear()

    for example in examples:
        _check(example)
        held.append(example)
        if len(held) == rows_per_part:
            flush()
    if held or not notes:
        flush()
    drop_others(path, len(notes))
    finish(path, notes, provenance)
    return sum(note["rows"] for note in notes)


def drop_others(folder: Path, parts: int) -> None:
    """Removes parts that an earlier, larger folder left behind."""
    kept = {part(folder, number) for number in range(parts)}
    with storage.storing(folder):
        for path in folder.glob("part-*.parquet"):
            if path not in kept:
                path.unlink()


def _write_rows(
    folder: Path, number: int, rows: Sequence[MaskedExample], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    return write_part(
        folder,
        number,
        ids=[row.id for row in rows],
        splits=[row.split for row in rows],
        lengths=np.array([len(row.tokens) for row in rows], np.int64),
        columns={
            name: np.concatenate([np.zeros(0, kind), *(getattr(row, name) for row in rows)])
            for name, kind in COLUMNS.items()
        },
        provenance=provenance,
    )


def _check(row: MaskedExample) -> None:
    for name, kind in COLUMNS.items():
        value = np.asarray(getattr(row, name))
        if value.dtype != kind or value.shape != row.tokens.shape:
            raise DataError(
                f"example {row.id}: {name} must be {kind.__name__} {row.tokens.shape}, "
                f"got {value.dtype} {value.shape}"
            )


# ---- reading ------------------------------------------------------------------------------------


class MaskedRows(Sequence[MaskedExample]):
    """Masked examples in flat arrays; an example is made of views when it is asked for.

    Attributes:
      ids: of all examples, in order.
    """

    def __init__(
        self, ids: Any, splits: np.ndarray, ends: np.ndarray, flat: Mapping[str, np.ndarray]
    ):
        """Holds what `read_masked` read: Arrow strings, indices into `SPLITS`, ends, columns."""
        self._ids, self._splits, self._ends, self._flat = ids, splits, ends, flat

    @property
    def ids(self) -> list[str]:
        """The ids of all examples, in order."""
        return self._ids.to_pylist()

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> MaskedExample: ...
    @overload
    def __getitem__(self, index: slice) -> list[MaskedExample]: ...
    def __getitem__(self, index: int | slice) -> MaskedExample | list[MaskedExample]:
        """An example, or a list of them."""
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        here = slice(int(self._ends[at - 1]) if at else 0, int(self._ends[at]))
        return MaskedExample(
            id=self._ids[at].as_py(),
            split=cast(Split, SPLITS[self._splits[at]]),
            **{name: values[here] for name, values in self._flat.items()},
        )

    def lengths(self) -> np.ndarray:
        """Tokens of each example; int64 [N]."""
        return np.diff(self._ends, prepend=0)


def manifest(path: Path) -> dict[str, Any]:
    """The manifest of a complete folder.

    Raises:
      DataError: there is no such folder, it is not complete, or a part is missing or cut short.
    """
    if not path.is_dir():
        what = "is a file, not a folder of parts" if path.exists() else "no such file"
        raise DataError(f"{path}: {what}; `opengrok mask` writes it")
    if not (path / storage.MANIFEST).is_file():
        raise DataError(
            f"{path}: not complete (no {storage.MANIFEST}); run `opengrok mask` again, it goes on "
            "where it was stopped"
        )
    found = storage.read_json(path / storage.MANIFEST)
    try:
        sizes = [(path / note["name"], note["bytes"], note["rows"]) for note in found["parts"]]
        complete = isinstance(found["provenance"], dict)
        complete &= all(isinstance(note["tokens"], int) for note in found["parts"])
    except (KeyError, TypeError):
        complete, sizes = False, []
    if not complete:
        raise DataError(f"{path / storage.MANIFEST}: expected parts and provenance; mask again")
    for file, size, _ in sizes:
        if not file.is_file() or file.stat().st_size != size:
            raise DataError(
                f"{file}: not a readable Parquet file: missing or not the {size} bytes that the "
                "manifest notes; run `opengrok mask --redo mask`"
            )
    return found


def digest(path: Path) -> str:
    """SHA-256 that tells these examples, factors and masks from others.

    Raises:
      DataError: as `manifest`.
    """
    manifest(path)
    return storage.file_sha256(path / storage.MANIFEST)


def stream(path: Path, columns: Sequence[str] = tuple(COLUMNS)) -> Iterator[Any]:
    """The Arrow record batches of all parts in order, at most `ROWS_PER_GROUP` rows each.

    Args:
      path: the folder.
      columns: names out of `COLUMNS`; `id` and `split` always come first.

    Raises:
      DataError: as `manifest`, or a part is not of this layout.
    """
    with needs_extra("train"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    for note in manifest(path)["parts"]:
        file = path / note["name"]
        try:
            with pq.ParquetFile(file, memory_map=True) as opened:
                names = opened.schema_arrow.names
                if names != _WANTED:
                    raise DataError(f"{file}: columns {names}; expected {_WANTED}")
                for group in range(opened.num_row_groups):
                    table = opened.read_row_group(group, columns=["id", "split", *columns])
                    yield from table.combine_chunks().to_batches()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: not a readable Parquet file: {error}") from None


def examples(path: Path) -> Iterator[MaskedExample]:
    """The examples of a folder in order, a row group in memory; all factors are NaN.

    Raises:
      DataError: as `stream`.
    """
    names = [name for name in COLUMNS if name not in FACTORS]
    code = {name: number for number, name in enumerate(SPLITS)}
    for batch in stream(path, names):
        flat = {name: batch.column(name).flatten().to_numpy(zero_copy_only=False) for name in names}
        ends = np.cumsum(np.diff(batch.column("tokens").offsets.to_numpy()), dtype=np.int64)
        unread = np.broadcast_to(np.float32(np.nan), len(flat["tokens"]))
        splits = np.array([code[name] for name in batch.column("split").to_pylist()], np.int8)
        columns = {name: flat.get(name, unread) for name in COLUMNS}
        yield from MaskedRows(batch.column("id"), splits, ends, columns)


def read_masked(path: Path, factors: Sequence[str] = FACTORS) -> tuple[MaskedRows, dict[str, Any]]:
    """The examples of a folder and their provenance.

    Args:
      path: the folder.
      factors: names out of `FACTORS` to read; the others are NaN in every example.

    Raises:
      DataError: no such folder, not complete, cut short, or not of this layout.
    """
    with needs_extra("train"):
        import pyarrow as pa
    noted = manifest(path)
    rows, tokens = (sum(note[name] for note in noted["parts"]) for name in ("rows", "tokens"))
    names = [name for name in COLUMNS if name not in FACTORS or name in factors]
    flat = {name: np.empty(tokens, COLUMNS[name]) for name in names}
    ends, splits, ids = np.empty(rows, np.int64), np.empty(rows, np.int8), []
    code = {name: number for number, name in enumerate(SPLITS)}
    row = token = 0
    for batch in stream(path, names):
        lengths = np.diff(batch.column("tokens").offsets.to_numpy())
        more, until = len(lengths), token + int(lengths.sum())
        if row + more > rows or until > tokens:
            raise DataError(f"{path}: more rows than its manifest notes; mask again")
        for name in names:
            values = batch.column(name).flatten()
            if len(values) != until - token:
                raise DataError(f"{path}: {name} has another length than the tokens; mask again")
            flat[name][token:until] = values.to_numpy(zero_copy_only=False)
        ends[row : row + more] = token + np.cumsum(lengths)
        splits[row : row + more] = [code[name] for name in batch.column("split").to_pylist()]
        ids.append(batch.column("id"))
        row, token = row + more, until
    if (row, token) != (rows, tokens):
        raise DataError(f"{path}: fewer rows than its manifest notes; mask again")
    for name in set(FACTORS) - set(names):
        flat[name] = np.broadcast_to(np.float32(np.nan), tokens)
    ordered = {name: flat[name] for name in COLUMNS}
    joined = pa.concat_arrays(ids) if ids else pa.array([], pa.string())
    return MaskedRows(joined, splits, ends, ordered), noted["provenance"]
