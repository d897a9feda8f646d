"""Rows that attention has to get right, and the dense oracle beside which every kernel is put."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from opengrok_jax.model.attention import attend, visible_keys
from opengrok_jax.model.segments import HIDDEN


def segment_rows(tokens: int) -> np.ndarray:
    """Seven rows: packed, one document, one-token documents, one behind padding, half empty, all
    padding, and documents that end where a block of 8 does."""
    index = np.arange(tokens)
    return np.stack(
        [
            1 + np.searchsorted([tokens // 7, tokens // 2, tokens // 2 + 1], index, side="right"),
            np.ones(tokens),
            index + 1,
            np.where(index < tokens // 3, 0, 1),
            np.where(index < tokens // 2, 1 + index // 5, 0),
            np.zeros(tokens),
            1 + index // 8,
        ]
    ).astype(np.int32)


def first_tokens(segments: np.ndarray) -> np.ndarray:
    """True on the first token of each document."""
    return np.diff(segments, axis=1, prepend=-1) != 0


def random_qkv(seed: int, shape: tuple[int, ...], heads: int, groups: int, width: int) -> Any:
    """q, k, v of standard deviation 2, so that no softmax is flat."""
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(rng.normal(0, 2, (*shape, n, width)), jnp.float32)
        for n in (heads, groups, groups)
    )


def oracle(window: int | None) -> Callable[..., jax.Array]:
    """The dense reference, as a function of what a kernel takes."""

    def dense(q: Any, k: Any, v: Any, query_ids: Any, key_ids: Any) -> jax.Array:
        visible = visible_keys(key_ids != HIDDEN, query_ids, "exclude", window)
        return attend(q, k, v, visible)

    return dense


def value_and_gradients(function: Callable[..., jax.Array]) -> Any:
    """Jitted: (q, k, v, query_ids, key_ids) -> output and the gradients of q, k and v, where each
    number of the output counts differently."""

    def both(q: Any, k: Any, v: Any, query_ids: Any, key_ids: Any) -> Any:
        value, back = jax.vjp(lambda *x: function(*x, query_ids, key_ids), q, k, v)
        counts = jnp.sin(jnp.arange(value.size, dtype=jnp.float32)).reshape(value.shape)
        return value, *back(counts.astype(value.dtype))

    return jax.jit(both)


def assert_same(got: Any, want: Any, tolerance: float) -> None:
    for name, mine, theirs in zip(("value", "dq", "dk", "dv"), got, want, strict=True):
        assert np.isfinite(np.asarray(mine)).all(), name
        scale = max(1.0, float(np.abs(theirs).max()))
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * scale, err_msg=name)
