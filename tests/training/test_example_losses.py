"""The losses are the student's own; a stopped call goes on; the refinement reads the file."""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax import storage
from opengrok_jax.errors import CheckpointError, DataError
from opengrok_jax.masked_file import read_masked, write_masked
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import save_student
from opengrok_jax.soft_file import response_positions
from opengrok_jax.training import example_losses


@pytest.fixture(scope="module")
def student(noisy: tuple[Path, Phi3]) -> tuple[Path, Phi3]:
    return noisy


def run(masked_file: Path, student: tuple[Path, Phi3], out: Path, **changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"rows_per_batch": 2, **changes}
    return example_losses.run(masked_file=masked_file, student=student[0], out=out, **given)


@pytest.mark.parametrize("rule", ["none", "exclude"])
def test_each_loss_is_that_of_the_example_alone(
    student: Any, masked_file: Path, tmp_path: Path, rule: Any
) -> None:
    """In NumPy and float64, from the logits of a row that holds nothing else."""
    told = run(masked_file, student, tmp_path / "l.jsonl", rule=rule)
    rows = list(storage.read_jsonl(tmp_path / "l.jsonl"))
    examples, _ = read_masked(masked_file)
    assert [row["prompt_id"] for row in rows] == [example.id for example in examples]
    forward = nnx.jit(lambda m, t, s, mask: m(t, s, None, mask, rule))
    for example, row in zip(examples, rows, strict=True):
        tokens, segments = np.zeros((2, 1, 24), np.int32)  # one shape, so one compilation
        mask, length = np.zeros((1, 24), bool), len(example.tokens)
        tokens[0, :length], segments[0, :length], mask[0, :length] = (
            example.tokens,
            1,
            example.key_mask,
        )
        arrays = (jnp.asarray(x) for x in (tokens, segments, mask))
        logits = np.asarray(forward(student[1], *arrays), np.float64)[0]
        at = response_positions(example)
        logp = logits[at] - np.log(np.exp(logits[at]).sum(-1, keepdims=True))
        expected = -logp[np.arange(len(at)), example.tokens[at + 1]].mean()
        assert row["loss"] == pytest.approx(expected, abs=2e-5)
        assert row["tokens"] == len(at)
    tokens = sum(row["tokens"] for row in rows)
    mean = sum(row["loss"] * row["tokens"] for row in rows) / tokens
    assert told == {"examples": len(rows), "tokens": tokens, "mean_loss": pytest.approx(mean)}
    assert not list(tmp_path.glob("*.begun"))


def test_killed_it_goes_on_and_asks_nothing_twice(
    student: Any, example: Callable[..., Any], tmp_path: Path
) -> None:
    tokens = np.random.default_rng(0).integers(0, 61, (400, 12)).astype(np.int32)
    rows = [
        dataclasses.replace(example(n, length=12, response=3), tokens=own)
        for n, own in enumerate(tokens)
    ]
    write_masked(tmp_path / "m.parquet", rows, {"tokenizer": "", "vocab_size": 61})
    run(tmp_path / "m.parquet", student, tmp_path / "whole.jsonl", rows_per_batch=1)
    whole = {r["prompt_id"]: r for r in storage.read_jsonl(tmp_path / "whole.jsonl")}
    begun, words = tmp_path / "l.jsonl.begun", ["--rows-per-batch", "1", "--out", "l.jsonl"]
    words += ["--masked", str(tmp_path / "m.parquet"), "--student", str(student[0])]
    with subprocess.Popen(
        [sys.executable, "-m", "opengrok_jax", "losses", *words],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and not (begun.exists() and begun.stat().st_size > 500):
            time.sleep(0.001)
        process.kill()
    assert not (tmp_path / "l.jsonl").exists()
    # Another value in the place of one that was kept shows that it is read and not asked again.
    first, *others = begun.read_text().splitlines(keepends=True)
    kept = json.loads(first)
    others = [line for line in others if line.endswith("\n")]
    begun.write_text(json.dumps(kept | {"value": 123.5}) + "\n" + "".join(others) + '{"key": "to')
    run(tmp_path / "m.parquet", student, tmp_path / "l.jsonl", rows_per_batch=1)
    found = {r["prompt_id"]: r for r in storage.read_jsonl(tmp_path / "l.jsonl")}
    (changed,) = [name for name in whole if found[name] != whole[name]]
    assert found.pop(changed)["loss"] == 123.5
    assert whole.pop(changed)["loss"] == kept["value"]
    assert found == whole
    assert not begun.exists()


def test_another_student_is_another_loss(
    student: Any, masked_file: Path, tiny: Phi3Config, tmp_path: Path
) -> None:
    """What was begun with other weights, or another rule, is not taken."""
    run(masked_file, student, tmp_path / "a.jsonl")
    rows = {"none": (tmp_path / "a.jsonl").read_bytes()}
    save_student(tmp_path / "other", Phi3(tiny, rngs=nnx.Rngs(1)), tiny)
    (tmp_path / "b.jsonl.begun").write_text(
        json.dumps({"key": "of something else", "value": 1.0}) + "\n"
    )
    run(masked_file, (tmp_path / "other", student[1]), tmp_path / "b.jsonl")
    run(masked_file, student, tmp_path / "c.jsonl", rule="exclude")
    rows |= {name: (tmp_path / f"{name}.jsonl").read_bytes() for name in "bc"}
    assert len(set(rows.values())) == 3


def test_the_refinement_reads_the_file(student: Any, masked_file: Path, tmp_path: Path) -> None:
    from opengrok_jax import refine

    run(masked_file, student, tmp_path / "l.jsonl")
    found = refine._losses(str(tmp_path / "l.jsonl"))
    assert len(found) == 35
    assert all(loss > 0 for loss in found.values())


def test_what_cannot_be_read_is_told(student: Any, masked_file: Path, tmp_path: Path) -> None:
    write_masked(tmp_path / "none.parquet", [], {"tokenizer": "", "vocab_size": 61})
    with pytest.raises(DataError, match="holds no example"):
        run(tmp_path / "none.parquet", student, tmp_path / "l.jsonl")
    with pytest.raises(CheckpointError, match="holds no model"):
        run(masked_file, (tmp_path, student[1]), tmp_path / "l.jsonl")
