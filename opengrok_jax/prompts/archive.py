"""The archive: for every cell of intent x platform x style x hardness, its few best genomes.

                      X                Reddit        ...
    opinion  plain    .81 .77 .60      .74
             noisy    .66              (empty)
    post     plain    .90 .88 .85 .84  .79 .71

A genome competes within its cell only, so that a cell which is hard to please is not emptied by
one that is easy (MAP-Elites, Mouret and Clune 2015). The QD-score is the sum over the cells of
their best score over the number of planned cells: it grows when a cell is filled and when one
gets better.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from opengrok_jax.prompts.genome import LABELS, Genome, Repertoire
from opengrok_jax.records import Cell

Key = tuple[str, str, str, str]


def key(cell: Cell) -> Key:
    """The cell of the archive in which a cell of the plan lies."""
    return (cell.intent, cell.platform, cell.style, cell.hardness)


def planned(repertoire: Repertoire, intents: Iterable[str]) -> frozenset[Key]:
    """The cells that there are to fill; one that asks for a label has no style."""
    axes = repertoire.axes
    return frozenset(
        (intent, platform, style, hardness)
        for intent in intents
        for platform in axes.platforms
        for style in (("",) if intent in LABELS else axes.styles)
        for hardness in axes.hardness
    )


@dataclass(frozen=True, kw_only=True)
class Elite:
    """A genome in the archive, by the prompt that it makes."""

    prompt_id: str
    genome: Genome
    score: float


class Archive:
    """Holds at most `most` elites a cell."""

    def __init__(self, cells: frozenset[Key], most: int) -> None:
        self.cells = cells
        self._most = most
        self._held: dict[Key, list[Elite]] = defaultdict(list)

    def add(self, elite: Elite) -> bool:
        """Whether it is among the best of its cell, of equals the earlier one staying."""
        held = self._held[key(elite.genome.cell)]
        held.append(elite)
        held.sort(key=lambda e: -e.score)
        dropped = held[self._most :]
        del held[self._most :]
        return elite not in dropped

    def elites(self) -> Iterator[Elite]:
        """All of them, cell by cell in the order in which the cells came up, the best first."""
        for held in self._held.values():
            yield from held

    def at(self, where: Key) -> tuple[Elite, ...]:
        """The elites of a cell."""
        return tuple(self._held.get(where, ()))

    @property
    def filled(self) -> frozenset[Key]:
        """The planned cells with an elite."""
        return frozenset(where for where, held in self._held.items() if held) & self.cells

    @property
    def qd_score(self) -> float:
        """In [0,1]; see above."""
        best = sum(self._held[where][0].score for where in self.filled)
        return best / len(self.cells) if self.cells else 0.0
