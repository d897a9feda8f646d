"""One update as one jitted function over a mesh; one evaluation as another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from opengrok_jax.model.attention import Rule
from opengrok_jax.model.sharding import RULES, parameter_shardings
from opengrok_jax.training.batches import Batch, Soft
from opengrok_jax.training.objective import HARD, Objective, summed_loss
from opengrok_jax.training.redraw import Redraw


class TrainState(NamedTuple):
    """What an update changes.

    Attributes:
      step: int32 scalar, updates done.
      params: the model's parameters, in `param_dtype`; with LoRA the adapters alone.
      opt_state: of the optimizer; its moments do not follow the dtype of the parameters.
    """

    step: Any
    params: Any
    opt_state: Any


class StepReport(NamedTuple):
    """What an update tells, float32 scalars.

    Attributes:
      loss: of this batch before the update, divided by its total weight.
      grad_norm: global norm before clipping.
      learning_rate: of this update.
    """

    loss: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array


def abstract_parameters(
    model: nnx.Module, mesh: Mesh | AbstractMesh, which: nnx.filterlib.Filter = nnx.Param
) -> Any:
    """Shapes, dtypes and shardings of the parameters that `which` selects; see `abstract_state`."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        nnx.state(model, which),
        nnx.filter_state(parameter_shardings(model, mesh), which),
    )


def abstract_state(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    mesh: Mesh | AbstractMesh,
    trainable: nnx.filterlib.Filter = nnx.Param,
) -> TrainState:
    """Shapes, dtypes and shardings of the state of a model (which may be abstract itself).

    `trainable` says which parameters an update changes; the mesh need not be of real devices.

    Raises:
      ConfigError: a parameter does not divide by its part of the mesh.
    """
    params = abstract_parameters(model, mesh, trainable)
    moments = jax.eval_shape(lambda p: optimizer.init(_float32(p)), params)
    whole = NamedSharding(mesh, PartitionSpec())
    of_moments = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        moments,
        jax.tree.map(lambda x: x.sharding, params),
        transform_non_params=lambda _: whole,
    )
    moments = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        moments,
        of_moments,
    )
    return TrainState(jax.ShapeDtypeStruct((), jnp.int32, sharding=whole), params, moments)


def new_state(
    model: nnx.Module,
    optimizer: optax.GradientTransformation,
    like: TrainState,
    trainable: nnx.filterlib.Filter = nnx.Param,
) -> TrainState:
    """The state before the first update, laid out as `like`.

    The trainable arrays of the model pass into the state: keep its graph, not these.
    """

    def first(params: Any) -> TrainState:
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(_float32(params)))

    initialise = jax.jit(first, out_shardings=shardings(like), donate_argnums=0)
    return initialise(nnx.state(model, trainable))


def shardings(state: TrainState) -> TrainState:
    """Where each array of a state lies, in the form of the state."""
    return jax.tree.map(lambda x: x.sharding, state)


def make_train_step(
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    rate: optax.Schedule,
    like: TrainState,
    *,
    rule: Rule,
    capacity: int,
    groups: int,
    objective: Objective = HARD,
    teacher: nnx.GraphDef | None = None,
) -> Callable[..., tuple[TrainState, StepReport]]:
    """The update: (state, batch, *frozen, of_teacher=None) -> (state, report).

    It takes a batch of (M, b, T) arrays and gives its old state's memory to the new. `frozen` are
    the parameters that the state does not hold: none in a full fine-tuning, with LoRA the base;
    `of_teacher` are those of the model beside the student. No gradient of either is formed.

    Each microbatch adds its summed loss, its total weight and the gradient of the sum; one division
    by the total weight comes after the last. The result is that of one large batch, however
    unevenly the loss-bearing tokens fall on the microbatches and devices.

    Args:
      graph: of the model, from `nnx.graphdef`.
      optimizer, rate: from optimizer.py.
      like: a state, or an abstract one: where each array lies, before and after.
      rule: of the masked attention.
      capacity, groups: C and G of `losses.weighted_sum`, per microbatch.
      objective: what is minimised.
      teacher: of the model beside the student, if the objective needs one.
    """

    def update(
        state: TrainState, batches: Batch, *frozen: Any, of_teacher: Any = None
    ) -> tuple[TrainState, StepReport]:
        def summed(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
            return summed_loss(
                nnx.merge(graph, params, *frozen),
                batch,
                objective=objective,
                rule=rule,
                capacity=capacity,
                groups=groups,
                teacher=None if teacher is None else nnx.merge(teacher, of_teacher),
            )

        gradient = jax.value_and_grad(summed, has_aux=True)

        def accumulate(carry: tuple[Any, ...], batch: Batch) -> tuple[tuple[Any, ...], None]:
            grads, loss, weight = carry
            (more, heavier), added = gradient(state.params, batch)
            grads = jax.tree.map(lambda old, new: old + new.astype(jnp.float32), grads, added)
            grads = jax.lax.with_sharding_constraint(grads, shardings(like).params)
            return (grads, loss + more, weight + heavier), None

        zero = jnp.zeros((), jnp.float32)
        start = jax.tree.map(lambda p: jnp.zeros(p.shape, jnp.float32), state.params)
        (grads, loss, weight), _ = jax.lax.scan(accumulate, (start, zero, zero), batches)
        grads = jax.tree.map(lambda g: g / weight, grads)
        report = StepReport(loss / weight, _norm(grads), jnp.asarray(rate(state.step), jnp.float32))
        # Float32 arithmetic whatever the parameters are stored in; only the sum is rounded.
        changes, opt_state = optimizer.update(grads, state.opt_state, _float32(state.params))
        params = jax.tree.map(
            lambda p, change: (p.astype(jnp.float32) + change).astype(p.dtype),
            state.params,
            changes,
        )
        return TrainState(state.step + 1, params, opt_state), report

    return jax.jit(update, donate_argnums=0, out_shardings=(shardings(like), None))


def make_eval_step(
    graph: nnx.GraphDef, *, rule: Rule, capacity: int, groups: int
) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """(params, batch, *frozen) -> (summed loss, total weight) of a (b, T) batch, undivided.

    Cross-entropy whatever is minimised: the one number that runs of any objective share.
    """

    def evaluate(params: Any, batch: Batch, *frozen: Any) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graph, params, *frozen)
        return summed_loss(
            model, batch, objective=HARD, rule=rule, capacity=capacity, groups=groups
        )

    return jax.jit(evaluate)


def place(batch: Batch, mesh: Mesh, *, microbatches: int = 0) -> Batch:
    """A host batch (B, T) on the mesh, rows over `data` and `fsdp`.

    Every process passes the whole batch and uploads only the rows of its own devices. None waits
    for another, so a thread may do it ahead; `jax.device_put` would compare the processes' batches.

    Args:
      batch: NumPy arrays.
      mesh: of the model.
      microbatches: M > 0 cuts into (M, B / M, T); 0 leaves (B, T).
    """
    sharding = _of_rows(mesh, microbatches)

    def put(x: np.ndarray) -> jax.Array:
        if microbatches:
            x = x.reshape(microbatches, -1, *x.shape[1:])
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])

    return jax.tree.map(put, batch)


def abstract_batch(
    mesh: Mesh | AbstractMesh,
    *,
    microbatches: int,
    rows: int,
    row_tokens: int,
    k: int = 0,
    redrawn: bool = False,
) -> Batch:
    """What `place` gives for `rows` rows, M > 0 microbatches, without the numbers.

    `k` > 0 adds stored distributions of so many slots, `redrawn` what masks are drawn anew from.
    """
    shape, sharding = (microbatches, rows // microbatches, row_tokens), _of_rows(mesh, microbatches)
    integers, flags, floats = (
        jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for dtype in (jnp.int32, jnp.bool_, jnp.float32)
    )
    soft = None
    if k:
        slots = [x.update(shape=(*shape, k)) for x in (integers, floats)]
        soft = Soft(*slots)
    redraw = None
    if redrawn:
        words = jax.ShapeDtypeStruct(shape, jnp.uint32, sharding=sharding)
        redraw = Redraw(floats, words.update(shape=(*shape, 2)), words)
    return Batch(integers, integers, integers, flags, integers, floats, floats, soft, redraw)


def row_groups(mesh: Mesh | AbstractMesh) -> int:
    """G: over how many parts of the mesh the rows of a batch are split."""
    return int(np.prod([mesh.shape[axis] for axis in RULES["batch"]]))


def _of_rows(mesh: Mesh | AbstractMesh, microbatches: int) -> NamedSharding:
    spec = PartitionSpec(None, RULES["batch"]) if microbatches else PartitionSpec(RULES["batch"])
    return NamedSharding(mesh, spec)


def _float32(params: Any) -> Any:
    return jax.tree.map(lambda p: p.astype(jnp.float32), params)


def _norm(grads: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads)))
