"""`opengrok convert`: Hugging Face safetensors <-> a student's folder, block by block.

Memory holds a block of rows on the way to a student, one tensor on the way to safetensors, however
large the model is. A tensor keeps its bits unless another dtype is asked for; the files of the
tokenizer and of generation go along byte for byte.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import hub, progress, storage
from opengrok_jax.errors import CheckpointError, ConfigError, StorageError
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.opening import is_student
from opengrok_jax.model.student import CONFIG, DIGESTS, PARAMS
from opengrok_jax.model.student_stream import StudentReader, StudentWriter, blocks
from opengrok_jax.model.tensorfile import (
    DTYPES,
    INDEX_FILE,
    index_text,
    plan_shards,
    read_folder,
    write_file,
)
from opengrok_jax.model.weights import check_tensors, hf_shapes

TARGETS = ("orbax", "hf")
KEPT = {str(dtype): dtype for dtype in (DTYPES["F32"], DTYPES["BF16"])}
SHARD_BYTES = 5_000_000_000
OURS = {CONFIG, DIGESTS}


@dataclass(frozen=True)
class Source:
    """A checkpoint of either kind, by the names of Hugging Face."""

    config: Phi3Config
    tensors: dict[str, tuple[tuple[int, ...], np.dtype]]  # shape and dtype, in HF's order
    rows: Callable[[str], list[slice]]  # the blocks in which a tensor is best read
    read: Callable[[str, slice], np.ndarray]  # rows of a tensor, as stored
    finish: Callable[[], None]  # raises CheckpointError if what was read is not what was written


def run(*, source: str | Path, out: Path, to: str = "orbax", dtype: str = "") -> dict[str, Any]:
    """Converts a checkpoint; `out` is whole in the end or not there.

    Args:
      source: a folder with config.json and safetensors (one file, or shards with an index), or a
        student's folder; a `str` may also be a name on the hub, see `hub.folder_of`.
      out: the folder to make; absent or empty.
      to: "orbax" for a student's folder, "hf" for safetensors.
      dtype: "float32" or "bfloat16" for all tensors; "" = each as it is.

    Returns:
      What was done: source, out, to, tensors, bytes, dtypes, carried, left (files not carried).

    Raises:
      CheckpointError: a missing or broken file, another architecture, a tensor that is missing,
        extra, of another shape or of a dtype that cannot be loaded; `out` holds something.
      StorageError: the disk refused, or is too small.
    """
    out = Path(out).resolve()  # through a link, so that the link stays and what it names is made
    if to not in TARGETS:
        raise ConfigError(f"to={to!r}: expected one of {', '.join(TARGETS)}")
    if dtype and dtype not in KEPT:
        raise ConfigError(f"dtype={dtype!r}: expected one of {', '.join(KEPT)}, or nothing")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out} is there already; remove it or choose another folder")
    source = hub.folder_of(source)
    if out.is_relative_to(source.resolve()):
        raise CheckpointError(f"{out} lies inside the source {source}; choose a folder outside it")
    opened = open_source(source)
    kept = {name: KEPT.get(dtype, stored) for name, (_, stored) in opened.tensors.items()}
    total = sum(prod(shape) * kept[name].itemsize for name, (shape, _) in opened.tensors.items())
    carried, left = _files(source)
    with _whole(out, total) as partial:
        write = _write_student if to == "orbax" else _write_hf
        with progress.track("convert", total=len(kept), unit="tensors") as advance:
            write(opened, partial, kept, advance)
        opened.finish()
        text = opened.config.hf_text
        if dtype or text is None:
            text = hf_config.write(opened.config, dtype or str(next(iter(kept.values()))))
        storage.write_text(partial / CONFIG, text)
        for name in carried:
            shutil.copyfile(source / name, partial / name)
    return {
        "source": str(source),
        "out": str(out),
        "to": to,
        "tensors": len(kept),
        "bytes": total,
        "dtypes": sorted({str(one) for one in kept.values()}),
        "carried": carried,
        "left": left,
    }


def open_source(folder: Path) -> Source:
    """Opens a checkpoint of either kind and holds it against its config; reads no tensor.

    Raises CheckpointError, naming the file or the tensor.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is no folder; give one with config.json and safetensors, or a student's"
        )
    try:
        config = hf_config.read(folder)
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    shapes = hf_shapes(config)
    if is_student(folder):
        for name in (PARAMS, DIGESTS):
            if not (folder / name).exists():
                raise CheckpointError(f"{folder} is half a student: {name} is missing")
        student = StudentReader(folder, config)
        ordered = {name: student.tensors[name] for name in shapes}
        return Source(config, ordered, student.rows, student.read, student.finish)
    stored = read_folder(folder)
    check_tensors(folder, stored, shapes)
    return Source(
        config,
        {name: (stored[name].shape, stored[name].dtype) for name in shapes},
        lambda name: blocks(stored[name].shape, stored[name].dtype.itemsize),
        lambda name, rows: stored[name].read((rows,)),
        lambda: None,
    )


def _write_student(
    source: Source, folder: Path, kept: dict[str, np.dtype], advance: Callable[..., None]
) -> None:
    writer = StudentWriter(folder, source.config, kept)
    for name, (shape, _) in source.tensors.items():
        for rows in blocks(shape, kept[name].itemsize):
            writer.write(name, rows, source.read(name, rows).astype(kept[name], copy=False))
        advance()
    writer.finish()


def _write_hf(
    source: Source, folder: Path, kept: dict[str, np.dtype], advance: Callable[..., None]
) -> None:
    shapes = {name: shape for name, (shape, _) in source.tensors.items()}

    def fetch(name: str) -> np.ndarray:
        whole = np.empty(shapes[name], kept[name])
        for rows in source.rows(name):
            whole[rows] = source.read(name, rows)
        advance()
        return whole

    shards = plan_shards(shapes, kept, SHARD_BYTES)
    for file, names in shards.items():
        write_file(folder / file, [(name, shapes[name], kept[name]) for name in names], fetch)
    if len(shards) > 1:
        storage.write_text(folder / INDEX_FILE, index_text(shards, shapes, kept))


def _files(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files that go along, and of those that do not."""
    names = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name not in OURS)
    beside = [n for n in names if not n.endswith((".safetensors", ".safetensors.index.json"))]
    carried = [
        name
        for name in beside
        if (Path(name).suffix in hub.CARRIED_SUFFIXES or name.upper() in hub.LICENCES)
        and not name.startswith(".")
        and not name.endswith(".bin.index.json")
    ]
    return carried, [name for name in beside if name not in carried]


@contextmanager
def _whole(out: Path, needed: int) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when the block ends without an error."""
    partial = out.with_name(f".{out.name}.partial")
    try:
        with storage.storing(out):
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            partial.mkdir(parents=True)
            free = shutil.disk_usage(partial).free
            if free < needed:
                raise StorageError(f"{out} needs {needed:,} bytes, and the disk has {free:,} left")
            yield partial
            storage.sync_folder(partial)
            if out.exists():
                out.rmdir()  # empty
            os.rename(partial, out)
            storage.sync_folder(out.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
