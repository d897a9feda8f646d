import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.curation.intervals import difference, normal, wilson


def test_known_values():
    # Wilson's interval of 8 in 10; Newcombe (1998), table II, case (a): 56/70 and 48/80, method 10
    assert normal(0.95) == pytest.approx(1.959964)
    assert wilson(8, 10, normal(0.95)) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    low, high = difference((56, 70), (48, 80), normal(0.95))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


counts = st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, counts)
def test_the_intervals_hold_the_estimates(a, b):
    low, high = wilson(a[0], a[1], 1.96)
    assert 0 <= low <= a[0] / a[1] + 1e-12
    assert a[0] / a[1] - 1e-12 <= high <= 1
    gap = a[0] / a[1] - b[0] / b[1]
    low, high = difference(a, b, 1.96)
    assert -1 <= low <= gap <= high <= 1
    back = difference(b, a, 1.96)
    assert (-back[1], -back[0]) == pytest.approx((low, high))


def test_nothing_counted_says_nothing():
    assert wilson(0, 0, 1.96) == (0.0, 1.0)
