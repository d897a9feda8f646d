"""A model's folder, whoever wrote it: a student of ours, or safetensors of Hugging Face."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from opengrok_jax import storage
from opengrok_jax.errors import CheckpointError
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import CONFIG, DIGESTS, PARAMS, load_student
from opengrok_jax.model.weights import load_hf


def is_student(folder: Path) -> bool:
    """Whether parameters lie there by Orbax, or did; else they can only be safetensors."""
    return (folder / PARAMS).exists() or (folder / DIGESTS).exists()


def weights_made_of(folder: Path) -> dict[str, str]:
    """SHA-256 of what says which weights these are, by file name; of safetensors, all bytes."""
    names = (CONFIG, DIGESTS) if is_student(folder) else (CONFIG, "*.safetensors")
    found = sorted(path for name in names for path in folder.glob(name))
    return {path.name: storage.file_sha256(path) for path in found}


def open_model(
    folder: Path,
    param_dtype: DTypeLike | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
) -> Phi3:
    """The model of either kind of folder.

    Args:
      folder: config.json with `params/` by Orbax, or with safetensors.
      param_dtype: what the parameters are kept in; None = each as it is stored.
      dtype: what its matrices are multiplied in.
      mesh: spreads the parameters over it; None = the first device.

    Raises:
      CheckpointError: neither, or a broken one.
      ConfigError: a config.json that is not implemented.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder} holds no model: {CONFIG} is missing; give the folder of a student or of "
            "Hugging Face"
        )
    if not is_student(folder):
        return load_hf(folder, None, param_dtype, dtype=dtype, mesh=mesh)
    model, _ = load_student(folder, dtype=dtype, mesh=mesh)
    if param_dtype is None:
        return model
    graph, state = nnx.split(model)
    return nnx.merge(graph, jax.tree.map(lambda array: array.astype(param_dtype), state))
