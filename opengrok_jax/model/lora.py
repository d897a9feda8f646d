"""LoRA (arXiv:2106.09685): beside frozen projections, adapters of low rank that alone are learnt.

    y = x W^T + alpha/r (x A^T) B^T        A (L, r, inputs) random, B (L, outputs, r) zero

Written here and not taken from qwix (0.1.8 was tried), because qwix draws an adapter when it meets
the product, which for stacked blocks is while the scan's body is traced: there is no layer axis
to give it, and Flax refuses the draw.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from opengrok_jax import storage
from opengrok_jax.errors import CheckpointError
from opengrok_jax.model.layers import Linear
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.tensorfile import write_file

TARGETS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"  # PEFT's names

# Filters of `nnx.state`: what is learnt, and what is not.
ADAPTERS = nnx.LoRAParam
BASE = nnx.All(nnx.Param, nnx.Not(nnx.LoRAParam))

# Uniform within +-1/sqrt(inputs), as the paper's own code and PEFT draw A: with a normal of another
# width, learning rates found there would mean something else here.
_DRAW_A = nnx.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform", in_axis=-1, out_axis=-2, batch_axis=0
)


class Adapter(nnx.Module):
    """x -> alpha/r (x A^T) B^T. A and B are float32 whatever the projection is stored in."""

    def __init__(
        self, shape: tuple[int, int, int], rank: int, alpha: float, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        layers, outputs, inputs = shape
        self.A = nnx.LoRAParam(_DRAW_A(rngs.params(), (layers, rank, inputs), jnp.float32))
        self.B = nnx.LoRAParam(jnp.zeros((layers, outputs, rank), jnp.float32))
        self.scale, self.dtype = alpha / rank, dtype

    def __call__(self, x: Float[Array, "*rows inputs"]) -> Float[Array, "*rows outputs"]:
        """Multiplies in `dtype`; the scan has taken the layer axis away."""
        narrow = jnp.einsum("...i,ri->...r", x, self.A[...].astype(self.dtype)) * self.scale
        return jnp.einsum("...r,or->...o", narrow, self.B[...].astype(self.dtype))


def adapt(
    model: Phi3, *, rank: int, alpha: float, targets: Sequence[str] = TARGETS, rngs: nnx.Rngs
) -> Phi3:
    """The model with an adapter beside each target; as B is zero, it computes what it did.

    Args:
      model: may be abstract; is changed.
      rank, alpha: r and alpha.
      targets: of `TARGETS`.
      rngs: what A is drawn from.
    """
    for name, projection in _projections(model):
        if name.rpartition(".")[-1] in targets:
            shape: Any = projection.weight.shape
            projection.lora = Adapter(shape, rank, alpha, projection.dtype, rngs)
    return model


def merged(model: Phi3) -> Phi3:
    """The plain model with W + alpha/r B A for W, summed in float32 and rounded once.

    The adapted weights are changed where they lie: what else holds these arrays has lost them.
    """
    for _, projection in _projections(model):
        adapter: Any = projection.lora
        if adapter is not None:
            weight = projection.weight
            weight.set_value(_fold(weight[...], adapter.A[...], adapter.B[...], adapter.scale))
            projection.lora = None
    return model


def save_adapter(folder: Path, model: Phi3, base: str) -> None:
    """Writes the adapters as PEFT does, so that what reads its files can put them on the base.

    Of several processes, which all call this, the first writes.

    Args:
      folder: takes the place of an older one.
      model: from `adapt`.
      base: name or path of the model that the adapters belong to.

    Raises:
      CheckpointError: the folder holds something else.
      StorageError: the disk refused.
    """
    folder = Path(folder).absolute()
    if folder.exists() and any(folder.iterdir()) and not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} holds something else; remove it or choose another folder")
    adapters: list[tuple[str, Any]] = [
        (name, p.lora) for name, p in _projections(model) if p.lora is not None
    ]
    arrays = {
        f"base_model.model.model.layers.{layer}.{name}.lora_{part}.weight": matrix
        for name, adapter in adapters
        for part in ("A", "B")
        for layer, matrix in enumerate(_whole(getattr(adapter, part)[...]))
    }
    if jax.process_index():
        return
    rank = adapters[0][1].A.shape[1]
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": adapters[0][1].scale * rank,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": [name.rpartition(".")[-1] for name, _ in adapters],
        "task_type": "CAUSAL_LM",
    }
    partial_, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    with storage.storing(folder):
        shutil.rmtree(partial_, ignore_errors=True)
        partial_.mkdir(parents=True)
        tensors = [(name, array.shape, array.dtype) for name, array in arrays.items()]
        write_file(partial_ / WEIGHTS, tensors, arrays.__getitem__)
        storage.write_json(partial_ / CONFIG, config)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.rename(folder, old)
        os.rename(partial_, folder)
        storage.sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)


def _projections(model: Phi3) -> Iterator[tuple[str, Linear]]:
    """The stacked projections under their names in a block, in the order of `TARGETS`."""
    block = model.layers
    yield "self_attn.qkv_proj", block.self_attn.qkv_proj
    yield "self_attn.o_proj", block.self_attn.o_proj
    yield "mlp.gate_up_proj", block.mlp.gate_up_proj
    yield "mlp.down_proj", block.mlp.down_proj


def _whole(x: jax.Array) -> np.ndarray:
    """On the host, wherever its parts lie."""
    if isinstance(x.sharding, NamedSharding):
        everywhere = NamedSharding(x.sharding.mesh, PartitionSpec())
        x = jax.jit(lambda x: x, out_shardings=everywhere)(x)
    return np.asarray(x)


@partial(jax.jit, static_argnames="scale", donate_argnames="weight")
def _fold(
    weight: Float[Array, "L outputs inputs"],
    a: Float32[Array, "L r inputs"],
    b: Float32[Array, "L outputs r"],
    scale: float,
) -> Float[Array, "L outputs inputs"]:
    """Layer by layer in the memory of `weight`: one layer in float32 at a time."""

    def fold(layer: jax.Array, weight: jax.Array) -> jax.Array:
        change = jnp.matmul(b[layer], a[layer], precision=jax.lax.Precision.HIGHEST)
        changed = weight[layer].astype(jnp.float32) + scale * change
        return weight.at[layer].set(changed.astype(weight.dtype))

    return jax.lax.fori_loop(0, weight.shape[0], fold, weight)
