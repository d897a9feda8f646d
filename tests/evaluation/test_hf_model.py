"""The same weights and posts through transformers and through our own student."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from opengrok_jax import tokenizer as tokenizers
from opengrok_jax import tokenizer_files
from opengrok_jax.errors import CheckpointError, ConfigError
from opengrok_jax.evaluation.hf_model import HfModel
from opengrok_jax.evaluation.predict import Student
from opengrok_jax.evaluation.tasks import Task, load_items
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.weights import save_hf
from opengrok_jax.tokenizer import ChatTokenizer

pytest.importorskip("torch", reason="extra 'hf'")
pytest.importorskip("transformers", reason="extra 'hf'")
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's and transformers' own


@pytest.fixture(scope="module")
def folder(student: Phi3, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student as it is exported, with its tokenizer."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    out = tmp_path_factory.mktemp("hf") / "exported"
    save_hf(student, student.config, out)
    beside = tokenizer_files.of_student(tokenizers.EMBEDDED.parent, None, 160)
    for name, content in beside.items():
        (out / name).write_bytes(content)
    return out


def collected(ask, *arguments) -> list:
    found: dict[int, object] = {}
    ask(*arguments, lambda rows, values: found.update(zip(rows, values, strict=True)))
    return [found[i] for i in range(len(arguments[0]))]


def test_both_give_the_same(
    student: Phi3, tokenizer: ChatTokenizer, mood: Task, folder: Path
) -> None:
    ours = Student(student, tokenizer, batch_size=3)
    theirs = HfModel(str(folder), batch_size=3, device="cpu")
    prompts = [mood.ask(item) for item in load_items(mood)]
    assert theirs.label_tokens(mood.labels) == ours.label_tokens(mood.labels)
    theirs.check("task", prompts, mood.labels, 0)
    one, other = (collected(s.log_probs, prompts, mood.labels) for s in (ours, theirs))
    assert np.array(one) == pytest.approx(np.array(other), abs=2e-4)
    one, other = (collected(s.answers, prompts, 4) for s in (ours, theirs))
    assert one == other
    assert len({*other}) > 1


def test_a_checkpoint_without_a_chat_template(folder: Path, tmp_path: Path, mood: Task) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in folder.iterdir():
        text = path.read_bytes()
        if path.name == "tokenizer_config.json":
            text = b'{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}'
        (plain / path.name).write_bytes(text)
    model = HfModel(str(plain), batch_size=2, device="cpu")
    found = collected(model.log_probs, ["How is it? meh"], mood.labels)
    assert np.isfinite(found).all()
    assert model.made_of != HfModel(str(folder), batch_size=2, device="cpu").made_of
    assert model._answer("good")[-1] == model.tokenizer.eos_token_id
    assert model._prompt("How") == model.tokenizer("How\n").input_ids


def test_a_template_that_reasons_is_told_not_to(folder: Path, tmp_path: Path) -> None:
    """As Qwen's: where nothing is to be thought, the template writes the empty thought itself."""
    thinking = tmp_path / "thinking"
    shutil.copytree(folder, thinking)
    thought = "{{ 'no thought' if enable_thinking is defined and not enable_thinking }}"
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}<|end|>"
        f"{{% else %}}<|assistant|>{thought}{{{{ m.content }}}}<|end|>{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}<|assistant|>{thought}{{% endif %}}"
    )
    config = json.loads((thinking / "tokenizer_config.json").read_text())
    config["chat_template"] = template
    (thinking / "tokenizer_config.json").write_text(json.dumps(config))
    free = HfModel(str(thinking), batch_size=2, device="cpu")
    told = HfModel(
        str(thinking), batch_size=2, device="cpu", chat_template_kwargs={"enable_thinking": False}
    )
    assert told.tokenizer.decode(told._prompt("How")).endswith("no thought")
    assert not free.tokenizer.decode(free._prompt("How")).endswith("no thought")
    assert told.made_of != free.made_of
    for model in (free, told):
        assert "no thought" not in model.tokenizer.decode(model._answer(" good"))


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dtype 'int8'"):
        HfModel(str(folder), batch_size=2, dtype="int8")
    with pytest.raises(CheckpointError, match=r"config\.json with safetensors"):
        HfModel(str(tmp_path), batch_size=2)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="cannot be opened by transformers"):
        HfModel(str(tmp_path), batch_size=2)
    model = HfModel(str(folder), batch_size=2, device="cpu")
    with pytest.raises(ConfigError, match="the context of this checkpoint is 160"):
        model.check("task", ["word " * 300], (), 4)
