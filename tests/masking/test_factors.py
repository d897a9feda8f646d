import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import tokenizer
from opengrok_jax.masking import encode, factors, syntax, tfidf, words
from tests.masking.test_encode import CHATS, chat
from tests.masking.test_words import rows

ALL = [*CHATS, chat("d", "the cat eats old fish !", "x", response="She gave him two books 👍")]


@pytest.fixture(scope="module")
def nlp():
    return syntax.load_pipeline()


@pytest.fixture(scope="module")
def block():
    return encode.encode(tokenizer.load(), ALL, 5000)


@pytest.fixture(scope="module")
def table(nlp, block):
    return words.annotate(nlp, block.pieces())


def test_gather_takes_words_from_wherever_they_were_annotated(nlp, block, tmp_path, monkeypatch):
    monkeypatch.setattr(words, "CHUNK", 3)
    pieces = block.pieces()
    distinct = sorted(set(pieces), reverse=True)
    keys = []
    for at in range(0, len(distinct), 3):
        some = distinct[at : at + 3]
        keys.append(words.chunk_key(str(tmp_path), some))
        words.save(words.file_of(tmp_path, keys[-1]), words.annotate(nlp, some))
    places = np.array([distinct.index(piece) for piece in pieces], np.int64)
    found = factors.gather(places, keys, tmp_path)
    assert rows(found) == [rows(words.annotate(nlp, [piece]))[0] for piece in pieces]


def test_the_words_of_a_document_are_in_lower_case_and_cross_pieces(nlp, block, table):
    found = factors.word_texts(block, table)
    for text, mine in zip(block.documents, found, strict=True):
        expected = [
            piece[a:b].lower()
            for _, piece in syntax.pieces(text)
            for a, b, *_ in rows(words.annotate(nlp, [piece]))[0]
        ]
        assert mine == expected


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["root", "nsubj", "det", "obj"]), st.integers(0, 9))),
        max_size=4,
    ),
    st.sets(st.sampled_from(["root", "nsubj", "dobj", "det"])),
)
def test_syntax_scores_are_those_of_each_text_alone(texts, chosen):
    names = ("root", "nsubj", "det", "obj")
    flat = [word for text in texts for word in text]
    heads = [head % len(text) for text in texts for _, head in text]
    table = words.WordTable(
        counts=np.array([len(text) for text in texts], np.int32),
        starts=np.arange(len(flat), dtype=np.uint16),
        ends=np.arange(1, len(flat) + 1).astype(np.uint16),
        upos=np.array([at % len(syntax.UPOS) for at in range(len(flat))], np.uint8),
        relation=np.array([names.index(name) for name, _ in flat], np.uint8),
        heads=np.array(heads, np.uint16),
        names=names,
    )
    pos, dep = factors.syntax_scores(table, ("NOUN", "X"), sorted(chosen))
    expected = [
        syntax.relation_scores(
            [name for name, _ in text],
            [head % len(text) for _, head in text],
            {syntax.relation_name(name) for name in chosen},
        )
        for text in texts
    ]
    assert dep.tolist() == [int(x) for scores in expected for x in scores]
    assert pos.tolist() == [syntax.UPOS[tag] in ("NOUN", "X") for tag in table.upos]


def test_a_chat_has_the_same_factors_in_any_block(nlp, block, table):
    rng = np.random.default_rng(0)
    by_text = {}

    def telling(of):
        texts = [w for document in factors.word_texts(*of) for w in document]
        return np.array([by_text.setdefault(w, rng.random()) for w in texts], np.float32)

    chosen = {"pos_tags": syntax.POS_TAGS, "relations": syntax.RELATIONS}
    together = factors.factors(block, table, telling((block, table)), **chosen)
    ends = np.cumsum(block.lengths)
    for at, one in enumerate(ALL):
        alone = encode.encode(tokenizer.load(), [one], 5000)
        its = words.annotate(nlp, alone.pieces())
        expected = factors.factors(alone, its, telling((alone, its)), **chosen)
        here = slice(ends[at] - block.lengths[at], ends[at])
        for name in ("tokens", "roles", "tfidf", "pos", "dep", "upos"):
            np.testing.assert_array_equal(
                getattr(together, name)[here], getattr(expected, name), err_msg=f"{one.id} {name}"
            )
    assert set(together.upos[together.roles == tokenizer.TEMPLATE]) <= {factors.NO_WORD}


def test_score_uses_the_frequencies_of_the_corpus(block, table, tmp_path):
    found, found_in, _ = tfidf.count(factors.word_texts(block, table))
    chosen = {"pos_tags": syntax.POS_TAGS, "relations": syntax.RELATIONS}
    rare, common = tmp_path / "rare", tmp_path / "common"
    tfidf.write_frequencies(rare, zip(found, found_in.tolist(), strict=True), 12)
    often = [(w, 900 if w == "cat" else int(n)) for w, n in zip(found, found_in, strict=True)]
    tfidf.write_frequencies(common, often, 1000)
    one, other = (
        factors.score(block, table, tfidf.Frequencies(path), **chosen) for path in (rare, common)
    )
    assert not np.array_equal(one.tfidf, other.tfidf)
    np.testing.assert_array_equal(one.pos, other.pos)


def test_a_block_comes_back_from_disk(block, table, tmp_path):
    telling = np.ones(len(table.starts), np.float32)
    chosen = {"pos_tags": syntax.POS_TAGS, "relations": syntax.RELATIONS}
    made = factors.factors(block, table, telling, **chosen)
    factors.save(tmp_path / "f.npz", made)
    again = factors.load(Path(tmp_path / "f.npz"))
    for field in dataclasses.fields(made):
        np.testing.assert_array_equal(getattr(made, field.name), getattr(again, field.name))
    assert factors.random_factor(3, made).shape == made.tokens.shape
