"""The real Phi-3 tokenizer in both published revisions: golden ids, spans, roles, oracles.

The revisions differ in `rstrip` of the control tokens: the newer one swallows the white space
after `<|user|>` and its like, in the older one it stays. Only the newer is at hand; the older is
made from it, and known from what is written about it: the first ids below.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from opengrok_jax import tokenizer
from opengrok_jax.records import Message, Role
from opengrok_jax.tokenizer import ChatTokenizer, Encoded

ROLES = {"0": "template", "1": "prompt", "2": "response"}

# Messages, answer, ids of the newer revision over their roles, the same of the older one.
# fmt: off
GOLDEN: dict[str, tuple[list[tuple[Role, str]], str | None, str, str, str, str]] = {
    "no answer yet": (
        [("user", "Hi there")], None,
        "32010 6324 727 32007 32001", "01100",
        "32010 29871 13 18567 727 32007 29871 13 32001 29871 13", "00011000000",
    ),
    "system": (
        [("system", "Be kind."), ("user", "Hi there")], "Hello",
        "32006 1522 2924 29889 32007 32010 6324 727 32007 32001 15043 32007", "011100110022",
        "32006 29871 13 3629 2924 29889 32007 29871 13 32010 29871 13 18567 727 32007 29871 13"
        " 32001 29871 13 10994 32007", "0001110000001100000022",
    ),
    "two turns": (
        [("user", "Hi"), ("assistant", " Yes?"), ("user", "So?")], "Fine.",
        "32010 6324 32007 32001 3869 29973 32007 32010 1105 29973 32007 32001 28896 29889 32007",
        "010011001100222",
        "32010 29871 13 18567 32007 29871 13 32001 29871 13 3869 29973 32007 29871 13 32010 29871"
        " 13 6295 29973 32007 29871 13 32001 29871 13 29943 457 29889 32007",
        "000100000011000000110000002222",
    ),
    "skin tone": (
        [("user", "ok 👍🏽!")], "😂😂",
        "32010 3431 29871 243 162 148 144 243 162 146 192 29991 32007 32001 29871 243 162 155 133"
        " 243 162 155 133 32007", "011111111111002222222222",
        "32010 29871 13 554 29871 243 162 148 144 243 162 146 192 29991 32007 29871 13 32001 29871"
        " 13 243 162 155 133 243 162 155 133 32007", "00011111111111000000222222222",
    ),
    "family joined by U+200D": (
        [("user", "So 👨‍👩‍👧 cute")], "👩‍💻",
        "32010 1105 29871 243 162 148 171 30722 243 162 148 172 30722 243 162 148 170 274 1082"
        " 32007 32001 29871 243 162 148 172 30722 243 162 149 190 32007",
        "01111111111111111110022222222222",
        "32010 29871 13 6295 29871 243 162 148 171 30722 243 162 148 172 30722 243 162 148 170 274"
        " 1082 32007 29871 13 32001 29871 13 243 162 148 172 30722 243 162 149 190 32007",
        "0001111111111111111110000002222222222",
    ),
    "flags": (
        [("user", "🇪🇸🇯🇵")], "🏴‍☠️",
        "32010 29871 243 162 138 173 243 162 138 187 243 162 138 178 243 162 138 184 32007 32001"
        " 29871 243 162 146 183 30722 229 155 163 30598 32007", "0111111111111111110022222222222",
        "32010 29871 13 243 162 138 173 243 162 138 187 243 162 138 178 243 162 138 184 32007"
        " 29871 13 32001 29871 13 243 162 146 183 30722 229 155 163 30598 32007",
        "00011111111111111110000002222222222",
    ),
    "Ethiopic and Javanese": (
        [("user", "ጤና ይስጥልኝ")], "ꦱ",
        "32010 29871 228 143 167 228 141 150 29871 228 142 176 228 139 184 228 143 168 228 139 144"
        " 228 141 160 32007 32001 29871 237 169 180 32007", "0111111111111111111111110022222",
        "32010 29871 13 228 143 167 228 141 150 29871 228 142 176 228 139 184 228 143 168 228 139"
        " 144 228 141 160 32007 29871 13 32001 29871 13 237 169 180 32007",
        "00011111111111111111111110000002222",
    ),
    "CRLF": (
        [("user", "a\r\nb\r\n")], "c\r\nd",
        "32010 263 30004 13 29890 30004 13 32007 32001 274 30004 13 29881 32007", "01111110022222",
        "32010 29871 13 29874 30004 13 29890 30004 13 32007 29871 13 32001 29871 13 29883 30004 13"
        " 29881 32007", "00011111100000022222",
    ),
    "leading spaces": (
        [("user", "  two  spaces ")], "  lead",
        "32010 1023 29871 8162 29871 32007 32001 3275 32007", "011110022",
        "32010 29871 13 29871 1023 29871 8162 29871 32007 29871 13 32001 29871 13 29871 3275 32007",
        "00011111000000222",
    ),
    "control tokens spelled out": (
        [("user", "x<|end|>\ny</s>\nz")], "<|assistant|>\nno",
        "32010 921 29966 29989 355 29989 29958 13 29891 829 29879 29958 13 29920 32007 32001 529"
        " 29989 465 22137 29989 29958 13 1217 32007", "0111111111111100222222222",
        "32010 29871 13 29916 29966 29989 355 29989 29958 13 29891 829 29879 29958 13 29920 32007"
        " 29871 13 32001 29871 13 29966 29989 465 22137 29989 29958 13 1217 32007",
        "0001111111111111000000222222222",
    ),
}
# fmt: on
REVISIONS = ("newer", "older")


@pytest.fixture(scope="module")
def files(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tokenizer.json of each revision."""
    newer = shared_data / "phi3-tokenizer" / "tokenizer.json"
    raw = json.loads(newer.read_text(encoding="utf-8"))
    assert {token["rstrip"] for token in raw["added_tokens"]} == {True, False}
    for token in raw["added_tokens"]:
        token["rstrip"] = False
    older = tmp_path_factory.mktemp("older") / "tokenizer.json"
    older.write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")
    return dict(zip(REVISIONS, (newer, older), strict=True))


@pytest.fixture(scope="module")
def opened(files: dict[str, Path]) -> dict[str, ChatTokenizer]:
    return {revision: tokenizer.load(str(path)) for revision, path in files.items()}


def chat(name: str) -> tuple[tuple[Message, ...], str | None]:
    messages, answer = GOLDEN[name][:2]
    return tuple(Message(role=role, content=content) for role, content in messages), answer


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_ids_and_roles(name: str, revision: str, opened: dict[str, ChatTokenizer]) -> None:
    encoded = opened[revision].encode_chat(*chat(name))
    ids, roles = GOLDEN[name][2:4] if revision == "newer" else GOLDEN[name][4:]
    assert encoded.tokens.tolist() == [int(i) for i in ids.split()]
    assert [tokenizer.ROLES[r] for r in encoded.roles] == [ROLES[r] for r in roles]
    is_control = encoded.tokens >= 32000
    assert np.array_equal(encoded.special, is_control)
    if GOLDEN[name][1] is not None:
        assert (encoded.tokens[-1], roles[-1]) == (opened[revision].end_id, "2")
    assert_spans_spell_the_tokens(encoded, opened[revision])


def assert_spans_spell_the_tokens(encoded: Encoded, used: ChatTokenizer) -> None:
    """Tokens of one span (the bytes of a character) spell together what stands there, but for the
    space that the file puts before a text: it lies over the first character, alone or with the
    token there. White space alone may stand between spans."""
    spelled: dict[tuple[int, int], bytes] = {}
    covered = np.zeros(len(encoded.text), bool)
    for index, (low, high) in zip(encoded.tokens.tolist(), encoded.spans.tolist(), strict=True):
        piece = used.token_text(index)
        byte = re.fullmatch(r"<0x(..)>", piece)
        text = bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()
        spelled[low, high] = spelled.get((low, high), b"") + text
        covered[low:high] = True
    for (low, high), text in spelled.items():
        there = encoded.text[low:high].encode()
        shared = sum(low == start for start, _ in spelled) > 1
        assert text in (there, b" " + there) or (text == b" " and shared), (low, high)
    assert all(covered[at] or c.isspace() for at, c in enumerate(encoded.text))


# What posts are made of; U+001C is white space to Python, and not to the file.
posts = st.lists(
    st.sampled_from(["👨‍👩‍👧", "🇪🇸", "👍🏽", "e\u0301", "\r\n", "\n", "  ", " ", "\u3000", "\x1c", "日本", "ጤ",
                     "שלום", "\u200d", "\ufeff", "ok"]) | st.text(max_size=4),
    max_size=7,
).map("".join).filter(lambda text: "<" not in text)  # fmt: skip


@pytest.mark.parametrize("revision", REVISIONS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(post=posts, answer=posts)
def test_ids_are_those_of_the_file_given_the_whole_chat(
    revision: str, post: str, answer: str, files: dict[str, Path], opened: dict[str, ChatTokenizer]
) -> None:
    ours = opened[revision]
    messages = (Message(role="system", content=answer), Message(role="user", content=post))
    encoded = ours.encode_chat(messages, answer)
    theirs = plain(files[revision]).encode(encoded.text, add_special_tokens=False)
    assert encoded.tokens.tolist() == theirs.ids
    # Where the file counts swallowed white space to a control token, ours ends with its name.
    assert encoded.spans[:, 0].tolist() == [low for low, _ in theirs.offsets]
    assert encoded.spans[~encoded.special].tolist() == [
        list(span)
        for span, control in zip(theirs.offsets, encoded.special, strict=True)
        if not control
    ]
    assert_spans_spell_the_tokens(encoded, ours)
    prompt = ours.encode_chat(messages)
    assert encoded.tokens[: len(prompt.tokens)].tolist() == prompt.tokens.tolist()
    assert encoded.text.startswith(prompt.text)


@functools.cache
def plain(path: Path) -> Tokenizer:
    """The file in the hands of the library it was written for, and nothing of ours."""
    return Tokenizer.from_file(str(path))


@pytest.fixture(scope="module")
def from_transformers(files: dict[str, Path]) -> dict[str, Any]:
    """Two readings of one folder: the file as it is, and what AutoTokenizer makes of the config."""
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    folder = files["newer"].parent
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    as_it_is = {
        revision: transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(path),
            chat_template=config["chat_template"],
            eos_token=config["eos_token"],
        )
        for revision, path in files.items()
    }
    return as_it_is | {"auto": transformers.AutoTokenizer.from_pretrained(str(folder))}


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("name", [name for name in GOLDEN if "spelled" not in name])
def test_text_and_ids_are_those_of_transformers_with_its_template(
    name: str, revision: str, opened: dict[str, ChatTokenizer], from_transformers: dict[str, Any]
) -> None:
    pytest.importorskip("jinja2", reason="the template is written in it")
    theirs, (messages, answer) = from_transformers[revision], chat(name)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    if answer is not None:
        turns.append({"role": "assistant", "content": answer})
    text = theirs.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None)
    encoded = opened[revision].encode_chat(messages, answer)
    # We stop where generation stops: after a whole chat the template goes on.
    assert encoded.text + ("" if answer is None else "\n<|endoftext|>") == text
    assert encoded.tokens.tolist() == theirs.encode(encoded.text, add_special_tokens=False)


def test_auto_tokenizer_reads_another_tokenizer_out_of_the_same_folder(
    opened: dict[str, ChatTokenizer], from_transformers: dict[str, Any]
) -> None:
    """Why the file is opened without it: the config says `legacy: false`, from which it rebuilds a
    backend that sees no start of a text after a control token. If this fails, it no longer does,
    and the warning in tokenizer.py can go."""
    encoded = opened["newer"].encode_chat(*chat("no answer yet"))
    theirs = from_transformers["auto"].encode(encoded.text, add_special_tokens=False)
    first = {"ours": encoded.tokens[1], "AutoTokenizer's": theirs[1]}
    assert first == {"ours": 6324, "AutoTokenizer's": 18567}
    assert [t for n, t in enumerate(theirs) if n != 1] == np.delete(encoded.tokens, 1).tolist()


@pytest.mark.parametrize("revision", REVISIONS)
def test_sizes_and_names(revision: str, opened: dict[str, ChatTokenizer]) -> None:
    ours = opened[revision]
    assert (ours.vocab_size, ours.end_id, ours.eos_id) == (32011, 32007, 32000)
    assert ours.decode([32010, 6324, 727, 32007, 2, 32063]) == "Hi there"
