import math
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax.model.attention import visible_keys
from opengrok_jax.model.blockwise import CPU_TILES, Tiles, blockwise, first_blocks
from opengrok_jax.model.segments import ids_of_keys
from tests.model.attention_rows import (
    assert_same,
    first_tokens,
    oracle,
    random_qkv,
    segment_rows,
    value_and_gradients,
)

TOKENS = 37  # not a multiple of the block of 8
SHAPE = (7, TOKENS)

both = {
    (window, rows): (
        value_and_gradients(
            partial(blockwise, sliding_window=window, tiles=Tiles(block=8, rows=rows))
        ),
        value_and_gradients(oracle(window)),
    )
    for window, rows in ((None, 1), (11, 0))
}


@pytest.mark.parametrize(("window", "rows"), both)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**31), share=st.sampled_from([0.0, 0.1, 0.6, 1.0]))
def test_equals_the_dense_oracle(window: int | None, rows: int, seed: int, share: float) -> None:
    segments = segment_rows(TOKENS)
    mask = np.random.default_rng(seed).random(SHAPE) < share
    # Share 0 hides all but the first tokens; the others may leave a query without any key.
    mask |= first_tokens(segments) & (share == 0.0)
    segments, mask = jnp.asarray(segments), jnp.asarray(mask)
    arrays = (*random_qkv(seed, SHAPE, heads=6, groups=2, width=6), segments)
    kernel, dense = both[window, rows]
    key_ids = ids_of_keys(segments, mask)
    assert_same(kernel(*arrays, key_ids), dense(*arrays, key_ids), 1e-5)


@pytest.mark.parametrize("tokens", [1, CPU_TILES.block, CPU_TILES.block + 1])
def test_any_number_of_tokens(tokens: int) -> None:
    segments = jnp.ones((2, tokens), jnp.int32)
    arrays = (*random_qkv(tokens, (2, tokens), heads=2, groups=2, width=4), segments, segments)
    assert_same(
        value_and_gradients(blockwise)(*arrays), value_and_gradients(oracle(None))(*arrays), 1e-5
    )


def test_a_packed_document_is_what_it_is_alone() -> None:
    segments = jnp.asarray(np.repeat([1, 2, 3, 0], [9, 17, 8, 3])[None].astype(np.int32))
    q, k, v = random_qkv(3, (1, TOKENS), heads=4, groups=2, width=6)
    run = jax.jit(partial(blockwise, tiles=Tiles(block=8, rows=1)))
    packed = run(q, k, v, segments, ids_of_keys(segments, None))
    for start, end in ((0, 9), (9, 26), (26, 34)):
        ones = jnp.ones((1, end - start), jnp.int32)
        alone = run(q[:, start:end], k[:, start:end], v[:, start:end], ones, ones)
        np.testing.assert_allclose(packed[:, start:end], alone, rtol=0, atol=2e-6)
    assert not np.asarray(packed[:, 34:]).any()


def test_the_drawing_of_first_blocks() -> None:
    text = first_blocks.__doc__ or ""
    rows = re.findall(r"^ +(?:query ids|key ids|first) +(.+)$", text, re.MULTILINE)
    queries, keys = (
        jnp.array([[[int(x) for x in block.split()]] for block in row.split("|")])
        for row in rows[:2]
    )
    assert first_blocks(queries, keys, None).tolist() == [int(x) for x in rows[2].split()]
    # A window of 3 ends with the query, and so begins in its own block or the one before.
    assert first_blocks(queries, keys, 3).tolist() == [0, 0, 1, 2, 5]
    assert first_blocks(queries, keys, 1).tolist() == [0, 1, 2, 3, 5]


@pytest.mark.parametrize("window", [None, 3, 8, 9])
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_no_skipped_block_holds_a_visible_key(window: int | None, share: float) -> None:
    segments = segment_rows(40)
    mask = np.random.default_rng(0).random(segments.shape) < share
    key_ids = np.asarray(ids_of_keys(jnp.asarray(segments), jnp.asarray(mask)))
    visible = np.asarray(visible_keys(jnp.asarray(mask), jnp.asarray(segments), "exclude", window))
    run = jax.jit(partial(first_blocks, window=window))
    for row in range(len(segments)):
        first = np.asarray(run(segments[row].reshape(-1, 1, 8), key_ids[row].reshape(-1, 1, 8)))
        for block in range(5):
            lines = visible[row, block * 8 : block * 8 + 8]
            assert not lines[:, : first[block] * 8].any()
            wanted = np.flatnonzero(lines.any(axis=0))
            if share == 1.0 and window is None:
                assert first[block] == (wanted[0] // 8 if len(wanted) else block + 1), "tight"


def test_bfloat16_stays_near_float32() -> None:
    segments = jnp.asarray(segment_rows(TOKENS))
    arrays = random_qkv(5, SHAPE, heads=4, groups=2, width=8)
    halves = [x.astype(jnp.bfloat16) for x in arrays]
    run = value_and_gradients(partial(blockwise, tiles=Tiles(block=8, rows=1)))
    key_ids = ids_of_keys(segments, None)
    got, want = run(*halves, segments, key_ids), run(*arrays, segments, key_ids)
    assert all(x.dtype == jnp.bfloat16 for x in got)
    assert_same([x.astype(jnp.float32) for x in got], want, 4e-2)


def test_memory_grows_with_the_row_and_not_with_its_square() -> None:
    def largest(function: Any, tokens: int) -> int:
        x = jax.ShapeDtypeStruct((1, tokens, 2, 4), jnp.float32)
        ids = jax.ShapeDtypeStruct((1, tokens), jnp.int32)
        text = value_and_gradients(function).lower(x, x, x, ids, ids).as_text()
        shapes = re.findall(r"tensor<((?:\d+x)+)", text)
        return max(math.prod(map(int, shape[:-1].split("x"))) for shape in shapes)

    assert largest(oracle(None), 1024) >= 1024**2
    assert largest(blockwise, 1024) == 2 * 4 * 1024, "the largest array is q"
