"""HF folder -> Phi3 -> HF folder: safetensors tensor by tensor, never pickle.

Loading holds one tensor of the file in host memory at a time (on a mesh: the share of it that this
process reads for all), saving one tensor as well.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, Sharding, SingleDeviceSharding
from jax.typing import DTypeLike

from opengrok_jax.errors import CheckpointError
from opengrok_jax.model import hf_config
from opengrok_jax.model.attention import Implementation
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3, Remat
from opengrok_jax.model.sharding import laid_out, parameter_shardings, reading_sharding
from opengrok_jax.model.tensorfile import (
    DTYPES,
    INDEX_FILE,
    StoredTensor,
    index_text,
    plan_shards,
    read_folder,
    write_file,
)
from opengrok_jax.storage import storing, sync_folder, write_text

# The order in which transformers numbers its shards: that of the modules in its source.
_BLOCK_ORDER = (
    "self_attn.o_proj",
    "self_attn.qkv_proj",
    "mlp.gate_up_proj",
    "mlp.down_proj",
    "input_layernorm",
    "post_attention_layernorm",
)


def load_hf(
    folder: str | Path,
    config: Phi3Config | None = None,
    param_dtype: DTypeLike | None = None,
    *,
    dtype: DTypeLike = jnp.float32,
    remat: Remat = "none",
    attention: Implementation = "auto",
    mesh: Mesh | None = None,
) -> Phi3:
    """The model of a HF folder (config.json, model.safetensors or shards with an index).

    config       instead of the folder's config.json
    param_dtype  what the parameters are kept in; None = each as the file has it
    dtype, remat, attention  see `Phi3`
    mesh         spreads the parameters over it (see sharding.py); None = the first device. The
                 processes of a mesh read disjoint rows of the files and exchange them

    Raises CheckpointError if files are missing, broken or hold other tensors than the config
    calls for, and ConfigError for a config that is not implemented.
    """
    folder = Path(folder)
    config = hf_config.read(folder) if config is None else config
    options: Any = {"dtype": dtype, "remat": remat, "attention": attention}
    abstract = nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0), **options))
    parameters = nnx.to_flat_state(nnx.state(abstract, nnx.Param))
    stored = read_folder(folder)
    check_tensors(folder, stored, hf_shapes(config))
    shardings = (
        None if mesh is None else dict(nnx.to_flat_state(parameter_shardings(abstract, mesh)))
    )
    here = SingleDeviceSharding(jax.local_devices()[0])
    loaded = []
    for path, parameter in parameters:
        tensors = [stored[name] for name in hf_names(path, config.num_hidden_layers)]
        kept = np.dtype(tensors[0].dtype if param_dtype is None else param_dtype)
        sharding = here if shardings is None else shardings[path].get_value()
        array = _load_parameter(tensors, parameter.shape, kept, sharding)
        loaded.append((path, parameter.replace(array)))
    return nnx.merge(nnx.graphdef(abstract), nnx.from_flat_state(loaded))


def save_hf(
    model: Phi3,
    config: Phi3Config,
    folder: str | Path,
    *,
    dtype: DTypeLike | None = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> None:
    """Writes config.json and safetensors that `transformers` loads; `dtype` None = as in the model.

    Everything is written beside `folder` and renamed to it at the end, so that `folder` is whole
    or absent. `overwrite` lets it take the place of a model saved before. A config.json and
    tensors that came through `load_hf` unchanged come out byte for byte. The tokenizer's files
    are not ours: copy them beside.

    Raises CheckpointError if `folder` holds something else, if the model was built from another
    config, or if its parameters live on several hosts; StorageError if the disk refuses.
    """
    folder = Path(folder)
    taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken and not (overwrite and (folder / "config.json").exists()):
        raise CheckpointError(f"{folder} is there already; remove it or choose another folder")
    if model.config != config:
        raise CheckpointError(f"the model was built from {model.config}, not from {config}")
    source = _parameters_by_hf_name(model)
    shapes = hf_shapes(config)
    kept = {
        name: np.dtype(array.dtype if dtype is None else dtype)
        for name, (array, _) in source.items()
    }
    if unknown := {str(d) for d in kept.values()} - {str(d) for d in DTYPES.values()}:
        raise CheckpointError(f"cannot store dtype {sorted(unknown)}; use float32 or bfloat16")
    if remote := [name for name, (array, _) in source.items() if not array.is_fully_addressable]:
        raise CheckpointError(
            f"{remote[0]} lives on several hosts; load the training checkpoint on one host to "
            "export it"
        )

    def fetch(name: str) -> np.ndarray:
        array, layer = source[name]
        return np.asarray(array if layer is None else _take_layer(array, layer)).astype(kept[name])

    partial, old = (
        folder.parent / f".{folder.name}.{os.getpid()}.{part}" for part in ("partial", "old")
    )
    shards = plan_shards(shapes, kept, max_shard_bytes)
    try:
        with storing(folder):
            shutil.rmtree(partial, ignore_errors=True)  # in a container, process numbers come again
            partial.mkdir(parents=True)
            stated = str(kept["model.embed_tokens.weight"])
            write_text(partial / "config.json", hf_config.write(config, stated))
            for file, names in shards.items():
                write_file(partial / file, [(n, shapes[n], kept[n]) for n in names], fetch)
            if len(shards) > 1:
                write_text(partial / INDEX_FILE, index_text(shards, shapes, kept))
            sync_folder(partial)
            if taken:
                os.rename(folder, old)
            os.rename(partial, folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def hf_names(path: Sequence[object], num_layers: int) -> list[str]:
    """The HF tensors that make up a parameter, in layer order.

    >>> hf_names(("layers", "mlp", "down_proj", "weight"), 2)
    ['model.layers.0.mlp.down_proj.weight', 'model.layers.1.mlp.down_proj.weight']
    >>> hf_names(("lm_head", "weight"), 2)
    ['lm_head.weight']
    """
    name = ".".join(str(key) for key in path)
    if path[0] != "layers":
        return [name if path[0] == "lm_head" else f"model.{name}"]
    rest = name.removeprefix("layers.")
    return [f"model.layers.{layer}.{rest}" for layer in range(num_layers)]


def hf_shapes(config: Phi3Config) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint and their shapes, in the order of transformers."""
    model = nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0)))
    by_name = {
        name: tuple(parameter.shape[path[0] == "layers" :])
        for path, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param))
        for name in hf_names(path, config.num_hidden_layers)
    }
    blocks = [
        f"model.layers.{layer}.{module}.weight"
        for layer in range(config.num_hidden_layers)
        for module in _BLOCK_ORDER
    ]
    order = ["model.embed_tokens.weight", *blocks, "model.norm.weight", "lm_head.weight"]
    assert set(by_name) <= set(order), set(by_name) - set(order)
    return {name: by_name[name] for name in order if name in by_name}


def _parameters_by_hf_name(model: Phi3) -> dict[str, tuple[jax.Array, int | None]]:
    """HF name -> the parameter that holds it, and the layer within, if it is stacked."""
    return {
        name: (parameter[...], layer if path[0] == "layers" else None)
        for path, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param))
        for layer, name in enumerate(hf_names(path, parameter.shape[0]))
    }


@jax.jit
def _take_layer(stack: jax.Array, layer: jax.Array | int) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(stack, layer, keepdims=False)


def check_tensors(
    folder: Path, stored: dict[str, StoredTensor], shapes: dict[str, tuple[int, ...]]
) -> None:
    """Raises CheckpointError, naming tensors that are missing, extra, or of another shape."""
    problems = [
        ("missing", [name for name in shapes if name not in stored]),
        ("not part of the model", [name for name in stored if name not in shapes]),
        (
            "of another shape",
            [
                f"{name} (file {stored[name].shape}, config {shape})"
                for name, shape in shapes.items()
                if name in stored and stored[name].shape != shape
            ],
        ),
    ]
    said = [f"{len(names)} {what}: {_some(names)}" for what, names in problems if names]
    if said:
        raise CheckpointError(f"{folder}: the weights do not fit the config; " + "; ".join(said))


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", .." if len(names) > most else "")


def _load_parameter(
    tensors: Sequence[StoredTensor], shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding
) -> jax.Array:
    """One parameter on its devices, stacked from as many tensors as its shape has layers."""

    def read(tensor: StoredTensor) -> jax.Array:
        of_rows = sharding
        if isinstance(sharding, NamedSharding):
            of_rows = reading_sharding(tensor.shape, sharding.mesh)
        return jax.make_array_from_callback(
            tensor.shape, of_rows, lambda index: tensor.read(index, dtype)
        )

    if shape == tensors[0].shape:
        (tensor,) = tensors
        return laid_out(read(tensor), sharding)
    stack = jnp.zeros(shape, dtype, device=sharding)
    for at, tensor in enumerate(tensors):
        stack = _put_layer(sharding)(stack, read(tensor), at)
        stack.block_until_ready()  # or the layers read ahead of the device pile up on the host
    return stack


@cache
def _put_layer(sharding: Sharding) -> Callable[..., jax.Array]:
    """(stack, layer, index) -> stack, filled in place: one layer more than it, never two stacks."""
    return jax.jit(
        lambda stack, layer, at: stack.at[at].set(layer), donate_argnums=0, out_shardings=sharding
    )
