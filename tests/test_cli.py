"""The command as a user meets it: real processes, exit statuses, no tracebacks."""

import json
import os
import subprocess
import sys

import pytest

from opengrok_jax import cli, stages, tools
from tests.command import opengrok


@pytest.fixture
def demo(repository, tmp_path):
    config = repository / "configs" / "demo.py:smoke"
    return ["--config", str(config), f"--config.run_dir={tmp_path / 'run'}"]


def test_help_names_every_verb_and_exit_status(tmp_path):
    done = opengrok("--help", cwd=tmp_path)
    assert done.returncode == 0
    for verb in (*stages.VERBS, *tools.TOOLS, "run", "status"):
        assert verb in done.stdout
    assert "exit status" in done.stdout


@pytest.mark.parametrize("verb", stages.VERBS)
def test_every_verb_says_what_it_reads_and_writes(verb, tmp_path):
    done = opengrok(verb, "--help", cwd=tmp_path)
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    assert cli.READS[verb] in text
    assert all(name in text for name in stages.stage_of(verb).writes)


def test_a_stage_then_status_then_nothing_to_do(demo, tmp_path):
    first = opengrok("plan-prompts", *demo, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "next: opengrok collect" in first.stderr
    status = opengrok("status", *demo, "--json", cwd=tmp_path)
    stages = {row["stage"]: row for row in json.loads(status.stdout)["stages"]}
    assert stages["plan-prompts"]["done"]
    again = opengrok("plan-prompts", *demo, cwd=tmp_path)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (["--config.prompts.cuont=3"], 2, "did you mean prompts.count"),
        (["--config.prompts.count=many"], 2, "wants a int"),
        (["--config.prompts.count=-3"], 2, "expected a positive number"),
        (["--bogus"], 2, "--bogus"),
        (["--redo", "everything"], 2, "no stage 'everything'"),
    ],
)
def test_a_wrong_setting_is_one_line(demo, tmp_path, change, status, said):
    done = opengrok("plan-prompts", *demo, *change, cwd=tmp_path)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error(demo, tmp_path):
    """`opengrok status | head`: the pipe is closed before anything is printed."""
    command = [sys.executable, "-m", "opengrok_jax", "status", *demo]
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_missing_config_is_one_line(tmp_path):
    done = opengrok("run", "--config", "none.py", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr
        == "opengrok: none.py: no such config file; --config wants FILE or FILE:variant\n"
    )


def test_a_malformed_line_of_the_users_posts_is_named(repository, tmp_path):
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"text": "a", "label": "joy"}\n{"text": "b", "label": \n')
    done = opengrok(
        "plan-prompts",
        "--config",
        str(repository / "configs" / "tweeteval.py:smoke"),
        f"--config.run_dir={tmp_path / 'run'}",
        f"--config.prompts.posts_file={posts}",
        cwd=tmp_path,
    )
    assert done.returncode == 3
    assert f"{posts}, line 2: not JSON" in done.stderr
    assert done.stderr.count("\n") <= 3


def test_another_config_is_refused(demo, tmp_path):
    assert opengrok("plan-prompts", *demo, cwd=tmp_path).returncode == 0
    done = opengrok("plan-prompts", *demo, "--config.prompts.seed=5", cwd=tmp_path)
    assert done.returncode == 4
    assert "prompts.seed was 0, now 5" in done.stderr


def test_an_unwritable_disk_is_one_line(demo, tmp_path):
    (tmp_path / "file").write_text("")
    run_dir = f"--config.run_dir={tmp_path / 'file' / 'run'}"
    done = opengrok("plan-prompts", *demo, run_dir, cwd=tmp_path)
    assert done.returncode == 8
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_traceback_on_request(tmp_path):
    done = opengrok("run", "--config", "none.py", cwd=tmp_path, OPENGROK_TRACEBACK="1")
    assert "Traceback" in done.stderr
