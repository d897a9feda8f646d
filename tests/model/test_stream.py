import json
import shutil
from pathlib import Path
from typing import Any

import jax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.errors import CheckpointError, ConfigError
from opengrok_jax.model import stream
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.generate import generate
from opengrok_jax.model.opening import open_model
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
    return "".join(stream.run(checkpoint=folder, prompt="good bus?", max_new_tokens=12, **more))  # pyright: ignore[reportArgumentType]


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


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=12))
def test_no_character_is_ever_cut(text: str) -> None:
    tokenizer = tokenizers.load()
    ids = tokenizer.encode(text)
    found = list(stream.pieces(tokenizer, iter(ids)))
    assert "".join(found) == tokenizer.decode(ids)
    assert not any("\ufffd" in piece for piece in found)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_ids_stream_without_losing_a_whole_character(data: Any) -> None:
    """Byte tokens in any order: bytes that make no character show as such, the others all come."""
    tokenizer = tokenizers.load()
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 60), max_size=20))
    shown = "".join(stream.pieces(tokenizer, iter(ids)))
    whole = tokenizer.decode(ids)
    assert len(shown) == len(whole)
    assert all(a == b for a, b in zip(shown, whole, strict=True) if b != "\ufffd")


PHI3 = Path(__file__).parents[3] / "shared" / "data" / "phi3-tokenizer"


@pytest.mark.skipif(not PHI3.exists(), reason="Phi-3's own tokenizer is not here")
def test_phi3_stops_at_end_and_endoftext_and_what_its_files_name(tmp_path: Path) -> None:
    phi3 = tokenizers.load(str(PHI3))
    sizes = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8}

    def rows(vocab_size: int, eos: Any) -> Phi3:
        config = Phi3Config.tiny(vocab_size, eos_token_id=eos, **sizes)
        return nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0)))

    assert stream.stop_ids(phi3, rows(32064, None), tmp_path) == (32000, 32007)
    assert stream.stop_ids(phi3, rows(32064, 32010), tmp_path) == (32000, 32007, 32010)
    named = tmp_path / "generation_config.json"
    named.write_text(json.dumps({"eos_token_id": [32000, 32001, 32007, 40000]}))
    assert stream.stop_ids(phi3, rows(32064, 32000), tmp_path) == (32000, 32001, 32007)
    named.write_text(json.dumps({"eos_token_id": 2}))
    assert stream.stop_ids(phi3, rows(32064, (5, 6)), tmp_path) == (2, 5, 6, 32000, 32007)
    for wrong, said in (('{"eos_token_id": "</s>"}', "'</s>'"), ("[1]", "expected"), ("{", "JSON")):
        named.write_text(wrong)
        with pytest.raises(CheckpointError, match=said):
            stream.stop_ids(phi3, rows(32064, 2), tmp_path)


def test_the_checkpoints_own_stop_id_ends_the_answer(tmp_path: Path, model: Phi3) -> None:
    """What is drawn third stands in generation_config.json: the answer ends there."""
    save_hf(model, model.config, tmp_path / "student")
    tokenizer = tokenizers.load()
    prompt = tokenizer.encode_chat((Message(role="user", content="good bus?"),)).tokens
    (ids,) = generate(model, [prompt], stop_ids=(0, 1), max_new_tokens=12, batch_size=1)
    first = next(n for n, i in enumerate(ids) if n > 1 and i not in ids[:n])
    (tmp_path / "student" / "generation_config.json").write_text(
        json.dumps({"eos_token_id": int(ids[first])})
    )
    assert said(tmp_path / "student") == tokenizer.decode(ids[: first + 1])


def test_system_turn_and_dtype_reach_the_model(
    tmp_path: Path, model: Phi3, tokenizer: ChatTokenizer
) -> None:
    save_student(tmp_path / "ours", model, model.config)
    save_hf(model, model.config, tmp_path / "theirs")
    for name in ("ours", "theirs"):
        dtype = stream.DTYPES["bfloat16"]
        half = open_model(tmp_path / name, dtype, dtype=dtype)
        assert {str(a.dtype) for a in jax.tree.leaves(nnx.state(half))} == {"bfloat16"}
        assert half.dtype == dtype
    assert stream.chat("a", "b") == (
        Message(role="system", content="b"),
        Message(role="user", content="a"),
    )
    assert said(tmp_path / "ours", system="Say it in French.") != said(tmp_path / "ours")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"prompt": " \n"}, "the prompt is empty; give --prompt a text"),
        ({"prompt": "caf\udce9"}, "the user turn is not text at character 3"),
        ({"system": "\udcff"}, "the system turn is not text at character 0"),
        ({"dtype": "float16"}, "dtype='float16' is unknown; choose one of"),
        ({"prompt": "bus " * 2000}, r"the prompt has \d+ tokens; with 256 for the answer that is"),
        (
            {"max_new_tokens": 10**12},
            r"the prompt has \d+ tokens; with 1000000000000 for the answer",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, model: Phi3, change: dict[str, Any], match: str
) -> None:
    save_hf(model, model.config, tmp_path / "student")
    with pytest.raises(ConfigError, match=match):
        stream.run(**{"checkpoint": tmp_path / "student", "prompt": "good bus?", **change})
