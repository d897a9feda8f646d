"""Each divergence against its definition in NumPy, float64, position by position."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax.soft_file import ABSENT
from opengrok_jax.training import divergences

V, K = 11, 3


def draw(*shape: int, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


@functools.cache
def compiled(name: str, plain: tuple[Any, ...]) -> Any:
    """A divergence as one program: op by op, each would be compiled for itself."""
    return jax.jit(lambda *arrays: getattr(divergences, name)(*arrays, *plain))


def call(name: str, *arguments: Any) -> Any:
    """A divergence of NumPy arrays, which come first."""
    arrays = [jnp.asarray(x) for x in arguments if isinstance(x, np.ndarray)]
    return compiled(name, arguments[len(arrays) :])(*arrays)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max())
    return e / e.sum()


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))


def topk_oracle(logits: np.ndarray, ids: np.ndarray, logprobs: np.ndarray) -> float:
    q, p = softmax(logits), {int(i): np.exp(float(x)) for i, x in zip(ids, logprobs, strict=True)}
    p.pop(ABSENT, None)
    tail = max(1 - sum(p.values()), 0)
    total = sum(mass * np.log(mass / q[i]) for i, mass in p.items())
    others = sum(q[i] for i in range(len(q)) if i not in p)
    return total + (tail * np.log(tail / others) if tail else 0)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_full_logit_divergences_equal_their_definition(temperature: float) -> None:
    student, teacher = draw(2, 5, V), draw(2, 5, V, seed=1)
    for b, t in np.ndindex(2, 5):
        p, q = (softmax(x[b, t] / temperature) for x in (teacher, student))
        m = 0.3 * p + 0.7 * q
        for found, want in [
            (call("forward_kl", student, teacher, temperature), kl(p, q)),
            (call("reverse_kl", student, teacher, temperature), kl(q, p)),
            (
                call("jensen_shannon", student, teacher, temperature, 0.3),
                0.3 * kl(p, m) + 0.7 * kl(q, m),
            ),
        ]:
            assert found.dtype == jnp.float32
            assert float(found[b, t]) == pytest.approx(temperature**2 * want, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl", "jensen_shannon"])
def test_nothing_to_learn_from_an_equal_teacher_and_no_nan_from_a_certain_one(name: str) -> None:
    function = getattr(divergences, name)
    logits = jnp.asarray(draw(4, V))
    slopes = jax.jit(jax.value_and_grad(lambda x, teacher: function(x, teacher).sum()))
    value, slope = slopes(logits, logits)
    assert abs(float(value)) < 1e-6
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    certain = np.full((4, V), -1e30, np.float32)
    certain[:, 4] = 0
    value, slope = slopes(jnp.asarray(draw(4, V)), jnp.asarray(certain))
    assert np.isfinite(np.asarray(slope)).all()
    assert float(value) > 0


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    absent=st.integers(0, K),
    scale=st.sampled_from([0.1, 2.0, 30.0]),
)
def test_topk_equals_its_definition(seed: int, absent: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = draw(2, V, seed=seed, scale=scale)
    ids = np.stack([rng.permutation(V)[:K] for _ in range(2)]).astype(np.int32)
    logprobs = np.log(np.stack([rng.dirichlet(np.ones(V))[:K] for _ in range(2)]) + 1e-9)
    ids[:, K - absent :] = ABSENT
    logprobs = logprobs.astype(np.float32)
    found = call("topk_kl", logits, ids, logprobs)
    want = [topk_oracle(*row) for row in zip(logits, ids, logprobs, strict=True)]
    np.testing.assert_allclose(found, want, rtol=2e-4, atol=2e-5)


def test_topk_is_the_drawing() -> None:
    student = np.log(np.array([[0.1, 0.4, 0.1, 0.2, 0.2]], np.float32))
    found = call("topk_kl", student, np.array([[3, 1]]), np.log([[0.5, 0.2]], dtype=np.float32))
    assert float(found[0]) == pytest.approx(0.2332, abs=1e-4)


def test_topk_gradient_is_known() -> None:
    """At a stored token q - p; at another q - tail_p q / tail_q. With nothing stored: 0."""
    logits = draw(1, V)
    ids, mass = np.array([[2, 7, ABSENT]]), np.array([0.6, 0.1])
    logprobs = np.array([[*np.log(mass), np.nan]], np.float32)  # what stands at ABSENT is not read

    def total(x: jax.Array) -> jax.Array:
        return divergences.topk_kl(x, jnp.asarray(ids), jnp.asarray(logprobs)).sum()

    found = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(logits)))[0]
    q = softmax(logits[0])
    others = np.ones(V, bool)
    others[[2, 7]] = False
    want = q * (1 - 0.3 / q[others].sum())
    want[[2, 7]] = q[[2, 7]] - mass
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_topk_without_a_tail_and_with_a_sure_student() -> None:
    """All mass stored: no log 0. A student sure of the stored token: its tail keeps its digits."""
    ids = jnp.array([[4, ABSENT]])

    @jax.jit
    @jax.value_and_grad
    def slopes(x: jax.Array, logprobs: jax.Array) -> jax.Array:
        return divergences.topk_kl(x, ids, logprobs).sum()

    sure = np.zeros((1, V), np.float32)
    sure[0, 4] = 25
    value, slope = slopes(sure, np.zeros((1, 2), np.float32))
    assert float(value) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(np.asarray(slope)).all()
    value, slope = slopes(sure, np.array([[np.log(0.9), 0]], np.float32))
    q = softmax(np.asarray(sure[0], np.float64))
    rest = np.delete(q, 4).sum()
    want = 0.9 * np.log(0.9 / q[4]) + 0.1 * np.log(0.1 / rest)
    assert float(value) == pytest.approx(want, rel=1e-5)
    np.testing.assert_allclose(np.asarray(slope)[0, 0], q[0] - 0.1 * q[0] / rest, rtol=1e-4)


def test_topk_is_a_lower_bound_that_is_reached_with_all_tokens_stored() -> None:
    student, teacher = draw(6, V), draw(6, V, seed=1)
    whole = np.asarray(call("forward_kl", student, teacher))
    logprobs = np.asarray(jax.nn.log_softmax(teacher))
    order = np.argsort(-logprobs, axis=-1)
    before = np.full(6, -1e-6)
    for k in (1, 3, 6, V):
        ids = order[:, :k]
        found = call("topk_kl", student, ids, np.take_along_axis(logprobs, ids, axis=-1))
        assert (np.asarray(found) >= before - 1e-5).all()
        assert (np.asarray(found) <= whole + 1e-5).all()
        before = np.asarray(found)
    np.testing.assert_allclose(before, whole, rtol=1e-4, atol=1e-5)


def test_feature_ignores_scale_and_nothing_else() -> None:
    student, teacher = draw(2, 3, 8), draw(2, 3, 8, seed=1)
    unit = [x / np.sqrt((x**2).mean(-1, keepdims=True)) for x in (student, teacher)]
    want = ((unit[0] - unit[1]) ** 2).mean(-1)
    np.testing.assert_allclose(call("feature", student, teacher), want, rtol=1e-4)
    np.testing.assert_allclose(call("feature", 3 * teacher, teacher), 0, atol=1e-6)


def relation_oracle(
    student: np.ndarray, teacher: np.ndarray, bearing: np.ndarray, segments: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """The numbers, and how many pairs each position has."""

    def cosine(x: np.ndarray, i: int, j: int) -> float:
        return float(x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j]))

    total, pairs = np.zeros(bearing.shape), np.zeros(bearing.shape, int)
    for b, t in np.ndindex(*bearing.shape):
        for s in range(max(0, t - window), t):
            if segments[b, t] == segments[b, s] and bearing[b, t] > 0 and bearing[b, s] > 0:
                difference = cosine(student[b], t, s) - cosine(teacher[b], t, s)
                total[b, t] += difference**2 / window
                pairs[b, t] += 1
    return total, pairs


def test_relation_equals_its_definition_and_is_the_drawing() -> None:
    segments = np.array([[1, 1, 1, 1, 2, 2]])
    bearing = np.array([[0, 1, 1, 1, 0, 1]], np.float32)
    student, teacher = draw(1, 6, 5), draw(1, 6, 9, seed=1)
    want, pairs = relation_oracle(student, teacher, bearing, segments, 2)
    assert pairs.tolist() == [[0, 0, 1, 2, 0, 0]]
    found = call("relation", student, teacher, bearing, segments, 2)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    rng = np.random.default_rng(3)
    segments = np.sort(rng.integers(0, 4, (2, 20)))
    bearing = (rng.random((2, 20)) < 0.7).astype(np.float32)
    student, teacher = draw(2, 20, 5), draw(2, 20, 3, seed=1)
    want, _ = relation_oracle(student, teacher, bearing, segments, 8)
    np.testing.assert_allclose(
        call("relation", student, teacher, bearing, segments), want, rtol=1e-4, atol=1e-6
    )
    short = call("relation", student[:, :1], teacher[:, :1], bearing[:, :1], segments[:, :1])
    assert short.tolist() == [[0.0], [0.0]]
