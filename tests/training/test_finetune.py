"""The room as a whole: a run from end to end, killed runs, and eight devices."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError, MissingExtra, RunFolderError
from opengrok_jax.masked_file import write_masked
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import load_student
from opengrok_jax.model.weights import save_hf
from opengrok_jax.training import finetune
from opengrok_jax.training.meters import goodput


@pytest.fixture(scope="module")
def finished(settings, tmp_path_factory):
    """An uninterrupted run: its folder and summary."""
    out = tmp_path_factory.mktemp("finished")
    return out, finetune.run(out=out, **settings)


def mean_token_loss(model, data):
    """Mean over response tokens, each example alone, in float64."""
    forward = nnx.jit(lambda m, t, s, k: m(t, s, None, k, "exclude"))
    losses = []
    for example in data:
        spare = 24 - len(example.tokens)
        row = [jnp.asarray(np.pad(x, (0, spare)))[None] for x in (example.tokens, example.key_mask)]
        segments = (jnp.arange(24) < len(example.tokens)).astype(jnp.int32)[None]
        scores = np.asarray(forward(model, row[0], segments, row[1]), np.float64)[0]
        logp = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        losses += [-logp[t - 1, example.tokens[t]] for t in np.flatnonzero(example.roles == 2)]
    return np.mean(losses)


def test_it_learns_and_says_so(finished, examples, metrics):
    out, summary = finished
    rows = metrics(out)
    assert [row["step"] for row in rows] == list(range(1, 31))
    assert [row["step"] for row in rows if row["valid_loss"] is not None] == [*range(4, 30, 4), 30]
    assert rows[0]["train_loss"] == pytest.approx(np.log(64), abs=0.2)
    assert rows[-1]["train_loss"] < 0.6 * rows[0]["train_loss"]
    valid = {row["step"]: row["valid_loss"] for row in rows if row["valid_loss"] is not None}
    best = min(valid, key=valid.__getitem__)
    train = [e for e in examples if e.split == "train"]
    tokens = sum(len(e.tokens) for e in train)
    model, _ = load_student(out / "student")
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary == {
        "best_step": best,
        "best_valid_loss": valid[best],
        "last_step": 30,
        "stopped_early": False,
        "normalize": "token",
        "parameters": sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))),
        "train_examples": 30,
        "valid_examples": 5,
        "rows": summary["rows"],
        "packing_efficiency": pytest.approx(tokens / (48 * summary["rows"])),
        "loss_tokens_per_epoch": sum(int((e.roles == 2).sum()) for e in train),
    }


def test_the_student_is_the_best_one(finished, examples):
    """Loaded anew, it has the validation loss that the run reported for its best step."""
    out, summary = finished
    model, config = load_student(out / "student")
    assert (config.vocab_size, config.num_hidden_layers) == (64, 2)
    found = mean_token_loss(model, [e for e in examples if e.split == "valid"])
    assert found == pytest.approx(summary["best_valid_loss"], rel=1e-5)


def assert_same_run(out, other):
    assert (out / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert (out / "summary.json").read_bytes() == (other / "summary.json").read_bytes()
    found, expected = (nnx.state(load_student(o / "student")[0], nnx.Param) for o in (out, other))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def end_when(process, out, rows, number):
    """Sends a signal once metrics.jsonl has so many rows; gives the exit status."""
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        path = out / "metrics.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= rows:
            process.send_signal(number)
            break
        time.sleep(0.002)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_killed_and_taken_up_it_is_the_same_run(settings, finished, start, tmp_path):
    """kill -9, SIGTERM, another end: metrics and student equal the uninterrupted run bit by bit."""
    given = settings | {"out": tmp_path, "save_every": 1}  # mostly saving: that is when it dies
    status, said = end_when(start(given), tmp_path, 5, signal.SIGKILL)
    assert status == -signal.SIGKILL, said
    assert not (tmp_path / "student").exists()
    status, said = end_when(start(given), tmp_path, 12, signal.SIGTERM)
    assert status == 143, said
    assert "going on from step" in said
    assert not (tmp_path / "summary.json").exists()
    finetune.run(**given)
    assert_same_run(tmp_path, finished[0])
    rows = list(storage.read_jsonl(tmp_path / "meters.jsonl"))
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] == 30
    assert sum("start" in row["seconds"] for row in rows) >= 2  # processes
    assert sum(goodput(rows).values()) == pytest.approx(1.0)


def test_meters_of_a_run(finished, examples, tiny):
    out, _ = finished
    rows = list(storage.read_jsonl(out / "meters.jsonl"))
    assert [row["step"] for row in rows] == list(range(1, 31))
    for row in rows:
        assert row["tokens_per_second"] >= row["loss_tokens_per_second"] > 0
        assert 0 < row["packing_efficiency"] <= 1
        assert row["model_flops"] > 0
        assert "mfu" not in row  # nobody publishes the peak of "cpu"
    assert {"start", "compile"} <= set(rows[0]["seconds"])
    evaluated = [row["step"] for row in rows if row["seconds"].get("eval")]
    assert evaluated == [*range(4, 30, 4), 30]


def test_tensorboard_is_written_or_its_extra_named(settings, tmp_path, monkeypatch):
    given = settings | {"tensorboard": True, "max_steps": 2, "eval_every": 0}
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "tensorboardX", None)
        without.delitem(sys.modules, "tensorboardX.event_file_writer", raising=False)
        with pytest.raises(MissingExtra, match="tensorboard"):
            finetune.run(out=tmp_path / "none", **given)
        assert not (tmp_path / "none").exists()
    pytest.importorskip("tensorboardX")
    finetune.run(out=tmp_path / "out", **given)
    (file,) = (tmp_path / "out" / "tensorboard").iterdir()
    for name in (b"train_loss", b"tokens_per_second", b"seconds/step"):
        assert name in file.read_bytes()


@pytest.mark.slow
def test_killed_at_ten_moments_it_is_the_same_run(settings, finished, start, tmp_path):
    given = settings | {"out": tmp_path, "save_every": 1}
    rng = np.random.default_rng()
    for _ in range(10):
        process = start(given)
        time.sleep(rng.uniform(2, 12))
        process.kill()
        process.communicate()
    finetune.run(**given)
    assert_same_run(tmp_path, finished[0])


def test_run_again_it_only_says_what_it_found(settings, finished, tmp_path):
    out, summary = finished
    shutil.copytree(out, tmp_path / "copy")
    assert finetune.run(out=tmp_path / "copy", **settings) == summary
    assert_same_run(tmp_path / "copy", out)


def test_another_run_is_refused(settings, finished):
    out, _ = finished
    with pytest.raises(RunFolderError, match=r"learning_rate was 0\.01, now 0\.02"):
        finetune.run(out=out, **settings | {"learning_rate": 0.02})


def test_weights_of_a_checkpoint_are_where_it_begins(settings, examples, tmp_path, metrics, capsys):
    config = Phi3Config.tiny(64, **settings["model"] | {"max_position_embeddings": 48})
    model = Phi3(config, rngs=nnx.Rngs(11))
    save_hf(model, config, tmp_path / "hf")
    given = settings | {"init": str(tmp_path / "hf"), "max_steps": 1, "learning_rate": 1e-9}
    finetune.run(out=tmp_path / "out", **given)
    expected = mean_token_loss(model, [e for e in examples if e.split == "valid"])
    assert metrics(tmp_path / "out")[0]["valid_loss"] == pytest.approx(expected, rel=1e-5)
    assert load_student(tmp_path / "out" / "student")[1].max_position_embeddings == 48
    assert "`model` is for init 'scratch'" in capsys.readouterr().err


def test_nothing_is_begun_with_a_wrong_value(settings, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="learning_rate"):
        finetune.run(out=out, **settings | {"learning_rate": -1.0})
    with pytest.raises(ConfigError, match="needs 2 devices, but there are 1"):
        finetune.run(out=out, **settings | {"mesh": {"data": 2, "fsdp": 1, "tensor": 1}})
    with pytest.raises(DataError, match="`opengrok mask` writes it"):
        finetune.run(out=out, **settings | {"masked_file": tmp_path / "none.parquet"})
    assert not out.exists()


def test_a_split_that_is_missing_is_named(settings, examples, tmp_path):
    path = tmp_path / "masked.parquet"
    write_masked(path, [e for e in examples if e.split == "train"], {"vocab_size": 61})
    given = settings | {"masked_file": path, "out": tmp_path / "out"}
    with pytest.raises(DataError, match=r"no valid examples; .* or set eval_every to 0"):
        finetune.run(**given)


MESHES = """
import json, shutil, sys
from pathlib import Path
from opengrok_jax.training import finetune
given = json.loads(sys.argv[1])
out, meshes, moved = Path(given.pop("out")), given.pop("meshes"), given.pop("moved")
given["masked_file"] = Path(given["masked_file"])
for number, mesh in enumerate(meshes):
    finetune.run(**given, out=out / str(number), mesh=mesh)
for number, mesh in enumerate(moved):
    shutil.copytree(out / "0", out / f"moved {number}")
    shutil.rmtree(out / f"moved {number}" / "checkpoints" / "last" / "4")
    finetune.run(**given, out=out / f"moved {number}", mesh=mesh)
"""


def mesh(data, fsdp, tensor):
    return {"data": data, "fsdp": fsdp, "tensor": tensor}


@pytest.mark.parametrize(
    ("meshes", "moved"),
    [
        ([mesh(2, 2, 2)], []),
        pytest.param(
            [mesh(8, 1, 1), mesh(1, 8, 1), mesh(1, 4, 2), mesh(4, 1, 2)],
            [mesh(2, 2, 2), mesh(1, 4, 2)],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_eight_devices_compute_what_one_does(settings, tmp_path, metrics, meshes, moved):
    """On each mesh, and in a run that moves from one mesh to another half-way."""
    given = settings | {"rows_per_batch": 16, "max_steps": 4, "eval_every": 2, "save_every": 2}
    finetune.run(out=tmp_path / "one", **given)
    given |= {"out": str(tmp_path), "meshes": meshes, "moved": moved}
    given["masked_file"] = str(given["masked_file"])
    del given["mesh"]
    done = subprocess.run(
        [sys.executable, "-c", MESHES, json.dumps(given)],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("going on from step 2") == len(moved)
    names = [*map(str, range(len(meshes))), *(f"moved {n}" for n in range(len(moved)))]
    for name in names:
        for found, expected in zip(
            metrics(tmp_path / name), metrics(tmp_path / "one"), strict=True
        ):
            assert {k: v is None for k, v in found.items()} == {
                k: v is None for k, v in expected.items()
            }
            for key, value in expected.items():
                assert value is None or found[key] == pytest.approx(value, rel=2e-5), (name, key)
