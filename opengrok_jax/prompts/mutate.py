"""Mutation operators: pure functions (genome, means) -> genome, or None.

    adversarial        adds a demand that makes the answer harder to give
    voice              gives it a speaker, a point of view or a register
    tone, platform     move it to another style, another platform
    hardness           quotes posts that are harder or easier to read, or turns the twist
    form               asks for a form that can be checked
    ground             asks to stay with what is given
    caution            asks for a fair account, no opinion; drops the speaker
    simplify           drops a demand
    posts              quotes other posts on the same event
    neighbour          goes to another event, of the same topic where there is one
    template           asks for the same thing in another of its templates
    crossover          takes the demands of another genome of the same intent

None where an operator does not apply: a label in one word has no tone. No operator ever makes a
prompt that the lint refuses: `mutate` draws again.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opengrok_jax.prompts import lint
from opengrok_jax.prompts.axes import nearest
from opengrok_jax.prompts.genome import LABELS, Genome, Repertoire, wording
from opengrok_jax.prompts.techniques import ALONE, Technique
from opengrok_jax.prompts.templates import POSTS_QUOTED
from opengrok_jax.records import Cell

MOST = 2  # techniques a prompt may have, platform and tone apart; of more, some are forgotten
DRAWS = 4  # tries of one operator on one genome


@dataclass(frozen=True, kw_only=True)
class Means:
    """What an operator works with.

    Attributes:
      chance: where all its choices come from.
      others: genomes to cross with.
      weigh: how much a technique or template, by name, is to be preferred; above 0.
    """

    repertoire: Repertoire
    chance: random.Random
    others: Sequence[Genome] = ()
    weigh: Callable[[str], float] = lambda name: 1.0


Operator = Callable[[Genome, Means], Genome | None]


def adversarial(genome: Genome, by: Means) -> Genome | None:
    """One more demand that is hard to meet."""
    return _demand(genome, by, ("adversarial",))


def voice(genome: Genome, by: Means) -> Genome | None:
    """A speaker, a point of view or a register."""
    return _demand(genome, by, ("persona", "perspective", "register"))


def form(genome: Genome, by: Means) -> Genome | None:
    """A form that can be checked."""
    return _demand(genome, by, ("format",))


def ground(genome: Genome, by: Means) -> Genome | None:
    """A demand to stay with what is given."""
    return _demand(genome, by, ("grounding",))


def caution(genome: Genome, by: Means) -> Genome | None:
    """A fair account instead of a speaker."""
    speakers = [n for n in genome.techniques if by.repertoire.techniques[n].kind == "persona"]
    kept = tuple(n for n in genome.techniques if n not in speakers)
    without = dataclasses.replace(genome, techniques=kept)
    return _demand(without, by, ("caution",))


def simplify(genome: Genome, by: Means) -> Genome | None:
    """One demand less."""
    if not genome.techniques:
        return None
    gone = by.chance.randrange(len(genome.techniques))
    kept = tuple(n for at, n in enumerate(genome.techniques) if at != gone)
    return dataclasses.replace(genome, techniques=kept)


def tone(genome: Genome, by: Means) -> Genome | None:
    """Another style."""
    return _axis(genome, by, "style", by.repertoire.axes.styles)


def platform(genome: Genome, by: Means) -> Genome | None:
    """Another platform."""
    return _axis(genome, by, "platform", by.repertoire.axes.platforms)


def hardness(genome: Genome, by: Means) -> Genome | None:
    """Posts of another hardness, or another twist."""
    slots = by.repertoire.templates[genome.template].slots
    if not {"post", "posts", "twist"} & set(slots):
        return None
    levels = [h for h in by.repertoire.axes.hardness if h != genome.cell.hardness]
    if not levels:
        return None
    cell = dataclasses.replace(genome.cell, hardness=by.chance.choice(levels))
    return _quoting(dataclasses.replace(genome, cell=cell), by)


def posts(genome: Genome, by: Means) -> Genome | None:
    """Other posts on the same event."""
    return _quoting(genome, by) if genome.posts else None


def neighbour(genome: Genome, by: Means) -> Genome | None:
    """Another event, of the same topic half of the time."""
    topics, here = by.repertoire.axes.topics, genome.cell
    near = [(here.topic, e) for e in topics[here.topic] if e != here.event]
    far = [(t, e) for t, events in topics.items() for e in events if t != here.topic]
    pool = near if near and (not far or by.chance.random() < 0.5) else far
    if not pool:
        return None
    topic, event = by.chance.choice(pool)
    cell = dataclasses.replace(here, topic=topic, event=event)
    return _quoting(dataclasses.replace(genome, cell=cell), by)


def template(genome: Genome, by: Means) -> Genome | None:
    """Another template of the same intent."""
    pool = [
        t
        for t in by.repertoire.templates.values()
        if t.intent == genome.cell.intent and t.name != genome.template
    ]
    if not pool:
        return None
    weights = [t.weight * by.weigh(t.name) for t in pool]
    chosen = by.chance.choices(pool, weights)[0]
    cell, said = genome.cell, genome.said
    for axis, values in (
        ("style", by.repertoire.axes.styles),
        ("platform", by.repertoire.axes.platforms),
    ):
        if axis in chosen.slots:
            said = tuple(a for a in said if a != axis)
            if not getattr(cell, axis):
                cell = dataclasses.replace(cell, **{axis: by.chance.choice(values)})
        elif axis in by.repertoire.templates[genome.template].slots:
            said = (*said, axis)
    changed = dataclasses.replace(genome, template=chosen.name, cell=cell, said=said)
    wanted = _wanted(changed, by.repertoire)
    if wanted != len(genome.posts):
        return _quoting(changed, by)
    return _fitting(changed, by.repertoire)


def crossover(genome: Genome, by: Means) -> Genome | None:
    """The demands of another genome of the same intent."""
    pool = [
        o
        for o in by.others
        if o.cell.intent == genome.cell.intent
        and o.techniques
        and set(o.techniques) != set(genome.techniques)
    ]
    if not pool:
        return None
    return _fitting(
        dataclasses.replace(genome, techniques=by.chance.choice(pool).techniques), by.repertoire
    )


OPERATORS: dict[str, Operator] = {
    f.__name__: f
    for f in (
        adversarial, voice, tone, platform, hardness, form, ground, caution, simplify, posts,
        neighbour, template, crossover,
    )
}  # fmt: skip


def mutate(operator: str, genome: Genome, by: Means) -> Genome | None:
    """A child by one operator that differs from its parent and that the lint lets pass; or None."""
    for _ in range(DRAWS):
        child = OPERATORS[operator](genome, by)
        if child is None:
            return None
        if child != genome and not lint.lint(wording(child, by.repertoire)):
            return child
    return None


def move(genome: Genome, cell: Cell, by: Means) -> Genome:
    """The genome in another cell of its intent, on another event, with posts to suit.

    Where a label is asked for, platform and style stay what the quoted post makes them.
    """
    template = by.repertoire.templates[genome.template]
    said = genome.said
    if _takes_voice(template.form, cell.intent):
        said = tuple(axis for axis in ("platform", "style") if axis not in template.slots)
    moved = dataclasses.replace(genome, cell=cell, said=said)
    return _quoting(moved, by)


def _demand(genome: Genome, by: Means, kinds: tuple[str, ...]) -> Genome | None:
    """The genome with one technique of the kinds added, in the place of one it cannot stand by."""
    known = by.repertoire.techniques
    pool = [
        t
        for t in known.values()
        if t.kind in kinds and t.name not in genome.techniques and _suits(t, genome, by.repertoire)
    ]
    if not pool:
        return None
    chosen = by.chance.choices(pool, [by.weigh(t.name) for t in pool])[0]
    kept = [
        name
        for name in genome.techniques
        if chosen.kind not in ALONE or known[name].kind != chosen.kind
    ]
    if len(kept) >= MOST:
        kept.pop(by.chance.randrange(len(kept)))
    return dataclasses.replace(genome, techniques=(*kept, chosen.name))


def _suits(technique: Technique, genome: Genome, repertoire: Repertoire) -> bool:
    own = repertoire.templates[genome.template].form
    if len(genome.posts) < technique.posts or own.get("words"):
        return False
    # Two forms may contradict each other.
    if technique.form and own:
        return False
    return technique.labels or genome.cell.intent not in LABELS


def _takes_voice(own_form: dict, intent: str) -> bool:
    return intent not in LABELS and not own_form.get("words")


def _axis(genome: Genome, by: Means, axis: str, values: Sequence[str]) -> Genome | None:
    template = by.repertoire.templates[genome.template]
    pool = [v for v in values if v != getattr(genome.cell, axis)]
    if not pool or not _takes_voice(template.form, genome.cell.intent):
        return None
    cell = dataclasses.replace(genome.cell, **{axis: by.chance.choice(pool)})
    said = genome.said if axis in (*template.slots, *genome.said) else (*genome.said, axis)
    return dataclasses.replace(genome, cell=cell, said=said)


def _wanted(genome: Genome, repertoire: Repertoire) -> int:
    """How many posts the template quotes."""
    slots = repertoire.templates[genome.template].slots
    if "posts" in slots:
        return POSTS_QUOTED.get(genome.cell.hardness, 2)
    return int("post" in slots)


def _quoting(genome: Genome, by: Means) -> Genome:
    """The genome with posts drawn anew for its cell."""
    cell = genome.cell
    pool = nearest(by.repertoire.axes, cell.topic, cell.event, cell.hardness)
    drawn = tuple(by.chance.sample(pool, min(_wanted(genome, by.repertoire), len(pool))))
    return _fitting(dataclasses.replace(genome, posts=drawn), by.repertoire)


def _fitting(genome: Genome, repertoire: Repertoire) -> Genome:
    """The genome without what no longer suits it, its cell being what its words say."""
    own = repertoire.templates[genome.template]
    said = genome.said if _takes_voice(own.form, genome.cell.intent) else ()
    asked = {*own.slots, *said}
    quoted = genome.posts[0].platform if len(genome.posts) == 1 else ""
    cell = dataclasses.replace(
        genome.cell,
        style=genome.cell.style if "style" in asked else "",
        platform=genome.cell.platform if "platform" in asked else quoted,
    )
    bare = dataclasses.replace(genome, cell=cell, said=said, techniques=())
    kept = [n for n in genome.techniques if _suits(repertoire.techniques[n], bare, repertoire)]
    return dataclasses.replace(bare, techniques=tuple(kept[:MOST]))
