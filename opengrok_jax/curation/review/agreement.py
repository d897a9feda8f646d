"""How far reviewers agree: with each other, and each with himself on a second look.

Cohen's kappa is the agreement beyond what the two would reach by chance:

    kappa = (observed - chance) / (1 - chance)

               bob accept  bob reject
    ann accept     20           5         observed  (20 + 15) / 50            = 0.7
    ann reject     10          15         chance    (25*30 + 25*20) / 50^2    = 0.5
                                          kappa     (0.7 - 0.5) / (1 - 0.5)   = 0.4

J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement
20 (1960).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from opengrok_jax.curation.review.decision_log import CHOICES, Body, by_look
from opengrok_jax.records import Decision


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two columns of decisions on the same answers.

    Attributes:
      first, second: the reviewers; the same name twice for the two looks of one.
      rows: answers that both settled.
      same: of these, how many in the same way.
      kappa: in [-1,1]; None where it is not defined, because both only ever said the same thing.
    """

    first: str
    second: str
    rows: int
    same: int
    kappa: float | None


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of pairs of labels; None without pairs, or where chance alone agrees fully."""
    if not pairs:
        return None
    total = len(pairs)
    left, right = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    agreed = sum(a == b for a, b in pairs)
    chance = sum(left[label] * right[label] for label in left)  # times total^2
    if chance == total**2:
        return None
    return (agreed * total - chance) / (total**2 - chance)


def agreements(decisions: Iterable[Decision]) -> list[Agreement]:
    """Of every reviewer with himself, then of every two; only where there is anything to compare.

    Two reviewers are compared by their first looks.
    """
    said: dict[tuple[str, int], dict[Body, str]] = {}
    for (prompt, sha, reviewer, look), decision in by_look(decisions).items():
        if decision.decision in CHOICES:
            said.setdefault((reviewer, look), {})[prompt, sha] = decision.decision
    names = sorted({reviewer for reviewer, _ in said})
    found = [_compare(n, n, said.get((n, 1), {}), said.get((n, 2), {})) for n in names]
    found += [
        _compare(a, b, said.get((a, 1), {}), said.get((b, 1), {}))
        for a, b in combinations(names, 2)
    ]
    return [agreement for agreement in found if agreement.rows]


def _compare(first: str, second: str, a: dict[Body, str], b: dict[Body, str]) -> Agreement:
    pairs = [(a[key], b[key]) for key in a if key in b]
    return Agreement(
        first=first,
        second=second,
        rows=len(pairs),
        same=sum(x == y for x, y in pairs),
        kappa=kappa(pairs),
    )
