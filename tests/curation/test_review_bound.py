import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.curation.review.bound import Audit, audit, statement, wilson_upper
from opengrok_jax.records import body_sha
from tests.curation.review_rows import decision

Z2 = 3.841458820694124  # 1.95996... squared: the 95 % quantile of chi-squared with one degree


@pytest.mark.parametrize(
    ("rejected", "reviewed", "expected"),
    [
        (0, 100, Z2 / (100 + Z2)),
        (0, 50, Z2 / (50 + Z2)),
        (50, 50, 1.0),
        # p = 0.06: (0.06 + 0.0384146 + 1.95996 sqrt(0.001128 + 0.000384146)) / 1.0768292
        (3, 50, 0.162171),
        # p = 0.1: (0.1 + 0.0192073 + 1.95996 sqrt(0.0009 + 0.0000960365)) / 1.0384146
        (10, 100, 0.174366),
        (1, 1, 1.0),
    ],
)
def test_the_upper_end_by_hand(rejected, reviewed, expected):
    assert wilson_upper(rejected, reviewed) == pytest.approx(expected, abs=1e-6)


@given(st.integers(1, 500), st.data())
def test_the_upper_end_solves_the_score_equation(n, data):
    """Wilson's interval is where |p - share| = z sqrt(share (1 - share) / n)."""
    k = data.draw(st.integers(0, n))
    upper = wilson_upper(k, n)
    p = k / n
    assert p <= upper <= 1
    assert (p - upper) ** 2 == pytest.approx(Z2 * upper * (1 - upper) / n, abs=1e-9)
    if k < n:
        assert wilson_upper(k + 1, n) > upper


@pytest.mark.parametrize(("k", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_no_share_without_rows(k, n):
    with pytest.raises(ValueError, match="expected 0 <= rejected"):
        wilson_upper(k, n)


def key(name: str, text: str = "an answer") -> tuple[str, str]:
    return name, body_sha(text)


def test_the_sample_speaks_for_the_rest():
    rest = [key(f"r{n}") for n in range(100)]
    marked = [key(f"m{n}") for n in range(10)]
    decisions = [
        *[decision("accept", f"r{n}") for n in range(6)],
        decision("reject", "r6"),
        decision("edit", "r7"),
        decision("skip", "r8"),  # counts as rejected
        decision("reject", "r9", text="an earlier text"),  # stale: not reviewed
        decision("reject", "m0"),  # not of the sample
    ]
    found = audit(sample=rest[:10], rest=rest, marked=marked, decisions=decisions, least=9)
    assert found == Audit(
        unreviewed=92,
        uncovered=9,
        drawn=10,
        reviewed=9,
        rejected=2,
        edited=1,
        upper=wilson_upper(2, 9),
        least=9,
    )
    assert statement(found) == (
        "harmful <= 54.8 % (95 % Wilson, 9 reviewed, 2 rejected) of 92 rows kept without review; "
        "9 flagged or uncertain rows are kept, not yet reviewed and not covered"
    )


def test_below_the_least_there_is_no_bound():
    rest = [key(f"r{n}") for n in range(100)]
    decisions = [decision("accept", f"r{n}") for n in range(49)]
    found = audit(sample=rest[:60], rest=rest, marked=[], decisions=decisions)
    assert found.upper is None
    assert statement(found) == (
        "no bound on harmful rows: 49 rows of the hidden audit are reviewed and 50 are needed"
    )
    found = audit(
        sample=rest[:60], rest=rest, marked=[], decisions=[*decisions, decision("accept", "r50")]
    )
    assert found.upper == pytest.approx(Z2 / (50 + Z2))
    assert "harmful <= 7.2 %" in statement(found)  # 7.13, never rounded down


def test_nothing_reviewed_is_no_bound_even_if_none_is_asked_for():
    assert audit(sample=[], rest=[key("a")], marked=[], decisions=[], least=0).upper is None
