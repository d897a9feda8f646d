import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from opengrok_jax.model.attention import Rule
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
    for a, b, c in zip(batch[:-1], whole[:-1], cut[:-1], strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, np.asarray(c).reshape(4, 48))
