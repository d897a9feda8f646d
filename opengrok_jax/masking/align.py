"""From words to tokens: both are spans of code points of the same string."""

from __future__ import annotations

import numpy as np


def token_scores(
    spans: np.ndarray, starts: np.ndarray, ends: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """The score of each token: the maximum over the words that it overlaps, 0 where none.

    An empty span (b, b) is read as (b, b + 1): tokenizers that fall back to bytes give the first
    bytes of a character such spans, the last byte alone the real one.

        text      I     w  a  n  t     p  i  e  s  ☕
        at        0  1  2  3  4  5  6  7  8  9 10 11

        words     0-1   2-6            7-11        11-12
        scores    1     3              2           4

        tokens    0-1   1-4   4-6   6-9   9-12  11-11 11-11 11-12
        result     1     3     3     2     4      4     4     4

    Args:
      spans: int [T, 2], start and end of each token.
      starts, ends: int [W], of the words, ascending and without overlap.
      scores: float32 [W] or [W, F], not negative.

    Returns:
      float32 [T] or [T, F].
    """
    low, high = _widened(spans)
    length = max(high.max(initial=0), ends.max(initial=0))
    # One entry more than there are code points: `reduceat` takes an end only if it is an index.
    painted = np.zeros((length + 1, *scores.shape[1:]), np.float32)
    owner = np.repeat(np.arange(len(starts)), ends - starts)
    painted[ranges(starts, ends)] = scores[owner]
    if not len(spans):
        return painted[:0]
    edges = np.stack([low, high], axis=1).ravel()
    return np.maximum.reduceat(painted, edges, axis=0)[::2]


def first_word(spans: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """The index of the first word that each token overlaps, -1 where there is none.

        words     0-1   2-6       7-11
        tokens    0-1   1-4   4-6   6-7   7-7   7-12
        result     0     1     1    -1     2     2

    Args and empty spans as in `token_scores`.

    Returns:
      int32 [T].
    """
    low, high = _widened(spans)
    word = np.searchsorted(ends, low, side="right")
    begins = np.append(starts, np.iinfo(np.int32).max)[word]
    return np.where(begins < high, word, -1).astype(np.int32)


def _widened(spans: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = spans[:, 0].astype(np.int64)
    return low, np.maximum(spans[:, 1], low + 1)


def ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All code points of all words: [2, 5], [4, 7] gives 2 3 5 6."""
    lengths = (ends - starts).astype(np.int64)
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(before - starts, lengths)
