"""TF-IDF of every word, scaled to [0,1] within its document.

A document is one message or one response; its words are those of the annotator, in lower case.
A word said n times in a document and found in d of D documents weighs

    (1 + ln n) * (1 + ln((1 + D) / (1 + d)))

(scikit-learn's `sublinear_tf` and `smooth_idf`), divided by the weight of the document's top word:
the top word of every document scores 1, whatever its length, and no word scores 0. Counts enter
by their logarithm because with plain counts "the" tops every answer of a hundred words. A prompt
used a thousand times counts as a thousand documents, which is what makes its words common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from opengrok_jax.errors import needs_extra


def scores(documents: Sequence[Sequence[str]]) -> list[np.ndarray]:
    """The score of every word of every document.

        documents  a b b . | a c . |  (none)
        tf x idf   weights of the first document: a 1.29, b 2.87, . 1.29
        scores     .45 1 1 .45 | .76 1 .76 |

    Args:
      documents: the words of each document, in order; a document may have none.

    Returns:
      One float32 [W] in (0,1] per document, a score per word.
    """
    if not any(documents):  # scikit-learn refuses an empty vocabulary
        return [np.zeros(0, np.float32) for _ in documents]
    with needs_extra("mask"):
        from sklearn.feature_extraction.text import TfidfVectorizer
    options: dict[str, Any] = {"analyzer": _as_is, "norm": None, "dtype": np.float64}
    vectorizer = TfidfVectorizer(sublinear_tf=True, smooth_idf=True, **options)
    weights = vectorizer.fit_transform(documents).tocsr()
    weights.sort_indices()
    column = vectorizer.vocabulary_
    result = []
    for row, words in enumerate(documents):
        here = slice(weights.indptr[row], weights.indptr[row + 1])
        found = np.searchsorted(weights.indices[here], [column[word] for word in words])
        values = weights.data[here][found]
        result.append((values / values.max(initial=1.0)).astype(np.float32))
    return result


def _as_is(words: Sequence[str]) -> Sequence[str]:
    return words
