import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from opengrok_jax.errors import DataError
from opengrok_jax.masking import tfidf

DOCUMENTS = st.lists(st.lists(st.sampled_from([*"abcd.é😀"]), max_size=8), max_size=6)


def scores(documents, folder=None, blocks=1):
    """The two passes over so many blocks; the scores of each document."""
    size = max(1, -(-len(documents) // blocks))
    parts = [documents[at : at + size] for at in range(0, len(documents), size)] or [[]]
    counted = [tfidf.count(part) for part in parts]
    total = {}
    for words, found_in, _ in counted:
        for word, number in zip(words, found_in.tolist(), strict=True):
            total[word] = total.get(word, 0) + number
    result = []
    for part, (words, _, matrix) in zip(parts, counted, strict=True):
        found_in = np.array([total[word] for word in words], np.int64)
        flat = tfidf.scores(part, found_in, len(documents), (words, None, matrix))
        result += np.split(flat, np.cumsum([len(d) for d in part])[:-1]) if part else []
    return result


def test_the_drawings():
    documents = [["b", "a", "b"], ["a", "c"], []]
    words, found_in, matrix = tfidf.count(documents)
    assert (words, found_in.tolist()) == (["a", "b", "c"], [2, 1, 1])
    assert matrix.toarray().tolist() == [[1, 2, 0], [1, 0, 1], [0, 0, 0]]
    first, second, empty = scores([["a", "b", "b", "."], ["a", "c", "."], []])
    assert first.round(2).tolist() == pytest.approx([0.45, 1, 1, 0.45])
    assert second.round(2).tolist() == pytest.approx([0.76, 1, 0.76])
    assert empty.shape == (0,)


@given(DOCUMENTS, st.integers(1, 4))
def test_scores_are_the_formula_over_the_top_word(documents, blocks):
    found = scores(documents, blocks=blocks)
    assert len(found) == len(documents)
    for words, row in zip(documents, found, strict=True):
        assert row.dtype == np.float32
        weight = {
            w: (1 + math.log(words.count(w)))
            * (1 + math.log((1 + len(documents)) / (1 + sum(w in d for d in documents))))
            for w in words
        }
        expected = [weight[w] / max(weight.values()) for w in words]
        np.testing.assert_allclose(row, expected, rtol=1e-6)
        if words:
            assert row.max() == 1.0
            assert row.min() > 0.0


@given(DOCUMENTS.filter(any), st.integers(1, 4))
def test_two_passes_over_blocks_are_scikit_learns_one_to_the_bit(documents, blocks):
    options = {"analyzer": lambda words: words, "norm": None, "dtype": np.float64}
    vectorizer = TfidfVectorizer(sublinear_tf=True, smooth_idf=True, **options)
    weights = vectorizer.fit_transform(documents).toarray()
    column = vectorizer.vocabulary_
    for words, row, mine in zip(documents, weights, scores(documents, blocks=blocks), strict=True):
        expected = [row[column[word]] / row.max() for word in words]
        np.testing.assert_array_equal(mine, np.array(expected, np.float32))


@given(DOCUMENTS)
def test_the_order_of_the_documents_changes_no_score(documents):
    forward, backward = scores(documents), scores(documents[::-1])
    for one, other in zip(forward, backward[::-1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_documents_without_words_are_fine():
    assert [s.shape for s in scores([[], []])] == [(0,), (0,)]
    assert scores([]) == []


def test_the_does_not_top_a_long_answer():
    answer = ["the"] * 30 + ["broccoli"]
    row = scores([answer, *([["the", str(n)] for n in range(1000)])])[0]
    assert row[-1] == 1.0
    assert row[0] < 0.7


# ---- on disk ------------------------------------------------------------------------------------

WORDS = st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(1, 9), max_size=9)


@given(st.lists(WORDS, max_size=4))
def test_merged_counts_are_the_sum(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("counts")
    paths = [folder / f"{n}.jsonl" for n in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        tfidf.save_counts(path, sorted(part), [part[word] for word in sorted(part)])
    expected = {}
    for part in parts:
        for word, number in part.items():
            expected[word] = expected.get(word, 0) + number
    assert list(tfidf.merge(paths)) == sorted(expected.items())
    tfidf.write_frequencies(folder / "f.parquet", tfidf.merge(paths), 12)
    stored = tfidf.Frequencies(folder / "f.parquet")
    asked = [*expected, "a word that is nowhere"]
    assert stored.total == 12
    assert stored.of(asked).tolist() == [*expected.values(), 0]
    assert stored.of([]).tolist() == []


def test_frequencies_are_read_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(tfidf, "ROWS_PER_GROUP", 7)
    rows = [(f"w{n:03d}", n) for n in range(50)]
    assert tfidf.write_frequencies(tmp_path / "f", rows, 99) == 50
    asked = ["w049", "x", "w000", "w007", "w006"]
    assert tfidf.Frequencies(tmp_path / "f").of(asked).tolist() == [49, 0, 0, 7, 6]


def test_missing_or_foreign_frequencies_are_one_line(tmp_path):
    with pytest.raises(DataError, match="no such file; `opengrok mask` writes it"):
        tfidf.Frequencies(tmp_path / "none")
    (tmp_path / "json").write_text(json.dumps({}))
    with pytest.raises(DataError, match="not the document frequencies of a mask"):
        tfidf.Frequencies(tmp_path / "json")
