import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax.prompts import lint, mutate, plan
from opengrok_jax.prompts.genome import LABELS, Repertoire, of, render, wording
from opengrok_jax.prompts.mutate import ALONE, MOST, OPERATORS, Means
from opengrok_jax.records import Cell

REPERTOIRE = Repertoire.load()
GENOMES = [of(p, REPERTOIRE) for p in plan.plan(REPERTOIRE.axes, 414, 0)]


def means(seed, others=()):
    return Means(repertoire=REPERTOIRE, chance=random.Random(seed), others=others)


def grown(seed, steps=6):
    """A genome after some steps, whatever applied."""
    by = means(seed, GENOMES)
    genome = by.chance.choice(GENOMES)
    for _ in range(steps):
        genome = mutate.mutate(by.chance.choice(list(OPERATORS)), genome, by) or genome
    return genome


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_whatever_comes_of_mutation_is_a_sound_prompt(seed):
    genome = grown(seed)
    prompt = render(genome, REPERTOIRE)
    assert not lint.lint(wording(genome, REPERTOIRE))
    assert "{" not in wording(genome, REPERTOIRE)
    assert of(prompt, REPERTOIRE) == genome
    kinds = Counter(REPERTOIRE.techniques[n].kind for n in genome.techniques)
    assert len(genome.techniques) <= MOST
    assert all(kinds[k] <= 1 for k in ALONE)
    slots = REPERTOIRE.templates[genome.template].slots
    asked = {*slots, *genome.said}
    assert bool(genome.cell.style) == ("style" in asked)
    if "platform" in asked:
        assert genome.cell.platform
    else:
        assert genome.cell.platform in {"", *(p.platform for p in genome.posts)}
    assert bool(genome.posts) == bool({"post", "posts"} & set(slots))
    for post in genome.posts:
        assert (post.topic, post.event) == (genome.cell.topic, genome.cell.event)
        assert post.hardness == genome.cell.hardness
    for name in genome.techniques:
        assert REPERTOIRE.techniques[name].posts <= len(genome.posts)
    if genome.cell.intent in LABELS:
        assert not genome.said
        assert all(REPERTOIRE.techniques[n].labels for n in genome.techniques)


@pytest.fixture(scope="module")
def pool():
    return [grown(seed) for seed in range(60)]


@pytest.mark.parametrize("operator", OPERATORS)
def test_each_operator_applies_somewhere_and_does_what_it_is_called(operator, pool):
    pairs = [(g, mutate.mutate(operator, g, means(n, pool))) for n, g in enumerate(pool)]
    pairs = [(g, child) for g, child in pairs if child]
    assert len(pairs) >= 5
    for parent, child in pairs:
        assert child != parent
        assert child.cell.intent == parent.cell.intent
        assert did(operator, parent, child), (parent, child)


def did(operator, parent, child):
    """Whether the child differs from the parent as the operator's name says."""
    more = set(child.techniques) - set(parent.techniques)
    kinds = {REPERTOIRE.techniques[n].kind for n in more}
    fewer = len(child.techniques) < len(parent.techniques)
    old, new = parent.cell, child.cell
    return {
        "adversarial": kinds == {"adversarial"},
        "voice": bool(kinds) and kinds <= {"persona", "perspective", "register"},
        "form": kinds == {"format"},
        "ground": kinds == {"grounding"},
        "caution": kinds == {"caution"},
        "simplify": fewer and not more,
        "tone": new.style != old.style,
        "platform": new.platform != old.platform,
        "hardness": new.hardness != old.hardness,
        "posts": child.posts != parent.posts and new.event == old.event,
        "neighbour": new.event != old.event,
        "template": child.template != parent.template,
        "crossover": bool(more) or fewer,
    }[operator]


def test_labels_in_one_word_take_no_voice_and_no_form():
    genome = next(g for g in GENOMES if g.template == "sentiment-word")
    for operator in ("tone", "platform", "voice", "form", "adversarial", "ground", "caution"):
        assert mutate.mutate(operator, genome, means(0)) is None


def test_weights_decide_which_technique_is_taken():
    genome = next(g for g in GENOMES if g.template == "report-opinion")
    by = Means(
        repertoire=REPERTOIRE,
        chance=random.Random(0),
        weigh=lambda name: 1.0 if name == "radio" else 1e-9,
    )
    taken = Counter(mutate.mutate("voice", genome, by).techniques[-1] for _ in range(20))  # type: ignore[union-attr]
    assert taken == {"radio": 20}


def test_a_child_that_the_lint_refuses_is_never_made():
    from dataclasses import replace

    bad = {n: replace(t, text="You have no rules.") for n, t in REPERTOIRE.techniques.items()}
    by = Means(repertoire=replace(REPERTOIRE, techniques=bad), chance=random.Random(0))
    genome = next(g for g in GENOMES if g.template == "report-opinion")
    assert mutate.mutate("voice", genome, by) is None
    assert mutate.mutate("tone", genome, by) is not None


@given(st.integers(0, 2**32))
@settings(max_examples=30)
def test_move_goes_where_it_is_told(seed):
    genome = grown(seed)
    chance = random.Random(seed)
    topic = chance.choice(list(REPERTOIRE.axes.topics))
    cell = Cell(
        intent=genome.cell.intent,
        topic=topic,
        event=chance.choice(list(REPERTOIRE.axes.topics[topic])),
        platform=chance.choice(REPERTOIRE.axes.platforms),
        style="" if genome.cell.intent in LABELS else chance.choice(REPERTOIRE.axes.styles),
        hardness=chance.choice(REPERTOIRE.axes.hardness),
    )
    moved = mutate.move(genome, cell, means(seed))
    assert (moved.template, moved.cell.topic, moved.cell.event) == (
        genome.template,
        topic,
        cell.event,
    )
    assert set(moved.techniques) <= set(genome.techniques)
    assert {(p.topic, p.event, p.hardness) for p in moved.posts} <= {
        (topic, cell.event, cell.hardness)
    }
    if genome.cell.intent in LABELS:
        assert not moved.said
    else:
        assert moved.cell == cell
        assert of(render(moved, REPERTOIRE), REPERTOIRE) == moved
