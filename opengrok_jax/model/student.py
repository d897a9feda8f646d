"""A trained student in a folder: config.json as Hugging Face has it, parameters by Orbax.

student/
  config.json     Phi3Config; "torch_dtype" is what the parameters are stored in
  params/         Orbax, each array under its path in the model
  digests.json    a checksum per array, compared when read back
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from opengrok_jax import storage
from opengrok_jax.errors import CheckpointError, DataError
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import make_mesh, parameter_shardings

CONFIG, PARAMS, DIGESTS = "config.json", "params", "digests.json"


def save_student(folder: Path, model: Phi3, config: Phi3Config) -> None:
    """Writes a student; the folder is whole or as it was before, whenever the process dies.

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
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(partial / PARAMS, nnx.to_pure_dict(params))
        storage.write_text(partial / CONFIG, hf_config.write(config, stored))
        storage.write_json(partial / DIGESTS, digests(params))
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(partial, folder)
        storage.sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


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
                "and a Hugging Face folder is opened with weights.load_hf"
            )
    config = hf_config.read(folder)
    try:
        stored = str(storage.read_json(folder / CONFIG)["torch_dtype"])
        expected = storage.read_json(folder / DIGESTS)
    except (DataError, KeyError) as error:
        raise CheckpointError(f"{folder}: {error}; copy the student anew") from None
    mesh = make_mesh(fsdp=1, devices=jax.local_devices()[:1]) if mesh is None else mesh
    abstract = nnx.eval_shape(
        lambda: Phi3(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=jnp.dtype(stored))
    )
    state = nnx.state(abstract, nnx.Param)
    like = jax.tree.map(
        lambda array, sharding: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding),
        nnx.to_pure_dict(state),
        nnx.to_pure_dict(parameter_shardings(abstract, mesh)),
    )
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            params = checkpointer.restore(folder / PARAMS, like)
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise CheckpointError(
            f"{folder / PARAMS} cannot be read: {_first_line(error)}; copy the student anew or "
            "run `opengrok finetune` again"
        ) from error
    nnx.replace_by_pure_dict(state, params)
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


def compare_digests(found: dict[str, int], expected: dict[str, int], where: Path) -> None:
    """Raises CheckpointError, naming the first arrays that are not what was written."""
    if found != expected:
        differing = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
        raise CheckpointError(
            f"{where} is damaged: {len(differing)} arrays are not what was written, among them "
            f"{', '.join(differing[:3])}"
        )


@jax.jit
def _digest_all(leaves: list[jax.Array]) -> list[jax.Array]:
    return [_digest(leaf) for leaf in leaves]


def _digest(x: jax.Array) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    place = jnp.ones(x.shape, jnp.uint32)
    for axis in range(x.ndim):
        index = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
        place = place * jnp.uint32(0x9E3779B1) + index
    return jnp.sum(bits * (place * 2 + 1), dtype=jnp.uint32)  # odd factors lose no bit


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
