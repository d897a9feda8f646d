import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import tokenizer
from opengrok_jax.errors import DataError
from opengrok_jax.records import Message
from opengrok_jax.tokenizer import PROMPT, RESPONSE, TEMPLATE

# What posts are made of, and what would break an aligner.
hard_text = st.lists(
    st.sampled_from(
        ["👨‍👩‍👧", "🇪🇸", "👍🏽", "é", "e\u0301", "\r\n", "\n", "  ", " ", "#a#b", "日本", "שלום", "&amp;", "ok",
         "<|end|>", "<|user|>", "</s>", "\u200d", "½", "ﬁ"]
    )
    | st.text(max_size=6),
    max_size=8,
).map("".join)  # fmt: skip


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def test_the_drawing_in_the_docstring(shared_data):
    phi3 = tokenizer.load(str(shared_data / "phi3-tokenizer"))
    encoded = phi3.encode_chat(user("Hi there"), "Hello")
    assert encoded.tokens.tolist() == [32010, 6324, 727, 32007, 32001, 15043, 32007]
    assert encoded.roles.tolist() == [0, 1, 1, 0, 0, 2, 2]
    assert encoded.special.tolist() == [True, False, False, True, True, False, True]
    assert encoded.text == "<|user|>\nHi there<|end|>\n<|assistant|>\nHello<|end|>"
    assert (phi3.vocab_size, phi3.end_id, phi3.eos_id) == (32011, 32007, 32000)


def test_the_students_own_tokenizer_is_taken_unless_another_is_named(tmp_path):
    assert tokenizer.beside(tmp_path, "") == ""
    assert tokenizer.path_of("") == tokenizer.EMBEDDED
    (tmp_path / "tokenizer.json").write_text("{}")
    assert tokenizer.path_of(tokenizer.beside(tmp_path)) == tmp_path / "tokenizer.json"
    assert tokenizer.beside(tmp_path, "other") == "other"


@pytest.mark.parametrize("which", ["embedded", "phi3"])
@given(post=hard_text, answer=hard_text)
def test_nothing_a_post_says_becomes_a_control_token(which, post, answer, request):
    name = ""
    if which == "phi3":
        name = str(request.getfixturevalue("shared_data") / "phi3-tokenizer")
    ours = _cached(name)
    encoded = ours.encode_chat(user(post), answer)
    assert encoded.special.sum() == 4
    assert np.array_equal(encoded.tokens[encoded.special][[1, 3]], [ours.end_id] * 2)
    assert len(encoded.tokens) == len(encoded.roles) == len(encoded.spans) == len(encoded.special)
    # Roles come in the order of the template, spans never go back, and stay in the text.
    starts = encoded.spans[:, 0]
    assert np.all(np.diff(starts) >= 0)
    assert np.all(encoded.spans <= len(encoded.text))
    assert encoded.roles[-1] == RESPONSE
    turn = int(np.flatnonzero(encoded.tokens == ours.end_id)[0])
    assert set(encoded.roles[:turn]) <= {TEMPLATE, PROMPT}


_OPENED: dict[str, tokenizer.ChatTokenizer] = {}


def _cached(name: str) -> tokenizer.ChatTokenizer:
    if name not in _OPENED:
        _OPENED[name] = tokenizer.load(name)
    return _OPENED[name]


@given(hard_text)
def test_the_embedded_tokenizer_loses_no_character(text):
    """Byte fallback: whatever is encoded comes back."""
    ours = _cached("")
    decoded = ours.decode(ours.encode(text))
    assert decoded == text or unicodedata.category(text[0]) == "Cs"


def test_spans_cover_every_written_character():
    encoded = tokenizer.load().encode_chat(user("I ❤️ Bean & Barrel’s 2nd café!"), "joy")
    covered = np.zeros(len(encoded.text), bool)
    for low, high in encoded.spans:
        covered[low:high] = True
    assert all(covered[i] for i, c in enumerate(encoded.text) if not c.isspace())


def test_the_generation_prompt_is_a_prefix_of_the_full_chat():
    ours = tokenizer.load()
    prompt = ours.encode_chat(user("Is this good?"))
    full = ours.encode_chat(user("Is this good?"), "positive")
    assert full.tokens[: len(prompt.tokens)].tolist() == prompt.tokens.tolist()
    assert RESPONSE not in prompt.roles


def test_ids_beyond_the_vocabulary_decode_to_nothing():
    ours = tokenizer.load()
    assert ours.decode([ours.vocab_size + 5, ours.end_id]) == ""


def test_a_wrong_file_is_one_line(tmp_path):
    with pytest.raises(DataError, match="no such tokenizer file"):
        tokenizer.load(str(tmp_path / "none.json"))
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match=r"not a tokenizer\.json"):
        tokenizer.load(str(tmp_path))
