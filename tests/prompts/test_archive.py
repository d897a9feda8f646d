import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.prompts import archive
from opengrok_jax.prompts.archive import Archive, Elite
from opengrok_jax.prompts.genome import Genome, Repertoire
from opengrok_jax.records import Cell

CELLS = [Cell(intent=i, platform=p, style="dry", hardness="plain") for i in "ab" for p in "XY"]
PLANNED = frozenset(map(archive.key, CELLS))


def elite(number, score, cell=CELLS[0]):
    return Elite(prompt_id=str(number), genome=Genome(template="t", cell=cell), score=score)


def test_the_drawing():
    held = Archive(PLANNED, most=3)
    entered = [held.add(elite(n, s)) for n, s in enumerate((0.6, 0.81, 0.77, 0.5, 0.7))]
    assert entered == [True, True, True, False, True]
    assert [e.score for e in held.at(archive.key(CELLS[0]))] == [0.81, 0.77, 0.7]
    assert held.qd_score == pytest.approx(0.81 / 4)
    held.add(elite(9, 0.1, CELLS[3]))
    assert held.qd_score == pytest.approx((0.81 + 0.1) / 4)
    assert len(held.filled) == 2


def test_of_equals_the_earlier_stays():
    held = Archive(PLANNED, most=1)
    assert held.add(elite(1, 0.5)) is True
    assert held.add(elite(2, 0.5)) is False
    assert [e.prompt_id for e in held.elites()] == ["1"]


def test_what_was_not_planned_is_held_but_does_not_count():
    held = Archive(PLANNED, most=2)
    held.add(elite(1, 0.9, dataclasses.replace(CELLS[0], style="")))
    assert held.qd_score == 0.0
    assert held.filled == frozenset()
    assert len(list(held.elites())) == 1


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), max_size=40), st.integers(1, 4))
def test_it_holds_the_best_of_each_cell_and_never_gets_worse(rows, most):
    held, before = Archive(PLANNED, most), 0.0
    for number, (cell, score) in enumerate(rows):
        held.add(elite(number, score, CELLS[cell]))
        assert held.qd_score >= before
        before = held.qd_score
    for index, cell in enumerate(CELLS):
        best = sorted((s for c, s in rows if c == index), reverse=True)[:most]
        assert [e.score for e in held.at(archive.key(cell))] == best


def test_labels_have_no_style_to_fill():
    repertoire = Repertoire.load()
    cells = archive.planned(repertoire, ("emotion", "platform_post"))
    axes = repertoire.axes
    each = len(axes.platforms) * len(axes.hardness)
    assert len(cells) == each + each * len(axes.styles)
    assert {style for intent, _, style, _ in cells if intent == "emotion"} == {""}
