"""What happens to a run from outside: killed again and again, asked to end, fed with bad numbers."""

import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from opengrok_jax.errors import TrainingError
from opengrok_jax.masked_file import write_masked
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import load_student
from opengrok_jax.model.weights import save_hf
from opengrok_jax.training import finetune

TMP = "*.orbax-checkpoint-tmp*"  # what a save that is not yet committed is called
PATIENCE = 300.0


def arrays(folder: Path):
    """The bits of a checkpoint's arrays, in order."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(folder.absolute() / "arrays")
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


def steps(out: Path, kind: str):
    return sorted(p.name for p in (out / "checkpoints" / kind).iterdir())


def assert_same_run(out: Path, other: Path):
    """Loss stream, parameters, optimizer state, best parameters and student, bit for bit."""
    for name in ("metrics.jsonl", "summary.json"):
        assert (out / name).read_bytes() == (other / name).read_bytes()
    for kind in ("last", "best"):
        assert steps(out, kind) == steps(other, kind)
        for step in steps(out, kind):
            found, expected = (arrays(o / "checkpoints" / kind / step) for o in (out, other))
            assert found == expected
            assert kind == "best" or any("mu" in name for name in found)
    found, expected = (nnx.state(load_student(o / "student")[0], nnx.Param) for o in (out, other))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    left_over = [p for p in out.rglob("*") if "tmp" in p.name or p.name.startswith(".")]
    assert left_over == []


def rows(out: Path) -> list[str]:
    """Whole rows of the metrics."""
    path = out / "metrics.jsonl"
    return path.read_text().split("\n")[:-1] if path.exists() else []


def evaluations(out: Path) -> int:
    return sum('"valid_loss": null' not in row for row in rows(out))


def under_way(out: Path) -> list[str]:
    """What is just being written: "last", "best", "student"."""
    found = [kind for kind in ("last", "best") if any((out / "checkpoints" / kind).glob(TMP))]
    return found + ["student"] * (out / ".student.partial").exists()


def await_(process, happened) -> bool:
    """Looks until `happened`; False if the process ended before."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:
        if happened():
            return True
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    return False


@pytest.fixture(scope="module")
def long_run(settings):
    """Saves at each of 90 steps: mostly saving."""
    return settings | {"max_steps": 90, "save_every": 1}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_over_and_over_it_is_the_same_run(long_run, start, tmp_path):
    """kill -9 at random moments, within saves of states, of best parameters and of the student."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    finetune.run(**long_run, out=whole)
    chance = random.Random(8)
    landed = Counter()

    def within(kind, begun_with):
        got_on = kind == "student" or len(rows(out)) > begun_with
        return got_on and kind in under_way(out)

    def killed(kind) -> bool:
        process = start(long_run | {"out": out})
        begun_with = len(rows(out))
        if kind == "start":  # imports, reading the state, compiling
            time.sleep(chance.uniform(0, 4))
        elif kind == "step":
            await_(process, lambda: len(rows(out)) > begun_with)
            time.sleep(chance.uniform(0, 0.03))
        elif await_(process, lambda: within(kind, begun_with)):
            time.sleep(chance.choice([0.0, chance.uniform(0, 0.02)]))
        process.kill()
        _, said = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        assert "cannot be used" not in said  # whatever was committed is whole
        if process.returncode == 0:
            return False
        landed.update([kind] if kind in ("start", "step") else [])
        landed.update(under_way(out))  # what it left is the proof
        return True

    for kind in ["start", "step", "last", "last", "best"] * 4:
        assert killed(kind)
    for _ in range(12):  # a student is written fast, and once more whenever it is whole
        if landed["student"] < 3:
            killed("student")
    assert landed["student"] == 3
    assert sum(landed[kind] for kind in ("start", "step")) >= 8
    assert landed["last"] >= 6, landed
    assert landed["best"] >= 3, landed
    finetune.run(**long_run, out=out)
    assert_same_run(out, whole)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_after_evaluations_it_stops_early_where_it_would_have(settings, start, tmp_path):
    """As soon as the row of an evaluation is there: its state is not yet kept."""
    given = settings | {"max_steps": 60, "save_every": 3, "eval_every": 2}
    given |= {"patience": 3, "min_improvement": 0.2}
    whole, out = tmp_path / "whole", tmp_path / "out"
    summary = finetune.run(**given, out=whole)
    assert summary["stopped_early"]
    assert summary["last_step"] >= summary["best_step"] + 6
    kills = 0
    for number in range(1, evaluations(whole) + 1):
        process = start(given | {"out": out})
        if await_(process, lambda number=number: evaluations(out) >= number):
            process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 4
    finetune.run(**given, out=out)
    assert_same_run(out, whole)


@pytest.mark.parametrize("moment", ["compiling", pytest.param("saving", marks=pytest.mark.slow)])
def test_sigterm_ends_it_with_its_state_kept(settings, start, tmp_path, moment):
    """In the compilation of the first update, or while a state is being written."""
    given = settings | {"out": tmp_path, "save_every": 1, "max_steps": 60}
    if moment == "compiling":
        process = start(given, JAX_ENABLE_COMPILATION_CACHE="false")
        assert await_(process, (tmp_path / "meters.jsonl").exists)  # then comes the first update
        assert rows(tmp_path) == []
    else:
        process = start(given)
        assert await_(process, lambda: "last" in under_way(tmp_path))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 143, said
    assert "Traceback" not in said
    done = len(rows(tmp_path))
    assert done == 1 if moment == "compiling" else done < 60
    assert under_way(tmp_path) == []
    assert steps(tmp_path, "last")[-1] == str(done)
    assert not (tmp_path / "student").exists()


@pytest.mark.slow
def test_sigterm_while_the_student_is_written(settings, start, tmp_path):
    """Nothing is left to be stopped here; what would come after it does not begin."""
    process = start(settings | {"out": tmp_path})
    assert await_(process, lambda: "student" in under_way(tmp_path))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 143, said
    assert (tmp_path / "summary.json").exists()
    load_student(tmp_path / "student")


RARE = 63  # a token of one example alone


@pytest.fixture
def poisoned(settings, examples, tmp_path):
    """Settings, and the id of the one example with the token whose embedding is `value`."""

    def make(split: str, value: float):
        changed = next(i for i, e in enumerate(examples) if e.split == split)
        tokens = examples[changed].tokens.copy()
        tokens[1] = RARE
        mixed = list(examples)
        mixed[changed] = replace(examples[changed], tokens=tokens)
        masked = tmp_path / "masked.parquet"
        write_masked(masked, mixed, {"tokenizer": "", "vocab_size": 64})
        config = Phi3Config.tiny(64, **settings["model"] | {"max_position_embeddings": 48})
        model = Phi3(config, rngs=nnx.Rngs(11))
        model.embed_tokens.weight[...] = model.embed_tokens.weight[...].at[RARE].set(value)
        save_hf(model, config, tmp_path / "hf")
        given = settings | {"masked_file": masked, "init": str(tmp_path / "hf"), "save_every": 1}
        return given, examples[changed].id

    return make


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.nan, "loss nan, gradient norm nan"),
        # Its norm is finite; the derivative of its square is not.
        (3e38, r"loss \d+\.\d+, gradient norm nan"),
    ],
)
def test_a_bad_number_in_one_microbatch_names_step_and_examples(
    poisoned, tmp_path, metrics, value, told, seed
):
    """The state before that step is kept; nothing of after it is."""
    given, name = poisoned("train", value)
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match=rf"step (\d+): {told}.*{name}") as caught:
        finetune.run(**given | {"seed": seed}, out=out)
    bad = int(str(caught.value).split(":")[0].removeprefix("step "))
    assert [row["step"] for row in metrics(out)] == list(range(1, bad))
    assert (steps(out, "last") if bad > 1 else ["0"])[-1] == str(bad - 1)
    for step in steps(out, "last"):
        for key, bits in arrays(out / "checkpoints" / "last" / step).items():
            finite = np.isfinite(np.frombuffer(bits, np.int32 if "step" in key else np.float32))
            assert finite.all() or (np.isnan(value) and "embed_tokens" in key)


def test_a_bad_validation_loss_names_the_validation_examples(poisoned, tmp_path, metrics):
    given, name = poisoned("valid", np.nan)
    out = tmp_path / "out"
    with pytest.raises(TrainingError, match=f"step 4: validation loss nan.*{name}"):
        finetune.run(**given, out=out)
    assert [row["step"] for row in metrics(out)] == [1, 2, 3]
    assert steps(out, "last") == ["2", "3"]
    assert steps(out, "best") == []
