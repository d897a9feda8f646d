"""From the mask to whoever serves the student: one tokenizer, one template, one end of an answer."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax import tokenizer as tokenizers
from opengrok_jax import tokenizer_files
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masked_file import write_masked
from opengrok_jax.model import convert, stream
from opengrok_jax.model.opening import open_model
from opengrok_jax.model.student import load_student
from opengrok_jax.records import MaskedExample, Message
from opengrok_jax.storage import file_sha256
from opengrok_jax.training import finetune

PUBLISHED = {
    "tokenizer_config.json": b'{"chat_template": "theirs", "tokenizer_class": "LlamaTokenizer", "x": 1}',
    "generation_config.json": b'{"_from_model_config": true, "eos_token_id": 7, "temperature": 0.5}',
    "special_tokens_map.json": b"{ }",
    "tokenizer.model": bytes(range(256)),
    "LICENSE": b"terms",
}
NOT_OF_A_TOKENIZER = {
    "README.md": b"card",
    "config.json": b"{}",
    "chat_template.jinja": b"theirs",
    "LICENSE.py": b"import os",
}
CHATS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("user", "good bus?"),),
    (("user", " two  spaces, \n#a_tag 😀 <x>"),),
    (("system", "Be kind."), ("user", "Hi")),
    (("user", "a"), ("assistant", "b"), ("user", "\n c")),
    (("user", ""),),
)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder as it is published, with our small tokenizer in it."""
    folder = tmp_path / "published"
    folder.mkdir()
    shutil.copyfile(tokenizers.EMBEDDED, folder / "tokenizer.json")
    for name, content in {**PUBLISHED, **NOT_OF_A_TOKENIZER}.items():
        (folder / name).write_bytes(content)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_tokenizer_is_handed_over_with_its_companions(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "masking" / "tokenizer"
    for name in (str(published), str(published / "tokenizer.json")):
        assert tokenizer_files.hand_over(name, out) == file_sha256(tokenizers.EMBEDDED)
        assert contents(out) == PUBLISHED | {"tokenizer.json": tokenizers.EMBEDDED.read_bytes()}
    (published / "tokenizer.json").rename(published / "mine.json")
    for name in ("", str(published / "mine.json")):  # what lay there before is gone
        tokenizer_files.hand_over(name, out)
        assert contents(out) == {"tokenizer.json": tokenizers.EMBEDDED.read_bytes()}
    with pytest.raises(DataError, match="expected a file of a tokenizer"):
        tokenizer_files.hand_over(str(published), out)


def test_only_the_tokenizer_that_made_the_file_is_taken(tmp_path: Path) -> None:
    masked, out = tmp_path / "masked.parquet", tmp_path / "tokenizer"
    said = {"tokenizer_sha256": tokenizer_files.hand_over("", out)}
    assert tokenizer_files.handed_over(masked, said) == out
    assert tokenizer_files.handed_over(masked, {}) is None
    with (out / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(DataError, match=r"is not the tokenizer that made .*masked\.parquet"):
        tokenizer_files.handed_over(masked, said)
    shutil.rmtree(out)
    with pytest.raises(DataError, match=r"is missing; it made .*masked\.parquet"):
        tokenizer_files.handed_over(masked, said)


def test_published_files_say_what_was_learnt(published: Path, tmp_path: Path) -> None:
    chat = tokenizers.load()
    embedded = tokenizers.EMBEDDED.parent
    made = tokenizer_files.of_student(embedded, published, 64)
    assert made.keys() == PUBLISHED.keys() | {"tokenizer.json"}
    for name in PUBLISHED.keys() - {"tokenizer_config.json", "generation_config.json"}:
        assert made[name] == PUBLISHED[name]
    assert json.loads(made["tokenizer_config.json"]) == tokenizer_files.SERVED | {"x": 1}
    assert json.loads(made["generation_config.json"]) == {
        "eos_token_id": [7, chat.eos_id, chat.end_id],
        "temperature": 0.5,
    }
    for name, content in made.items():
        (published / name).write_bytes(content)
    assert tokenizer_files.of_student(embedded, published, 64) == made  # byte by byte


def test_weights_of_another_tokenizer_are_refused(published: Path) -> None:
    with (published / "tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ConfigError, match=r"masking\.tokenizer=.*published"):
        tokenizer_files.of_student(tokenizers.EMBEDDED.parent, published, 64)
    (published / "tokenizer.json").unlink()
    made = tokenizer_files.of_student(tokenizers.EMBEDDED.parent, published, 64)
    assert made["tokenizer.json"] == tokenizers.EMBEDDED.read_bytes()


@pytest.mark.parametrize("name", ["tokenizer_config.json", "generation_config.json"])
def test_a_broken_file_is_named(name: str, published: Path) -> None:
    for content in (b"{", b"[]", b"\xff"):
        (published / name).write_bytes(content)
        with pytest.raises(DataError, match=name):
            tokenizer_files.of_student(tokenizers.EMBEDDED.parent, published, 64)


def messages(chat: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in chat]


def assert_same_prompts(theirs: Any, ours: tokenizers.ChatTokenizer) -> None:
    for chat in CHATS:
        turns = tuple(Message(role=r, content=c) for r, c in chat)  # pyright: ignore[reportArgumentType]
        wanted = ours.encode_chat(turns)
        options = {"add_generation_prompt": True, "return_dict": False}
        assert theirs.apply_chat_template(messages(chat), **options) == wanted.tokens.tolist()
        text = theirs.apply_chat_template(messages(chat), **options | {"tokenize": False})
        assert text == wanted.text
        whole = [*messages(chat), {"role": "assistant", "content": "so so"}]
        wanted = ours.encode_chat(turns, "so so")
        assert theirs.apply_chat_template(whole, return_dict=False) == wanted.tokens.tolist()


def test_the_real_tokenizer_is_served_as_it_was_trained_with(
    shared_data: Path, tmp_path: Path
) -> None:
    """Of the published files alone, transformers 5 makes other ids for the first word of a turn."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    name = shared_data / "phi3-tokenizer"
    tokenizer_files.hand_over(str(name), tmp_path / "tokenizer")
    (tmp_path / "served").mkdir()
    for file, content in tokenizer_files.of_student(tmp_path / "tokenizer", None, 4096).items():
        (tmp_path / "served" / file).write_bytes(content)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "served")
    assert_same_prompts(theirs, tokenizers.load(str(name)))
    generation = json.loads((tmp_path / "served" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": [32000, 32007], "pad_token_id": 32000}


# ---- the whole way --------------------------------------------------------------------------


ANSWERS = {"good bus?": "yes, on time 😀", "bad tram?": "late again"}


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two questions, each with its answer, many times; every token visible."""
    folder = tmp_path_factory.mktemp("masking")
    chat, rows = tokenizers.load(), []
    for i in range(8):
        question, answer = list(ANSWERS.items())[i % 2]
        encoded = chat.encode_chat((Message(role="user", content=question),), answer)
        length = len(encoded.tokens)
        rows.append(
            MaskedExample(
                id=f"{i:016x}",
                split="train",
                tokens=encoded.tokens,
                roles=encoded.roles,
                **dict.fromkeys(
                    ("tfidf", "pos", "dep", "random", "keep_prob"), np.ones(length, np.float32)
                ),
                key_mask=np.ones(length, bool),
            )
        )
    provenance = {
        "vocab_size": chat.vocab_size,
        "tokenizer_sha256": tokenizer_files.hand_over("", folder / "tokenizer"),
    }
    write_masked(folder / "masked.parquet", rows, provenance)
    return folder / "masked.parquet"


SETTINGS: dict[str, Any] = {
    "model": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.1,
    },
    "row_tokens": 32,
    "rows_per_batch": 4,
    "epochs": 1000.0,
    "max_steps": 60,
    "learning_rate": 2e-2,
    "eval_every": 0,
    "patience": 0,
    "save_every": 0,
    "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
}


@pytest.fixture(scope="module")
def trained(masked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("training")
    finetune.run(masked_file=masked, out=out, **SETTINGS)
    return out / "student"


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "hf"
    done = convert.run(source=trained, out=out, to="hf")
    assert done["left"] == []
    return out


def test_what_is_trained_is_served_by_transformers(trained: Path, exported: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(exported)
    model = transformers.AutoModelForCausalLM.from_pretrained(exported).eval()
    chat = tokenizers.load(str(trained))
    assert_same_prompts(theirs, chat)

    config = json.loads((exported / "config.json").read_text())
    stops = [chat.eos_id, chat.end_id]
    assert (config["bos_token_id"], config["pad_token_id"]) == (chat.bos_id, chat.eos_id)
    assert config["eos_token_id"] == model.generation_config.eos_token_id == stops

    ours, _ = load_student(trained)
    tokens = np.random.default_rng(0).integers(0, chat.vocab_size, (2, 23))
    with torch.no_grad():
        want = model(torch.tensor(tokens)).logits.numpy()
    got = np.asarray(ours(jnp.asarray(tokens), jnp.ones_like(tokens)))
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())

    for question, answer in ANSWERS.items():
        prompt = theirs.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        ids = model.generate(**prompt, max_new_tokens=30, do_sample=False)[0].tolist()
        said = ids[prompt["input_ids"].shape[1] :]
        assert said[-1] == chat.end_id  # it stopped by itself
        text = theirs.decode(said, skip_special_tokens=True)
        assert text == "".join(stream.run(checkpoint=trained, prompt=question, max_new_tokens=30))
        assert text.strip() == answer  # and it learnt


def test_there_and_back_no_file_changes(exported: Path, trained: Path, tmp_path: Path) -> None:
    convert.run(source=exported, out=tmp_path / "student")
    convert.run(source=tmp_path / "student", out=tmp_path / "back", to="hf")
    assert contents(tmp_path / "back") == contents(exported)
    beside = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
    for name in beside:
        assert (exported / name).read_bytes() == (trained / name).read_bytes()


@pytest.mark.parametrize("kind", ["student", "hf"])
def test_training_goes_on_from_either_kind_of_folder(
    kind: str, masked: Path, trained: Path, exported: Path, tmp_path: Path
) -> None:
    source = trained if kind == "student" else exported
    given = SETTINGS | {"init": str(source), "max_steps": 1, "learning_rate": 1e-9, "model": {}}
    finetune.run(masked_file=masked, out=tmp_path, **given)
    before, after = open_model(trained), open_model(tmp_path / "student")
    tokens = np.arange(20)[None]
    one, other = (
        np.asarray(m(jnp.asarray(tokens), jnp.ones_like(tokens))) for m in (before, after)
    )
    np.testing.assert_allclose(one, other, atol=1e-4)
    names = {p.name for p in source.iterdir()} - {"params", "model.safetensors", "digests.json"}
    for name in names:
        assert (tmp_path / "student" / name).read_bytes() == (source / name).read_bytes()
