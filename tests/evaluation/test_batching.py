import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.evaluation import batching
from opengrok_jax.evaluation.batching import Batch, plan_batches, waste


def test_the_drawing(monkeypatch) -> None:
    """
    lengths   9 40 10 41 9 9     batch_size 2
    batches   [3 1] 2 x 41,   [2 0] 2 x 10,   [5 4] 2 x 10
    """
    planned = plan_batches([9, 40, 10, 41, 9, 9], 2)
    assert planned == [
        Batch(rows=(3, 1), count=2, length=41),
        Batch(rows=(2, 0), count=2, length=10),
        Batch(rows=(4, 5), count=2, length=10),
    ]
    assert waste(planned, [9, 40, 10, 41, 9, 9]) == pytest.approx(1 - 118 / 122)


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=120), st.integers(1, 40), st.integers(0, 30)
)
def test_every_row_is_in_one_batch_that_it_fits(lengths: list[int], size: int, beside: int) -> None:
    planned = plan_batches(lengths, size, beside=beside)
    assert sorted(i for b in planned for i in b.rows) == [*range(len(lengths))]
    for batch in planned:
        assert len(batch.rows) <= batch.count <= size
        assert max(lengths[i] for i in batch.rows) <= batch.length
    assert [b.length for b in planned] == sorted((b.length for b in planned), reverse=True)
    shapes = {(b.count, b.length) for b in planned}
    assert len(shapes) <= batching.SHAPES
    # Either little is wasted, or even as many shapes as are allowed waste more.
    wasted = waste(planned, lengths, beside=beside)
    assert wasted <= batching.WASTE or len(shapes) == min(batching.SHAPES, len({*lengths}))


def brute_force(lengths: list[int], size: int, groups: int) -> int:
    """The fewest tokens of all ways to cut the distinct lengths into so many groups."""
    sizes = sorted({*lengths})
    best = 10**9
    for inner in itertools.combinations(range(1, len(sizes)), groups - 1):
        cuts, total = [0, *inner, len(sizes)], 0
        for low, high in itertools.pairwise(cuts):
            rows = sum(sizes[low] <= n <= sizes[high - 1] for n in lengths)
            batches = -(-rows // size)
            total += -(-rows // batches) * batches * sizes[high - 1]
        best = min(best, total)
    return best


@given(st.lists(st.integers(1, 60), min_size=2, max_size=14), st.integers(1, 6))
def test_the_cuts_are_the_best(lengths: list[int], size: int) -> None:
    sizes, counts = np.unique(lengths, return_counts=True)
    for groups, cuts in enumerate(batching._cuts(sizes, counts, size, 0), start=1):
        planned = batching._batches(lengths, sizes, cuts, size)
        assert sum(b.count * b.length for b in planned) == brute_force(lengths, size, groups)


def test_tweets_waste_little_in_few_shapes(shared_data) -> None:
    from opengrok_jax import tokenizer
    from opengrok_jax.evaluation.tasks import load_items, make_task

    opened = tokenizer.load()
    for name in ("emotion", "offensive"):
        items = load_items(make_task(f"tweeteval-{name}", {}, str(shared_data)))
        lengths = [30 + len(opened.encode(item.text)) for item in items]
        planned = plan_batches(lengths, 32, beside=6)
        assert waste(planned, lengths, beside=6) <= 0.1
        assert len({(b.count, b.length) for b in planned}) <= batching.SHAPES


def test_nothing() -> None:
    assert plan_batches([], 4) == []
    assert waste([], []) == 0.0
