import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax import masked_file, storage, tokenizer
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masking import build, keep, syntax, tfidf
from opengrok_jax.records import Cell, Example, Message, prompt_id

CHATS = [
    (["Is this post happy? my cat sat on the new keyboard 😹"], "It is amused: the cat won."),
    (["Be brief.", "Summarise: @ada the train is late again #monday"], "Trains late, users cross."),
    (["Topic of: gr8 match!! 👨‍👩‍👧 watched together 🇺🇸"], "Sports. A family enjoys the match."),
    (["Half an emoji \ud83d and\r\n\r\ntwo lines\n"], "The post breaks off."),
    (["Say nothing"], ""),
    (["  <|end|> is only text here"], " <|assistant|> too"),
]
LONG = (["word " * 300], "The long one.")


def make_examples(chats=CHATS) -> list[Example]:
    examples = []
    for texts, response in chats:
        roles = ["system", "user"] if len(texts) == 2 else ["user"]
        messages = tuple(
            Message(role=role, content=text)  # type: ignore[arg-type]
            for role, text in zip(roles, texts, strict=True)
        )
        plain = [dataclasses.replace(m, content=syntax.well_formed(m.content)) for m in messages]
        examples.append(
            Example(
                id=prompt_id(tuple(plain)),
                messages=messages,
                response=response,
                split="valid" if len(examples) == 2 else "train",
                cell=Cell(intent="test"),
                source="labelled",
                model_served="hand",
                rights="own",
            )
        )
    return examples


def write(path: Path, examples: list[Example]) -> Path:
    # Half an emoji has no UTF-8; JSON escapes carry it, as some servers' answers do.
    rows = [json.dumps(dataclasses.asdict(e)) for e in examples]
    path.write_text("".join(row + "\n" for row in rows), encoding="ascii")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    write(folder / "examples.jsonl", [*make_examples(), *make_examples([LONG])])
    return folder


@pytest.fixture(scope="module")
def counts(folder) -> dict:
    return build.run(examples_file=folder / "examples.jsonl", out=folder / "out", max_tokens=200)


@pytest.fixture(scope="module")
def rows(folder, counts):
    return masked_file.read_masked(folder / "out" / "masked.parquet")[0]


# ---- offsets ------------------------------------------------------------------------------------


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4))
def test_documents_stand_where_their_offsets_say(texts):
    messages = tuple(Message(role="user", content=text) for text in texts[1:])
    rendered = tokenizer.load().encode_chat(messages, texts[0]).text
    documents = build.content_offsets(messages, texts[0])
    assert [text for _, text in documents] == [*texts[1:], texts[0]]
    for at, text in documents:
        assert rendered[at : at + len(text)] == text


def test_the_drawing_of_offsets():
    messages = (Message(role="user", content="Hi there"),)
    encoded = tokenizer.load().encode_chat(messages, "Hello")
    assert encoded.text.startswith("<|user|>\nHi there<|end|>\n<|assistant|>\nHello<|end|>")
    assert build.content_offsets(messages, "Hello") == [(9, "Hi there"), (39, "Hello")]


# ---- what is written ----------------------------------------------------------------------------


def test_rows_are_the_encoded_examples_in_order(rows):
    examples = make_examples()
    chat = tokenizer.load()
    assert [r.id for r in rows] == [e.id for e in examples]
    assert [r.split for r in rows] == [e.split for e in examples]
    for row, example in zip(rows, examples, strict=True):
        messages = tuple(
            dataclasses.replace(m, content=syntax.well_formed(m.content)) for m in example.messages
        )
        encoded = chat.encode_chat(messages, example.response)
        np.testing.assert_array_equal(row.tokens, encoded.tokens)
        np.testing.assert_array_equal(row.roles, encoded.roles)


def test_factors_are_those_of_the_words_under_each_token(rows):
    """The oracle reads every document by itself and looks at every code point."""
    nlp, chat = syntax.load_pipeline(), tokenizer.load()
    documents = [
        [syntax.well_formed(t) for t in (*(m.content for m in e.messages), e.response)]
        for e in make_examples()
    ]
    words = syntax.annotate(nlp, [text for texts in documents for text in texts])
    telling = tfidf.scores([words[text].lower for texts in documents for text in texts])
    at_word = iter(telling)
    for row, example, texts in zip(rows, make_examples(), documents, strict=True):
        messages = tuple(
            Message(role=m.role, content=t) for m, t in zip(example.messages, texts, strict=False)
        )
        encoded = chat.encode_chat(messages, texts[-1])
        by_character = np.zeros((3, len(encoded.text) + 1), np.float32)
        begin = 0
        for text in texts:
            begin = encoded.text.index(">\n" + text + "<|end|>", begin) + 2
            mine = words[text]
            scores = zip(next(at_word), mine.pos, mine.dep, strict=True)
            for a, b, three in zip(mine.starts, mine.ends, scores, strict=True):
                by_character[:, begin + a : begin + b] = np.array(three)[:, None]
            begin += len(text)
        for t, (a, b) in enumerate(encoded.spans.tolist()):
            expected = by_character[:, a : max(b, a + 1)].max(axis=1)
            if encoded.special[t] or encoded.roles[t] == tokenizer.TEMPLATE:
                expected = np.zeros(3)
            assert [row.tfidf[t], row.pos[t], row.dep[t]] == pytest.approx(expected.tolist())


def test_the_mask_is_the_formula_and_the_draw(rows, counts):
    assert {"alpha": 2.0, "beta": 1.0, "gamma": 1.0, "delta": 1.0}.items() <= counts.items()
    for row in rows:
        count = len(row.tokens)
        np.testing.assert_array_equal(row.random, keep.uniform(0, row.id, "random", count))
        free = keep.maskable(row.roles, "prompt+response")
        total = 2.0 * row.tfidf + row.pos + row.dep + row.random + counts["bias"]
        expected = np.where(free, 1 / (1 + np.exp(-total.astype(np.float64))), 1.0)
        np.testing.assert_allclose(row.keep_prob, expected, rtol=1e-5)
        u = keep.uniform(0, row.id, "draw", count)
        np.testing.assert_array_equal(row.key_mask, u < row.keep_prob)
        assert row.key_mask[row.roles == tokenizer.TEMPLATE].all()


def test_content_words_are_kept_more_often_than_the_rest(rows):
    chance = np.concatenate([r.keep_prob[r.roles > 0] for r in rows])
    content = np.concatenate([r.pos[r.roles > 0] for r in rows]) > 0
    assert chance[content].mean() > chance[~content & (chance < 1)].mean() + 0.1


def test_corpus_json_counts_what_was_written(folder, rows, counts):
    assert storage.read_json(folder / "out" / "corpus.json") == counts
    free = [keep.maskable(r.roles, "prompt+response") for r in rows]
    hidable = sum(int(f.sum()) for f in free)
    assert counts["examples"] == len(CHATS)
    assert counts["tokens"] == sum(len(r.tokens) for r in rows)
    assert counts["mean_tokens"] == pytest.approx(counts["tokens"] / len(CHATS))
    assert counts["maskable_tokens"] == hidable
    assert counts["keep_prob"] == pytest.approx(0.85, abs=1e-6)
    shown = sum(int(r.key_mask[f].sum()) for r, f in zip(rows, free, strict=True))
    assert counts["keep_rate"] == shown / hidable
    assert counts["keep_rate_of_all"] == sum(r.key_mask.sum() for r in rows) / counts["tokens"]
    assert counts["by_role"]["template"]["keep_rate"] == 1.0
    assert sum(c["tokens"] for c in counts["by_role"].values()) == counts["tokens"]
    assert sum(c["tokens"] for c in counts["by_upos"].values()) == hidable
    assert math.isclose(
        sum(c["tokens"] * c["keep_rate"] for c in counts["by_upos"].values()), shown
    )
    assert {"NOUN", "VERB", build.NO_WORD} <= set(counts["by_upos"])


def test_the_long_example_is_skipped_by_name(counts):
    (long,) = make_examples([LONG])
    (skipped,) = counts["skipped"]
    assert skipped["id"] == long.id
    assert skipped["tokens"] > 200


def test_provenance_says_how_it_was_made(folder, counts):
    _, provenance = masked_file.read_masked(folder / "out" / "masked.parquet")
    assert provenance["vocab_size"] == tokenizer.load().vocab_size
    beside = folder / "out" / "tokenizer" / "tokenizer.json"
    assert beside.read_bytes() == tokenizer.EMBEDDED.read_bytes()
    assert provenance["tokenizer_sha256"] == hashlib.sha256(beside.read_bytes()).hexdigest()
    assert provenance["pipeline"].startswith("en_sns ")
    assert provenance["scope"] == "prompt+response"
    assert provenance["target_keep_rate"] == 0.85
    assert provenance["bias"] == counts["bias"] != 0.0
    assert provenance["seed"] == 0
    assert provenance.items() <= counts.items()


def test_the_same_arguments_give_the_same_bytes(folder, counts):
    again = build.run(examples_file=folder / "examples.jsonl", out=folder / "again", max_tokens=200)
    assert again == counts
    for name in (
        "masked.parquet/part-00000.parquet",
        "masked.parquet/manifest.json",
        "corpus.json",
    ):
        assert (folder / "again" / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_the_order_of_the_examples_changes_no_mask(folder, tmp_path):
    backward = write(tmp_path / "backward.jsonl", make_examples()[::-1])
    forward = write(tmp_path / "forward.jsonl", make_examples())
    for file in (forward, backward):
        build.run(examples_file=file, out=tmp_path / file.stem, preset="paper")
    one, _ = masked_file.read_masked(tmp_path / "forward" / "masked.parquet")
    other, _ = masked_file.read_masked(tmp_path / "backward" / "masked.parquet")
    for a, b in zip(one, other[::-1], strict=True):
        assert a.id == b.id
        np.testing.assert_array_equal(a.keep_prob, b.keep_prob)
        np.testing.assert_array_equal(a.key_mask, b.key_mask)


def test_phi3s_tokenizer(folder, tmp_path, shared_data):
    name = str(shared_data / "phi3-tokenizer")
    counts = build.run(
        examples_file=folder / "examples.jsonl", out=tmp_path, tokenizer=name, max_tokens=200
    )
    rows, provenance = masked_file.read_masked(tmp_path / "masked.parquet")
    assert provenance["tokenizer"] == name
    assert provenance["vocab_size"] == 32011
    assert counts["keep_prob"] == pytest.approx(0.85, abs=1e-6)
    family = rows[2]
    assert family.tokens.tolist().count(243) >= 4  # <0xF0>, the first byte of an emoji
    assert (family.tfidf[family.tokens == 243] > 0).all()


# ---- settings -----------------------------------------------------------------------------------

CHANGES = {
    "preset": "paper",
    "alpha": 0.0,
    "beta": 0.0,
    "gamma": 0.0,
    "delta": 0.0,
    "target_keep_rate": 0.5,
    "scope": "prompt",
    "pos_tags": ("PRON",),
    "relations": ("det",),
    "max_tokens": 30,
    "seed": 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_masks(folder, rows, tmp_path, name):
    settings: dict[str, Any] = {"max_tokens": 200, name: CHANGES[name]}
    build.run(examples_file=folder / "examples.jsonl", out=tmp_path, **settings)
    after, provenance = masked_file.read_masked(tmp_path / "masked.parquet")
    changed = [
        len(after) != len(rows)
        or not np.array_equal(a.keep_prob, b.keep_prob)
        or not np.array_equal(a.key_mask, b.key_mask)
        for a, b in zip(after, rows, strict=False)
    ]
    assert any(changed)
    value = CHANGES[name]
    assert provenance[name] == (list(value) if isinstance(value, tuple) else value)


def test_a_fixed_bias(folder, tmp_path):
    settings: dict[str, Any] = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "delta": 0.0, "bias": -1.0}
    counts = build.run(
        examples_file=folder / "examples.jsonl",
        out=tmp_path,
        target_keep_rate=None,
        max_tokens=200,
        **settings,
    )
    assert counts["bias"] == -1.0
    assert counts["keep_prob"] == pytest.approx(1 / (1 + math.e), rel=1e-6)


def test_a_preset_sets_all_numbers_and_says_so(folder, tmp_path, capsys):
    counts = build.run(
        examples_file=folder / "examples.jsonl", out=tmp_path, preset="paper", alpha=9.0
    )
    assert counts["alpha"] == 1.0
    assert counts["bias"] == 0.0
    assert counts["target_keep_rate"] is None
    assert "preset 'paper' sets alpha=1.0, beta=1.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"max_tokens": -5}, "got -5"),
        ({"preset": "papers"}, "choose one of paper, balanced"),
        ({"scope": "response"}, "choose one of prompt"),
        ({"target_keep_rate": 1.0}, "between 0 and 1"),
        ({"target_keep_rate": 0.0}, "between 0 and 1"),
        ({"bias": 1.0}, "set target_keep_rate to None"),
        ({"alpha": math.nan}, "alpha must be a finite number"),
        ({"pos_tags": ("NN",)}, "pos_tags holds 'NN'"),
        ({"pipeline": "no_such_pipeline"}, "python -m spacy download no_such_pipeline"),
        ({"relations": ("subj",)}, "relations holds subj"),
    ],
)
def test_wrong_values_are_told_before_any_work(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        build.run(examples_file=tmp_path / "not there", out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_no_example_at_all(tmp_path):
    with pytest.raises(DataError, match="holds no example"):
        build.run(examples_file=write(tmp_path / "none.jsonl", []), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_example_too_long(folder, tmp_path):
    with pytest.raises(DataError, match="all 7 examples are longer than max_tokens = 3; the short"):
        build.run(examples_file=folder / "examples.jsonl", out=tmp_path / "out", max_tokens=3)
    assert not (tmp_path / "out").exists()


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        build.run(examples_file=tmp_path / "gone.jsonl", out=tmp_path / "out")
