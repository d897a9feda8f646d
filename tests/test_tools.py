"""generate, convert, soft-targets and plan as a user meets them."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from opengrok_jax import cli
from tests.command import opengrok


def test_generate_says_what_it_takes(tmp_path):
    done = opengrok("generate", "--help", cwd=tmp_path)
    assert done.returncode == 0
    flags = (
        "--checkpoint --prompt --system --tokenizer --max-new-tokens --temperature --top-p --seed"
    )
    flags += " --dtype"
    assert all(flag in done.stdout for flag in flags.split())


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ([], 6, "none holds no model: config.json is missing"),
        (["--temperature=-1"], 2, "temperature=-1.0: expected 0 or a positive number"),
        (["--temperature=1", "--top-p=0"], 2, "top_p=0.0: expected a number above 0"),
        (["--top-p=0.5"], 2, "changes nothing at temperature 0"),
        (["--seed=3"], 2, "--seed changes nothing at temperature 0"),
        (["--max-new-tokens=0"], 2, "max_new_tokens=0: expected at least 1"),
        (["--tokenizer=nowhere.json"], 3, "nowhere.json: no such tokenizer file"),
        (["--loud"], 2, "--loud: no such flag"),
    ],
)
def test_generate_refuses_in_one_line(tmp_path, capsys, change, status, said):
    words = ["generate", "--checkpoint", str(tmp_path / "none"), "--prompt", "hello", *change]
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    shown = capsys.readouterr()
    assert (stopped.value.code, shown.out, shown.err.count("\n")) == (status, "", 1)
    assert said in shown.err


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A random Hugging Face folder with the tokenizer beside it; it talks on and on."""
    nnx = pytest.importorskip("flax.nnx")
    from opengrok_jax import tokenizer as tokenizers
    from opengrok_jax.model.config import Phi3Config
    from opengrok_jax.model.phi3 import Phi3
    from opengrok_jax.model.weights import save_hf

    folder = tmp_path_factory.mktemp("generate") / "student"
    config = Phi3Config.tiny(
        tokenizers.load().vocab_size,
        num_hidden_layers=1,
        initializer_range=0.3,
        max_position_embeddings=4096,
    )
    save_hf(Phi3(config, rngs=nnx.Rngs(0)), config, folder)
    shutil.copy(tokenizers.EMBEDDED, folder / "tokenizer.json")
    return folder


def test_generate_prints_what_the_student_says(student):
    """In a real process, twice the same; the prompt in the arguments or on standard input."""
    words = ["generate", "--checkpoint", "student", "--max-new-tokens=9"]
    draws = [[], ["--temperature=2", "--seed=1"], ["--temperature=2", "--seed=1"]]
    greedy, drawn, again = (
        opengrok(*words, "--prompt", "hello", *more, cwd=student.parent) for more in draws
    )
    command = [sys.executable, "-m", "opengrok_jax", *words, "--prompt=-"]
    piped, broken = (
        subprocess.run(command, cwd=student.parent, input=text, capture_output=True, check=False)
        for text in (b"hello\n", b"caf\xe9")
    )
    for done in (greedy, drawn, again):
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip()
    assert drawn.stdout == again.stdout != greedy.stdout
    assert (piped.returncode, piped.stderr) == (0, b"")
    assert piped.stdout.decode() == greedy.stdout
    assert broken.returncode == 3
    assert broken.stderr.startswith(b"opengrok: standard input is not UTF-8")
    assert broken.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("reader", "status", "said"), [("stops", 0, ""), ("interrupts", 130, "stopped")]
)
def test_generate_stops_without_a_traceback(student, reader, status, said):
    """After its first ten bytes the pipe is closed (head -c 10), or Ctrl-C comes."""
    words = ["--checkpoint", "student", "--prompt", "hello", "--max-new-tokens=4000"]
    # A shell that runs tests in the background has them, and so their children, ignore Ctrl-C.
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from opengrok_jax.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, "generate", *words],
        cwd=student.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert len(running.stdout.read(10)) == 10
        if reader == "stops":
            running.stdout.close()
        else:
            running.send_signal(signal.SIGINT)
            running.stdout.read()
        errors = running.stderr.read().decode()
    assert (running.returncode, errors) == (status, f"opengrok: {said}\n" if said else "")


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


def test_soft_targets_are_stored_and_not_made_twice(student, tmp_path):
    from opengrok_jax import tokenizer as tokenizers
    from opengrok_jax.masked_file import write_masked
    from opengrok_jax.records import MaskedExample, Message

    chat, examples = tokenizers.load(), []
    for number, answer in enumerate(("joy", "the fire is lit", "no")):
        encoded = chat.encode_chat((Message(role="user", content="what a day"),), answer)
        factors = {
            name: np.zeros(len(encoded.tokens), np.float32)
            for name in ("tfidf", "pos", "dep", "random", "keep_prob")
        }
        visible = np.ones(len(encoded.tokens), bool)
        examples.append(
            MaskedExample(
                id=str(number),
                split="train",
                tokens=encoded.tokens,
                roles=encoded.roles,
                key_mask=visible,
                **factors,
            )
        )
    write_masked(tmp_path / "m.parquet", examples, {"vocab_size": chat.vocab_size})
    words = ["--masked", "m.parquet", "--teacher", str(student), "--out", "soft", "--k", "4"]
    both = [opengrok("soft-targets", *words, cwd=tmp_path) for _ in range(2)]
    for done in both:
        assert done.returncode == 0, done.stderr
        assert "response tokens, 4 numbers each" in done.stderr
        assert "next: training.distill.loss=topk, training.soft_targets=soft" in done.stderr
    assert "batches" not in both[1].stderr, "the second call had nothing to do"
    done = opengrok("soft-targets", *words[:-1], "0", "--out", "other", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "k is 0; expected 1 to" in done.stderr


@pytest.fixture
def plan(repository):
    config = repository / "configs" / "phi3_mini.py"
    return ["plan", "--config", str(config), "--model", "phi-3-mini-4k", "--analytic"]


def test_plan_for_scripts_and_for_people(tmp_path, plan):
    words = (*plan, "--tpu", "v5e:4x4", "--rows", "1600", "--price", "1.25")
    done = opengrok(*words, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["basis"] == "analytic"
    assert found["data"]["steps"] == 150
    assert found["money"] == pytest.approx(found["hours"] * 16 * 1.25)
    done = opengrok(*words, cwd=tmp_path)
    for text in ("Analytic, not compiled", "largest microbatch", "1,600 rows, 150 updates"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tpu", "v9:2x2"), "'v9' is unknown"),
        (("--tpu", "v5e:8x8"), "rows_per_batch is 32; expected a multiple of"),
        (("--tpu", "v5e:4x4", "--config.training.mesh.fsdp=3"), "needs 3 devices"),
        (("--tpu", "v5e:4x4", "--model", "phi-9"), "no published sizes of 'phi-9'"),
    ],
)
def test_plan_refuses_in_one_line(capsys, plan, words, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*plan, *words])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
