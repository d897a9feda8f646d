"""Model, optimizer and update put together, from shapes alone: for a run and for a plan of one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import optax
from flax import nnx
from jax.sharding import Mesh

from opengrok_jax.model.attention import Rule
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3, Remat
from opengrok_jax.training import optimizer, step
from opengrok_jax.training.batches import Batch

# The settings of a fine-tuning that `assemble` takes as they are.
ASSEMBLED = (
    *("rule", "learning_rate", "warmup_share", "weight_decay", "clip_norm"),
    *("remat", "dtype", "param_dtype", "seed"),
)


class Assembly(NamedTuple):
    """What a fine-tuning runs, before any array exists.

    Attributes:
      create: makes the model; call it under `create_sharded`.
      graph: of the model.
      optimizer: its update and its first state.
      like: the abstract state, with shardings.
      update: see `step.make_train_step`.
    """

    create: Callable[[], Phi3]
    graph: nnx.GraphDef
    optimizer: optax.GradientTransformation
    like: step.TrainState
    update: Callable[[step.TrainState, Batch], tuple[step.TrainState, step.StepReport]]


def assemble(
    config: Phi3Config,
    devices: Mesh,
    *,
    steps: int,
    capacity: int,
    rule: Rule,
    learning_rate: float,
    warmup_share: float,
    weight_decay: float,
    clip_norm: float,
    remat: Remat,
    dtype: str,
    param_dtype: str,
    seed: int,
) -> Assembly:
    """Puts a fine-tuning together; allocates nothing, and `devices` need not be attached.

    Args:
      config: sizes of the model.
      devices: the mesh.
      steps: updates in all, over which the schedule runs.
      capacity: C of `losses.cross_entropy`.
      rule, learning_rate, warmup_share, weight_decay, clip_norm, remat, dtype, param_dtype, seed:
        as in `finetune.run`.

    Raises:
      ConfigError: a parameter does not divide by its part of the mesh.
    """
    create = partial(Phi3, config, dtype=dtype, param_dtype=param_dtype, remat=remat)
    abstract = nnx.eval_shape(lambda: create(rngs=nnx.Rngs(seed)))
    graph = nnx.graphdef(abstract)
    rate = optimizer.schedule(learning_rate=learning_rate, steps=steps, warmup_share=warmup_share)
    adamw = optimizer.make_optimizer(rate=rate, weight_decay=weight_decay, clip_norm=clip_norm)
    like = step.abstract_state(abstract, adamw, devices)
    update = step.make_train_step(
        graph,
        adamw,
        rate,
        like,
        rule=rule,
        capacity=capacity,
        groups=step.row_groups(devices),
    )
    return Assembly(lambda: create(rngs=nnx.Rngs(seed)), graph, adamw, like, update)
