import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from opengrok_jax import chance, masked_file, storage, tokenizer
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masking import build, keep, prompts
from opengrok_jax.records import Message
from tests.masking.built import CHATS, make_examples, write


@pytest.fixture(scope="module")
def masking(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mask")
    examples = write(folder / "examples.jsonl", make_examples())
    build.run(examples_file=examples, out=folder / "masking", workers=1)
    return folder / "masking"


@pytest.fixture(scope="module")
def asked() -> list[tuple[str, tuple[Message, ...]]]:
    return [(e.id, e.messages) for e in make_examples()]


def test_a_prompt_of_the_corpus_is_masked_as_it_was_there(masking, asked):
    """But for its very last token, `<|assistant|>`, which is no last token in the corpus."""
    corpus, _ = masked_file.read_masked(masking / "masked.parquet")
    for there, here in zip(corpus, prompts.Masker(masking)(asked), strict=True):
        assert here.id == there.id
        length = len(here.tokens)
        assert length < len(there.tokens)
        for name in masked_file.COLUMNS:
            np.testing.assert_array_equal(getattr(here, name), getattr(there, name)[:length])


def test_new_words_are_in_no_document_and_the_formula_holds(masking):
    (row,) = prompts.Masker(masking)([("new", (Message(role="user", content="zyx likes cats"),))])
    made = masked_file.manifest(masking / "masked.parquet")["provenance"]
    total = made["alpha"] * row.tfidf.astype(float) + made["beta"] * row.pos
    total += made["gamma"] * row.dep + made["delta"] * row.random + made["bias"]
    lengths = np.array([len(row.tokens)])
    free = keep.maskable(row.roles, made["scope"])
    np.testing.assert_allclose(row.keep_prob[free], 1 / (1 + np.exp(-total[free])), rtol=1e-6)
    u = chance.of_tokens(made["seed"], ["new"], "draw", lengths)
    np.testing.assert_array_equal(row.key_mask, u < row.keep_prob)
    assert row.tfidf.max() == 1.0
    encoded = tokenizer.load().encode_chat((Message(role="user", content="zyx likes cats"),))
    np.testing.assert_array_equal(row.tokens, encoded.tokens)


def test_a_file_of_prompts(masking, asked, tmp_path):
    rows = [
        {"id": name, "messages": [{"role": m.role, "content": m.content} for m in messages]}
        for name, messages in asked
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row | {"template": "t"}) + "\n" for row in rows))
    told = prompts.run(masking=masking, prompts_file=file, out=tmp_path / "p.parquet")
    found, provenance = masked_file.read_masked(tmp_path / "p.parquet")
    assert provenance == masked_file.manifest(masking / "masked.parquet")["provenance"]
    expected = prompts.Masker(masking)(asked)
    assert told == {
        "prompts": len(CHATS),
        "tokens": sum(len(row.tokens) for row in expected),
        "visible": sum(int(row.key_mask.sum()) for row in expected),
    }
    for one, other in zip(found, expected, strict=True):
        assert (one.id, one.split) == (other.id, other.split)
        for name in masked_file.COLUMNS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for line in ("{}", '{"id": "x", "messages": []}', '{"id": "x", "messages": [{"role": 1}]}'):
        file.write_text(f"\n{line}\n")
        with pytest.raises(DataError, match=r"prompts\.jsonl, line 2: "):
            prompts.run(masking=masking, prompts_file=file, out=tmp_path / "q.parquet")
    file.write_text("")
    with pytest.raises(DataError, match="holds no prompt"):
        prompts.run(masking=masking, prompts_file=file, out=tmp_path / "q.parquet")


def test_another_annotator_or_an_unfinished_mask_is_refused(masking, tmp_path):
    copy = tmp_path / "masking"
    shutil.copytree(masking, copy)
    path = copy / "masked.parquet" / "manifest.json"
    whole = storage.read_json(path)
    for change, error, said in (
        ({"annotator": "0"}, ConfigError, "the mask was made with pipeline en_sns"),
        ({"seed": None}, DataError, "does not say its seed"),
    ):
        made = whole["provenance"] | change
        made = {name: value for name, value in made.items() if value is not None}
        storage.write_json(path, whole | {"provenance": made})
        with pytest.raises(error, match=said):
            prompts.Masker(copy)
    path.unlink()
    with pytest.raises(DataError, match="not complete"):
        prompts.Masker(copy)
