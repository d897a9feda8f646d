import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.masking import tfidf

DOCUMENTS = st.lists(st.lists(st.sampled_from([*"abcd.é😀"]), max_size=8), max_size=6)


def test_the_drawing():
    first, second, empty = tfidf.scores([["a", "b", "b", "."], ["a", "c", "."], []])
    assert first.round(2).tolist() == pytest.approx([0.45, 1, 1, 0.45])
    assert second.round(2).tolist() == pytest.approx([0.76, 1, 0.76])
    assert empty.shape == (0,)


@given(DOCUMENTS)
def test_scores_are_the_formula_over_the_top_word(documents):
    found = tfidf.scores(documents)
    assert len(found) == len(documents)
    for words, scores in zip(documents, found, strict=True):
        assert scores.dtype == np.float32
        weight = {
            w: (1 + math.log(words.count(w)))
            * (1 + math.log((1 + len(documents)) / (1 + sum(w in d for d in documents))))
            for w in words
        }
        expected = [weight[w] / max(weight.values()) for w in words]
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        if words:
            assert scores.max() == 1.0
            assert scores.min() > 0.0


@given(DOCUMENTS)
def test_the_order_of_the_documents_changes_no_score(documents):
    forward, backward = tfidf.scores(documents), tfidf.scores(documents[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_documents_without_words_are_fine():
    assert [s.shape for s in tfidf.scores([[], []])] == [(0,), (0,)]
    assert tfidf.scores([]) == []


def test_the_does_not_top_a_long_answer():
    answer = ["the"] * 30 + ["broccoli"]
    scores = tfidf.scores([answer, *([["the", str(n)] for n in range(1000)])])[0]
    assert scores[-1] == 1.0
    assert scores[0] < 0.7
