"""A teacher's top-k next-token log-probabilities on disk, read from there batch by batch.

soft/
  part-00000.arrow ...   Arrow IPC, uncompressed, mapped into memory when read: one example a row
  manifest.json          written last: teacher, k, vocab_size, the masked file's hash, coverage

A row holds one distribution for each response token of its example, in order, as k ids of the
student's vocabulary and their log-probabilities; `ABSENT` fills up where there are fewer.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import storage
from opengrok_jax.errors import DataError, needs_extra
from opengrok_jax.records import MaskedExample
from opengrok_jax.storage import replacing
from opengrok_jax.tokenizer import RESPONSE

ABSENT = -1  # an id slot without a token


@dataclass(frozen=True, kw_only=True)
class SoftRows:
    """The teacher's distributions for one example.

    Attributes:
      id: of the example.
      fits: `checksum` of the example that they belong to.
      ids: int32 [R, k], one row per response token; `ABSENT` where there is no token.
      logprobs: float32 [R, k], natural logarithms at temperature 1; 0 where there is no token.
    """

    id: str
    fits: int
    ids: np.ndarray = field(repr=False)
    logprobs: np.ndarray = field(repr=False)


def checksum(example: MaskedExample) -> int:
    """CRC-32 of an example's tokens and roles: distributions fit these and no others."""
    return zlib.crc32(example.roles.tobytes(), zlib.crc32(example.tokens.tobytes()))


def response_positions(example: MaskedExample) -> np.ndarray:
    """Where a response token is predicted: position t with token t + 1 in the response.

    roles       0 1 0 2 2
    positions       2 3
    """
    return np.flatnonzero(example.roles[1:] == RESPONSE)


def begin(folder: Path) -> None:
    """Empties a folder whose parts are about to be made anew; raises StorageError."""
    with storage.storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / storage.MANIFEST).unlink(missing_ok=True)
        for path in folder.glob("part-*.arrow"):
            path.unlink()


def write_part(folder: Path, number: int, rows: Iterable[SoftRows], *, k: int) -> None:
    """Writes one part atomically.

    Raises:
      DataError: a row is not of k slots, or of other dtypes.
      StorageError: the disk refused.
    """
    with needs_extra("train"):
        import pyarrow as pa
    listed = list(rows)
    for row in listed:
        fits = row.ids.shape == row.logprobs.shape and row.ids.ndim == 2 and row.ids.shape[1] == k
        if not fits or row.ids.dtype != np.int32 or row.logprobs.dtype != np.float32:
            raise DataError(
                f"example {row.id}: expected int32 ids and float32 log-probabilities of {k} slots, "
                f"got {row.ids.dtype} {row.ids.shape} and {row.logprobs.dtype} "
                f"{row.logprobs.shape}"
            )
    columns = {
        "id": pa.array([row.id for row in listed], pa.string()),
        "fits": pa.array([row.fits for row in listed], pa.int64()),
        "ids": pa.array([row.ids.ravel() for row in listed], pa.list_(pa.int32())),
        "logprobs": pa.array([row.logprobs.ravel() for row in listed], pa.list_(pa.float32())),
    }
    table = pa.table(columns)
    with replacing(part(folder, number)) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_part(folder: Path, number: int, *, k: int) -> Iterator[SoftRows]:
    """What `write_part` wrote; DataError if it is missing, cut short or not of this layout."""
    for batch in _batches(part(folder, number)):
        for at in range(batch.num_rows):
            yield _row(batch, at, k)


def part(folder: Path, number: int) -> Path:
    """The file of one part."""
    return folder / f"part-{number:05d}.arrow"


def finish(folder: Path, *, parts: int, k: int, facts: Mapping[str, Any]) -> None:
    """Declares the folder complete; `facts` are JSON-able and come back from `SoftFile.facts`."""
    storage.write_json(folder / storage.MANIFEST, {"parts": parts, "k": k, "facts": dict(facts)})


class SoftFile:
    """An open folder; the distributions stay on disk until they are asked for.

    Attributes:
      k: slots of a distribution.
      facts: what `finish` was given.

    Raises:
      DataError: not complete, cut short, or not of this layout.
    """

    def __init__(self, folder: Path):
        manifest = folder / storage.MANIFEST
        if not manifest.is_file():
            raise DataError(
                f"{folder} holds no finished soft targets (no {storage.MANIFEST}); "
                "`opengrok soft-targets` writes them, and goes on where it was stopped"
            )
        note = storage.read_json(manifest)
        try:
            self.k, self.facts, parts = int(note["k"]), dict(note["facts"]), int(note["parts"])
        except (TypeError, KeyError, ValueError):
            raise DataError(f"{manifest}: expected parts, k and facts, got {note!r}") from None
        self._where: dict[str, tuple[Any, int]] = {}
        for number in range(parts):
            for batch in _batches(part(folder, number)):
                for at, name in enumerate(batch.column("id").to_pylist()):
                    self._where[name] = (batch, at)

    def __len__(self) -> int:
        """How many examples have distributions."""
        return len(self._where)

    def rows(self, example: MaskedExample) -> SoftRows | None:
        """The distributions of an example; None where the teacher gave none.

        Raises:
          DataError: they belong to an example of this id with other tokens.
        """
        found = self._where.get(example.id)
        if found is None:
            return None
        stored = _row(*found, self.k)
        if stored.fits != checksum(example):
            raise DataError(
                f"the soft targets of example {example.id} were made for other tokens; make them "
                "anew after the mask was built anew"
            )
        expected = len(response_positions(example))
        if len(stored.ids) != expected:
            raise DataError(
                f"example {example.id} has {expected} response tokens and {len(stored.ids)} stored "
                "distributions; make the soft targets anew"
            )
        return stored


def _batches(path: Path) -> list[Any]:
    """The record batches of a part, mapped into memory."""
    with needs_extra("train"):
        import pyarrow as pa
    try:
        opened = pa.ipc.open_file(pa.memory_map(str(path)))
        if opened.schema.names != ["id", "fits", "ids", "logprobs"]:
            raise DataError(f"{path}: columns {opened.schema.names} are not soft targets")
        return [opened.get_batch(index) for index in range(opened.num_record_batches)]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Arrow file: {error}") from None


def _row(batch: Any, at: int, k: int) -> SoftRows:
    ids, logprobs = (
        np.asarray(batch.column(name)[at].values).reshape(-1, k) for name in ("ids", "logprobs")
    )
    name, fits = (batch.column(column)[at].as_py() for column in ("id", "fits"))
    return SoftRows(id=name, fits=fits, ids=ids, logprobs=logprobs)


def coverage(rows: Iterable[SoftRows]) -> dict[str, float | int]:
    """Share of response tokens with a distribution, and the mean mass that is stored of it."""
    total, stored, mass = 0, 0, 0.0
    for row in rows:
        there = np.any(row.ids >= 0, axis=1).ravel()
        total += len(there)
        stored += int(there.sum())
        mass += float(np.where(row.ids >= 0, np.exp(row.logprobs), 0).sum(dtype=np.float64))
    return {
        "response_tokens": total,
        "aligned_share": stored / total if total else 0.0,
        "mean_stored_mass": mass / stored if stored else 0.0,
    }
