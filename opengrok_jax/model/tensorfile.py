"""The safetensors container: what a file holds, slices of it, and writing one tensor at a time.

A file is 8 bytes (little-endian length of the header), a JSON header naming dtype, shape and byte
range of each tensor, and the tensors. The `safetensors` library cannot give bfloat16 to NumPy
without torch, and writes only what is in memory all at once; so this is our own reader and writer
of https://github.com/huggingface/safetensors#format, byte for byte as that library writes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from opengrok_jax.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

# In the order in which the library writes them; it sorts by dtype, then by name.
DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
}
NO_PICKLES = (
    "pickled weights (*.bin, *.pt) are never loaded: convert them with "
    "save_pretrained(safe_serialization=True)"
)
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in a file."""

    path: Path
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(
        self, index: tuple[slice, ...] | None = None, dtype: np.dtype | None = None
    ) -> np.ndarray:
        """A slice (default: all) as an array of its own; its rows are read from the file, no more.

        Columns are cut out afterwards: where a row is shorter than a block of the disk, nothing
        would be saved by skipping the rest of it.

        Raises CheckpointError if the file has become shorter than its header said.
        """
        first, *others = index or (slice(None),)
        start, stop, _ = first.indices(self.shape[0])
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        size, offset = (stop - start) * row, self.offset + start * row
        try:
            block = np.fromfile(self.path, np.uint8, size, offset=offset)
        except OSError as error:
            raise CheckpointError(f"cannot read weights: {error}") from error
        if block.size < size:
            raise CheckpointError(_broken(self.path, f"it ends within {self.name}"))
        rows = block.view(self.dtype).reshape(stop - start, *self.shape[1:])
        return np.ascontiguousarray(rows[(slice(None), *others)], dtype)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name; no tensor is read.

    Raises CheckpointError if the file is missing, truncated, malformed, or holds a dtype other
    than float32, bfloat16 and float16.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if size < 8 + length:
                if first.startswith((b"PK\x03\x04", b"\x80")):
                    raise CheckpointError(f"{path}: a pickle by its first bytes; {NO_PICKLES}")
                raise CheckpointError(_broken(path, f"{size} bytes, its header alone needs more"))
            header = json.loads(file.read(length), object_pairs_hook=_distinct)
    except OSError as error:
        raise CheckpointError(f"cannot read weights: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(_broken(path, f"its header is not JSON ({error})")) from error
    tensors: dict[str, StoredTensor] = {}
    end = 8 + length
    try:
        header.pop("__metadata__", None)
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            if entry["dtype"] not in DTYPES:
                raise CheckpointError(
                    f"{path}: tensor {name} is stored as {entry['dtype']}; only {list(DTYPES)} "
                    "can be loaded, so export the checkpoint unquantised"
                )
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            tensor = StoredTensor(
                path, name, DTYPES[entry["dtype"]], tuple(map(int, entry["shape"])), start
            )
            if start != end or stop - start != tensor.nbytes:
                raise CheckpointError(_broken(path, f"the byte range of {name} is wrong"))
            tensors[name], end = tensor, stop
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(_broken(path, f"malformed header ({error!r})")) from error
    if end != size:
        raise CheckpointError(_broken(path, f"{size} bytes instead of {end}"))
    return tensors


def read_folder(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a folder's `model.safetensors`, or of the shards that its index names.

    Raises CheckpointError as `read_header` does, if there is neither, if a shard lacks what the
    index places in it, or if a tensor is in two shards.
    """
    if (folder / SINGLE_FILE).exists():
        return read_header(folder / SINGLE_FILE)
    index = folder / INDEX_FILE
    if not index.exists():
        raise CheckpointError(
            f"{folder} holds neither {SINGLE_FILE} nor {INDEX_FILE}; {NO_PICKLES}"
        )
    try:
        placed: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(placed.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: not an index of shards ({error!r})") from error
    if outside := [file for file in files if Path(file).name != file]:
        raise CheckpointError(f"{index} names {outside[0]!r}; files of its own folder only")
    by_file = {file: read_header(folder / file) for file in files}
    for name, file in placed.items():
        if name not in by_file[file]:
            raise CheckpointError(f"{index} places {name} in {file}, which does not hold it")
    found: dict[str, StoredTensor] = {}
    for tensors in by_file.values():
        for name, tensor in tensors.items():
            if name in found:
                raise CheckpointError(
                    f"{name} is twice in {folder}: in {found[name].path.name} and in "
                    f"{tensor.path.name}; remove the file that does not belong here"
                )
            found[name] = tensor
    return found


def write_file(
    path: Path,
    tensors: Iterable[tuple[str, tuple[int, ...], np.dtype]],
    fetch: Callable[[str], np.ndarray],
) -> None:
    """Writes (name, shape, dtype) tensors; `fetch(name)` is called for one after the other.

    Synced to disk before it returns. Raises OSError if the disk refuses.
    """
    order = list(_NAMES)
    ordered = sorted(tensors, key=lambda tensor: (order.index(np.dtype(tensor[2])), tensor[0]))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape, dtype in ordered:
        stop = at + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {
            "dtype": _NAMES[np.dtype(dtype)],
            "shape": list(shape),
            "data_offsets": [at, stop],
        }
        at = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, shape, dtype in ordered:
            array = np.ascontiguousarray(fetch(name))
            assert (array.shape, array.dtype) == (shape, np.dtype(dtype)), (name, array.shape)
            file.write(array.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def plan_shards(
    shapes: dict[str, tuple[int, ...]], dtypes: dict[str, np.dtype], limit: int
) -> dict[str, list[str]]:
    """File name -> tensors: as many as fit the limit, in order, as huggingface_hub does it.

    A tensor above the limit goes to a file of its own, numbered before the one being filled.
    """
    groups: list[list[str]] = []
    filling: list[str] = []
    room = limit
    for name, shape in shapes.items():
        size = math.prod(shape) * dtypes[name].itemsize
        if size > limit:
            groups.append([name])
            continue
        if size > room:
            groups.append(filling)
            filling, room = [], limit
        filling.append(name)
        room -= size
    groups += [filling] if filling else []
    if len(groups) == 1:
        return {SINGLE_FILE: groups[0]}
    total = len(groups)
    return {f"model-{n:05d}-of-{total:05d}.safetensors": g for n, g in enumerate(groups, 1)}


def index_text(
    shards: dict[str, list[str]], shapes: dict[str, tuple[int, ...]], dtypes: dict[str, np.dtype]
) -> str:
    """The text of the index of shards, as transformers 5 writes it."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    metadata = {
        "total_parameters": sum(sizes.values()),
        "total_size": sum(size * dtypes[name].itemsize for name, size in sizes.items()),
    }
    placed: Iterable[tuple[str, str]] = ((n, file) for file, names in shards.items() for n in names)
    return (
        json.dumps({"metadata": metadata, "weight_map": dict(placed)}, indent=2, sort_keys=True)
        + "\n"
    )


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; of two entries of one name, json would silently keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is there twice")
    return found


def _broken(path: Path, how: str) -> str:
    return f"{path}: not a whole safetensors file: {how}; copy or download it again"
