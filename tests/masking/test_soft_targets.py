"""Distributions over another vocabulary, moved by bytes; what does not meet is left out."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax import records, storage, tokenizer
from opengrok_jax.errors import DataError
from opengrok_jax.masking import soft_targets
from opengrok_jax.records import Likely, Logprobs, MaskedExample, Message
from opengrok_jax.soft_file import ABSENT, SoftFile, response_positions

CHAT = tokenizer.load()
PIECES = soft_targets.vocabulary(CHAT)


def example(answer: str, name: str = "a") -> MaskedExample:
    encoded = CHAT.encode_chat((Message(role="user", content="hi"),), answer)
    factor = np.zeros(len(encoded.tokens), np.float32)
    return MaskedExample(
        id=name,
        split="train",
        tokens=encoded.tokens,
        roles=encoded.roles,
        tfidf=factor,
        pos=factor,
        dep=factor,
        random=factor,
        keep_prob=factor,
        key_mask=factor == 0,
    )


def likely(piece: str | bytes, probability: float) -> Likely:
    raw = piece.encode() if isinstance(piece, str) else piece
    return Likely(bytes=raw.hex(), logprob=float(np.log(probability)))


def told(pieces: list[str | bytes], top: list[dict[str, float]] | None = None) -> Logprobs:
    raw = [p.encode() if isinstance(p, str) else p for p in pieces]
    others = top or [{} for _ in pieces]
    return Logprobs(
        prompt_id="a",
        text=b"".join(raw).decode(),
        tokens=tuple(likely(piece, 0.5) for piece in raw),
        top=tuple(tuple(likely(p, q) for p, q in one.items()) for one in others),
    )


def aligned(answer: str, said: Logprobs) -> list[dict[str, float]]:
    """For each response token what was stored: the student's spelling -> probability."""
    row = soft_targets.align(example(answer), said, CHAT, PIECES)
    return [
        {
            CHAT.token_text(i): float(np.exp(x))
            for i, x in zip(ids.tolist(), xs, strict=True)
            if i != ABSENT
        }
        for ids, xs in zip(row.ids, row.logprobs, strict=True)
    ]


def spelling(answer: str) -> list[str]:
    one = example(answer)
    return [CHAT.token_text(int(t)) for t in one.tokens[response_positions(one) + 1]]


def test_is_the_drawing() -> None:
    """Where both cut at the same bytes there is a distribution, elsewhere none."""
    answer = "I love the new one!"
    assert spelling(answer) == ["▁I", "▁love", "▁the", "▁new", "▁one", "!", "<|end|>"]
    said = told(["I", " love", " the n", "ew", " one", "!"])
    found = aligned(answer, said)
    assert [sorted(one) for one in found] == [["▁I"], ["▁love"], [], [], ["▁one"], ["!"], []]


def test_alternatives_go_to_the_token_of_the_same_bytes_and_the_rest_to_the_tail() -> None:
    said = told(
        ["I", " love"],
        [
            {"I": 0.5, "The": 0.25, " I": 0.125, "Zxqvw": 0.0625},  # a space before, no such piece
            {" love": 0.5, " new": 0.3, "new": 0.1},
        ],
    )
    first, second, end = aligned("I love", said)
    assert first == pytest.approx({"▁I": 0.5, "▁The": 0.25})
    assert second["▁love"] == pytest.approx(0.5)
    assert second["▁new"] == pytest.approx(0.3)
    assert "▁Zxqvw" not in second
    assert end == {}


def test_tokens_that_end_inside_a_character_meet_byte_by_byte() -> None:
    flame = "\N{FIRE}".encode()
    assert spelling("ok \N{FIRE}")[-5:] == ["<0xF0>", "<0x9F>", "<0x94>", "<0xA5>", "<|end|>"]
    halves = told(["ok", " ", flame[:1], flame[1:2], flame[2:]])
    found = aligned("ok \N{FIRE}", halves)
    assert [bool(one) for one in found[-5:]] == [True, True, False, False, False]


def test_numbers_that_are_no_distribution_are_left_out() -> None:
    found = aligned("I love", told(["I", " love"], [{"The": 0.9}, {}]))
    assert [bool(one) for one in found] == [False, True, False]


@settings(max_examples=60, deadline=None)
@given(
    answer=st.text(
        st.one_of(st.sampled_from("ab !\n\N{FIRE}\u200d\u0301#@"), st.characters(codec="utf-8")),
        min_size=1,
        max_size=24,
    ),
    cuts=st.sets(st.integers(1, 60), max_size=12),
)
def test_aligned_exactly_where_the_cuts_agree(answer: str, cuts: set[int]) -> None:
    """Any text, any cuts of its bytes: an independent count of common intervals."""
    answer = answer.encode("utf-8", "ignore").decode()
    raw = answer.encode()
    ends = sorted({c for c in cuts if c < len(raw)} | {len(raw)})
    pieces: list[str | bytes] = [raw[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
    row = soft_targets.align(example(answer), told(pieces), CHAT, PIECES)
    one = example(answer)
    spelled = [CHAT.token_bytes(int(t)) for t in one.tokens[response_positions(one) + 1][:-1]]
    if b"".join(spelled) != b" " + raw:  # the tokenizer changed the text: nothing is moved
        assert (row.ids == ABSENT).all()
        return
    student, at = [], -1
    for piece in spelled:
        student.append((max(at, 0), at + len(piece)))
        at += len(piece)
    teacher = set(zip([0, *ends[:-1]], ends, strict=True))
    for span, ids in zip(student, row.ids[:-1], strict=True):
        if (ids != ABSENT).any():
            assert span in teacher
        elif span in teacher and span[0] < span[1]:
            lead = b" " if span[0] == 0 else b""
            assert lead + raw[span[0] : span[1]] not in PIECES
    assert (row.ids[-1] == ABSENT).all()


@pytest.mark.parametrize("size", [1, 2048])
def test_build_reports_what_was_aligned(tmp_path, monkeypatch, size) -> None:
    monkeypatch.setattr(soft_targets, "ROWS_PER_PART", size)
    data = [example("I love", "a"), example("the new one!", "b"), example("no", "c")]
    rows = [
        records.to_json(told(["I", " love"], [{"The": 0.25}, {}])),
        records.to_json(told(["the", " new", " one!"])) | {"prompt_id": "b"},
        {"prompt_id": "x", "text": "", "tokens": [], "top": []},
    ]
    storage.write_jsonl(tmp_path / "logprobs.jsonl", rows)
    texts = ["I love", "the new one! (edited)", "no"]
    pairs = zip(data, texts, strict=True)
    facts = soft_targets.build(tmp_path / "logprobs.jsonl", tmp_path / "soft", CHAT, pairs)
    total = sum(len(response_positions(one)) for one in data)
    assert facts == {
        "examples": 1,
        "changed": 1,
        "response_tokens": total,
        "aligned_share": pytest.approx(2 / total),
        "mean_stored_mass": pytest.approx((0.75 + 0.5) / 2),
    }
    opened = SoftFile(tmp_path / "soft")
    assert opened.k == 2
    assert opened.rows(data[1]) is None
    stored = opened.rows(data[0])
    assert stored is not None
    assert stored.ids.shape == (3, 2)
    assert json.loads((tmp_path / "soft" / "manifest.json").read_text())["facts"]["changed"] == 1


def test_parts_are_written_as_they_fill_and_old_ones_go(tmp_path, monkeypatch) -> None:
    """Seven answers, the file in another order: the parts of before, which were more, are gone."""
    names = [f"n{number}" for number in range(7)]
    data = [(example("I love", name), "I love") for name in names]
    rows = [records.to_json(told(["I", " love"])) | {"prompt_id": name} for name in names[::-1]]
    storage.write_jsonl(tmp_path / "logprobs.jsonl", rows)
    for size, parts in ((2, 4), (3, 3)):
        monkeypatch.setattr(soft_targets, "ROWS_PER_PART", size)
        soft_targets.build(tmp_path / "logprobs.jsonl", tmp_path / "soft", CHAT, iter(data))
        assert len([*(tmp_path / "soft").glob("part-*.arrow")]) == parts
    opened = SoftFile(tmp_path / "soft")
    assert len(opened) == 7
    for one, _ in data:
        assert opened.rows(one) is not None


def test_a_malformed_answer_is_named_by_its_line(tmp_path) -> None:
    path = tmp_path / "logprobs.jsonl"
    path.write_text(json.dumps(records.to_json(told(["I"]))) + "\n\n{}\n")
    with pytest.raises(DataError, match=r"logprobs\.jsonl, line 3: "):
        soft_targets.build(path, tmp_path / "soft", CHAT, [])
