"""Many short trainings in one process: the data lies on the device, and all steps are one program.

For ablations of students from scratch. What is computed is what `finetune.run` computes (the same
packing, order, first weights and update: `assembly`, `step`), without what a long run needs:
checkpoints, evaluations on the way, a mesh, meters. A training that is killed is done again.

    rows      every packed row once, on the device, and one row of padding at the end
    order     (steps, B) which rows an update reads; the only thing that differs between seeds
    program   lax.scan of the update over the steps; compiled once for all seeds, and for all data
              of the same shape, whatever is in the masks

Trainings that share their settings but for seed and data, and whose data have the same shape, share
the program; JAX's persistent compilation cache, where it is switched on, shares it between
processes.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from opengrok_jax.errors import ConfigError, TrainingError
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import make_mesh
from opengrok_jax.training import objective, packing, settings, step
from opengrok_jax.training.assembly import ASSEMBLED, Assembly, assemble
from opengrok_jax.training.batches import Batch, Packed, fill
from opengrok_jax.training.sources import PACKED, read_sources

CURVE = 200  # points of the loss curve that are kept
# What only `finetune.run` can: its setting -> the value that it must have here.
WITHOUT: dict[str, Any] = {
    "init": settings.SCRATCH,
    "lora": None,
    "distill": None,
    "teacher": "",
    "soft_targets": "",
    "eval_every": 0,
    "patience": 0,
    "microbatches": 1,
    "tensorboard": False,
}


class Trained(NamedTuple):
    """A student in memory.

    Attributes:
      model: its parameters are those after the last update.
      config: its sizes.
      figures: parameters, steps, tokens (of all updates, without padding), loss_tokens, seconds,
        seconds_compiling (0 where the program was there), last_loss (mean of the last tenth).
      losses: [step, train loss], at most `CURVE` of them.
    """

    model: Phi3
    config: Phi3Config
    figures: dict[str, Any]
    losses: list[Any]


class Trainer:
    """Trains one student after the other; holds programs and data between them."""

    def __init__(self, kept: int = 4):
        """Keeps the rows of the last `kept` masked files on the device."""
        self._devices = make_mesh(1, 1, 1, devices=jax.devices()[:1])
        self._programs: dict[str, _Program] = {}
        self._rows: dict[tuple[Any, ...], tuple[Any, Batch]] = {}
        self._kept = kept

    def train(self, given: Mapping[str, Any], *, masked_file: Path, untrained: bool = False) -> Any:
        """Trains a student from scratch; the same arguments give the same student.

        Args:
          given: the settings of `finetune.run`, all of them; those that long runs alone need
            (`save_every`, `mesh`) are not read.
          masked_file: what `opengrok mask` wrote.
          untrained: no update is made: the floor that any training has to beat.

        Returns:
          A `Trained`.

        Raises:
          ConfigError: a wrong setting, or one that only `finetune.run` can do.
          DataError: examples that are missing or cannot be learnt from.
          TrainingError: a loss is not finite.
        """
        check(given)
        begun = time.monotonic()
        with jax.set_mesh(self._devices):
            source, rows = self._data(given, masked_file)
            train = cast(Packed, source.train)
            order = packing.data_order(
                len(train.rows),
                **{k: given[k] for k in ("rows_per_batch", "epochs", "max_steps", "seed")},
            )
            program = self._program(given, source.config, order.shape, rows, train)
            state = program.first(given["seed"])
            losses, compiling = np.zeros(0), 0.0
            if not untrained:
                compiling = program.compile(state, rows, order)
                state, found = program.all_steps(state, rows, jnp.asarray(order))
                losses = np.asarray(jax.device_get(found), np.float64)
            jax.block_until_ready(state.params)
            model = nnx.merge(program.made.graph, state.params)
        if not np.isfinite(losses).all():
            at = int(np.flatnonzero(~np.isfinite(losses))[0])
            raise TrainingError(
                f"step {at + 1} of seed {given['seed']}: loss {losses[at]}; try a smaller "
                "learning_rate or clip_norm"
            )
        lengths = np.array(
            [sum(len(train.examples[i].tokens) for i in r) for r in train.rows] + [0]
        )
        bearing = np.append(train.bearing(), 0)
        seen = order[:0] if untrained else order
        tail = losses[-max(1, len(losses) // 10) :]
        figures = {
            "parameters": sum(math.prod(p.shape) for p in jax.tree.leaves(state.params)),
            "steps": len(seen),
            "tokens": int(lengths[seen].sum()),
            "loss_tokens": int(bearing[seen].sum()),
            "train_examples": len(train.examples),
            "seconds": round(time.monotonic() - begun, 3),
            "seconds_compiling": round(compiling, 3),
            "last_loss": float(tail.mean()) if len(tail) else None,
        }
        at = np.unique(np.linspace(0, len(losses) - 1, CURVE).round().astype(int))
        curve = [[int(i) + 1, round(float(losses[i]), 4)] for i in at] if len(losses) else []
        return Trained(model, source.config, figures, curve)

    def _data(self, given: Mapping[str, Any], masked_file: Path) -> tuple[Any, Batch]:
        """The sources, and all rows on the device."""
        names = [n for n in PACKED if n not in ("seed", "epochs", "max_steps", "rows_per_batch")]
        key = (str(masked_file), given["draw"], str(given["model"]), *(given[n] for n in names))
        if key not in self._rows:
            source = read_sources({**given, "masked_file": masked_file}, objective.HARD)
            train = source.train
            made = fill(
                [*train.rows, ()],
                train.examples,
                row_tokens=train.row_tokens,
                normalize=train.normalize,
                loss_by=train.loss_by,
                redraw_keys=train.redraw_keys,
                epochs=[0] * (len(train.rows) + 1),
            )
            while len(self._rows) >= self._kept:
                del self._rows[next(iter(self._rows))]
            self._rows[key] = source, jax.tree.map(jnp.asarray, made)
        return self._rows[key]

    def _program(
        self,
        given: Mapping[str, Any],
        config: Phi3Config,
        shape: tuple[int, ...],
        rows: Batch,
        train: Packed,
    ) -> _Program:
        """The compiled training for these settings and shapes, whatever the seed."""
        # The most that any B rows bear: the same for every order, so for every seed.
        most = np.sort(train.bearing())[-shape[1] :].sum()
        capacity = -(-int(most) // packing.CAPACITY_MULTIPLE) * packing.CAPACITY_MULTIPLE
        capacity = min(capacity, shape[1] * train.row_tokens)
        how = {name: given[name] for name in ASSEMBLED if name != "seed"}
        shapes = [(x.shape, str(x.dtype)) for x in jax.tree.leaves(rows)]
        key = json.dumps([str(config), shape, capacity, how, shapes], default=str)
        if key not in self._programs:
            made = assemble(config, self._devices, steps=shape[0], capacity=capacity, seed=0, **how)
            self._programs[key] = _Program(made, config, given, len(train.rows))
        return self._programs[key]


class _Program:
    """A training as two compiled functions: the first state, and all updates."""

    def __init__(self, made: Assembly, config: Phi3Config, given: Mapping[str, Any], rows: int):
        self.made = made

        def create(key: jax.Array) -> Any:
            how: Any = {
                name: given[name]
                for name in ("dtype", "remat", "attention", "unroll", "param_dtype")
            }
            return nnx.state(Phi3(config, rngs=nnx.Rngs(key), **how), nnx.Param)

        def first(key: jax.Array) -> step.TrainState:
            params = create(key)
            wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
            return step.TrainState(jnp.zeros((), jnp.int32), params, made.optimizer.init(wide))

        self._first = jax.jit(first)
        self._compiled: Any = None

        def all_steps(state: Any, data: Batch, order: jax.Array) -> tuple[Any, jax.Array]:
            width = order.shape[1]

            def one(state: Any, chosen: jax.Array) -> tuple[Any, jax.Array]:
                batch = jax.tree.map(lambda x: x[chosen], data)  # -1 is the last row: padding
                if batch.redraw is not None:
                    # As in `Packed.batch`: the epochs follow one another without a gap.
                    epoch = (state.step * width + jnp.arange(width)) // rows
                    epoch = jnp.broadcast_to(epoch[:, None], batch.redraw.epoch.shape)
                    redraw = batch.redraw._replace(epoch=epoch.astype(jnp.uint32))
                    batch = batch._replace(redraw=redraw)
                state, report = made.update(state, jax.tree.map(lambda x: x[None], batch))
                return state, report.loss

            return jax.lax.scan(one, state, order)

        self._all: Any = jax.jit(all_steps, donate_argnums=0)

    def first(self, seed: int) -> step.TrainState:
        """The state before the first update; the weights that `nnx.Rngs(seed)` gives."""
        return self._first(jax.random.key(seed))

    def compile(self, state: Any, rows: Batch, order: np.ndarray) -> float:
        """Compiles all steps unless that is done; answers the seconds it took."""
        if self._compiled is not None:
            return 0.0
        begun = time.monotonic()
        self._compiled = self._all.lower(state, rows, jnp.asarray(order)).compile()
        return time.monotonic() - begun

    def all_steps(self, state: Any, rows: Batch, order: jax.Array) -> tuple[Any, jax.Array]:
        """(the state after the last update, the loss of each)."""
        return self._compiled(state, rows, order)


def check(given: Mapping[str, Any]) -> None:
    """Raises ConfigError for a wrong setting, or one that a resident training does not do."""
    settings.check(given)
    for name, value in WITHOUT.items():
        if (given[name] or None) != (value or None):
            raise ConfigError(
                f"training.{name} is {given[name]!r}; engine 'resident' takes {value!r} only: "
                "choose engine 'finetune' in the grid, which does everything, one run at a time"
            )
