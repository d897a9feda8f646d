import shutil
from pathlib import Path

import pytest
from flax import nnx

from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.errors import CheckpointError, ConfigError
from opengrok_jax.model import stream
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.generate import generate
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import save_student
from opengrok_jax.model.weights import save_hf
from opengrok_jax.records import Message
from opengrok_jax.tokenizer import ChatTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return tokenizers.load()


@pytest.fixture(scope="module")
def model(tokenizer: ChatTokenizer) -> Phi3:
    config = Phi3Config.tiny(
        tokenizer.vocab_size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        initializer_range=0.4,
    )
    return Phi3(config, rngs=nnx.Rngs(1))


def said(folder: Path, **more: object) -> str:
    return "".join(stream.run(student=folder, prompt="good bus?", max_new_tokens=12, **more))  # pyright: ignore[reportArgumentType]


def test_both_kinds_of_folder_say_what_generate_says(
    tmp_path: Path, model: Phi3, tokenizer: ChatTokenizer
) -> None:
    save_student(tmp_path / "ours", model, model.config)
    save_hf(model, model.config, tmp_path / "theirs")
    prompt = tokenizer.encode_chat((Message(role="user", content="good bus?"),)).tokens
    stops = (tokenizer.end_id, tokenizer.eos_id)
    (ids,) = generate(model, [prompt], stop_ids=stops, max_new_tokens=12, batch_size=1)
    text = tokenizer.decode(ids)
    assert text
    assert said(tmp_path / "ours") == said(tmp_path / "theirs") == text


def test_a_tokenizer_that_is_not_the_students_is_refused(
    tmp_path: Path, tokenizer: ChatTokenizer, model: Phi3
) -> None:
    stream.check_tokenizer(tokenizer, model, chosen=False)
    for rows, chosen in ((tokenizer.vocab_size + 64, False), (100, True)):
        sizes = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8}
        other = nnx.eval_shape(
            lambda rows=rows, sizes=sizes: Phi3(Phi3Config.tiny(rows, **sizes), rngs=nnx.Rngs(0))
        )
        with pytest.raises(ConfigError, match=f"the student {rows} rows; give --tokenizer"):
            stream.check_tokenizer(tokenizer, other, chosen=chosen)


def test_the_tokenizer_beside_the_student_is_taken(tmp_path: Path, model: Phi3) -> None:
    save_hf(model, model.config, tmp_path / "student")
    expected = said(tmp_path / "student")
    shutil.copy(tokenizers.EMBEDDED, tmp_path / "student" / "tokenizer.json")
    assert said(tmp_path / "student") == expected
    (tmp_path / "student" / "tokenizer.json").write_text("{}")
    with pytest.raises(tokenizers.DataError, match=r"not a tokenizer\.json"):
        said(tmp_path / "student")


def test_no_student(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no model"):
        said(tmp_path)


def test_pieces_are_whole_characters(tokenizer: ChatTokenizer) -> None:
    text = "Hi 🧿! ok"
    ids = tokenizer.encode(text)
    assert {f"<0x{b:02X}>" for b in "🧿".encode()} <= {tokenizer.token_text(i) for i in ids}
    found = list(stream.pieces(tokenizer, iter(ids)))
    assert "".join(found) == text
    assert not any("\ufffd" in piece for piece in found)
    assert len(found) > 3


def test_a_character_that_never_ends_is_shown_broken(tokenizer: ChatTokenizer) -> None:
    ids = tokenizer.encode("🧿")[:-1]
    assert set("".join(stream.pieces(tokenizer, iter(ids)))) <= {"\ufffd", " "}
    assert "".join(stream.pieces(tokenizer, iter(ids))) == tokenizer.decode(ids)
