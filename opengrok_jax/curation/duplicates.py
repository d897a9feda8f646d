"""Near-duplicates: answers to one intent that say almost the same words.

Likeness is the Jaccard index of the sets of word triples; MinHash with LSH proposes the pairs
(Broder 1997; datasketch), the exact index decides.

Triples make the index strict on short texts: with one word in n changed, far apart, it is
(1 - 3/n) / (1 + 3/n), so 0.8 means one word in 27, and 0.4 one word in 7. In the recordings that
ship, paraphrases made on purpose reach 0.36 to 0.70, and no other two answers exceed 0.16.
"""

from __future__ import annotations

from collections.abc import Sequence

from opengrok_jax.curation.shingles import shingles, words
from opengrok_jax.errors import ConfigError, needs_extra

MIN_WORDS = 8  # shorter answers are labels and stock phrases: alike on purpose
PERMUTATIONS = 128
MISSED = 1e-3  # the LSH may fail to propose this share of the pairs at the line itself


def near_duplicates(
    answers: Sequence[tuple[str, str]], similarity: float
) -> dict[int, tuple[int, float]]:
    """Which answers repeat an earlier one.

    Args:
      answers: (intent, text) of each answer; only answers of one intent are compared.
      similarity: in (0,1]; a Jaccard index of at least this is a near-duplicate.

    Returns:
      For the index of each near-duplicate: the index of the earlier answer that it is most like
      (the first of them), and how like. An answer that was found to be one is not compared with.

    Raises:
      ConfigError: similarity is out of range.
      MissingExtra: datasketch is not installed.
    """
    if not 0 < similarity <= 1:
        raise ConfigError(f"curation.duplicate_similarity is {similarity}; expected above 0, to 1")
    with needs_extra("acquire"):
        from datasketch import MinHash, MinHashLSH

    first = MinHash(num_perm=PERMUTATIONS, seed=1)
    lshs: dict[str, MinHashLSH] = {}
    sets: dict[int, frozenset[str]] = {}
    found: dict[int, tuple[int, float]] = {}
    for index, (intent, text) in enumerate(answers):
        if len(words(text)) < MIN_WORDS:
            continue
        triples = shingles(text)
        sketch = first.copy()
        sketch.update_batch([t.encode() for t in sorted(triples)])
        lsh = lshs.setdefault(intent, MinHashLSH(params=bands(similarity), num_perm=PERMUTATIONS))
        others = sorted(key for key in lsh.query(sketch) if isinstance(key, int))
        likeness = {other: jaccard(triples, sets[other]) for other in others}
        most_like = max(others, key=likeness.__getitem__, default=None)  # of equals, the first
        if most_like is not None and likeness[most_like] >= similarity:
            found[index] = (most_like, likeness[most_like])
        else:
            sets[index] = triples
            lsh.insert(index, sketch)
    return found


def bands(similarity: float) -> tuple[int, int]:
    """(bands, rows in each) of the LSH: the most rows that miss at most `MISSED` at the line.

    Two sets of Jaccard index s agree in one row with probability s, in a band of r rows with s^r,
    and in none of b bands with (1 - s^r)^b. More rows propose fewer pairs for nothing.
    """
    for rows in range(PERMUTATIONS // 2, 1, -1):  # datasketch wants two bands at least
        count = PERMUTATIONS // rows
        if (1 - similarity**rows) ** count <= MISSED:
            return count, rows
    return PERMUTATIONS, 1


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Share of the union that both have; 0 where both are empty."""
    return len(a & b) / max(len(a | b), 1)
