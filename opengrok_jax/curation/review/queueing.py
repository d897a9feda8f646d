"""Which answers a person looks at, and in which order.

    flagged      every answer that a rule rejects and a person may overrule; the worst first
    uncertain    of the others that are kept, the share nearest to a line
    sample       of the others that are kept, a share by chance: the audit, which nobody can tell
                 from the uncertain ones, because both are shown alike and in one mixed order
    rest         what is kept and neither flagged nor uncertain; the sample is part of it

    queue        F F F F F   u s u u s u u u      second looks come SPACING or more places later
                 2       2                 2

All chance is a hash of (seed, purpose, prompt id): it is the same on every machine, and a row keeps
its place in the lottery when others come or go.
"""

from __future__ import annotations

import bisect
import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from opengrok_jax.curation.review.decision_log import Body
from opengrok_jax.errors import ConfigError
from opengrok_jax.records import Finding, Verdict

SPACING = 20
BY_PEOPLE = "review"  # the check of a finding that is a person's rejection


def key(row: Verdict) -> Body:
    """What a decision on the row is about."""
    return row.prompt_id, row.body_sha


def findings(row: Verdict) -> list[Finding]:
    """What the rules found; not what a person said of the row earlier."""
    return [finding for finding in row.findings if finding.check != BY_PEOPLE]


def kept(row: Verdict) -> bool:
    """Whether the rules keep it, whatever a person said."""
    return not any(finding.certain for finding in findings(row))


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How the queue is drawn.

    Attributes:
      uncertain, audit: shares of the kept rows that are not flagged, in [0,1].
      repeat: share of the queue that is shown twice, and to every reviewer, in [0,1].
      seed: of the lottery.
    """

    uncertain: float = 0.10
    audit: float = 0.05
    repeat: float = 0.10
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what is no share."""
        for name in ("uncertain", "audit", "repeat"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"--{name} is {getattr(self, name)}; expected a share, 0 to 1")


@dataclass(frozen=True, kw_only=True)
class Strata:
    """The rows by why they are, or are not, looked at; see the module."""

    flagged: tuple[Verdict, ...]
    uncertain: tuple[Verdict, ...]
    sample: tuple[Verdict, ...]
    rest: tuple[Verdict, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A place in the queue; `look` is 2 where the row comes again."""

    row: Verdict
    look: int


def strata(rows: Sequence[Verdict], draw: Draw) -> Strata:
    """Parts the rows; rows that the rules reject for good are in none.

    The audit is drawn from `rest` without looking at a score, so that it speaks for all of it.
    """
    flagged = [row for row in rows if row.flagged]
    fine = [row for row in rows if kept(row)]
    doubts = _doubts(fine)
    by_doubt = sorted(fine, key=lambda r: (doubts[key(r)], _chance(draw, "tie", r)), reverse=True)
    cut = math.ceil(draw.uncertain * len(fine))
    uncertain = by_doubt[:cut]
    chosen = {key(row) for row in uncertain}
    rest = [row for row in fine if key(row) not in chosen]
    size = min(len(rest), math.ceil(draw.audit * len(fine)))
    sample = sorted(rest, key=lambda row: _chance(draw, "audit", row))[:size]
    return Strata(
        flagged=tuple(
            sorted(flagged, key=lambda r: (-len(findings(r)), _chance(draw, "order", r)))
        ),
        uncertain=tuple(uncertain),
        sample=tuple(sample),
        rest=tuple(rest),
    )


def _doubts(rows: Sequence[Verdict]) -> dict[Body, tuple[bool, int, float]]:
    """How doubtful each row is: marked so, by how many findings, and how unusual its worst score.

    The checks count in units of their own, so a score is ranked among those of the same check:
    the share of rows that have a smaller one.
    """
    columns: dict[str, list[float]] = {}
    for row in rows:
        for check, score in row.scores.items():
            columns.setdefault(check, []).append(score)
    for column in columns.values():
        column.sort()
    found = {}
    for row in rows:
        ranks = [
            bisect.bisect_left(columns[check], score) / len(rows)
            for check, score in row.scores.items()
        ]
        found[key(row)] = (row.uncertain, len(findings(row)), max(ranks, default=0.0))
    return found


def queue(parts: Strata, draw: Draw, settled_by_others: Collection[Body] = ()) -> list[Entry]:
    """The places in order.

    Args:
      parts: of `strata`.
      draw: as given to it.
      settled_by_others: rows that another reviewer has settled. They are left out, unless they
        are among those that everybody sees.
    """
    mixed = sorted((*parts.uncertain, *parts.sample), key=lambda r: _chance(draw, "order", r))
    rows = [*parts.flagged, *mixed]
    twice = _twice(rows, draw)
    done = set(settled_by_others) - twice
    rows = [row for row in rows if key(row) not in done]
    firsts = [Entry(row=row, look=1) for row in rows]
    return _with_seconds(firsts, twice, draw)


def _twice(rows: Sequence[Verdict], draw: Draw) -> set[Body]:
    """The rows that come again; none of the last, which could only come again at once."""
    early = rows[: max(len(rows) - SPACING, len(rows) // 2)]
    size = min(len(early), math.ceil(draw.repeat * len(rows)))
    return {key(row) for row in sorted(early, key=lambda r: _chance(draw, "repeat", r))[:size]}


def _with_seconds(firsts: list[Entry], twice: set[Body], draw: Draw) -> list[Entry]:
    """Puts each second look SPACING to 3 SPACING places after the first, or at the end."""
    places: list[tuple[float, int, Entry]] = []
    for place, entry in enumerate(firsts):
        places.append((float(place), 1, entry))
        if key(entry.row) in twice:
            later = place + SPACING * (1 + 2 * _chance(draw, "again", entry.row))
            places.append((later, 2, Entry(row=entry.row, look=2)))
    places.sort(key=lambda p: p[:2])
    return [entry for _, _, entry in places]


def _chance(draw: Draw, purpose: str, row: Verdict) -> float:
    """A number in [0,1) that looks like chance."""
    seen = hashlib.sha256(f"{draw.seed}/{purpose}/{row.prompt_id}".encode()).digest()
    return int.from_bytes(seen[:8], "big") / 2**64
