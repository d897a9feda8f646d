import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import tokenizer
from opengrok_jax.errors import DataError
from opengrok_jax.masking import encode, syntax
from opengrok_jax.masking.encode import Chat
from opengrok_jax.records import Message

# ---- offsets ------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4))
def test_documents_stand_where_their_offsets_say(texts):
    messages = tuple(Message(role="user", content=text) for text in texts[1:])
    rendered = tokenizer.load().encode_chat(messages, texts[0]).text
    documents = encode.content_offsets(messages, texts[0])
    assert [text for _, text in documents] == [*texts[1:], texts[0]]
    for at, text in documents:
        assert rendered[at : at + len(text)] == text


def test_the_drawing_of_offsets():
    messages = (Message(role="user", content="Hi there"),)
    encoded = tokenizer.load().encode_chat(messages, "Hello")
    assert encoded.text.startswith("<|user|>\nHi there<|end|>\n<|assistant|>\nHello<|end|>")
    assert encode.content_offsets(messages, "Hello") == [(9, "Hi there"), (39, "Hello")]


# ---- blocks -------------------------------------------------------------------------------------


def chat(name: str, *texts: str, response: str | None = "Yes.", label: str = "") -> Chat:
    messages = tuple(Message(role="user", content=text) for text in texts)
    return Chat(id=name, split="train", label=label, messages=messages, response=response)


CHATS = [
    chat("a", "Hi there", response="Hello"),
    chat("b", "Be brief.", "The cat 👨‍👩‍👧 " * 200, label="joy"),
    chat("c", "", response=None),
]


@pytest.fixture(scope="module")
def block():
    return encode.encode(tokenizer.load(), [*CHATS, chat("long", "word " * 9000)], 5000)


def test_a_block_holds_the_chats_one_after_the_other(block):
    assert block.ids == ["a", "b", "c"]
    assert block.labels == ["", "joy", ""]
    assert block.skipped == ["long"]
    assert block.skipped_tokens[0] > 5000
    at = 0
    for one, length, size in zip(CHATS, block.lengths, block.sizes, strict=True):
        encoded = tokenizer.load().encode_chat(one.messages, one.response)
        here = slice(at, at + length)
        for name in ("tokens", "roles", "special", "spans"):
            np.testing.assert_array_equal(getattr(block, name)[here], getattr(encoded, name))
        assert size == len(encoded.text)
        at += length
    assert block.document_counts.tolist() == [2, 3, 1]
    assert block.documents[:2] == ["Hi there", "Hello"]
    assert block.offsets[:2].tolist() == [9, 39]


def test_long_documents_are_cut_where_the_annotator_needs_it(block):
    long = block.documents[3]
    assert len(long) > syntax.LONGEST_PIECE
    assert block.piece_counts.tolist() == [1, 1, 1, len(syntax.pieces(long)), 1, 1]
    pieces = block.pieces()
    assert "".join(pieces[3 : 3 + block.piece_counts[3]]) == long
    assert len(pieces) == len(block.digests) == len(block.piece_offsets)
    same = {bytes(d): p for d, p in zip(block.digests, pieces, strict=True)}
    assert len(same) == len(set(pieces))


def test_a_block_comes_back_from_disk(block, tmp_path):
    encode.save(tmp_path / "b.npz", block)
    again = encode.load(tmp_path / "b.npz")
    for field in dataclasses.fields(block):
        one, other = getattr(block, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(one, other)
        assert type(one) is type(other)
    encode.save(tmp_path / "c.npz", again)
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()


def test_nothing_is_a_block_too(tmp_path):
    empty = encode.encode(tokenizer.load(), [], 10)
    encode.save(tmp_path / "b.npz", empty)
    assert encode.load(tmp_path / "b.npz").spans.shape == (0, 2)


def test_lines_are_examples_with_surrogates_mended():
    row = {
        "id": "x",
        "messages": [{"role": "user", "content": "half \ud83d"}],
        "response": "\ud83d",
        "split": "valid",
        "cell": {"intent": "i"},
        "label": "joy",
        "source": "s",
        "model_served": "m",
        "rights": "own",
    }
    (one,) = encode.parse(Path("f"), [(7, json.dumps(row).encode())])
    assert (one.id, one.split, one.label, one.response) == ("x", "valid", "joy", "\ufffd")
    assert one.messages[0].content == "half \ufffd"
    with pytest.raises(DataError, match=r"f, line 9: .*split"):
        encode.parse(Path("f"), [(9, json.dumps(row | {"split": "tst"}).encode())])


def test_what_may_not_be_trained_on_is_no_training_data(tmp_path):
    row = {
        "id": "a",
        "messages": [{"role": "user", "content": "Hi"}],
        "response": "Yes.",
        "split": "train",
        "cell": {"intent": "test"},
        "source": "api",
        "model_served": "grok-4.7",
        "rights": "own-model",
    }
    lines = [(7, json.dumps(row).encode())]
    with pytest.raises(DataError, match=r"line 7: no training data is made: .*agreement: NAME"):
        encode.parse(tmp_path / "kept.jsonl", lines)
    lines = [(7, json.dumps(row | {"rights": "agreement: OF-17"}).encode())]
    assert [c.response for c in encode.parse(tmp_path / "kept.jsonl", lines)] == ["Yes."]
