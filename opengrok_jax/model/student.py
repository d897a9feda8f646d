"""A trained student in a folder: config.json as Hugging Face has it, parameters by Orbax.

student/
  config.json     Phi3Config
  params/         Orbax, each array under its path in the model
  digests.json    a checksum per array, compared when read back
  tokenizer.json, tokenizer_config.json, generation_config.json, ..   where the tokenizer is known
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from opengrok_jax import processes, storage
from opengrok_jax.errors import CheckpointError, DataError
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import laid_out, make_mesh, parameter_shardings, reading_sharding

CONFIG, PARAMS, DIGESTS = "config.json", "params", "digests.json"
_CHUNK_BYTES = 16 * 2**20
_ODD = 0x9E3779B1


def save_student(
    folder: Path, model: Phi3, config: Phi3Config, beside: Mapping[str, bytes] | None = None
) -> None:
    """Writes a student; the folder is whole or as it was before, whenever the process dies.

    `beside` are further files by name, for tokenizing and generating. Of several processes each
    writes the parameters that it holds.

    Raises:
      CheckpointError: the folder holds something that is not a student, or the model was built
        from another config.
      StorageError: the disk refused.
    """
    folder = Path(folder).absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / DIGESTS).exists():
        raise CheckpointError(f"{folder} holds something else; remove it or choose another folder")
    if model.config != config:
        raise CheckpointError(f"the model was built from {model.config}, not from {config}")
    params = nnx.state(model, nnx.Param)
    stored = str(jax.tree.leaves(params)[0].dtype)
    partial, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    with storage.storing(folder):
        processes.on_first(lambda: _emptied(partial))
        with ocp.StandardCheckpointer() as checkpointer:
            tree = nnx.to_pure_dict(params)
            checkpointer.save(
                partial / PARAMS, tree, save_args=jax.tree_util.tree_map_with_path(_chunks, tree)
            )
        sums = digests(params)

        def finish() -> None:
            storage.write_text(partial / CONFIG, hf_config.write(config, stored))
            for name, content in (beside or {}).items():
                storage.write_bytes(partial / name, content)
            storage.write_json(partial / DIGESTS, sums)
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                os.rename(folder, old)
            os.rename(partial, folder)
            storage.sync_folder(folder.parent)
            shutil.rmtree(old, ignore_errors=True)

        processes.on_first(finish)


def _emptied(folder: Path) -> None:
    with storage.storing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)


def load_student(
    folder: Path, *, dtype: DTypeLike = jnp.float32, mesh: Mesh | None = None
) -> tuple[Phi3, Phi3Config]:
    """Reads what `save_student` wrote.

    Args:
      folder: of the student.
      dtype: what its matrices are multiplied in.
      mesh: spreads the parameters over it; None = the first device.

    Raises:
      CheckpointError: no student there, or a broken one; says what is missing or differs.
    """
    folder = Path(folder).absolute()
    for name in (CONFIG, PARAMS, DIGESTS):
        if not (folder / name).exists():
            raise CheckpointError(
                f"{folder} is not a student: {name} is missing; `opengrok finetune` writes one, "
                "and a Hugging Face folder has model.safetensors, or an index of shards"
            )
    config = hf_config.read(folder)
    try:
        expected = storage.read_json(folder / DIGESTS)
    except DataError as error:
        raise CheckpointError(f"{folder}: {error}; copy the student anew") from None
    mesh = make_mesh(fsdp=1, devices=jax.local_devices()[:1]) if mesh is None else mesh
    abstract = nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0), dtype=dtype))
    state = nnx.state(abstract, nnx.Param)
    shardings = nnx.to_pure_dict(parameter_shardings(abstract, mesh))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored: Any = checkpointer.metadata(folder / PARAMS).item_metadata
            like = jax.tree.map(
                lambda array, kept: jax.ShapeDtypeStruct(
                    array.shape, kept.dtype, sharding=reading_sharding(array.shape, mesh, axes=2)
                ),
                nnx.to_pure_dict(state),
                stored.tree,
            )
            params = checkpointer.restore(folder / PARAMS, like)
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise CheckpointError(
            f"{folder / PARAMS} cannot be read: {_first_line(error)}; copy the student anew or "
            "run `opengrok finetune` again"
        ) from error
    nnx.replace_by_pure_dict(state, jax.tree.map(laid_out, params, shardings))
    compare_digests(digests(state), expected, folder)
    return nnx.merge(nnx.graphdef(abstract), state), config


def digests(tree: Any) -> dict[str, int]:
    """A 32-bit checksum of every array of a tree, by its path.

    A sum modulo 2^32 of bits times a number that depends on the place, computed where the array
    lies: it is the same on every mesh, and a flipped bit or two swapped values change it.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    sums = _digest_all([leaf for _, leaf in leaves])
    return {
        jax.tree_util.keystr(path): int(value)
        for (path, _), value in zip(leaves, sums, strict=True)
    }


def digest_rows(block: np.ndarray, *, layer: int | None, first: int) -> int:
    """The share of some rows in the digest of their array; shares add up modulo 2^32.

    Args:
      block: (rows, columns) of a matrix, or a whole vector (columns,).
      layer: where it lies in the stacked array; None = the array is not stacked.
      first: index of the first row.
    """
    bits = block.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[block.dtype.itemsize])
    start = 1 if layer is None else (_ODD + layer) % 2**32
    if block.ndim == 1:
        bits, place = bits[None], np.array([start], np.uint64)
    else:
        place = np.arange(first, first + len(block), dtype=np.uint64) + np.uint64(start * _ODD)
    # bits * (2 * (place * odd + column) + 1), summed over rows and columns apart
    of_row, of_column = (bits.sum(axis, dtype=np.uint32).astype(np.uint64) for axis in (1, 0))
    row_factor = (place * np.uint64(2 * _ODD) + np.uint64(1)) % np.uint64(2**32)
    by_row = (of_row * row_factor).sum(dtype=np.uint64)
    by_column = (of_column * np.arange(bits.shape[1], dtype=np.uint64)).sum(dtype=np.uint64)
    return (int(by_row) + 2 * int(by_column)) % 2**32


def compare_digests(found: dict[str, int], expected: dict[str, int], where: Path) -> None:
    """Raises CheckpointError, naming the first arrays that are not what was written."""
    if found != expected:
        differing = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
        raise CheckpointError(
            f"{where} is damaged: {len(differing)} arrays are not what was written, among them "
            f"{', '.join(differing[:3])}"
        )


def _chunks(path: Any, _: jax.Array) -> ocp.SaveArgs:
    """Layers apart and chunks of bounded size, so that one layer can be read without the others."""
    stacked = jax.tree_util.keystr(path).startswith("['layers']")
    return ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES, shard_axes=(0,) if stacked else ())


@jax.jit
def _digest_all(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_digest(leaf) for leaf in leaves]


def _digest(x: jax.Array) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    place = jnp.ones(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        place = place * jnp.uint32(_ODD) + index
    return jnp.sum(bits * (place * 2 + 1), dtype=jnp.uint32)  # odd factors lose no bit


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
