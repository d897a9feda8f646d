"""The search for the largest microbatch."""

from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.training.plan_search import MOST_ROWS, Probe, largest_fit


def search(state, row, bent, has, start, most=64, slope=1.0):
    """On a memory of state + row * count + bent * count^2 bytes."""
    tried, order = {}, []

    def probe(count):
        assert count not in tried, "the same count twice"
        order.append(count)
        needs = state + row * count + bent * count**2
        return Probe(needs <= has, needs, has, {})

    tried[start] = probe(start)
    largest_fit(probe, tried, slope=slope, most=most)
    return tried, order


@given(
    state=st.integers(0, 1000),
    row=st.integers(1, 300),
    bent=st.integers(0, 5),
    has=st.integers(1, 5000),
    start=st.integers(1, 40),
    slope=st.floats(0.1, 1e4),
)
def test_finds_the_border(state, row, bent, has, start, slope):
    tried, _ = search(state, row, bent, has, start, slope=slope)
    fit = [count for count, one in tried.items() if one.fits]
    not_fit = [count for count, one in tried.items() if not one.fits]
    expected = max(
        (n for n in range(1, MOST_ROWS + 1) if state + row * n + bent * n * n <= has), default=0
    )
    assert max(fit, default=0) == expected
    assert min(not_fit, default=MOST_ROWS + 1) == expected + 1


def test_memory_that_grows_evenly_takes_few_tries():
    tried, order = search(3560, 1460, 0, 16128, start=1, slope=1300.0)
    assert max(count for count, one in tried.items() if one.fits) == 8
    assert len(order) <= 5
    assert order[:2] == [1, 2], "it doubles at most"


def test_stops_at_the_limit_of_tries():
    _, order = search(0, 1, 0, 10**6, start=1, most=3)
    assert len(order) == 3


def test_nothing_fits():
    tried, _ = search(100, 1, 0, 50, start=8)
    assert not any(one.fits for one in tried.values())
    assert 1 in tried
