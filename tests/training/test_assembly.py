"""What a run and a plan put together, from shapes alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.model.sharding import create_sharded, make_mesh
from opengrok_jax.training import batches, step
from opengrok_jax.training.assembly import assemble
from opengrok_jax.training.objective import Objective
from opengrok_jax.training.redraw import Redraw

SETTINGS = {
    "steps": 4,
    "capacity": 64,
    "rule": "exclude",
    "learning_rate": 0.1,
    "warmup_share": 0.0,
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "remat": "none",
    "dtype": "float32",
    "param_dtype": "bfloat16",
    "seed": 3,
}
VOCAB = 61  # of the examples
LORA = {"rank": 2, "alpha": 4.0, "targets": ["o_proj"]}


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(fsdp=1, devices=jax.devices()[:1])


def names(state):
    return {".".join(map(str, path)) for path, _ in nnx.to_flat_state(state)}


def test_nothing_is_allocated(tiny, mesh):
    made = assemble(tiny, mesh, **SETTINGS)
    leaves = [*jax.tree.leaves(made.like), *jax.tree.leaves(made.base)]
    assert {type(leaf) for leaf in leaves} == {jax.ShapeDtypeStruct}
    assert {leaf.dtype for leaf in jax.tree.leaves(made.like.params)} == {jnp.dtype(jnp.bfloat16)}


def test_moments_keep_their_dtype_through_an_update(tiny, mesh):
    """Parameters in bfloat16 here, so that each of the two is seen to go its own way."""
    shapes = step.abstract_batch(mesh, microbatches=2, rows=4, row_tokens=48)
    for dtype in ("bfloat16", "float32"):
        made = assemble(tiny, mesh, **SETTINGS, moments_dtype=dtype)
        state, _ = jax.eval_shape(made.update, made.like, shapes)
        for found in (made.like, state):
            moments = [x.dtype for x in jax.tree.leaves(found.opt_state) if x.shape]
            assert set(moments) == {jnp.dtype(dtype)}
            assert {x.dtype for x in jax.tree.leaves(found.params)} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("learning_rate", 0.2), ("warmup_share", 0.5), ("schedule", "linear")],
        *[("final_share", 0.5), ("weight_decay", 0.1), ("clip_norm", 0.1), ("b1", 0.5)],
        *[("b2", 0.5), ("eps", 0.5), ("moments_dtype", "bfloat16")],
    ],
)
def test_every_setting_of_the_optimizer_reaches_it(tiny, mesh, name, value):
    """Whatever it is made for, an optimizer takes any parameters: here one matrix."""

    def after(settings):
        optimizer = assemble(tiny, mesh, **settings).optimizer
        params = {"mlp": jnp.asarray([[1.0, -2.0, 3.0]])}
        state = optimizer.init(params)
        for size in (1.1, 0.3, 0.7):
            grads = {"mlp": size * jnp.asarray([[0.3, 0.1, -0.2]])}
            changes, state = optimizer.update(grads, state, params)
            params = jax.tree.map(jnp.add, params, changes)
        return np.asarray(params["mlp"])

    assert np.abs(after(SETTINGS | {name: value}) - after(SETTINGS)).max() > 1e-5


def test_adapters_alone_are_in_the_state(tiny, mesh):
    whole, adapted = assemble(tiny, mesh, **SETTINGS), assemble(tiny, mesh, **SETTINGS, lora=LORA)
    some = {f"layers.self_attn.o_proj.lora.{name}" for name in "AB"}
    assert names(adapted.like.params) == some
    assert names(adapted.base) == names(whole.base) == names(whole.like.params)


def test_the_update_takes_the_teacher_as_an_argument(tiny, mesh, examples):
    """With a teacher equal to the student there is nothing to learn; with another there is."""
    aim = Objective(loss="forward_kl", weight=1.0)
    settings = {**SETTINGS, "param_dtype": "float32", "rule": "none"}
    made = assemble(tiny, mesh, **settings, objective=aim, teacher=tiny)
    batch = batches.fill([[0], [1]], examples, row_tokens=48, normalize="token")
    placed = step.place(batch, mesh, microbatches=1)
    losses = []
    with jax.set_mesh(mesh):
        for scale in (1.0, 3.0):
            student = create_sharded(made.create, mesh)
            state = step.new_state(student, made.optimizer, made.like)
            of_teacher = jax.tree.map(lambda x, by=scale: x * by, state.params)
            before = jax.tree.map(np.array, of_teacher)
            _, report = made.update(state, placed, of_teacher=of_teacher)
            losses.append((float(report.loss), float(report.grad_norm)))
            for a, b in zip(*map(jax.tree.leaves, (before, of_teacher)), strict=True):
                np.testing.assert_array_equal(a, b)
    assert losses[0] == pytest.approx((0, 0), abs=1e-5)
    assert losses[1][0] > 1e-4
    assert losses[1][1] > 1e-3


PLANNED = {
    "plain": {},
    "drawn anew": {},
    "adapters": {"lora": LORA},
    "stored distributions": {"objective": Objective(loss="topk", weight=0.5)},
    "adapters and a teacher": {
        "lora": LORA,
        "objective": Objective(loss="reverse_kl", weight=0.5, feature_weight=0.5),
        "teacher_dtype": "bfloat16",
    },
}


@pytest.mark.parametrize("name", PLANNED)
def test_a_plan_compiles_what_a_run_runs(tiny, mesh, examples, name):
    """The program made from shapes alone takes a run's own arrays, and is its program."""
    more = dict(PLANNED[name])
    aim = more.get("objective", Objective())
    if aim.needs_teacher:
        more["teacher"] = replace(tiny, num_hidden_layers=1)
    batch = batches.fill([[0], [1], [2], []], examples, row_tokens=48, normalize="token")
    k = 5 if aim.needs_soft_targets else 0
    if k:
        ids = np.arange(4 * 48 * k, dtype=np.int32).reshape(4, 48, k) % VOCAB
        batch = batch._replace(soft=batches.Soft(ids, np.full(ids.shape, -2.0, np.float32)))
    redrawn = name == "drawn anew"
    if redrawn:
        drawn = Redraw.empty((4, 48))
        drawn.keep_prob[:], drawn.epoch[:] = 0.5, 3
        batch = batch._replace(redraw=drawn)
    placed = step.place(batch, mesh, microbatches=2)
    shapes = step.abstract_batch(mesh, microbatches=2, rows=4, row_tokens=48, k=k, redrawn=redrawn)

    def assert_as_promised(promised, found):
        for a, b in zip(*map(jax.tree.leaves, (promised, found)), strict=True):
            assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)

    assert_as_promised(shapes, placed)
    with jax.set_mesh(mesh):
        made = assemble(tiny, mesh, **SETTINGS, **more)
        beside = made.of_teacher
        frozen, of_teacher = (
            jax.tree.map(
                lambda x: jax.device_put(jnp.full(x.shape, 0.1, x.dtype), x.sharding), tree
            )
            for tree in (made.frozen, beside)
        )
        assert bool(frozen) == ("lora" in more)
        assert (beside is not None) == aim.needs_teacher
        dtypes = {x.dtype for x in jax.tree.leaves(beside)}
        assert dtypes == ({jnp.dtype(jnp.bfloat16)} if aim.needs_teacher else set())
        assert_as_promised((made.frozen, beside), (frozen, of_teacher))
        shapes = (made.like, shapes, *made.frozen)
        compiled = made.update.lower(*shapes, of_teacher=beside).compile()  # type: ignore[attr-defined]
        results = []
        for update in (compiled, made.update):
            student = create_sharded(made.create, mesh, made.trainable, *frozen)
            state = step.new_state(student, made.optimizer, made.like, made.trainable)
            results.append(update(state, placed, *frozen, of_teacher=of_teacher))
        for a, b in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_array_equal(a, b)
