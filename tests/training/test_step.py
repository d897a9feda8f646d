import copy
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from opengrok_jax.model.attention import Rule
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.lora import ADAPTERS, BASE, adapt, merged
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import create_sharded, make_mesh
from opengrok_jax.training import batches, optimizer, packing, step

RATE = optax.constant_schedule(1.0)
CAPACITY = 64
SGD = optax.sgd(1.0)  # the change of the parameters is the gradient


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(fsdp=1, devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def data(examples):
    return [e for e in examples if e.split == "train"][:12]


class Bench:
    """One plain gradient step of one model on any rows; each program is compiled once."""

    def __init__(self, config, mesh, data):
        self.config, self.mesh, self.data = config, mesh, data
        model = create_sharded(lambda: Phi3(config, rngs=nnx.Rngs(1)), mesh)
        self.graph, params = nnx.split(model)
        self.like = step.abstract_state(model, SGD, mesh)
        self.params = jax.tree.map(np.array, params)
        self.update = functools.cache(self.update)

    def update(self, rows, microbatches):  # cached by shape
        given = {"rule": "exclude", "capacity": CAPACITY, "groups": 1}
        return step.make_train_step(self.graph, SGD, RATE, self.like, **given)

    def batch(self, rows, normalize):
        batch = batches.fill(rows, self.data, row_tokens=48, normalize=normalize)
        assert batch.loss_weight.sum() <= CAPACITY
        return batch

    def step(self, rows, *, microbatches=1, normalize="token"):
        """Loss, gradient norm, gradient."""
        params = jax.tree.map(jnp.asarray, self.params)
        state = step.TrainState(jnp.zeros((), jnp.int32), params, SGD.init(params))
        placed = step.place(self.batch(rows, normalize), self.mesh, microbatches=microbatches)
        state, report = self.update(len(rows), microbatches)(state, placed)
        gradient = jax.tree.map(lambda b, a: b - np.array(a), self.params, state.params)
        return float(report.loss), float(report.grad_norm), gradient

    def loss(self, rows, *, rule: Rule = "exclude", normalize="token"):
        evaluate = step.make_eval_step(self.graph, rule=rule, capacity=CAPACITY, groups=1)
        params = jax.tree.map(jnp.asarray, self.params)
        total, weight = evaluate(params, step.place(self.batch(rows, normalize), self.mesh))
        return float(total / weight)


@pytest.fixture(scope="module")
def bench(tiny, mesh, data):
    with jax.set_mesh(mesh):
        yield Bench(tiny, mesh, data)


def assert_same(found, expected):
    np.testing.assert_allclose(found[:2], expected[:2], rtol=2e-6)
    for a, b in zip(jax.tree.leaves(found[2]), jax.tree.leaves(expected[2]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.fixture(scope="module")
def lonely(bench):
    """Each example in a row of its own, in one go: what every other layout has to equal."""
    rows = [[i] for i in range(len(bench.data))]
    return {n: bench.step(rows, normalize=n) for n in ("token", "example")}


@pytest.mark.parametrize("normalize", ["token", "example"])
@pytest.mark.parametrize("microbatches", [1, 3])
def test_packing_and_microbatches_change_no_gradient(bench, lonely, normalize, microbatches):
    rows = packing.pack([len(e.tokens) for e in bench.data], 48)
    assert max(len(row) for row in rows) > 1
    rows = [rows[0], *([] for _ in range(-len(rows) % 3)), *rows[1:]]  # uneven microbatches
    found = bench.step(rows, normalize=normalize, microbatches=microbatches)
    assert_same(found, lonely[normalize])


def test_loss_is_the_mean_over_tokens_or_over_examples(tiny, data, lonely):
    """From all logits of each example alone, in float64."""
    model = Phi3(tiny, rngs=nnx.Rngs(1))
    run = nnx.jit(lambda m, t, s, p, k: m(t, s, p, k, "exclude"))
    sums, counts = [], []
    for example in data:
        batch = batches.fill([[0]], [example], row_tokens=48, normalize="token")
        logits = run(model, *(jnp.asarray(x) for x in batch[:4]))
        scores = np.asarray(logits, np.float64)[0, : len(example.tokens)]
        logp = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        chosen = [logp[t - 1, example.tokens[t]] for t in np.flatnonzero(example.roles == 2)]
        sums.append(-sum(chosen))
        counts.append(len(chosen))
    assert lonely["token"][0] == pytest.approx(sum(sums) / sum(counts), rel=1e-5)
    assert lonely["example"][0] == pytest.approx(np.mean(sums), rel=1e-5)


def test_evaluation_is_the_loss_before_the_update_and_obeys_the_rule(bench, lonely):
    rows = [[i] for i in range(len(bench.data))]
    assert bench.loss(rows) == pytest.approx(lonely["token"][0], rel=1e-6)
    assert abs(bench.loss(rows, rule="none") - lonely["token"][0]) > 1e-4


def test_grad_norm_is_that_of_the_gradient(lonely):
    _, norm, gradient = lonely["token"]
    squares = sum(float((g.astype(np.float64) ** 2).sum()) for g in jax.tree.leaves(gradient))
    assert norm == pytest.approx(np.sqrt(squares), rel=1e-4)


def test_adapters_get_the_gradient_of_the_weights_they_add_up_to(bench, mesh):
    """dA = s B^T dW and dB = s dW A^T, with dW from a full step of the merged weights."""
    scale, rows, rng = 5 / 2, [[i] for i in range(len(bench.data))], np.random.default_rng(0)
    model = nnx.eval_shape(
        lambda: adapt(Phi3(bench.config, rngs=nnx.Rngs(0)), rank=2, alpha=5.0, rngs=nnx.Rngs(0))
    )
    graph = nnx.graphdef(model)
    start = jax.tree.map(
        lambda p: rng.normal(0, 0.1, p.shape).astype(np.float32), nnx.state(model, ADAPTERS)
    )
    adapters, base = (jax.tree.map(jnp.array, x) for x in (start, bench.params))
    like = step.abstract_state(model, SGD, mesh, ADAPTERS)
    given: Any = {"rule": "exclude", "capacity": CAPACITY, "groups": 1}
    update = step.make_train_step(graph, SGD, RATE, like, **given)
    state = step.TrainState(jnp.zeros((), jnp.int32), adapters, SGD.init(adapters))
    batch = step.place(bench.batch(rows, "token"), mesh, microbatches=2)
    state, report = update(state, batch, base)
    for found, expected in zip(*map(jax.tree.leaves, (base, bench.params)), strict=True):
        np.testing.assert_array_equal(found, expected, "the base is what it was")

    full: Any = copy.copy(bench)
    full.params = jax.tree.map(
        np.array,
        nnx.state(merged(nnx.merge(graph, jax.tree.map(jnp.array, start), base)), nnx.Param),
    )
    loss, _, gradient = full.step(rows)
    assert float(report.loss) == pytest.approx(loss, rel=1e-5)
    compared, squares = 0, 0.0
    for room, names in gradient["layers"].items():
        for name in names:
            if name.endswith("_proj"):
                before, after = (x["layers"][room][name]["lora"] for x in (start, state.params))
                dw = gradient["layers"][room][name]["weight"].get_value()
                a, b = (before[part].get_value() for part in "AB")
                wanted = {"A": np.swapaxes(b, 1, 2) @ dw, "B": dw @ np.swapaxes(a, 1, 2)}
                for part, want in wanted.items():
                    got = before[part].get_value() - np.asarray(after[part].get_value())
                    np.testing.assert_allclose(got, scale * want, atol=2e-6)
                    assert np.abs(want).max() > 1e-3
                    squares += float(((scale * want).astype(np.float64) ** 2).sum())
                    compared += 1
    assert compared == 8
    assert float(report.grad_norm) == pytest.approx(np.sqrt(squares), rel=1e-4)


def test_beside_adapters_no_gradient_of_a_weight_is_formed(mesh):
    """The compiled update has no room for even one projection's, nor for moments of the base."""
    wide = Phi3Config.tiny(64, hidden_size=128, intermediate_size=256, num_hidden_layers=4)
    adamw = optimizer.make_optimizer(rate=RATE, weight_decay=0.1, clip_norm=1.0)
    batch = batches.fill([[]], [], row_tokens=16, normalize="token")

    def buffers(trainable: Any) -> tuple[int, int, int]:
        def make() -> Phi3:
            model = Phi3(wide, rngs=nnx.Rngs(0), remat="full")
            if trainable is ADAPTERS:
                adapt(model, rank=4, alpha=8.0, rngs=nnx.Rngs(0))
            return model

        model = nnx.eval_shape(make)
        base = nnx.state(model, BASE)
        like = step.abstract_state(model, adamw, mesh, trainable)
        given: Any = {"rule": "exclude", "capacity": 16, "groups": 1}
        update = step.make_train_step(nnx.graphdef(model), adamw, RATE, like, **given)
        frozen = (base,) if trainable is ADAPTERS else ()
        compiled = update.lower(like, step.place(batch, mesh, microbatches=1), *frozen).compile()  # type: ignore[attr-defined]
        used = compiled.memory_analysis()
        largest = model.layers.mlp.gate_up_proj.weight.size * 4
        return used.argument_size_in_bytes, used.temp_size_in_bytes, largest

    with jax.set_mesh(mesh):
        (state, work, largest), (state_of_all, work_of_all, _) = map(buffers, (ADAPTERS, nnx.Param))
    assert work < largest < work_of_all
    assert state < 0.4 * state_of_all


@pytest.fixture(scope="module")
def bfloat16_run(tiny, mesh, data):
    """Three updates of parameters in bfloat16; the last batch has a row of padding."""
    rate = optimizer.schedule(learning_rate=0.1, steps=3, warmup_share=0.5)
    adamw = optimizer.make_optimizer(rate=rate, weight_decay=0.1, clip_norm=1.0)
    packed = batches.packed(
        data,
        lambda rows: packing.data_order(
            rows, rows_per_batch=2, epochs=5 / rows, max_steps=0, seed=0
        ),
        row_tokens=48,
        normalize="token",
    )
    assert packed.order[-1].tolist()[1:] == [-1]
    with jax.set_mesh(mesh):
        model = Phi3(tiny, rngs=nnx.Rngs(1), param_dtype="bfloat16")
        like = step.abstract_state(model, adamw, mesh)
        graph = nnx.graphdef(model)
        state = step.new_state(model, adamw, like)
        given = {"rule": "exclude", "capacity": packed.capacity(1), "groups": 1}
        update = step.make_train_step(graph, adamw, rate, like, **given)
        old, reports = state, []
        for index in range(3):
            old = state
            state, report = update(state, step.place(packed.batch(index), mesh, microbatches=1))
            reports.append(report)
    return {
        "old": old,
        "state": state,
        "like": like,
        "update": update,
        "reports": reports,
        "rate": rate,
    }


def test_is_compiled_once(bfloat16_run):
    assert bfloat16_run["update"]._cache_size() == 1


def test_moments_are_float32_and_parameters_keep_their_dtype(bfloat16_run):
    state, like = bfloat16_run["state"], bfloat16_run["like"]
    assert {str(x.dtype) for x in jax.tree.leaves(state.params)} == {"bfloat16"}
    assert {str(x.dtype) for x in jax.tree.leaves(state.opt_state)} == {"float32", "int32"}
    for found, promised in zip(jax.tree.leaves(state), jax.tree.leaves(like), strict=True):
        assert (found.shape, found.dtype) == (promised.shape, promised.dtype)
        assert found.sharding == promised.sharding


def test_the_old_state_is_given_up(bfloat16_run):
    assert all(x.is_deleted() for x in jax.tree.leaves(bfloat16_run["old"].params))


def test_the_report_follows_the_schedule(bfloat16_run):
    rate, reports = bfloat16_run["rate"], bfloat16_run["reports"]
    assert int(bfloat16_run["state"].step) == 3
    np.testing.assert_allclose([r.learning_rate for r in reports], [rate(n) for n in range(3)])


def test_place_cuts_rows_in_order(mesh, data):
    batch = batches.fill([[0], [1], [2], [3]], data, row_tokens=48, normalize="token")
    whole = step.place(batch, mesh)
    cut = step.place(batch, mesh, microbatches=2)
    assert cut.tokens.shape == (2, 2, 48)
    for a, b, c in zip(batch[:7], whole[:7], cut[:7], strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, np.asarray(c).reshape(4, 48))
