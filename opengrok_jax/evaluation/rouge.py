"""ROUGE-1, ROUGE-2 and ROUGE-L F1, as the package rouge-score computes them without stemming.

Lin 2004. Words are runs of a-z and 0-9 after lower-casing; so a script other than Latin has none,
and scores 0. rouge-score itself is the oracle of the tests.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_NO_WORD = re.compile(r"[^a-z0-9]+")


def words(text: str) -> list[str]:
    """The words that count.

    >>> words("Can't wait: 2nd round!")
    ['can', 't', 'wait', '2nd', 'round']
    """
    return _NO_WORD.sub(" ", text.lower()).split()


def rouge(kind: str, references: Sequence[str], summary: str) -> float:
    """F1 of a summary against the reference that suits it best, in [0, 1].

    Args:
      kind: "rouge1", "rouge2" or "rougeL".
    """
    found = words(summary)
    return max(_f1(kind, words(reference), found) for reference in references)


def _f1(kind: str, reference: list[str], found: list[str]) -> float:
    if kind == "rougeL":
        common, wanted, given = _common_subsequence(reference, found), len(reference), len(found)
    else:
        size = int(kind.removeprefix("rouge"))
        a, b = _grams(reference, size), _grams(found, size)
        common, wanted, given = (a & b).total(), a.total(), b.total()
    return 2 * common / (wanted + given) if common else 0.0


def _grams(tokens: list[str], size: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1))


def _common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, a row of the table at a time."""
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for at, other in enumerate(b, start=1):
            above = row[at]
            row[at] = diagonal + 1 if word == other else max(above, row[at - 1])
            diagonal = above
    return row[-1]
