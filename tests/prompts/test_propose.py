import dataclasses
import random
from collections import Counter

import pytest

from opengrok_jax.prompts import archive, plan, propose
from opengrok_jax.prompts.genome import LABELS, Repertoire, of
from opengrok_jax.prompts.lint import lint
from opengrok_jax.prompts.mutate import OPERATORS
from opengrok_jax.prompts.propose import REPAIR, REPAIRS, Known, Proposal

REPERTOIRE = Repertoire.load()
PROMPTS = plan.plan(REPERTOIRE.axes, 90, 0)
CELLS = archive.planned(REPERTOIRE, dict.fromkeys(p.cell.intent for p in PROMPTS))


def known(reject=lambda n: ""):
    state = Known(archive.Archive(CELLS, 4), REPERTOIRE)
    for number, prompt in enumerate(PROMPTS):
        reason = reject(number)
        row = Proposal(prompt=prompt, genome=of(prompt, REPERTOIRE))
        propose.fold(state, row, not reason, reason, 0.0 if reason else 0.5, 100)
    return state


def ask(state, count=40, seed=0):
    return propose.propose(state, count, 1, random.Random(seed))


def test_proposals_are_new_sound_and_say_where_they_came_from():
    state = known()
    found = ask(state)
    ids = {row.prompt.id for row in found}
    assert len(ids) == 40
    assert not ids & state.asked
    for row in found:
        assert row.parent in state.asked
        assert row.operator in OPERATORS
        assert row.round == 1
        assert of(row.prompt, REPERTOIRE) == row.genome
        assert row.genome.cell.intent in {p.cell.intent for p in PROMPTS}
    assert not [row for row in found[:8] if lint(row.prompt.messages[0].content.split("\n\n")[0])]


def test_the_same_rows_and_seed_give_the_same_proposals():
    assert ask(known()) == ask(known())
    assert ask(known()) != ask(known(), seed=1)


def test_proposing_changes_nothing_of_what_is_known():
    state = known(lambda n: "refusal" if n % 3 == 0 else "")
    first = ask(state)
    assert ask(state) == first


def test_empty_cells_and_events_that_were_asked_least_are_sought():
    state = known()
    found = ask(state)
    empty = [r for r in found if not state.accepted[archive.key(r.genome.cell)]]
    assert len(empty) > 25  # those that ask for a label cannot choose platform and hardness freely
    cells = [archive.key(r.genome.cell) for r in found]
    assert max(map(cells.count, cells)) <= 3
    for intent in {p.cell.intent for p in PROMPTS}:
        rows = Counter(p.cell.event for p in PROMPTS if p.cell.intent == intent)
        rows.update(r.genome.cell.event for r in found if r.genome.cell.intent == intent)
        assert max(rows.values()) - min(rows.values()) <= 2


def test_intents_are_asked_for_alike_whatever_they_cost():
    """Labels are cheap and always accepted here: they must not take over."""
    state = Known(archive.Archive(CELLS, 4), REPERTOIRE)
    for number, prompt in enumerate(PROMPTS):
        label = prompt.cell.intent in LABELS
        row = Proposal(prompt=prompt, genome=of(prompt, REPERTOIRE))
        good = label or number % 2 == 0
        propose.fold(state, row, good, "" if good else "echo", 0.5, 10 if label else 100)
    counts = Counter(row.genome.cell.intent for row in ask(state, 45))
    assert set(counts.values()) == {5}


def test_rejects_are_repaired_by_what_mends_their_fault():
    state = known(lambda n: "refusal" if n % 2 else "")
    for _ in range(30):  # repairs pay
        for of_labels in ("", " of labels"):
            state.operators.update(REPAIR + of_labels, True, 100)
            for name in OPERATORS:
                state.operators.update(name + of_labels, False, 100)
    found = [row for row in ask(state) if row.operator == REPAIR]
    assert len(found) > 15
    assert len({row.parent for row in found}) == len(found)
    for row in found:
        parent = state.rejects[row.parent][0].genome
        more = set(row.genome.techniques) - set(parent.techniques)
        kinds = {REPERTOIRE.techniques[n].kind for n in more}
        assert kinds == {"caution"} or row.genome.template != parent.template
    propose.fold(state, found[0], True, "", 0.5, 100)
    assert found[0].parent not in state.rejects


@pytest.mark.parametrize("reason", REPAIRS)
def test_repairs_are_operators(reason):
    assert set(REPAIRS[reason]) <= set(OPERATORS)


def test_operators_and_wordings_that_pay_are_proposed_more():
    state = known()
    for name in OPERATORS:
        for _ in range(60):
            state.operators.update(name, name == "voice", 100)
    for technique in REPERTOIRE.techniques.values():
        if technique.kind in ("persona", "perspective", "register"):
            for _ in range(40):
                state.wordings.update(technique.name, technique.name == "radio", 100)
    found = [r for r in ask(state) if r.genome.cell.intent not in LABELS]
    assert sum(row.operator == "voice" for row in found) > 0.8 * len(found)
    taken = Counter(n for row in found for n in row.genome.techniques)
    assert taken.most_common(1)[0][0] == "radio"


def test_without_an_elite_there_is_nothing_to_vary():
    assert ask(known(lambda n: "empty")) == []


def test_a_small_world_ends():
    axes = dataclasses.replace(
        REPERTOIRE.axes,
        topics={"transit": {"rail-strike": "the strike"}},
        platforms=("X",),
        styles=("dry",),
        posts=tuple(p for p in REPERTOIRE.axes.posts if p.event == "rail-strike")[:1],
        hardness=("plain",),
    )
    small = dataclasses.replace(
        REPERTOIRE,
        axes=axes,
        techniques={},
        templates={"sentiment-word": REPERTOIRE.templates["sentiment-word"]},
        posts={p.text: p for p in axes.posts},
    )
    prompt = plan.plan(axes, 1, 0, ("sentiment",), tuple(small.templates.values()))[0]
    state = Known(archive.Archive(archive.planned(small, ("sentiment",)), 4), small)
    propose.fold(state, Proposal(prompt=prompt, genome=of(prompt, small)), True, "", 0.5, 1)
    assert propose.propose(state, 5, 1, random.Random(0)) == []
