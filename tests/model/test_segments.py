import re

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.model.attention import visible_keys
from opengrok_jax.model.segments import ids_of_keys, pad_to, sees_a_key
from tests.model.attention_rows import segment_rows


def drawn(text: str | None, name: str) -> list[int]:
    """The integers behind a name in a docstring."""
    found = re.search(rf"^ +{name} +((?:-?\d+ +)*-?\d+)", text or "", re.MULTILINE)
    assert found, name
    return [int(x) for x in found[1].split()]


def test_the_drawing_of_key_ids() -> None:
    text = ids_of_keys.__doc__
    segments, mask = (jnp.array([drawn(text, name)]) for name in ("segment_ids", "key_mask"))
    assert ids_of_keys(segments, mask == 1)[0].tolist() == drawn(text, "key ids")
    assert ids_of_keys(segments, None)[0].tolist() == [1, 1, 1, 2, 2, -1]


def test_the_drawing_of_queries_that_see() -> None:
    text = sees_a_key.__doc__ or ""
    queries, keys = (jnp.array([drawn(text, name)]) for name in ("query ids", "key ids"))
    assert sees_a_key(queries, keys, 2)[0].tolist() == drawn(text, "sees")
    without = re.search(r"without a window: ([01 ]+)", text)
    assert without
    assert sees_a_key(queries, keys)[0].tolist() == [int(x) for x in without[1].split()]


@pytest.mark.parametrize("window", [None, 1, 4])
@given(seed=st.integers(0, 2**31))
def test_a_query_sees_a_key_where_the_dense_mask_has_one(window: int | None, seed: int) -> None:
    segments = jnp.asarray(segment_rows(29))
    mask = jnp.asarray(np.random.default_rng(seed).random(segments.shape) < 0.3)
    want = visible_keys(mask, segments, "exclude", window).any(axis=-1)
    np.testing.assert_array_equal(sees_a_key(segments, ids_of_keys(segments, mask), window), want)


def test_padding_fills_behind() -> None:
    x = jnp.ones((2, 3, 2), jnp.int32)
    assert pad_to(x, 3) is x
    assert pad_to(x, 5, fill=7)[:, :, 0].tolist() == [[1, 1, 1, 7, 7]] * 2
