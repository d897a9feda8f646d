import pytest

from opengrok_jax.curation.review.agreement import agreements, kappa
from tests.curation.review_rows import decision


def test_the_drawn_table():
    pairs = (
        [("accept", "accept")] * 20
        + [("accept", "reject")] * 5
        + [("reject", "accept")] * 10
        + [("reject", "reject")] * 15
    )
    assert kappa(pairs) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], None),
        ([("a", "a")] * 9, None),  # no chance to disagree
        ([("a", "a"), ("r", "r")], 1.0),
        ([("a", "r"), ("r", "a")], -1.0),
        # 3 of 4 agree; chance (3*2 + 1*2) / 16 = 0.5; (0.75 - 0.5) / 0.5
        ([("a", "a"), ("a", "a"), ("a", "r"), ("r", "r")], 0.5),
        ([("a", "r")] * 4, 0.0),
    ],
)
def test_kappa_by_hand(pairs, expected):
    assert kappa(pairs) == (None if expected is None else pytest.approx(expected))


def test_looks_and_reviewers_are_compared():
    rows = [
        decision("accept", "p1"),
        decision("accept", "p1", look=2),
        decision("reject", "p2"),
        decision("accept", "p2", look=2),
        decision("reject", "p3"),
        decision("skip", "p3", look=2),  # settles nothing
        decision("accept", "p1", reviewer="bob"),
        decision("reject", "p2", reviewer="bob"),
        decision("reject", "p4", reviewer="bob"),
        decision("accept", "p2", text="another text", reviewer="bob", look=2),
    ]
    found = {(a.first, a.second): (a.rows, a.same, a.kappa) for a in agreements(rows)}
    assert found == {("ann", "ann"): (2, 1, 0.0), ("ann", "bob"): (2, 2, 1.0)}


def test_what_was_taken_back_is_not_compared():
    rows = [decision(), decision("accept", look=2), decision("undo", look=2)]
    assert agreements(rows) == []
