"""convert as a user meets it."""

import subprocess
import sys
import time

import numpy as np
import pytest

from tests.command import opengrok


def test_convert_needs_no_config_and_names_what_is_wrong(tmp_path):
    done = opengrok("convert", "--source", "nothing", "--out", "out", cwd=tmp_path)
    assert done.returncode == 6
    assert "opengrok: nothing is no folder" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["--to", "gguf"], ["--dtype", "int8"], ["--bogus"], ["--config.training.epochs=1"]],
)
def test_convert_refuses_other_flags(arguments, tmp_path):
    done = opengrok("convert", "--source", "a", "--out", "b", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_convert_there_and_back(tmp_path, random_checkpoint):
    source = random_checkpoint(tmp_path / "source")
    (source / "tokenizer.json").write_text("{}")
    (source / "modeling.py").write_text("raise SystemExit(1)")
    done = opengrok("convert", "--source", "source", "--out", "student", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not carried along: modeling.py" in done.stderr
    assert "tensors" in done.stderr
    back = ["--source", "student", "--out", "back", "--to", "hf"]
    done = opengrok("convert", *back, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()


def test_convert_stopped_leaves_nothing(tmp_path, random_checkpoint):
    random_checkpoint(tmp_path / "source", hidden_size=512, num_hidden_layers=24, vocab_size=32000)
    command = [sys.executable, "-m", "opengrok_jax", "convert", "--source", "source"]
    with subprocess.Popen(
        [*command, "--out", "student"], cwd=tmp_path, stderr=subprocess.PIPE
    ) as process:
        while not (tmp_path / ".student.partial").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        assert process.wait(60) == 143
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.fixture
def random_checkpoint():
    pytest.importorskip("jax")
    from opengrok_jax.model import hf_config
    from opengrok_jax.model.config import Phi3Config
    from opengrok_jax.model.tensorfile import write_file
    from opengrok_jax.model.weights import hf_shapes

    def make(folder, **sizes):
        numbers = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 32} | sizes
        config = Phi3Config.tiny(numbers.pop("vocab_size"), **numbers)
        shapes, kind = hf_shapes(config), np.dtype(np.float32)
        folder.mkdir()
        (folder / "config.json").write_text(hf_config.write(config, "float32"))
        tensors = [(name, shape, kind) for name, shape in shapes.items()]
        rng = np.random.default_rng(0)
        write_file(
            folder / "model.safetensors", tensors, lambda name: rng.random(shapes[name], kind)
        )
        return folder

    return make
