"""cuDNN's kernel itself, told of masks and segments by channels: `pytest -m accelerator` on a GPU."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax.model.attention import Rule, attention
from tests.model.attention_rows import random_qkv, segment_rows

pytestmark = pytest.mark.accelerator


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if jax.default_backend() != "gpu":
        pytest.skip(f"needs a GPU, JAX found {jax.default_backend()}")


def value_and_gradients(implementation: Any, rule: Rule, window: int | None) -> Any:
    """Jitted: (q, k, v, key_mask, segments) -> output and gradients of q, k, v, in float32."""

    def both(q: Any, k: Any, v: Any, mask: Any, segments: Any) -> list[Any]:
        given: Any = {"rule": rule, "sliding_window": window, "implementation": implementation}
        value, back = jax.vjp(lambda q, k, v: attention(q, k, v, mask, segments, **given), q, k, v)
        ones = jnp.cos(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
        return [x.astype(jnp.float32) for x in (value, *back(ones.astype(value.dtype)))]

    return jax.jit(both)


@pytest.mark.parametrize(
    ("rule", "groups", "window"),
    [("none", 32, None), ("multiply", 8, 100), ("exclude", 32, None), ("exclude", 8, 100)],
)
def test_cudnn_equals_the_dense_oracle(rule: Rule, groups: int, window: int | None) -> None:
    """In bfloat16 no further from float32 than twice what the dense formula in bfloat16 is."""
    segments = jnp.asarray(segment_rows(512))
    for seed, share in enumerate((0.02, 0.85)):
        mask = jnp.asarray(np.random.default_rng(seed).random(segments.shape) < share)
        exact = random_qkv(seed, segments.shape, heads=32, groups=groups, width=96)
        rounded = tuple(x.astype(jnp.bfloat16) for x in exact)
        as_float32 = tuple(x.astype(jnp.float32) for x in rounded)
        with jax.default_matmul_precision("float32"):
            want = value_and_gradients("dense", rule, window)(*as_float32, mask, segments)
        dense = value_and_gradients("dense", rule, window)(*rounded, mask, segments)
        cudnn = value_and_gradients("cudnn", rule, window)(*rounded, mask, segments)
        for name, right, plain, kernel in zip("oqkv", want, dense, cudnn, strict=True):
            assert np.isfinite(kernel).all(), name
            error = partial(_relative, right)
            assert error(kernel) < max(2 * error(plain), 4e-3), (name, error(kernel), error(plain))


def _relative(right: Any, other: Any) -> float:
    return float(jnp.linalg.norm(right - other) / jnp.linalg.norm(right))


def test_a_hidden_key_and_another_document_get_nothing_at_all() -> None:
    """Weights of 0, not small ones: the gradient of a hidden key's value is 0 to the last bit."""
    segments = jnp.asarray(segment_rows(512))
    mask = jnp.asarray(np.random.default_rng(0).random(segments.shape) < 0.5)
    q, k, v = (
        x.astype(jnp.bfloat16) for x in random_qkv(0, segments.shape, heads=4, groups=4, width=96)
    )
    *_, dv = value_and_gradients("cudnn", "exclude", None)(q, k, v, mask, segments)
    assert not np.asarray(dv)[~np.asarray(mask)].any()
    first = jnp.asarray(segments == 1)[:1, :, None, None]
    moved = v.at[:1].set(jnp.where(first, v[:1], v[:1] + 7))
    run = jax.jit(partial(attention, rule="exclude", implementation="cudnn"))
    before, after = (run(q, k, x, mask, segments)[0, :73] for x in (v, moved))
    np.testing.assert_array_equal(before.astype(jnp.float32), after.astype(jnp.float32))
