import dataclasses
import hashlib
import math
from pathlib import Path

import numpy as np
import pytest

from opengrok_jax import chance, masked_file, storage, tokenizer
from opengrok_jax.masking import build, keep, syntax
from opengrok_jax.masking.factors import UPOS_NAMES
from opengrok_jax.records import Message
from tests.masking.annotated import annotate
from tests.masking.built import CHATS, LONG, make_examples, write
from tests.masking.test_tfidf import scores as tfidf_scores


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
    words = annotate(nlp, [text for texts in documents for text in texts])
    telling = tfidf_scores([words[text].lower for texts in documents for text in texts])
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
        length = np.array([count])
        random = chance.of_tokens(0, [row.id], "random", length)
        np.testing.assert_array_equal(row.random, random)
        free = keep.maskable(row.roles, "prompt+response")
        total = 2.0 * row.tfidf + row.pos + row.dep + row.random + counts["bias"]
        expected = np.where(free, 1 / (1 + np.exp(-total.astype(np.float64))), 1.0)
        np.testing.assert_allclose(row.keep_prob, expected, rtol=1e-5)
        u = chance.of_tokens(0, [row.id], "draw", length)
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
    assert {"NOUN", "VERB", UPOS_NAMES[-1]} <= set(counts["by_upos"])


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
