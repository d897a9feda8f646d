import doctest
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.evaluation import significance
from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.significance import holm, mcnemar, sign_test, verdict


def rights(*flags: bool) -> list[Prediction]:
    return [
        Prediction(id=str(i), text="", gold="a", predicted="a" if f else None)
        for i, f in enumerate(flags)
    ]


def test_the_drawing_of_mcnemar() -> None:
    a = rights(True, *[False] * 5, True, False)
    b = rights(False, *[True] * 5, True, False)
    assert mcnemar(a, b) == pytest.approx(2 * (1 + 6) / 64) == pytest.approx(0.21875)
    assert mcnemar(b, a) == mcnemar(a, b)
    assert mcnemar(a, a) == 1.0


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_scipys(one: int, other: int) -> None:
    from scipy import stats

    n = one + other
    expected = stats.binomtest(one, n, 0.5).pvalue if n else 1.0
    assert sign_test(one, other) == pytest.approx(expected, rel=1e-9)


def test_many_disagreements() -> None:
    assert sign_test(25_000, 25_000) == 1.0
    z = (26_000 - 25_000) / math.sqrt(51_000 / 4 * 1)
    assert sign_test(25_000, 26_000) == pytest.approx(math.erfc(0.5 * z / math.sqrt(2)), rel=0.05)


def test_the_drawing_of_holm() -> None:
    """
    p            0.01   0.04   0.03
    times        3      1      2
    corrected    0.03   0.06   0.06
    """
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def closed_testing(p: list[float]) -> list[float]:
    """Marcus, Peritz and Gabriel: a hypothesis falls where every set with it falls by Bonferroni."""
    members = range(len(p))
    subsets = [s for n in range(1, len(p) + 1) for s in itertools.combinations(members, n)]
    return [
        max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in members
    ]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing_by_bonferroni(p: list[float]) -> None:
    assert holm(p) == pytest.approx(closed_testing(p))


def test_holm_keeps_the_family_at_five_in_a_hundred() -> None:
    random = np.random.default_rng(0)
    false = sum(min(holm([*row])) < 0.05 for row in random.random((4000, 10)))
    assert 0.035 <= false / 4000 <= 0.06


def test_the_verdict() -> None:
    assert doctest.testmod(significance).failed == 0
    assert "below b by 5.0 points" in verdict("a", "b", -0.05, -0.09, -0.01, 0.0001)
    assert "p < 0.001" in verdict("a", "b", -0.05, -0.09, -0.01, 0.0001)
    assert "within the noise" in verdict("a", "b", 0.0, 0.0, 0.0, 1.0)
