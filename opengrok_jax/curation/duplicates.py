"""Near-duplicates: answers to one intent that say almost the same words.

Likeness is the Jaccard index of the sets of word triples, and every pair at or above the line is
found: sets of a and b triples can only reach the line s if they have s/(1+s)(a+b) in common, so
two such sets share a triple among the first a - ceil(s*a) + 1 of each, whatever the order
("prefix filtering", Chaudhuri et al. 2006). Ordered from the rarest on, those triples are mostly
unique, so next to no pair is compared in vain. That makes it quicker here than MinHash with LSH,
which at low lines has to propose many pairs and may miss some.

Triples make the index strict on short texts: with one word in n changed, far apart, it is
(1 - 3/n) / (1 + 3/n), so 0.8 means one word in 27, and 0.4 one word in 7. In the recordings that
ship, paraphrases made on purpose reach 0.36 to 0.70, and no other two answers exceed 0.16.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from opengrok_jax.curation.looks import PROSE
from opengrok_jax.curation.shingles import number, words
from opengrok_jax.errors import ConfigError

MIN_WORDS = 8  # shorter answers are labels and stock phrases: alike on purpose


# Odd numbers that set the words of a triple apart by their place (the digits of pi and e).
_PLACES = np.array([0x3243F6A8885A308D, 0xB7E151628AED2A6B, 0x13198A2E03707345], np.uint64)


def sketch(intent: str, text: str) -> np.ndarray:
    """The triples of an answer as sorted uint64 numbers; none where it is too short to compare.

    A short answer in prose is one number, so that it is compared as a whole. Two different triples
    have one number by chance only, about once in 2^64 pairs.
    """
    row = words(text)
    if len(row) >= MIN_WORDS:
        each = np.array([number(word) for word in row], np.uint64)
        return np.unique(each[:-2] * _PLACES[0] + each[1:-1] * _PLACES[1] + each[2:] * _PLACES[2])
    return np.array([number(" ".join(row))] if row and intent in PROSE else [], np.uint64)


def near_duplicates(
    intents: Sequence[str], sketches: Sequence[np.ndarray], similarity: float
) -> dict[int, tuple[int, float]]:
    """Which answers repeat an earlier one.

    Args:
      intents, sketches: of each answer; only answers of one intent are compared.
      similarity: in (0,1]; a Jaccard index of at least this is a near-duplicate.

    Returns:
      For the index of each near-duplicate: the index of the earlier answer that it is most like
      (the first of them), and how like. An answer that was found to be one is not compared with.

    Raises:
      ConfigError: similarity is out of range.
    """
    if not 0 < similarity <= 1:
        raise ConfigError(f"curation.duplicate_similarity is {similarity}; expected above 0, to 1")
    found: dict[int, tuple[int, float]] = {}
    of_intent: dict[str, list[int]] = defaultdict(list)
    for index, intent in enumerate(intents):
        if len(sketches[index]):
            of_intent[intent].append(index)
    for members in of_intent.values():
        pairs = _repeats([sketches[m] for m in members], similarity)
        found |= {members[i]: (members[j], likeness) for i, (j, likeness) in pairs.items()}
    return found


def _repeats(sketches: list[np.ndarray], similarity: float) -> dict[int, tuple[int, float]]:
    every = np.concatenate(sketches)
    _, place, count = np.unique(every, return_inverse=True, return_counts=True)
    rank = np.lexsort((np.arange(len(count)), count)).argsort()[place]  # the rarest is 0
    often = count[place] > 1
    ends = np.cumsum([len(s) for s in sketches])
    found: dict[int, tuple[int, float]] = {}
    sets: list[frozenset[int]] = []
    having: dict[int, list[int]] = defaultdict(list)  # number of a triple -> earlier answers
    for index, (end, row) in enumerate(zip(ends, sketches, strict=True)):
        here = slice(end - len(row), end)
        least = math.ceil(similarity * len(row) - 1e-9)  # triples in common with a like one
        first = np.argsort(rank[here])[: len(row) - least + 1]
        first = first[often[here][first]]  # no other answer has the others
        prefix = rank[here][first].tolist()
        mine = frozenset(place[here].tolist()) if len(first) else frozenset()
        sets.append(mine)
        # Answers that share several of these come up several times; the set makes them one.
        others = sorted({other for triple in prefix for other in having[triple]})
        likeness = {
            other: jaccard(mine, sets[other])
            for other in others
            if similarity * len(mine) <= len(sets[other]) <= len(mine) / similarity
        }
        most_like = max(likeness, key=likeness.__getitem__, default=None)  # of equals, the first
        if most_like is not None and likeness[most_like] >= similarity:
            found[index] = (most_like, likeness[most_like])
        else:
            for triple in prefix:
                having[triple].append(index)
    return found


def jaccard(a: frozenset[Any], b: frozenset[Any]) -> float:
    """Share of the union that both have; 0 where both are empty."""
    both = len(a & b)
    return both / max(len(a) + len(b) - both, 1)
