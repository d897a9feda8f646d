import gzip
from random import Random

import pytest

spacy = pytest.importorskip("spacy")
from opengrok_jax.errors import DataError  # noqa: E402
from opengrok_jax.masking.treebank import (  # noqa: E402
    Sentence,
    group,
    loosen,
    read_conllu,
    tighten,
    to_doc,
)


def rows(*lines: str) -> str:
    """CoNLL-U rows from `id form upos head deprel [SpaceAfter=No]`."""
    text = ""
    for line in lines:
        cells = [*line.split(), "_"][:6]
        index, form, upos, head, relation, misc = cells
        text += "\t".join((index, form, "_", upos, "_", "_", head, relation, "_", misc)) + "\n"
    return text + "\n"


DONT = rows(
    "1-2 don't _ _ _", "1 do AUX 3 aux", "2 n't PART 3 advmod", "3 go VERB 0 root SpaceAfter=No",
    "4 ! PUNCT 3 punct",
)  # fmt: skip
DES = rows("1-2 des _ _ _", "1 de ADP 3 case", "2 les DET 3 det", "3 amis NOUN 0 root")
GAP = rows("1 She PRON 2 nsubj:pass", "2 won VERB 0 root", "2.1 won VERB _ _", "3 gold NOUN 2 obj")


def write(folder, text, name="ewt.train.conllu"):
    path = folder / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["a.conllu", "a.conllu.gz"])
def test_multiword_token_is_split_in_place(tmp_path, name):
    """The drawing of the module."""
    (sentence,) = read_conllu(write(tmp_path, "# newdoc id = d1\n" + DONT, name))
    assert sentence == Sentence(
        words=("do", "n't", "go", "!"),
        spaces=(False, True, False, True),
        upos=("AUX", "PART", "VERB", "PUNCT"),
        heads=(2, 2, 2, 2),
        deps=("aux", "advmod", "ROOT", "punct"),
        document="d1",
    )
    assert sentence.text == "don't go!"


def test_multiword_token_that_does_not_join_up_stays_whole(tmp_path):
    (sentence,) = read_conllu(write(tmp_path, DES))
    assert sentence.words == ("des", "amis")
    assert sentence.upos == ("ADP", "NOUN")
    assert sentence.heads == (1, 1)


def test_empty_nodes_and_subtypes_are_left_out(tmp_path):
    (sentence,) = read_conllu(write(tmp_path, GAP.rstrip("\n")))  # no blank line at the end
    assert sentence.words == ("She", "won", "gold")
    assert sentence.deps == ("nsubj", "ROOT", "obj")
    assert sentence.heads == (1, 1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no sentence"),
        ("1\tHi\n\n", "ends at line 2"),
        (rows("1 Hi INTJ 7 root"), "ends at line 2"),
        (DONT + rows("1 Hi INTJ x root"), "ends at line 8"),
        (rows("1-2 hm _ _ _", "1 h X 0 root"), "ends at line 3"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_conllu(write(tmp_path, text))


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no\.conllu"):
        read_conllu(tmp_path / "no.conllu")
    (tmp_path / "bad.conllu.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"bad\.conllu\.gz"):
        read_conllu(tmp_path / "bad.conllu.gz")


def sentence(word: str, document: str) -> Sentence:
    return Sentence(
        (word, "."), (False, False), ("NOUN", "PUNCT"), (0, 0), ("ROOT", "punct"), document
    )


def test_grouping_keeps_order_and_stays_inside_documents():
    documents = {"a": 7, "b": 1, "c": 5}
    sentences = [sentence(f"{d}{i}", d) for d, n in documents.items() for i in range(n)]
    texts = group(sentences, Random(3), longest=3)
    assert [w for t in texts for w in t.words] == [w for s in sentences for w in s.words]
    sizes = [len(text.words) // 2 for text in texts]
    assert max(sizes) == 3
    assert min(sizes) == 1
    for text in texts:
        assert {word[0] for word in text.words[::2]} == {text.document}
        roots = [i for i, head in enumerate(text.heads) if head == i]
        assert roots == list(range(0, len(text.words), 2))
        assert text.heads == tuple(i - i % 2 for i in range(len(text.words)))
    assert group(sentences, Random(3), longest=3) == texts
    assert group([], Random(3), longest=3) == []


def test_loosen_and_tighten_are_opposites(tmp_path):
    (one,) = read_conllu(write(tmp_path, DONT))
    tokens = loosen(one)
    assert tighten(tokens, one.document) == one
    # taking a word away moves the heads behind it
    assert tighten(tokens[1:], "").heads == (1, 1, 1)


def test_docs_carry_the_gold_tree(tmp_path):
    (one,) = read_conllu(write(tmp_path, DONT))
    doc = to_doc(one, spacy.blank("en").vocab)
    assert doc.text.rstrip() == one.text
    assert [token.pos_ for token in doc] == list(one.upos)
    assert [token.head.i for token in doc] == list(one.heads)
    assert [token.dep_ for token in doc] == list(one.deps)


def test_the_real_treebank_has_its_published_size(shared_data):
    """UD_English-EWT 2.16, test: 2,077 sentences, 25,094 words (its own stats.xml)."""
    sentences = read_conllu(shared_data / "ud" / "ewt.test.conllu.gz")
    assert len(sentences) == 2077
    assert sum(len(one.words) for one in sentences) == 25_094
