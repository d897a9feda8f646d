"""The room as a whole: a run from end to end, killed runs, and eight devices."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError, DataError, MissingExtra, RunFolderError
from opengrok_jax.masked_file import write_masked
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.lora import WEIGHTS
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import load_student
from opengrok_jax.model.tensorfile import read_folder, read_header
from opengrok_jax.model.weights import save_hf
from opengrok_jax.training import finetune, soft_targets
from opengrok_jax.training.flops import load, train_flops
from opengrok_jax.training.meters import goodput
from opengrok_jax.training.sources import PACKED
from opengrok_jax.training.splits import pack_splits
from tests.together import begin, environments, finish


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
        "trained_parameters": sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param))),
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


@pytest.fixture(scope="module")
def with_adapters(settings, tmp_path_factory):
    """Settings that train adapters beside the weights of a folder; these have wrong opinions."""
    folder = tmp_path_factory.mktemp("base") / "hf"
    config = Phi3Config.tiny(64, **settings["model"] | {"initializer_range": 0.3})
    save_hf(Phi3(config, rngs=nnx.Rngs(11)), config, folder)
    lora = {"rank": 4, "alpha": 8.0, "targets": ["qkv_proj", "down_proj"]}
    more = {"init": str(folder), "model": {}, "max_steps": 16, "learning_rate": 2e-2}
    return settings | more | {"lora": lora}


@pytest.fixture(scope="module")
def adapted(with_adapters, tmp_path_factory):
    """An uninterrupted run of them: its folder and summary."""
    out = tmp_path_factory.mktemp("adapted")
    return out, finetune.run(out=out, **with_adapters)


def bits(folder):
    return {name: t.read() for name, t in read_folder(folder).items()}


def test_adapters_learn_and_end_up_in_the_student(with_adapters, adapted, examples, metrics):
    out, summary = adapted
    rows = metrics(out)
    assert rows[-1]["train_loss"] < 0.85 * rows[0]["train_loss"]
    assert summary["trained_parameters"] == 2 * 4 * ((32 + 64) + (48 + 32))
    assert summary["parameters"] == 2 * 64 * 32 + 32 + 2 * (64 + 32 * (64 + 32 + 96 + 48))
    model, config = load_student(out / "student")
    found = mean_token_loss(model, [e for e in examples if e.split == "valid"])
    assert found == pytest.approx(summary["best_valid_loss"], rel=1e-5)
    given = {"normalize": "token", "loss_weight": "uniform"} | with_adapters
    train, _ = pack_splits(
        examples,
        masked_file=given["masked_file"],
        vocab_size=64,
        **{name: given[name] for name in PACKED},
    )
    counted = load(train.batch(0), config.sliding_window)
    first = next(iter(storage.read_jsonl(out / "meters.jsonl")))
    assert first["model_flops"] == train_flops(config, counted, summary["trained_parameters"])

    save_hf(model, config, out / "hf")
    base, ours = bits(Path(with_adapters["init"])), bits(out / "hf")
    adapter = {name: t.read() for name, t in read_header(out / "adapter" / WEIGHTS).items()}
    assert len(adapter) == 2 * 2 * 2
    for name, weight in base.items():
        a, b = (f"base_model.model.{name.removesuffix('weight')}lora_{x}.weight" for x in "AB")
        if a in adapter:
            summed = weight + 2.0 * adapter[b] @ adapter[a]
            np.testing.assert_allclose(ours[name], summed, rtol=1e-6, atol=1e-6)
            assert np.abs(ours[name] - weight).max() > 1e-3
        else:
            np.testing.assert_array_equal(ours[name], weight, name)


def test_no_checkpoint_holds_the_base(adapted, finished):
    def speak_of(name, out):
        files = [p for p in (out / "checkpoints").rglob("*") if p.is_file()]
        return any(name in p.read_bytes() for p in files)

    assert speak_of(b"embed_tokens", finished[0])
    assert not speak_of(b"embed_tokens", adapted[0])
    assert speak_of(b"lora", adapted[0])


def test_adapters_killed_and_taken_up_are_the_same_run(with_adapters, adapted, start, tmp_path):
    given = with_adapters | {"out": tmp_path, "save_every": 1}
    status, said = end_when(start(given), tmp_path, 5, signal.SIGKILL)
    assert status == -signal.SIGKILL, said
    finetune.run(**given)
    assert_same_run(tmp_path, adapted[0])
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        found, expected = (o / "adapter" / name for o in (tmp_path, adapted[0]))
        assert found.read_bytes() == expected.read_bytes()


def test_adapters_on_another_base_are_refused(with_adapters, adapted, tmp_path):
    base = Path(with_adapters["init"])
    shutil.copytree(base, tmp_path / "before")
    body = bytearray((base / "model.safetensors").read_bytes())
    body[-1] ^= 1
    try:
        (base / "model.safetensors").write_bytes(body)
        with pytest.raises(RunFolderError, match="base_digest was"):
            finetune.run(out=adapted[0], **with_adapters)
    finally:
        shutil.copy(tmp_path / "before" / "model.safetensors", base)


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
from opengrok_jax import processes
from opengrok_jax.training import finetune
given = json.loads(sys.argv[1])
out, meshes, moved = Path(given.pop("out")), given.pop("meshes"), given.pop("moved")
given["masked_file"] = Path(given["masked_file"])
with processes.joined():
    for number, mesh in enumerate(meshes):
        finetune.run(**given, out=out / str(number), mesh=mesh)
    for number, mesh in enumerate(moved):
        half = out / f"moved {number}"
        processes.on_first(lambda: shutil.copytree(out / "one", half))
        processes.on_first(lambda: shutil.rmtree(half / "checkpoints" / "last" / "4"))
        finetune.run(**given, out=half, mesh=mesh)
"""


def mesh(data, fsdp, tensor):
    return {"data": data, "fsdp": fsdp, "tensor": tensor}


# The ten ways to write 8 as data x fsdp x tensor.
EVERY_MESH = [mesh(2**a, 2**b, 2 ** (3 - a - b)) for a in range(4) for b in range(4 - a)]


@pytest.mark.parametrize(
    ("which", "count", "meshes", "moved"),
    [
        ("settings", 1, [mesh(2, 2, 2)], []),
        ("with_adapters", 1, [mesh(2, 2, 2)], []),
        pytest.param(
            "settings",
            1,
            EVERY_MESH,
            [mesh(2, 2, 2), mesh(1, 4, 2)],
            marks=[pytest.mark.slow, pytest.mark.timeout(1800)],
        ),
        pytest.param(
            "settings",
            2,
            [mesh(2, 2, 2), mesh(1, 8, 1), mesh(4, 1, 2)],
            [mesh(8, 1, 1)],
            marks=[pytest.mark.slow, pytest.mark.timeout(900)],
        ),
    ],
)
def test_eight_devices_compute_what_one_does(
    request, tmp_path, metrics, which, count, meshes, moved
):
    """Of one or two processes, on each mesh, and in runs begun on one device and taken up here."""
    given = request.getfixturevalue(which) | {
        "rows_per_batch": 16,
        "max_steps": 4,
        "eval_every": 2,
        "save_every": 2,
    }
    finetune.run(out=tmp_path / "one", **given)
    given |= {"out": str(tmp_path), "meshes": meshes, "moved": moved}
    given["masked_file"] = str(given["masked_file"])
    del given["mesh"]
    words = ["-c", MESHES, json.dumps(given)]
    statuses, said = both_end(
        begin(words, count, devices=8 // count), 140 * count * (1 + len(meshes) + len(moved))
    )
    assert statuses == [0] * count, said
    assert said[0].count("going on from step 2") == len(moved)
    names = [*map(str, range(len(meshes))), *(f"moved {n}" for n in range(len(moved)))]
    for name in names:
        assert_same_losses(metrics(tmp_path / name), metrics(tmp_path / "one"))
        assert_near(tmp_path / name, tmp_path / "one")


def both_end(processes, seconds=240):
    """Exit statuses and what was said on standard error."""
    done = finish(processes, seconds)
    return [status for status, _, _ in done], [said for _, _, said in done]


def after_rows(out, rows, processes):
    """Waits until metrics.jsonl has so many rows."""
    path, deadline = out / "metrics.jsonl", time.monotonic() + 240
    while not path.exists() or path.read_bytes().count(b"\n") < rows:
        assert all(p.poll() is None for p in processes), both_end(processes)
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_same_losses(found, expected):
    """Rows of metrics.jsonl: float32 sums in another order, nothing else."""
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    for row, other in zip(found, expected, strict=True):
        for name, rel in (("train_loss", 1e-6), ("valid_loss", 1e-6), ("grad_norm", 2e-5)):
            one, two = row[name], other[name]
            assert (one is None) == (two is None)
            assert one is None or one == pytest.approx(two, rel=rel), (row["step"], name)


def assert_near(out, other):
    """The students of two runs, which differ in the order of sums."""
    found, expected = (nnx.state(load_student(o / "student")[0], nnx.Param) for o in (out, other))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # Adam makes a step of the learning rate, 0.01, out of a gradient that is all rounding.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-4)


def test_two_processes_compute_what_one_does(settings, start, tmp_path, metrics):
    """The whole of it in small."""
    given = settings | {"max_steps": 4, "eval_every": 2, "save_every": 2}
    one = finetune.run(out=tmp_path / "one", **given)
    two = given | {"out": tmp_path / "two", "mesh": mesh(1, 2, 1)}
    done = finish([start(two, **each) for each in environments(2)])
    for status, out, said in done:
        assert status == 0, said
        summary = json.loads(out.splitlines()[-1])
        assert summary == one | {"best_valid_loss": pytest.approx(one["best_valid_loss"], rel=1e-6)}
    assert "finetune: 4/4 steps" in done[0][2]
    assert "finetune" not in done[1][2]
    assert_same_losses(metrics(tmp_path / "two"), metrics(tmp_path / "one"))
    assert_near(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_two_processes_are_one_run(settings, finished, start, tmp_path, metrics):
    """One is killed, one is asked to end; taken up by one process, it is the run of one process."""
    given = settings | {"out": tmp_path, "save_every": 1, "mesh": mesh(1, 2, 1)}
    running = [start(given, **each) for each in environments(2)]
    after_rows(tmp_path, 4, running)
    running[1].kill()
    statuses, said = both_end(running)
    # A process that waits for its thread that saves ends with the heartbeat, perhaps by JAX's abort.
    assert statuses in ([7, -signal.SIGKILL], [-signal.SIGABRT, -signal.SIGKILL]), said
    assert "another process of this run has ended" in said[0] or "another task died" in said[0]
    running = [start(given, **each) for each in environments(2)]
    after_rows(tmp_path, 12, running)
    running[1].terminate()
    statuses, said = both_end(running)
    assert statuses == [143, 143], said
    assert "going on from step" in said[0]
    assert "step" not in said[1]
    finetune.run(**given | {"mesh": mesh(1, 1, 1)})
    assert_same_losses(metrics(tmp_path), metrics(finished[0]))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["best_step"] == finished[1]["best_step"]


@pytest.mark.slow
def test_a_damaged_state_is_set_aside_by_two_processes(settings, start, tmp_path, metrics):
    """Whichever of them cannot read its part: started again at most once, they go on before it."""
    given = settings | {"max_steps": 4, "eval_every": 2, "save_every": 2, "mesh": mesh(1, 2, 1)}
    given |= {"out": tmp_path / "run"}
    statuses, said = both_end([start(given, **each) for each in environments(2)])
    assert statuses == [0, 0], said
    expected, last = metrics(tmp_path / "run"), tmp_path / "run" / "checkpoints" / "last"
    files = [path for path in (last / "4" / "arrays").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    statuses, said = both_end([start(given, **each) for each in environments(2)])
    assert (last / "4.damaged").is_dir()
    assert (last / "2").is_dir()
    if statuses != [0, 0]:
        assert any("start all processes again" in text for text in said), said
        statuses, said = both_end([start(given, **each) for each in environments(2)])
        assert statuses == [0, 0], said
    assert "going on from step 2" in said[0]
    assert_same_losses(metrics(tmp_path / "run"), expected)


def test_distillation_from_stored_and_from_present_teachers(settings, finished, tmp_path, metrics):
    """A trained student teaches another: stored top-k and the model itself agree where k is all."""
    teacher = finished[0] / "student"
    soft_targets.run(
        masked_file=settings["masked_file"], teacher=teacher, out=tmp_path / "soft", k=63
    )
    short = settings | {"max_steps": 6, "rule": "none"}
    runs = {
        "topk": {
            "distill": {"loss": "topk", "weight": 0.5},
            "soft_targets": str(tmp_path / "soft"),
        },
        "full": {"distill": {"loss": "forward_kl", "weight": 0.5}, "teacher": str(teacher)},
        "hard": {},
        "states": {"distill": {"relation_weight": 1.0}, "teacher": str(teacher)},
    }
    losses = {}
    for name, changes in runs.items():
        summary = finetune.run(**short | changes, out=tmp_path / name)
        losses[name] = [row["train_loss"] for row in metrics(tmp_path / name)]
        assert ("soft_share" in summary) == (name == "topk")
    np.testing.assert_allclose(losses["topk"], losses["full"], rtol=1e-4)
    assert losses["hard"][-1] != pytest.approx(losses["full"][-1], rel=1e-2)
    assert losses["states"][0] > losses["hard"][0]


def test_a_distillation_that_lacks_something_is_refused(settings, tmp_path):
    for changes, error, said in (
        ({"distill": {"loss": "forward_kl", "weight": 1}}, ConfigError, "teacher is ''; expected"),
        ({"teacher": "somewhere"}, ConfigError, "teacher is 'somewhere'; expected '': no term"),
        ({"soft_targets": "x"}, ConfigError, "soft_targets is 'x'; expected ''"),
        ({"distill": {"loss": "topk", "weight": 1}}, DataError, "no finished soft targets"),
    ):
        with pytest.raises(error, match=said):
            finetune.run(**settings | changes, out=tmp_path / "out")
