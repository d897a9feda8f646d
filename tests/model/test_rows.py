import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax.model.rows import batches, pad_rows, padded_length, row_segments


def test_drawings() -> None:
    assert list(batches([40, 9, 12, 70, 9], 2, 1024)) == [([3, 0], 96), ([2, 1], 32), ([4], 32)]
    tokens, lengths = pad_rows([np.array([7, 8, 9], np.int32), np.array([5], np.int32)], 3, 4)
    assert tokens.tolist() == [[7, 8, 9, 0], [5, 0, 0, 0], [0, 0, 0, 0]]
    assert lengths.tolist() == [3, 1, 0]
    assert row_segments(jnp.array([3, 1]), 4).tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]


@given(st.integers(1, 5000))
def test_padding_is_at_most_a_third(length: int) -> None:
    padded = padded_length(length, 10_000)
    assert padded >= length
    assert padded == 32 or length > padded * 2 / 3
    assert padded_length(length, length) == length


@settings(max_examples=30)
@given(st.lists(st.integers(1, 200), max_size=30), st.integers(1, 7))
def test_every_row_is_in_one_batch(lengths: list[int], batch_size: int) -> None:
    made = list(batches(lengths, batch_size, 200))
    assert sorted(i for rows, _ in made for i in rows) == list(range(len(lengths)))
    for rows, padded in made:
        assert 1 <= len(rows) <= batch_size
        assert padded_length(max(lengths[i] for i in rows), 200) == padded
    assert [len(rows) for rows, _ in made[:-1]] == [batch_size] * (len(made) - 1)
