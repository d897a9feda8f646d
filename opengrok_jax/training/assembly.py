"""Model, optimizer and update put together, from shapes alone: for a run and for a plan of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import optax
from flax import nnx
from jax.sharding import Mesh

from opengrok_jax.model import lora as adapters
from opengrok_jax.model.attention import Implementation, Rule
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3, Remat
from opengrok_jax.training import optimizer, step
from opengrok_jax.training.objective import HARD, Objective

# The settings of a fine-tuning that `assemble` takes as they are.
ASSEMBLED = (
    *("rule", "learning_rate", "warmup_share", "schedule", "final_share"),
    *("weight_decay", "clip_norm", "b1", "b2", "eps"),
    *("remat", "attention", "unroll", "dtype", "param_dtype"),
    *("moments_dtype", "seed"),
)


class Assembly(NamedTuple):
    """What a fine-tuning runs, before any array exists.

    Attributes:
      create: makes the model with its adapters, if any; call it under `create_sharded`.
      trainable: selects the parameters that are learnt.
      base: abstract parameters of the model without adapters.
      frozen: abstract parameters beside the state: with LoRA (base,), else ().
      of_teacher: abstract parameters of the model beside the student; None = there is none.
      graph: of the model.
      optimizer: its update and its first state.
      like: the abstract state.
      update: see `step.make_train_step`.

    What is abstract has shapes, dtypes and shardings.
    """

    create: Callable[[], Phi3]
    trainable: nnx.filterlib.Filter
    base: Any
    frozen: tuple[Any, ...]
    of_teacher: Any
    graph: nnx.GraphDef
    optimizer: optax.GradientTransformation
    like: step.TrainState
    update: Callable[..., tuple[step.TrainState, step.StepReport]]


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
    schedule: optimizer.Schedule = "cosine",
    final_share: float = 0.0,
    b1: float = optimizer.B1,
    b2: float = optimizer.B2,
    eps: float = optimizer.EPS,
    moments_dtype: str = "float32",
    attention: Implementation = "auto",
    unroll: bool = False,
    lora: Mapping[str, Any] | None = None,
    objective: Objective = HARD,
    teacher: Phi3Config | None = None,
    teacher_dtype: str = "float32",
) -> Assembly:
    """Puts a fine-tuning together; allocates nothing, and `devices` need not be attached.

    Args:
      config: sizes of the model.
      devices: the mesh.
      steps: updates in all, over which the schedule runs.
      capacity: C of `losses.weighted_sum`.
      rule, learning_rate, warmup_share, schedule, final_share, weight_decay, clip_norm, b1, b2,
        eps, remat, attention, unroll, dtype, param_dtype, moments_dtype, seed: as in
        `finetune.run`.
      lora: rank, alpha, targets of the adapters; None = all parameters are learnt.
      objective: what is minimised.
      teacher: sizes of the model beside the student, if the objective needs one.
      teacher_dtype: what `of_teacher` takes its parameters to be stored in; a run takes them as
        they are.

    Raises:
      ConfigError: a parameter does not divide by its part of the mesh.
    """

    def create() -> Phi3:
        rngs = nnx.Rngs(seed)
        how: Any = {"dtype": dtype, "remat": remat, "attention": attention, "unroll": unroll}
        model = Phi3(config, rngs=rngs, param_dtype=param_dtype, **how)
        return adapters.adapt(model, **lora, rngs=rngs) if lora else model

    abstract = nnx.eval_shape(create)
    graph = nnx.graphdef(abstract)
    trainable = adapters.ADAPTERS if lora else nnx.Param
    rate = optimizer.schedule(
        learning_rate=learning_rate,
        steps=steps,
        warmup_share=warmup_share,
        shape=schedule,
        final_share=final_share,
    )
    adamw = optimizer.make_optimizer(
        rate=rate,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        b1=b1,
        b2=b2,
        eps=eps,
        moments_dtype=moments_dtype,
    )
    like = step.abstract_state(abstract, adamw, devices, trainable)
    beside = None
    if teacher is not None:
        beside = nnx.eval_shape(lambda: _only_run(teacher, dtype, teacher_dtype))
    update = step.make_train_step(
        graph,
        adamw,
        rate,
        like,
        rule=rule,
        capacity=capacity,
        groups=step.row_groups(devices),
        objective=objective,
        teacher=None if beside is None else nnx.graphdef(beside),
    )
    base = step.abstract_parameters(abstract, devices, adapters.BASE)
    return Assembly(
        create=create,
        trainable=trainable,
        base=base,
        frozen=(base,) if lora else (),
        of_teacher=None if beside is None else step.abstract_parameters(beside, devices),
        graph=graph,
        optimizer=adamw,
        like=like,
        update=update,
    )


def _only_run(config: Phi3Config, dtype: str, param_dtype: str) -> Phi3:
    return Phi3(config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=param_dtype)
