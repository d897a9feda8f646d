import dataclasses

import numpy as np
import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.masking import syntax, words

TEXTS = [
    "the cat eats",
    "",
    "hi !",
    "  two\n\nlines 👨‍👩‍👧 #tag @ada",
    "RT @x: no way",
    " \n ",
    "naïve café",
]


@pytest.fixture(scope="module")
def nlp():
    return syntax.load_pipeline()


@pytest.fixture(scope="module")
def table(nlp):
    return words.annotate(nlp, TEXTS)


def rows(table):
    """The words of each text as (start, end, upos, relation, head)."""
    columns = (table.starts, table.ends, table.upos, table.relation, table.heads)
    flat = list(zip(*(column.tolist() for column in columns), strict=True))
    result, at = [], 0
    for count in table.counts.tolist():
        result.append(
            [
                (a, b, syntax.UPOS[tag], table.names[relation], head)
                for a, b, tag, relation, head in flat[at : at + count]
            ]
        )
        at += count
    return result


def test_the_words_are_those_of_the_docs(nlp, table):
    for text, found in zip(TEXTS, rows(table), strict=True):
        kept = [token for token in nlp(text) if not token.is_space]
        place = {token.i: at for at, token in enumerate(kept)}
        expected = [
            (
                token.idx,
                token.idx + len(token),
                token.pos_,
                syntax.relation_name(token.dep_),
                place.get(token.head.i, at),
            )
            for at, token in enumerate(kept)
        ]
        assert found == expected


def test_a_pipeline_that_knows_penn_tags_alone(nlp, table):
    """`part_of_speech` finds the universal ones, as they are told for Universal Dependencies."""
    doc = nlp("She has seen it")
    for token, tag in zip(doc, ("PRP", "VBZ", "VBN", "PRP"), strict=True):
        token.pos_, token.tag_ = "", tag
    doc[1].dep_ = "aux"
    reader = words._Reader(nlp)
    upos = reader.read([doc])[3]
    assert [syntax.UPOS[at] for at in upos] == ["PRON", "AUX", "VERB", "PRON"]


def test_the_columns_are_small(table):
    kinds = {f.name: getattr(table, f.name).dtype for f in dataclasses.fields(table)[:-1]}
    assert kinds == {
        "counts": np.int32,
        "starts": np.uint16,
        "ends": np.uint16,
        "upos": np.uint8,
        "relation": np.uint8,
        "heads": np.uint16,
    }
    assert len(syntax.UPOS) < 256
    assert syntax.LONGEST_PIECE < 2**16


def test_a_chunk_comes_back_from_disk(table, tmp_path):
    path = words.file_of(tmp_path, "abcd")
    words.save(path, table)
    again = words.load(path)
    assert again.names == table.names
    for field in dataclasses.fields(table)[:-1]:
        np.testing.assert_array_equal(getattr(again, field.name), getattr(table, field.name))


def test_nothing_is_a_chunk_too(nlp, tmp_path):
    empty = words.annotate(nlp, [])
    words.save(tmp_path / "e.npz", empty)
    assert words.load(tmp_path / "e.npz").starts.dtype == np.uint16


def test_a_key_is_of_the_annotator_and_of_all_texts_in_order():
    key = words.chunk_key("me", ["ab", "c"])
    others = [("you", ["ab", "c"]), ("me", ["a", "bc"]), ("me", ["c", "ab"]), ("me", ["ab"])]
    assert len({key, *(words.chunk_key(*other) for other in others)}) == 5
    assert key == words.chunk_key("me", iter(["ab", "c"]))


def test_the_identity_is_of_the_pipelines_files(nlp, tmp_path):
    ours = words.identity("")
    assert ours == words.identity(str(syntax.EMBEDDED))
    nlp.to_disk(tmp_path / "copy")
    before = words.identity(str(tmp_path / "copy"))
    (tmp_path / "copy" / "CARD.md").write_text("what is said of it")
    assert words.identity(str(tmp_path / "copy")) == before
    (tmp_path / "copy" / "more").write_text("x")
    assert len({ours, before, words.identity(str(tmp_path / "copy"))}) == 3


@pytest.mark.parametrize("name", ["no_such_pipeline", "no-name", "json.tool"])
def test_a_pipeline_that_is_not_there(name):
    with pytest.raises(ConfigError, match=f"pipeline '{name}'"):
        words.identity(name)


def test_a_vocabulary_is_bounded_and_changes_no_word(table, monkeypatch):
    """Learnt words, and the pipeline loaded anew because of them: the same table."""
    monkeypatch.setattr(words, "NEW_WORDS", 100)
    annotator = words.Annotator("")
    loaded = []
    monkeypatch.setattr(
        syntax,
        "load_pipeline",
        lambda name, load=syntax.load_pipeline: (loaded.append(name), load(name))[1],
    )
    annotator([f"word{number}" for number in range(200)])
    assert not loaded
    for again in (annotator(TEXTS), annotator(TEXTS)):
        for name in ("counts", "starts", "ends", "upos", "relation", "heads"):
            np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
        assert again.names == table.names
    assert loaded == [""]
