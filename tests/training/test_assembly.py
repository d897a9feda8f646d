"""What a run and a plan share."""

import jax
import numpy as np
from flax import nnx

from opengrok_jax.model.sharding import create_sharded, make_mesh
from opengrok_jax.training import batches, step
from opengrok_jax.training.assembly import ASSEMBLED, assemble

SETTINGS = {
    "rule": "exclude",
    "learning_rate": 1e-2,
    "warmup_share": 0.0,
    "weight_decay": 0.1,
    "clip_norm": 1.0,
    "remat": "full",
    "dtype": "float32",
    "param_dtype": "float32",
    "seed": 3,
}


def test_a_plan_compiles_what_a_run_runs(tiny, examples):
    """The program made from shapes alone takes a run's own state and batch, and is its program."""
    assert set(SETTINGS) == set(ASSEMBLED)
    mesh = make_mesh(fsdp=1, devices=jax.devices()[:1])
    batch = batches.fill([[0], [1], [2], []], examples, row_tokens=48, normalize="token")
    with jax.set_mesh(mesh):
        made = assemble(tiny, mesh, steps=4, capacity=96, **SETTINGS)
        shapes = step.abstract_batch(mesh, microbatches=2, rows=4, row_tokens=48)
        compiled = made.update.lower(made.like, shapes).compile()  # type: ignore[attr-defined]
        placed = step.place(batch, mesh, microbatches=2)
        for promised, found in zip(shapes, placed, strict=True):
            assert (promised.shape, promised.dtype) == (found.shape, found.dtype)
            assert promised.sharding == found.sharding
        results = []
        for update in (compiled, made.update):
            state = step.new_state(create_sharded(made.create, mesh), made.optimizer, made.like)
            results.append(update(state, placed))
        for a, b in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_array_equal(a, b)
    assert int(results[0][0].step) == 1
    assert nnx.merge(made.graph, results[0][0].params).config == tiny
