"""How varied a set of texts is, in figures that can be compared between sets.

    distinct    share of word n-grams that occur once             1 = nothing is said twice
    self_bleu   how much of a text stands in the others           1 = each is in the others
    vendi       how many texts the set is worth                   n equal texts: 1
    balance     how evenly the values of an axis occur            1 = all as often
    coverage    share of the planned cells that hold something

The Vendi score (Friedman and Dieng 2023) is exp of the entropy of the eigenvalues of the kernel
matrix; the kernel here is the cosine of hashed character n-grams. Weighing n-grams by an IDF of
the set itself would call what all its texts share unimportant, and a set made by one template
could win: so the IDF is frozen, made once (2026-11-25) of the posts and recorded answers that
ship with the package. It says how the words differ, not what they mean.

`distinct` falls with the number of words and `self_bleu` rises with the number of texts: compare
sets of one size, or cut them to one (`words`, `sample`).
"""

from __future__ import annotations

import functools
import math
import random
import re
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from opengrok_jax.records import Cell

IDF_FILE = Path(__file__).parent / "assets" / "diversity_idf.npy"
BUCKETS = 4096  # n-grams are hashed to so many and weighed there
WIDTH = 512  # ... then folded, with signs, to the width of the vectors
NGRAMS = (3, 4)
BLEU_ORDER = 4
AXES = ("intent", "topic", "event", "platform", "style", "hardness")

_WORD = re.compile(r"\w+(?:['’]\w+)*")


def figures(texts: Sequence[str], *, words: int = 0, sample: int = 500, seed: int = 0) -> dict:
    """All figures of a set of texts: `texts`, `distinct_1` to `distinct_3`, `self_bleu`, `vendi`.

    Args:
      words: `distinct` looks at the first so many words after shuffling the texts; 0 at all.
      sample: `self_bleu` and `vendi` look at this many texts drawn with `seed`; 0 at all.
    """
    shuffled = random.Random(seed).sample(list(texts), len(texts))
    drawn = shuffled[:sample] if sample else shuffled
    return {
        "texts": len(texts),
        **{f"distinct_{n}": round(distinct(shuffled, n, words=words), 4) for n in (1, 2, 3)},
        "self_bleu": round(self_bleu(drawn), 4),
        "vendi": round(vendi(drawn), 2),
    }


def distinct(texts: Iterable[str], n: int, *, words: int = 0) -> float:
    """Different word n-grams over all word n-grams, in [0,1]; 0 where there are none.

    texts        a b a b | a b          n = 2
    n-grams      ab ba ab  ab           2 different of 4
    """
    seen: set[tuple[str, ...]] = set()
    total, left = 0, words or math.inf
    for text in texts:
        row = _words(text)[: int(left)] if left < math.inf else _words(text)
        left -= len(row)
        grams = _grams(row, n)
        seen.update(grams)
        total += len(grams)
        if left <= 0:
            break
    return len(seen) / total if total else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-4 of each text with all others as its references, in [0,1]; 0 for fewer than two.

    Counts of two words and more are smoothed by one (Lin and Och 2004). Texts without a word are
    left out.
    """
    rows = [row for row in map(_words, texts) if row]
    if len(rows) < 2:
        return 0.0
    scores = np.zeros(len(rows))
    for n in range(1, BLEU_ORDER + 1):
        counts = [Counter(_grams(row, n)) for row in rows]
        most = _two_most(counts)
        for index, own in enumerate(counts):
            hits = sum(
                min(number, most[gram][1] if most[gram][2] == index else most[gram][0])
                for gram, number in own.items()
            )
            smooth = int(n > 1)
            share = (hits + smooth) / (own.total() + smooth)
            scores[index] += math.log(share) if share else -math.inf
    lengths = np.sort([len(row) for row in rows])
    brevity = [min(0.0, 1 - _closest(lengths, len(row)) / len(row)) for row in rows]
    return float(np.mean(np.exp(scores / BLEU_ORDER + brevity)))


def vendi(texts: Sequence[str]) -> float:
    """Effective number of different texts, from 1 to min(len(texts), WIDTH); 0 for none.

    Computed from the WIDTH x WIDTH covariance, whose eigenvalues other than 0 are those of the
    n x n kernel.
    """
    vectors = embed(texts)
    vectors = vectors[np.linalg.norm(vectors, axis=1) > 0]
    if not len(vectors):
        return 0.0
    values = np.linalg.eigvalsh(vectors.T @ vectors / len(vectors))
    values = values[values > 1e-12]
    return float(np.exp(-(values * np.log(values)).sum()))


def embed(texts: Sequence[str]) -> np.ndarray:
    """float64 [n, WIDTH]: hashed character n-grams, weighed, each row of length 1 (or all 0)."""
    vectors = np.zeros((len(texts), WIDTH))
    idf = _idf()
    columns = np.arange(BUCKETS) % WIDTH
    signs = np.where((np.arange(BUCKETS) // WIDTH) % 2, -1.0, 1.0)
    for vector, text in zip(vectors, texts, strict=True):
        buckets = _buckets(text)
        found = np.fromiter(buckets, dtype=np.int64, count=len(buckets))
        weights = np.log1p(np.fromiter(buckets.values(), dtype=np.float64, count=len(buckets)))
        np.add.at(vector, columns[found], signs[found] * weights * idf[found])
        vector /= np.linalg.norm(vector) or 1.0
    return vectors


def make_idf(texts: Sequence[str]) -> np.ndarray:
    """float32 [BUCKETS]: log((1 + texts) / (1 + texts with the bucket)), which made `IDF_FILE`."""
    having = np.zeros(BUCKETS)
    for text in texts:
        having[list(_buckets(text))] += 1
    return np.log((1 + len(texts)) / (1 + having)).astype(np.float32)


def balance(values: Iterable[Hashable], possible: int = 0) -> float:
    """Entropy of the shares of the values over that of equal shares, in [0,1].

    Args:
      values: one for each row.
      possible: how many values there could be; 0 takes those that occur. One value alone has 0.
    """
    counts = np.array(list(Counter(values).values()), dtype=np.float64)
    most = max(possible, len(counts))
    if most < 2:
        return 0.0
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum() / math.log(most))


def axes(cells: Sequence[Cell]) -> dict[str, dict[str, int | float]]:
    """For each axis: values that occur, their balance, rows of the rarest; "" is no value."""
    result = {}
    for axis in AXES:
        counts = Counter(getattr(cell, axis) for cell in cells if getattr(cell, axis))
        result[axis] = {
            "values": len(counts),
            "balance": round(balance(counts.elements()), 4),
            "fewest": min(counts.values(), default=0),
        }
    return result


def coverage(filled: Iterable[Hashable], planned: Iterable[Hashable]) -> float:
    """Share of the planned cells that are filled; what is filled beside them does not count."""
    wanted = set(planned)
    return len(wanted & set(filled)) / len(wanted) if wanted else 0.0


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _grams(row: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(row[start:] for start in range(n)), strict=False))


def _two_most(
    counts: Sequence[Mapping[tuple[str, ...], int]],
) -> dict[tuple[str, ...], tuple[int, int, int]]:
    """n-gram -> (most in one text, most in any other one, index of the first)."""
    most: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for index, own in enumerate(counts):
        for gram, number in own.items():
            first, second, where = most.get(gram, (0, 0, -1))
            if number > first:
                most[gram] = (number, first, index)
            elif number > second:
                most[gram] = (first, number, where)
    return most


def _closest(lengths: np.ndarray, own: int) -> int:
    """The length nearest to `own` among the sorted lengths, `own` itself taken out once."""
    at = int(np.searchsorted(lengths, own))
    others = [int(lengths[i]) for i in (at - 1, at + 1) if 0 <= i < len(lengths)]
    return min(others, key=lambda length: (abs(length - own), length))


def _buckets(text: str) -> Counter[int]:
    spaced = f" {' '.join(text.casefold().split())} "
    return Counter(
        zlib.crc32(spaced[at : at + n].encode()) % BUCKETS
        for n in NGRAMS
        for at in range(len(spaced) - n + 1)
    )


@functools.cache
def _idf() -> np.ndarray:
    return np.load(IDF_FILE, allow_pickle=False).astype(np.float64)
