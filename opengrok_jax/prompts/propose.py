"""The next round of prompts: what to ask, given how the answers so far were scored.

    fold       (row, verdict) -> what is known     archive, bandits, rejects, cost
    propose    what is known -> the next prompts

Both are deterministic given the seed, the rows and their order, so that what is known after a
crash is what was known before: it is folded again from the rows.

A child is drawn so. The intent is the one that was asked for least: what an intent costs and how
often it is accepted must not decide how much of it there is (one-word labels would win, being
cheap and always accepted). The operators' bandit picks an operator or the repair of a reject;
elites of the intent are drawn as parents. Children move to the cell of the intent, and to the
event, that have the fewest accepted rows, so that what is learnt about wordings is used everywhere.
Of some children the one is taken that is worth most: how empty its cell and event are, times a
sample of what is believed of each of its wordings (template, techniques, tone, platform), which
have a bandit of their own.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from opengrok_jax.prompts import archive as archive_module
from opengrok_jax.prompts.archive import Archive, Elite
from opengrok_jax.prompts.bandit import Bandit
from opengrok_jax.prompts.genome import LABELS, Genome, Repertoire, parts, render
from opengrok_jax.prompts.mutate import OPERATORS, Means, move, mutate
from opengrok_jax.records import Cell, Prompt

REPAIR = "repair"
# What might mend which fault; a fault that is not listed is mended by any operator.
REPAIRS: dict[str, tuple[str, ...]] = {
    "refusal": ("caution", "template"),
    "blocked": ("caution", "neighbour"),
    "harmful": ("caution", "ground"),
    "truncated": ("simplify", "form"),
    "too_long": ("simplify", "form"),
    "too_short": ("ground", "template"),
    "empty": ("template", "posts"),
    "echo": ("tone", "platform", "template"),
    "off_topic": ("ground", "posts"),
    "repetitive": ("template", "form"),
    "near_duplicate": ("ground", "posts", "neighbour", "adversarial"),
    "invalid_label": ("template", "posts"),
}
SHARPNESS = 4  # how much more a wording is drawn that pays better: sample ** 4
CANDIDATES = 8  # children of which one is taken
PARENTS = 3  # elites of which the best is a parent
PATIENCE = 50  # draws without a new prompt until the round is closed


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A prompt of the loop and where it came from; planned prompts have round 0 and no parent."""

    prompt: Prompt
    genome: Genome
    parent: str = ""
    operator: str = "plan"
    round: int = 0


@dataclass
class Known:
    """What the rows so far tell."""

    archive: Archive
    repertoire: Repertoire
    operators: Bandit = field(default_factory=Bandit)
    wordings: Bandit = field(default_factory=Bandit)  # see `genome.parts`
    intents: Counter[str] = field(default_factory=Counter)
    asked: set[str] = field(default_factory=set)
    rejects: dict[str, tuple[Proposal, str]] = field(default_factory=dict)  # not repaired yet
    accepted: Counter[tuple[str, ...]] = field(default_factory=Counter)  # by cell, and by event


def fold(known: Known, row: Proposal, accepted: bool, reason: str, score: float, cost: int) -> None:
    """Takes in what came of one prompt.

    Args:
      reason: of the rejection, a key of `REPAIRS` or another; "" where accepted.
      score: in [0,1].
      cost: in any unit, the same for all rows.
    """
    genome = row.genome
    known.asked.add(row.prompt.id)
    for name in parts(genome, known.repertoire):
        known.wordings.update(name, accepted, cost)
    known.intents[genome.cell.intent] += 1
    if row.round:
        known.operators.update(_arm(row.operator, genome.cell.intent), accepted, cost)
    if row.operator == REPAIR:
        known.rejects.pop(row.parent, None)
    if accepted:
        known.accepted.update(_places(genome))
        known.archive.add(Elite(prompt_id=row.prompt.id, genome=genome, score=score))
    else:
        known.rejects[row.prompt.id] = (row, reason)


def propose(known: Known, count: int, number: int, chance: random.Random) -> list[Proposal]:
    """At most `count` new prompts for round `number`; fewer where no more can be found."""
    elites: dict[str, list[Elite]] = defaultdict(list)
    for elite in known.archive.elites():
        elites[elite.genome.cell.intent].append(elite)
    if not elites:
        return []
    rejects: dict[str, list[tuple[Proposal, str]]] = defaultdict(list)
    for row, reason in known.rejects.values():
        rejects[row.genome.cell.intent].append((row, reason))
    made: dict[str, Proposal] = {}
    asked = Counter({intent: known.intents[intent] for intent in elites})
    rows = Counter(known.accepted)
    idle = 0
    while len(made) < count and idle < PATIENCE:
        intent = min(asked, key=asked.__getitem__)
        beliefs = Beliefs(known.wordings, chance)
        means = Means(
            repertoire=known.repertoire,
            chance=chance,
            others=[e.genome for e in elites[intent]],
            weigh=lambda name, beliefs=beliefs: beliefs.of(name) ** SHARPNESS + 1e-6,
        )
        names = [*OPERATORS, *([REPAIR] if rejects[intent] else [])]
        arms = {_arm(name, intent): name for name in names}
        operator = arms[known.operators.draw(arms, chance)]
        if operator == REPAIR:
            found = _repaired(rejects[intent], means)
        else:
            found = _children(operator, elites[intent], means)
        cell = _neediest(intent, rows, known, beliefs)
        moved = [(move(g, cell, means), parent) for g, parent in found]
        prompts = [(render(g, known.repertoire), g, parent) for g, parent in moved]
        fresh = [f for f in prompts if f[0].id not in known.asked and f[0].id not in made]
        if not fresh:
            idle += 1
            continue
        idle = 0
        worth = [
            _need(g, rows, known.archive) * beliefs.product(parts(g, known.repertoire))
            for _, g, _ in fresh
        ]
        prompt, genome, parent = fresh[worth.index(max(worth))]
        rows.update(_places(genome))
        asked[intent] += 1
        made[prompt.id] = Proposal(
            prompt=prompt, genome=genome, parent=parent, operator=operator, round=number
        )
    return list(made.values())


class Beliefs:
    """One draw from what is believed of every wording; the same name gives the same value."""

    def __init__(self, bandit: Bandit, chance: random.Random) -> None:
        self._bandit, self.chance = bandit, chance
        self._drawn: dict[str, float] = {}

    def of(self, name: str) -> float:
        """Accepted rows for what a mean row costs, above 0."""
        if name not in self._drawn:
            self._drawn[name] = self._bandit.sample(name, self.chance)
        return self._drawn[name]

    def product(self, names: Iterable[str]) -> float:
        """Of all wordings of a prompt."""
        return math.prod(map(self.of, names))


def _neediest(intent: str, rows: Counter[tuple[str, ...]], known: Known, beliefs: Beliefs) -> Cell:
    """The cell and the event of an intent with the fewest rows; of equals those believed best."""
    cells = sorted(cell for cell in known.archive.cells if cell[0] == intent)
    fewest = min(rows[cell] for cell in cells)
    poor = [cell for cell in cells if rows[cell] == fewest]
    worth = [beliefs.product((f"platform {c[1]}", f"style {c[2]}")) for c in poor]
    _, platform, style, hardness = poor[worth.index(max(worth))]
    events = [(t, e) for t, es in known.repertoire.axes.topics.items() for e in es]
    beliefs.chance.shuffle(events)
    topic, event = min(events, key=lambda e: rows[intent, *e])
    return Cell(
        intent=intent,
        topic=topic,
        event=event,
        platform=platform,
        style=style,
        hardness=hardness,
    )


def _arm(operator: str, intent: str) -> str:
    """Operators are judged apart where a label is asked for: those answers are short and sure."""
    return f"{operator} of labels" if intent in LABELS else operator


def _places(genome: Genome) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a genome is counted under: its cell in the archive; its intent and event."""
    cell = genome.cell
    return archive_module.key(cell), (cell.intent, cell.topic, cell.event)


def _need(genome: Genome, rows: Counter[tuple[str, ...]], archive: Archive) -> float:
    """How empty the genome's cell and event are, in (0,2]; a cell that is not planned is full."""
    cell, event = _places(genome)
    return (cell in archive.cells) / (1 + rows[cell]) + 1 / (1 + rows[event])


def _children(operator: str, elites: list[Elite], means: Means) -> list[tuple[Genome, str]]:
    children = []
    for _ in range(CANDIDATES):
        drawn = means.chance.choices(elites, k=PARENTS)
        parent = max(drawn, key=lambda e: e.score)
        if child := mutate(operator, parent.genome, means):
            children.append((child, parent.prompt_id))
    return children


def _repaired(rejects: list[tuple[Proposal, str]], means: Means) -> list[tuple[Genome, str]]:
    """Children of one of the rejects, which is taken off them."""
    row, reason = rejects.pop(means.chance.randrange(len(rejects)))
    names = REPAIRS.get(reason, tuple(OPERATORS))
    children = [mutate(name, row.genome, means) for name in names]
    return [(child, row.prompt.id) for child in children if child]
