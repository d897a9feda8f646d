import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax.training import batches
from opengrok_jax.training.losses import cross_entropy, gather, weighted_sum

B, T, D, V = 4, 15, 7, 23


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((B, T)) < 0.4, rng.uniform(0.1, 2, (B, T)), 0)
    return {
        "hidden": rng.standard_normal((B, T, D)).astype(np.float32),
        "targets": rng.integers(0, V, (B, T)).astype(np.int32),
        "loss_weight": weight.astype(np.float32),
        "norm_weight": rng.random((B, T)).astype(np.float32),
    }


HEAD = np.random.default_rng(1).standard_normal((V, D)).astype(np.float32)


def logits(hidden):
    return hidden @ jnp.asarray(HEAD).T


def summed(head, hidden, targets, loss_weight, norm_weight, **given):
    """Summed cross-entropy and total weight, as `objective.summed_loss` makes them."""
    total = weighted_sum(
        lambda hidden, targets: cross_entropy(head(hidden), targets),
        (hidden, targets),
        loss_weight,
        **given,
    )
    return total, jnp.sum(norm_weight)


def arrays(case):
    return [jnp.asarray(case[n]) for n in ("hidden", "targets", "loss_weight", "norm_weight")]


def oracle(case):
    """The definition, position by position, in float64."""
    total = 0.0
    for b in range(B):
        for t in range(T):
            scores = HEAD.astype(np.float64) @ case["hidden"][b, t].astype(np.float64)
            nll = np.log(np.exp(scores).sum()) - scores[case["targets"][b, t]]
            total += case["loss_weight"][b, t] * nll
    return total, case["norm_weight"].astype(np.float64).sum()


@pytest.mark.parametrize(
    ("groups", "chunk", "spare"), [(1, 1000, 0), (2, 3, 1), (4, 4, 2), (1, 9, 99)]
)
def test_equals_the_definition(case, groups, chunk, spare):
    most = int((case["loss_weight"] > 0).reshape(groups, -1).sum(axis=1).max())
    given = {"capacity": most + spare, "groups": groups, "chunk": chunk}
    found = jax.jit(functools.partial(summed, logits, **given))(*arrays(case))
    np.testing.assert_allclose(found, oracle(case), rtol=1e-6)


def test_chunks_and_gathering_leave_the_gradient_as_it_is(case):
    hidden, *rest = arrays(case)

    def plain(hidden):
        scores = logits(hidden)
        losses = jax.nn.logsumexp(scores, axis=-1) - jnp.take_along_axis(
            scores, rest[0][..., None], axis=-1
        ).squeeze(-1)
        return jnp.sum(rest[1] * losses)

    def chunked(hidden):
        return summed(logits, hidden, *rest, capacity=32, groups=2, chunk=5)[0]

    found, expected = (jax.jit(jax.grad(f))(hidden) for f in (chunked, plain))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_half_a_weight_is_half_a_weight():
    """Losses 1, 1, 1, 3, the last at 0.5: 4.5 / 3.5; all at 0.5: the same as all at 1."""
    scores = [np.log(np.expm1(nll)) for nll in (1, 1, 1, 3)]
    hidden = jnp.asarray([[[0.0, x] for x in scores]], jnp.float32)  # two tokens, target 0
    targets = jnp.zeros((1, 4), jnp.int32)
    for weight, expected in [
        ([1, 1, 1, 0.5], 4.5 / 3.5),
        ([0.5] * 4, 6 / 4),
        ([1] * 4, 6 / 4),
        ([0, 0, 0, 0.5], 3),
    ]:
        loss_weight = jnp.asarray([weight], jnp.float32)
        total, norm = summed(lambda h: h, hidden, targets, loss_weight, loss_weight, capacity=4)
        assert float(total / norm) == pytest.approx(expected, rel=1e-6)


def test_what_stands_at_weight_0_changes_nothing(case):
    hidden, targets, loss_weight, norm_weight = arrays(case)
    idle = np.asarray(loss_weight) == 0
    other = np.where(idle[..., None], np.float32(np.inf), np.asarray(hidden))
    others = np.where(idle, V - 1 - np.asarray(targets), np.asarray(targets))

    def loss(hidden, targets):
        return summed(logits, hidden, targets, loss_weight, norm_weight, capacity=B * T)

    both = jax.jit(jax.value_and_grad(lambda h, t: loss(h, t)[0]))
    before, gradient = both(hidden, targets)
    assert float(before) == float(both(jnp.asarray(other), jnp.asarray(others))[0])
    assert not np.asarray(gradient)[idle].any()
    assert np.abs(np.asarray(gradient)[~idle]).min(axis=-1).max() > 0


def test_packing_changes_no_loss(example):
    """Each example alone in a row, and all in few rows: the same sums (here 4 and 2 positions)."""
    data = [example(1, length=6, response=4), example(2, length=5, response=2)]
    table = jnp.asarray(np.random.default_rng(2).standard_normal((61, 61)), jnp.float32)
    loss = jax.jit(functools.partial(summed, lambda h: h, capacity=12))
    sums = []
    for rows in ([[0], [1]], [[], [1, 0]], [[0, 1], []]):
        for normalize in ("token", "example"):
            batch = batches.fill(rows, data, row_tokens=12, normalize=normalize)
            hidden = table[batch.tokens]
            rest = [jnp.asarray(x) for x in (batch.targets, batch.loss_weight, batch.norm_weight)]
            total, norm = loss(hidden, *rest)
            sums.append(float(total))
            assert float(norm) == (6 if normalize == "token" else 2)
    np.testing.assert_allclose(sums, sums[0], rtol=1e-6)


def test_gather_is_the_drawing():
    targets = jnp.asarray([[0, 0, 8, 9, 0], [0, 8, 7, 0, 0]], jnp.int32)
    loss_weight = jnp.asarray([[0, 0, 1, 1, 0], [0, 1, 1, 0, 0]], jnp.float32)
    hidden = jnp.arange(10, dtype=jnp.float32).reshape(2, 5, 1)
    rows, found, weight = gather((hidden, targets, loss_weight), loss_weight, 6, 1)
    assert found.tolist() == [[8, 9, 8, 7, 0, 0]]
    assert weight.tolist() == [[1, 1, 1, 1, 0, 0]]
    assert rows[0, :4, 0].tolist() == [2, 3, 6, 7]


def shapes(jaxpr):
    """The shapes of all results, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield from (tuple(v.aval.shape) for v in equation.outvars if hasattr(v.aval, "shape"))
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from shapes(inner)


@pytest.mark.parametrize(("chunk", "largest"), [(1000, 24), (6, 6)])
def test_no_more_logits_than_promised(case, chunk, largest):
    """Forward and backward, nothing with a vocabulary axis has more rows than a chunk."""
    hidden, *rest = arrays(case)

    def loss(hidden):
        return summed(logits, hidden, *rest, capacity=24, chunk=chunk)[0]

    jaxpr = jax.make_jaxpr(jax.grad(loss))(hidden).jaxpr
    wide = [s for s in shapes(jaxpr) if len(s) > 1 and s[-1] == V and s != (D, V)]
    assert max(int(np.prod(s[:-1])) for s in wide) == largest
