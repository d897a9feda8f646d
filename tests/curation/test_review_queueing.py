import collections
import dataclasses
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.curation.review.queueing import SPACING, Draw, findings, kept, key, queue, strata
from opengrok_jax.errors import ConfigError
from opengrok_jax.records import Finding
from tests.curation.review_rows import verdict

DOUBT = Finding(check="echo", reason="echo", score=0.7, certain=False, detail="70 %")


def many(flagged: int = 0, doubtful: int = 0, plain: int = 0):
    return [
        *[verdict(f"f{n}", reason="harmful") for n in range(flagged)],
        *[verdict(f"d{n}", uncertain=True, findings=(DOUBT,)) for n in range(doubtful)],
        *[verdict(f"k{n}") for n in range(plain)],
    ]


def names(rows):
    return [row.prompt_id for row in rows]


def test_every_row_is_in_the_stratum_it_belongs_to():
    for_good = verdict("g", keep=False, findings=(verdict(reason="empty").findings[0],))
    rows = [*many(flagged=5, doubtful=7, plain=93), for_good]
    parts = strata(rows, Draw(uncertain=0.1, audit=0.05))
    assert set(names(parts.flagged)) == {f"f{n}" for n in range(5)}
    assert len(parts.uncertain) == 10  # of 100 kept: the 7 with a doubt, and 3 more
    assert {f"d{n}" for n in range(7)} <= set(names(parts.uncertain))
    assert len(parts.sample) == 5
    assert set(names(parts.sample)) <= set(names(parts.rest))
    assert not set(names(parts.rest)) & set(names(parts.uncertain))
    assert len(parts.rest) == 90
    assert "g" not in names([*parts.flagged, *parts.uncertain, *parts.rest])


def test_a_score_is_measured_against_those_of_its_own_check():
    rows = [verdict(f"k{n}", scores={"echo": n / 1000, "length": 50.0}) for n in range(19)]
    rows += [verdict("high", scores={"echo": 0.001, "length": 51.0})]
    assert set(names(strata(rows, Draw(uncertain=0.1)).uncertain)) == {"high", "k18"}


def test_what_a_person_said_before_changes_nothing():
    human = Finding(check="review", reason="human", score=1.0, certain=True, detail="ann says so")
    said = verdict("k0", keep=False, decided_by="human", findings=(human,))
    assert kept(said)
    assert findings(said) == []
    before, after = many(plain=40), [said, *many(plain=40)[1:]]
    for name in ("flagged", "uncertain", "sample", "rest"):
        assert names(getattr(strata(before, Draw()), name)) == names(
            getattr(strata(after, Draw()), name)
        )


def test_flagged_come_first_and_the_rest_is_mixed():
    draw = Draw(uncertain=0.2, audit=0.2, repeat=0.0)
    parts = strata(many(flagged=6, doubtful=20, plain=80), draw)
    order = [key(entry.row) for entry in queue(parts, draw)]
    assert set(order[:6]) == {key(row) for row in parts.flagged}
    audit = {key(row) for row in parts.sample}
    kinds = ["s" if k in audit else "u" for k in order[6:]]
    assert sorted(kinds) == ["s"] * 20 + ["u"] * 20
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    assert changes > 8  # one block after the other would change once


def test_the_lottery_does_not_look_at_scores_and_keeps_its_numbers():
    """Rows that come later take no row's place but by being drawn themselves."""
    few = many(plain=100)
    more = few + [verdict(f"n{n}") for n in range(20)]
    draw = Draw(uncertain=0.0, audit=0.1)
    old, new = set(names(strata(few, draw).sample)), set(names(strata(more, draw).sample))
    assert len(old) == 10
    assert len(new) == 12
    pushed = old - new
    assert len(pushed) <= len([n for n in new if n.startswith("n")])
    raised = [verdict(f"k{n}", scores={"harm": float(n)}) for n in range(100)]
    assert set(names(strata(raised, draw).sample)) == old
    assert set(names(strata(few, Draw(uncertain=0.0, audit=0.1, seed=1)).sample)) != old


@given(
    st.integers(0, 30), st.integers(0, 10), st.integers(0, 60),
    st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(0, 3),
)  # fmt: skip
def test_a_queue_holds_each_row_once_and_the_repeated_twice(
    f, d, p, uncertain, audit, repeat, seed
):
    draw = Draw(uncertain=uncertain, audit=audit, repeat=repeat, seed=seed)
    parts = strata(many(f, d, p), draw)
    entries = queue(parts, draw)
    rows = {key(r) for r in (*parts.flagged, *parts.uncertain, *parts.sample)}
    looks = collections.defaultdict(list)
    for place, entry in enumerate(entries):
        looks[key(entry.row)].append((entry.look, place))
    assert set(looks) == rows
    for found in looks.values():
        assert [look for look, _ in found] in ([1], [1, 2])
        if len(found) == 2 and len(rows) > 2:
            assert found[1][1] - found[0][1] > 1  # never twice in a row
    twice = sum(len(found) == 2 for found in looks.values())
    assert twice <= -(-repeat * len(rows) // 1)


def test_a_tenth_comes_twice_after_a_while():
    draw = Draw(uncertain=0.5, audit=0.2)
    entries = queue(strata(many(flagged=30, plain=100), draw), draw)
    first = {key(e.row): place for place, e in enumerate(entries) if e.look == 1}
    seconds = [(place, key(e.row)) for place, e in enumerate(entries) if e.look == 2]
    assert len(first) == 100
    assert len(seconds) == 10
    for place, row in seconds:
        assert place - first[row] >= SPACING


def test_what_another_settled_is_left_out_but_for_what_everybody_sees():
    draw = Draw(uncertain=0.5, audit=0.2)
    parts = strata(many(plain=100), draw)
    mine = queue(parts, draw)
    everybody = {key(e.row) for e in mine if e.look == 2}
    others = {key(e.row) for e in mine[:50]}
    left = {key(e.row) for e in queue(parts, draw, others)}
    assert left == {key(e.row) for e in mine} - (others - everybody)
    assert everybody <= left


@pytest.mark.parametrize("name", ["uncertain", "audit", "repeat"])
def test_what_is_no_share_is_refused(name):
    for value in (-0.1, 1.5, float("nan")):
        with pytest.raises(ConfigError, match=f"--{name} is"):
            dataclasses.replace(Draw(), **{name: value})
