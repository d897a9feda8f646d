"""The whole pipeline in real processes: once, twice, and killed again and again."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opengrok_jax import pipeline, storage
from opengrok_jax.records import Score
from tests.together import begin, finish


def command(repository: Path, run_dir: Path, *changes: str) -> list[str]:
    config = str(repository / "configs" / "demo.py:smoke")
    opengrok = [sys.executable, "-m", "opengrok_jax", "run", "--config", config]
    return [*opengrok, f"--config.run_dir={run_dir}", *changes]


def results(run_dir: Path) -> dict[str, bytes]:
    """What must not depend on how often the run was killed."""
    parts = {}
    for path in sorted(run_dir.rglob("*")):
        name = str(path.relative_to(run_dir))
        inside = "checkpoints" in name or ("student/" in name and path.suffix != ".json")
        passing = (
            "log.jsonl",
            "lock",
            "made_of.json",
            "meters.jsonl",
            "meters.json",
            storage.MANIFEST,
        )
        if path.is_file() and not inside and path.name not in passing and "journal" not in name:
            # The report tells how long each stage took.
            text = path.read_bytes()
            parts[name] = re.sub(rb"(?s)(<h2 id=.cost.>|## Cost).*?Where it comes from", b"", text)
    return parts


def is_done(verb: str, run_dir: Path) -> bool:
    return {row["stage"]: row["done"] for row in pipeline.status(run_dir)}[verb]


@pytest.fixture(scope="module")
def finished(repository, tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("smoke") / "run"
    done = subprocess.run(
        command(repository, run_dir), capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert str(run_dir / "report" / "report.html") in done.stderr
    return run_dir


@pytest.mark.timeout(300)
def test_one_command_leads_from_prompts_to_a_report(finished):
    rows = pipeline.status(finished)
    assert all(row["done"] for row in rows)
    counts = {row["stage"]: row["counts"] for row in rows}
    assert counts["collect"]["ok"] == counts["plan-prompts"]["prompts"] == 63
    assert counts["curate"]["kept"] + counts["curate"]["rejected"] == 63
    assert counts["mask"]["examples"] == counts["curate"]["kept"]
    scores = [Score(**s) for s in storage.read_json(finished / "evaluation/scores.json")["scores"]]
    assert {s.task for s in scores} == {"sentiment", "emotion", "topic", "entities"}
    assert all(0 <= s.low <= s.value <= s.high <= 1 for s in scores)
    page = (finished / "report" / "report.html").read_text()
    assert f"{scores[0].value:.3f}" in page
    assert f"| {scores[0].value:.3f} |" in (finished / "report" / "report.md").read_text()
    wrong = page.split('id="errors"')[1].split('id="learning"')[0]
    assert '<del class="t prompt gone"' in wrong  # under the masks of this very run


@pytest.mark.timeout(300)
def test_a_second_run_does_nothing_and_says_so(finished, repository):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    done = subprocess.run(
        command(repository, finished), capture_output=True, text=True, check=True, timeout=60
    )
    assert "nothing to do" in done.stderr
    after = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    assert {p for p in after if after[p] != before.get(p)} <= {finished / "lock"}


@pytest.mark.timeout(300)
def test_the_mask_is_the_formula_of_the_stored_factors(finished):
    import numpy as np

    from opengrok_jax.masked_file import read_masked

    examples, made = read_masked(finished / "masking" / "masked.parquet")
    hidden = 0
    for row in examples:
        total = made["alpha"] * row.tfidf.astype(np.float64) + made["beta"] * row.pos
        total += made["gamma"] * row.dep + made["delta"] * row.random + made["bias"]
        formula = 1 / (1 + np.exp(-total))
        free = row.keep_prob < 1
        np.testing.assert_allclose(row.keep_prob[free], formula[free], rtol=2e-6)
        assert row.key_mask[~free].all()
        assert row.key_mask[0]
        hidden += int((~row.key_mask).sum())
    assert hidden


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_stage_the_same_command_ends_the_same(finished, repository, tmp_path):
    run_dir, log = tmp_path / "run", tmp_path / "log"
    chance = random.Random(5)
    kills = 0
    while True:
        with open(log, "wb") as stderr:
            process = subprocess.Popen(
                command(repository, run_dir), stderr=stderr, start_new_session=True
            )
        # The longer it takes, the longer it may live: it has to get somewhere in the end.
        deadline = time.monotonic() + chance.uniform(1, 3 + kills)
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if process.poll() is not None:
            assert process.returncode == 0, log.read_text()
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        assert kills < 60
    assert kills >= 4
    expected, found = results(finished), results(run_dir)
    assert found.keys() == expected.keys()
    config = json.loads(expected.pop("config.json")), json.loads(found.pop("config.json"))
    assert config[0] | {"run_dir": ""} == config[1] | {"run_dir": ""}
    for name, content in expected.items():
        assert found[name] == content, name
    assert (run_dir / "training/student").is_dir()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_only_finetune_is_done_by_several_processes(repository, tmp_path):
    """One alone does the stages before; of two, one writes, speaks and holds the folder."""
    run = command(repository, tmp_path / "run", "--config.training.rows_per_batch=2")
    run += ["--config.training.mesh.fsdp=2", "--config.training.epochs=0.5"]
    for verb in ("plan-prompts", "collect", "refine", "curate", "mask"):
        words = [verb if word == "run" else word for word in run]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
        assert done.returncode == 0, done.stderr
    finetune = ["finetune" if word == "run" else word for word in run[1:]]
    for status, _, said in finish(begin(run[1:], 2)):
        assert status == 2
        assert "`opengrok run` works in one process" in said
    done = finish(begin(finetune, 2), 280)
    assert [status for status, _, _ in done] == [0, 0], done
    assert " steps, 0 s left" in done[0][2]
    assert "next: opengrok evaluate" in done[0][2]
    assert "finetune" not in done[1][2]
    assert is_done("finetune", tmp_path / "run")
    done = finish(begin(finetune, 2), 280)
    assert [status for status, _, _ in done] == [0, 0], done
    assert "finetune: done before" in done[0][2]
    with storage.locked(tmp_path / "run"):
        done = finish(begin([*finetune, "--redo", "finetune"], 2))
    assert [status for status, _, _ in done] == [4, 4], done
    assert "in use by another opengrok process" in done[0][2]
    assert "process 0 cannot go on, and says why" in done[1][2]
    assert is_done("finetune", tmp_path / "run")
