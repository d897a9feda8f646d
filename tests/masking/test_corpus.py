import dataclasses
from pathlib import Path

import numpy as np
import pytest

from opengrok_jax.errors import DataError
from opengrok_jax.masking import arrays, corpus, encode, factors, syntax, words, workers
from opengrok_jax.masking.corpus import Source
from tests.masking.annotated import annotate
from tests.masking.built import make_examples, write
from tests.masking.test_tfidf import scores as tfidf_scores

CHATS = [([f"The cat number {n % 7} eats!"], f"Answer {n % 3}.") for n in range(45)]


@pytest.fixture
def source(tmp_path) -> Source:
    examples = [dataclasses.replace(e, id=f"{n}") for n, e in enumerate(make_examples(CHATS))]
    return Source(
        examples_file=write(tmp_path / "examples.jsonl", examples),
        tokenizer="",
        pipeline="",
        annotator=words.identity(""),
        pos_tags=syntax.POS_TAGS,
        relations=syntax.RELATIONS,
        max_tokens=200,
        digests={"examples": "a", "tokenizer": "b"},
    )


def built(source, cache: Path, total: int = 45):
    with workers.local(1) as work:
        return corpus.build(work, cache, source, total, "en_sns 1")


def blocks(made) -> list[bytes]:
    return [made.block(n).read_bytes() for n in range(len(made.rows))]


def test_blocks_and_chunks_of_any_size_hold_the_same_factors(source, tmp_path, monkeypatch):
    whole = factors.load(built(source, tmp_path / "one").block(0))
    monkeypatch.setattr(encode, "BLOCK", 10)
    monkeypatch.setattr(corpus, "MERGED_AT_ONCE", 2)
    cut = built(source, tmp_path / "many")
    assert cut.rows == [10, 10, 10, 10, 5]
    assert cut.documents == 90
    assert cut.texts == 10
    parts = [factors.load(cut.block(n)) for n in range(5)]
    for name in ("tokens", "tfidf", "pos", "dep", "upos"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    assert not (cut.folder / "scratch").exists()
    assert corpus.finished(tmp_path / "many", source) == cut


def test_tfidf_is_over_all_documents_of_the_corpus(source, tmp_path):
    made = factors.load(built(source, tmp_path).block(0))
    nlp = syntax.load_pipeline()
    texts = [text for (message,), answer in CHATS for text in (message, answer)]
    known = annotate(nlp, texts)
    top = tfidf_scores([known[text].lower for text in texts])
    assert made.tfidf.max() == 1.0
    assert sorted({*made.tfidf.tolist()} - {0.0}) == sorted(
        {x for row in top for x in row.tolist()}
    )


class Stopped(Exception):
    """What a test stops a build with."""


def test_a_build_that_was_stopped_between_any_two_jobs_goes_on(source, tmp_path, monkeypatch):
    monkeypatch.setattr(encode, "BLOCK", 20)
    monkeypatch.setattr(words, "CHUNK", 4)
    expected = blocks(built(source, tmp_path / "whole"))
    stops = 0
    while True:
        left = 1

        def work(task, jobs):
            nonlocal left
            for job in jobs:
                if not left:
                    raise Stopped
                left -= 1
                yield task(*job)

        try:
            made = corpus.build(work, tmp_path / "stopped", source, 45, "en_sns 1")
            break
        except Stopped:
            stops += 1
            assert corpus.finished(tmp_path / "stopped", source) is None
    assert stops >= 3 * 3 + 10 // 4, "encode, count, weigh each block; annotate each chunk"
    assert blocks(made) == expected


def test_a_key_is_of_everything_that_the_factors_depend_on(source, monkeypatch):
    keys = {source.key()}
    for change in (
        {"annotator": "x"},
        {"pos_tags": ("NOUN",)},
        {"relations": ("obj",)},
        {"max_tokens": 9},
        {"digests": {"examples": "c", "tokenizer": "b"}},
        {"digests": {"examples": "a", "tokenizer": "c"}},
    ):
        keys.add(dataclasses.replace(source, **change).key())
    assert len(keys) == 7
    elsewhere = dataclasses.replace(
        source, examples_file=Path("moved"), tokenizer="t", pipeline="p"
    )
    assert elsewhere.key() in keys
    monkeypatch.setattr(encode, "BLOCK", 7)
    assert source.key() not in keys


def test_what_is_not_needed_any_more_goes(source, tmp_path):
    built(source, tmp_path)
    (tmp_path / "words" / "zz").mkdir()
    arrays.save(tmp_path / "words" / "zz" / "zz.npz", {})
    other = dataclasses.replace(source, pos_tags=("X",))
    made = built(other, tmp_path)
    assert [*(tmp_path / "factors").iterdir()] == [made.folder]
    assert not [*(tmp_path / "words" / "zz").iterdir()]
    assert corpus.finished(tmp_path, source) is None


def test_no_example_that_fits(source, tmp_path):
    with pytest.raises(
        DataError, match="all 45 examples are longer than max_tokens = 4; the short"
    ):
        built(dataclasses.replace(source, max_tokens=4), tmp_path)
    assert not list((tmp_path / "factors").iterdir())
