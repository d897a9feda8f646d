"""Test posts that stand among the training posts too, word for word or nearly.

    exact   the same after folding case, white space, handles, links, the forms of characters, the
            sign of hashtags and the "RT @user:" of a repeated post
    near    at least 0.8 of the five-character pieces of both are common (Jaccard)

All pairs that are near are found, not a sample of them: two sets of Jaccard t share one of the
rarest (1 - t) |set| + 1 pieces of each (Chaudhuri, Ganti and Kaushik 2006), so only posts that
share one of those are compared.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

NEAR = 0.8
PIECE = 5

_REPEATED = re.compile(r"^(?:rt @user:? )+")
_HANDLE = re.compile(r"@\w+")
_LINK = re.compile(r"https?://\S+|www\.\S+|\bhttp\b|\{\{?url\}?\}", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """Indices of the test posts that leak; a post is in one of them at most."""

    exact: tuple[int, ...]
    near: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        """Both, in order."""
        return tuple(sorted((*self.exact, *self.near)))


def find(test: Sequence[str], train: Sequence[str]) -> Leaks:
    """The test posts that are among the training posts; empty ones never are."""
    tests, trained = [folded(text) for text in test], {folded(text) for text in train} - {""}
    exact = tuple(i for i, text in enumerate(tests) if text in trained)
    open_ = {i: _pieces(text) for i, text in enumerate(tests) if text and text not in trained}
    known = [_pieces(text) for text in trained]
    rarity = Counter(piece for pieces in (*open_.values(), *known) for piece in pieces)
    index: dict[str, list[int]] = defaultdict(list)
    for number, pieces in enumerate(known):
        for piece in _rarest(pieces, rarity):
            index[piece].append(number)
    near = []
    for i, pieces in open_.items():
        candidates = {n for piece in _rarest(pieces, rarity) for n in index.get(piece, ())}
        if any(_jaccard(pieces, known[n]) >= NEAR for n in candidates):
            near.append(i)
    return Leaks(exact=exact, near=tuple(near))


def folded(text: str) -> str:
    """What makes two posts the same.

    >>> folded("RT @Ada:  LOOK, #cats https://t.co/x")
    'look, cats http'
    """
    text = unicodedata.normalize("NFKC", text).replace("#", "")
    text = " ".join(_LINK.sub("http", _HANDLE.sub("@user", text)).casefold().split())
    return _REPEATED.sub("", text)


def _pieces(text: str) -> frozenset[str]:
    return frozenset(text[at : at + PIECE] for at in range(max(1, len(text) - PIECE + 1)))


def _rarest(pieces: frozenset[str], rarity: Counter[str]) -> list[str]:
    count = len(pieces) - math.ceil(NEAR * len(pieces)) + 1
    return sorted(pieces, key=lambda piece: (rarity[piece], piece))[:count]


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    if min(len(a), len(b)) < NEAR * max(len(a), len(b)):
        return 0.0
    common = len(a & b)
    return common / (len(a) + len(b) - common)
