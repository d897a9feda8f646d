"""Resuming: after a damaged result, after another setting, and after kill -9."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from opengrok_jax import storage
from opengrok_jax.ablation import cells, work
from opengrok_jax.errors import ConfigError
from tests.command import opengrok


@pytest.fixture
def copied(finished, tmp_path):
    workdir = tmp_path / "work"
    shutil.copytree(finished[0], workdir)
    return workdir, storage.read_json(workdir / "plan.json")["trainings"]


def trained(workdir, rows, **more):
    return work.run(workdir, rows, engine="resident", predictor="likelihood", jobs=1, **more)


def without_times(path):
    result = json.loads(path.read_text())
    return {k: v for k, v in result.items() if k not in ("seconds", "shared", "figures")}


def test_what_is_missing_or_damaged_is_done_again_and_the_same(copied):
    workdir, rows = copied
    assert trained(workdir, rows) == 0
    files = [cells.result_file(workdir, row) for row in rows]
    before = [without_times(file) for file in files]
    files[0].unlink()
    files[3].write_text(files[3].read_text()[:40])
    assert trained(workdir, rows) == 2
    assert [without_times(file) for file in files] == before


def test_no_process_at_all_is_refused(copied):
    with pytest.raises(ConfigError, match="--jobs is 0"):
        work.run(*copied, engine="resident", predictor="likelihood", jobs=0)


CONFIG = """
from ml_collections import ConfigDict
import json
def get_config(variant=""):
    return ConfigDict(json.loads(open({path!r}).read()))
"""


def until(reached):
    limit = time.monotonic() + 600
    while not reached():
        assert time.monotonic() < limit
        time.sleep(0.05)


def there(results, wanted: int) -> bool:
    return results.parent.exists() and len(list(results.glob("*/*.json"))) >= wanted


def alive(group: int) -> bool:
    """Whether the process group has a member."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_moment_the_same_command_ends_the_same(base, grid_config, tmp_path):
    files = {}
    for name, config in (("base", base), ("grid", grid_config)):
        plain = config.to_dict()
        if name == "base":
            plain["run_dir"] = str(tmp_path / "run")
        else:
            plain["seeds"] = [0, 1, 2, 3]
        (tmp_path / f"{name}.json").write_text(json.dumps(plain))
        files[name] = tmp_path / f"{name}.py"
        files[name].write_text(CONFIG.format(path=str(tmp_path / f"{name}.json")))
    command = ["ablate", "--config", str(files["base"]), "--grid", str(files["grid"])]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}

    def begin(workdir, jobs):
        words = [*command, "--workdir", str(workdir), "--jobs", str(jobs)]
        return subprocess.Popen(
            [sys.executable, "-m", "opengrok_jax", *words],
            env=environment,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    done = opengrok(*command, "--workdir", str(tmp_path / "whole"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    workdir = tmp_path / "killed"
    results = workdir / "cells"
    for wanted in (0, 1, 4, 7):  # results that must be there when it is killed
        process = begin(workdir, jobs=2)
        until(lambda p=process, n=wanted: p.poll() is not None or there(results, n))
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)  # the parent alone: its children must end themselves
        process.wait()
        until(lambda p=process: not alive(p.pid))
        assert there(results, wanted)
    done = opengrok(*command, "--workdir", str(workdir), "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole, killed = (
        json.loads((tmp_path / name / "ablation.json").read_text()) for name in ("whole", "killed")
    )
    assert killed["questions"] == whole["questions"]
    assert [c["scores"] for c in killed["cells"]] == [c["scores"] for c in whole["cells"]]
