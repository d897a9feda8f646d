"""The TPU VM scripts against a recording stand-in for gcloud, and worker.sh for real."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPTS = ["create", "setup", "launch", "logs", "status", "resume", "delete"]
WHERE = {"TPU_PROJECT": "my-project", "TPU_ZONE": "us-east5-b", "TPU_POLL": "0"}
AT = ["--project", "my-project", "--zone", "us-east5-b"]
SCOPES = ["--scopes", "https://www.googleapis.com/auth/cloud-platform"]
TRAIN = ["finetune", "--config", "configs/phi3_mini.py", "--config.run_dir=runs/my run"]
GONE = {"err": "ERROR: (gcloud) NOT_FOUND: Resource was not found", "rc": 1}

# Writes down its words; answers from a list per pattern, the last answer again and again.
GCLOUD = """#!{python}
import json, re, sys
from pathlib import Path
here = Path(__file__).parent
words = sys.argv[1:]
with open(here / "calls.jsonl", "a") as file:
    file.write(json.dumps(words) + "\\n")
answers = json.loads((here / "answers.json").read_text())
for pattern, replies in answers.items():
    if re.search(pattern, " ".join(words)):
        reply = replies[0]
        if len(replies) > 1:
            answers[pattern] = replies[1:]
            (here / "answers.json").write_text(json.dumps(answers))
        sys.stdout.write(reply.get("out", ""))
        sys.stderr.write(reply.get("err", ""))
        sys.exit(reply.get("rc", 0))
"""


@pytest.fixture
def scripts(repository):
    return repository / "scripts" / "tpu_vm"


@pytest.fixture
def play(scripts, tmp_path):
    """Runs a script in a folder of its own; answers what it said and what gcloud was asked."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "gcloud").write_text(GCLOUD.format(python=sys.executable))
    (fake / "gcloud").chmod(0o755)
    (tmp_path / "laptop").mkdir()

    def run(name, *words, answers=None, typed="", **environment):
        calls = fake / "calls.jsonl"
        calls.unlink(missing_ok=True)
        (fake / "answers.json").write_text(json.dumps(answers or {}))
        clean = {k: v for k, v in os.environ.items() if not k.startswith("TPU_")}
        done = subprocess.run(
            ["bash", str(scripts / f"{name}.sh"), *words],
            cwd=tmp_path / "laptop",
            env=clean | WHERE | environment | {"PATH": f"{fake}:{os.environ['PATH']}"},
            input=typed,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        asked = calls.read_text().splitlines() if calls.exists() else []
        return done, [json.loads(line) for line in asked]

    return run


def tpu(verb, *words):
    return ["compute", "tpus", "tpu-vm", verb, *words, *AT]


def queue(verb, *words):
    return ["compute", "tpus", "queued-resources", verb, *words, *AT]


LOOK = tpu("describe", "opengrok", "--format", "value(state)")
LOOK_QUEUE = queue("describe", "opengrok", "--format", "value(state.state)")


def on_workers(*words, which="all"):
    command = "bash opengrok-jax/scripts/tpu_vm/worker.sh " + " ".join(words)
    return tpu("ssh", "opengrok", "--worker", which, "--command", command)


def setting_up(repository):
    package = repository / "build" / "tpu_vm" / "package.tar.gz"
    unpack = "mkdir -p opengrok-jax && tar -xzf opengrok-jax.tar.gz -C opengrok-jax"
    return [
        tpu("scp", str(package), "opengrok:opengrok-jax.tar.gz", "--worker", "all"),
        tpu("ssh", "opengrok", "--worker", "all", "--command", unpack),
        on_workers("setup", "my-bucket"),
    ]


LAUNCHING = on_workers("launch", *TRAIN[:3], r"--config.run_dir=runs/my\ run")
CREATING = tpu(
    *("create", "opengrok", "--accelerator-type", "v4-32"),
    *("--version", "tpu-ubuntu2204-base", *SCOPES),
)
SPOT = queue(
    *("create", "opengrok", "--node-id", "opengrok", "--accelerator-type", "v6e-16"),
    *("--runtime-version", "v2-alpha-tpuv6e", "--spot", *SCOPES),
)


def states(*names):
    return [{"out": f"{name}\n"} if name != "GONE" else GONE for name in names]


def workers(*lines):
    return {"out": "".join(f"worker t1v-n-{n}: {line}\n" for n, line in enumerate(lines))}


# ---- each script ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("v4-8", "tpu-ubuntu2204-base"),
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-256", "v2-alpha-tpuv6e"),
    ],
)
def test_create(play, kind, version):
    done, calls = play("create", "--type", kind, answers={"describe": [GONE]})
    assert done.returncode == 0, done.stderr
    described = ("--accelerator-type", kind, "--version", version)
    assert calls == [LOOK, tpu("create", "opengrok", *described, *SCOPES)]


def test_create_spot_waits_in_the_queue(play):
    answers = {"describe": states("GONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")}
    done, calls = play("create", "--type", "v6e-16", "--spot", answers=answers)
    assert done.returncode == 0, done.stderr
    assert calls == [LOOK_QUEUE, SPOT, LOOK_QUEUE, LOOK_QUEUE, LOOK_QUEUE]
    assert "opengrok is WAITING_FOR_RESOURCES" in done.stderr


def test_create_again_goes_on_waiting(play):
    answers = {"describe": states("WAITING_FOR_RESOURCES", "ACTIVE")}
    done, calls = play("create", "--type", "v6e-16", "--spot", answers=answers)
    assert done.returncode == 0, done.stderr
    assert calls == [LOOK_QUEUE, LOOK_QUEUE]


@pytest.mark.parametrize("state", ["FAILED", "SUSPENDED"])
def test_a_request_that_came_to_nothing(play, state):
    answers = {"describe": states("GONE", "PROVISIONING", state)}
    done, _ = play("create", "--type", "v6e-16", "--spot", answers=answers)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"tpu_vm: the request for opengrok is {state}")


def test_setup_packs_this_checkout(play, repository):
    done, calls = play("setup", "--bucket", "my-bucket")
    assert done.returncode == 0, done.stderr
    assert calls == setting_up(repository)
    listed = subprocess.run(
        ["tar", "-tzf", calls[0][4]], capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = ("pyproject.toml", "opengrok_jax/cli.py", "scripts/tpu_vm/worker.sh", "LICENSE")
    assert set(wanted) <= set(listed)
    assert not [name for name in listed if "__pycache__" in name]


def test_launch_uploads_and_quotes(play, tmp_path):
    (tmp_path / "laptop" / "runs" / "my run").mkdir(parents=True)
    given = ("--bucket", "my-bucket", "--upload", "runs/my run/", "--", *TRAIN)
    done, calls = play("launch", *given)
    assert done.returncode == 0, done.stderr
    upload = ["storage", "rsync", "runs/my run", "gs://my-bucket/runs/my run"]
    assert calls == [[*upload, "--recursive", *AT[:2]], LAUNCHING]
    # The words reach the worker's shell as they were given here.
    command = LAUNCHING[LAUNCHING.index("--command") + 1]
    assert shlex.split(command)[3:] == TRAIN


@pytest.mark.parametrize("folder", ["/etc", "../other", "runs/none"])
def test_only_a_folder_of_here_is_uploaded(play, folder):
    done, calls = play("launch", "--bucket", "b", "--upload", folder, "--", "finetune")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not calls


def test_a_worker_that_fails_is_reported(play):
    answers = {"worker.sh launch": [{"err": "##### Command execution on worker 1 failed", "rc": 9}]}
    done, _ = play("launch", "--", *TRAIN, answers=answers)
    assert done.returncode == 9
    assert "worker 1 failed" in done.stderr
    assert "next:" not in done.stderr


def test_logs(play):
    assert play("logs")[1] == [on_workers("logs", which="0")]
    assert play("logs", "--worker", "all")[1] == [on_workers("logs")]


def test_status(play):
    reply = workers("running", "exited 7")
    answers = {"describe": states("ACTIVE", "READY"), "worker.sh state": [reply]}
    done, calls = play("status", "--spot", answers=answers)
    assert calls == [LOOK_QUEUE, LOOK, on_workers("state")]
    assert done.stdout == reply["out"]
    done, calls = play("status", answers={"describe": states("PREEMPTED")})
    assert calls == [LOOK]
    assert "PREEMPTED" in done.stderr


@pytest.mark.parametrize(("typed", "deleted"), [("y\n", True), ("n\n", False), ("", False)])
def test_delete_asks(play, typed, deleted):
    done, calls = play("delete", typed=typed, answers={"describe": states("READY")})
    assert calls == ([LOOK, tpu("delete", "opengrok", "--quiet")] if deleted else [])
    assert done.returncode == (0 if deleted else 1)
    assert "Delete the TPU opengrok in us-east5-b" in done.stderr


def test_delete_without_asking(play):
    done, calls = play("delete", "--yes", "--spot", answers={"describe": states("ACTIVE")})
    assert done.returncode == 0
    assert calls == [LOOK_QUEUE, queue("delete", "opengrok", "--force", "--quiet")]
    done, calls = play("delete", "--yes", answers={"describe": [GONE]})
    assert done.returncode == 0
    assert calls == [LOOK]


# ---- resuming ---------------------------------------------------------------------------------


def resuming(*more):
    return ["resume", "--type", "v6e-16", "--bucket", "my-bucket", *more, "--", *TRAIN]


def test_a_preempted_training_goes_on(play, repository):
    """Launched, preempted, created anew, set up, the same command launched, and done."""
    answers = {
        "tpu-vm describe": states("READY", "READY", "PREEMPTED", "READY", "READY"),
        "queued-resources describe": states("SUSPENDED", "GONE", "PROVISIONING", "ACTIVE"),
        "worker.sh state": [
            workers("none", "none"),
            workers("running", "running"),
            workers("running", "running"),
            workers("exited 0", "exited 0"),
        ],
    }
    done, calls = play(*resuming("--spot"), answers=answers)
    assert done.returncode == 0, done.stderr
    look = [LOOK, on_workers("state")]
    assert calls == [
        *(*look, LAUNCHING, *look),
        *(LOOK, LOOK_QUEUE, queue("delete", "opengrok", "--force", "--quiet")),
        *(LOOK_QUEUE, SPOT, LOOK_QUEUE, LOOK_QUEUE),
        *(*setting_up(repository), LAUNCHING),
        *(*look, *look),
    ]


def test_without_spot_what_is_gone_is_created(play, repository):
    answers = {
        "tpu-vm describe": states("GONE", "GONE", "GONE", "READY"),
        "worker.sh state": [workers("exited 0")],
    }
    given = ("--type", "v4-32", "--bucket", "my-bucket", "--", *TRAIN)
    done, calls = play("resume", *given, answers=answers)
    assert done.returncode == 0, done.stderr
    begun = [CREATING, *setting_up(repository), LAUNCHING]
    assert calls == [LOOK, LOOK, LOOK, *begun, LOOK, on_workers("state")]


def test_a_place_in_the_queue_is_kept(play):
    answers = {
        "tpu-vm describe": states("GONE", "READY"),
        "queued-resources describe": states("WAITING_FOR_RESOURCES", "ACTIVE"),
        "worker.sh state": [workers("exited 0")],
    }
    done, calls = play(*resuming("--spot"), answers=answers)
    assert done.returncode == 0, done.stderr
    assert calls[:3] == [LOOK, LOOK_QUEUE, LOOK_QUEUE]
    assert not [call for call in calls if "delete" in call or "create" in call]


def test_creating_is_tried_again_but_not_for_ever(play):
    answers = {
        "tpu-vm describe": states("PREEMPTED", "GONE", "GONE", "GONE", "GONE", "READY"),
        "tpu-vm create": [{"err": "no capacity", "rc": 1}, {}],
        "worker.sh state": [workers("exited 0")],
    }
    done, calls = play(*resuming(), answers=answers)
    assert done.returncode == 0, done.stderr
    assert sum(call[3] == "create" for call in calls) == 2
    answers = {
        "tpu-vm describe": states("GONE"),
        "tpu-vm create": [{"err": "no capacity", "rc": 1}],
    }
    done, calls = play(*resuming(), answers=answers)
    assert done.returncode == 1
    assert "could not be created in 10 attempts" in done.stderr
    assert sum(call[3] == "create" for call in calls) == 10


def test_a_training_that_fails_is_reported_with_its_worker(play):
    failed = workers("exited 0", "exited 7")
    answers = {"tpu-vm describe": states("READY"), "worker.sh state": [failed]}
    done, calls = play(*resuming(), answers=answers)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "tpu_vm: worker t1v-n-0: exited 0; worker t1v-n-1: exited 7"
    )
    assert calls == [LOOK, on_workers("state")] * 2


def test_failing_because_of_a_preemption_is_no_failure(play):
    """The processes die before the TPU is said to be taken away."""
    answers = {
        "tpu-vm describe": states("READY", "PREEMPTED", "PREEMPTED", "GONE", "READY"),
        "worker.sh state": [workers("exited 143"), workers("exited 0")],
    }
    done, calls = play(*resuming(), answers=answers)
    assert done.returncode == 0, done.stderr
    assert LAUNCHING in calls


def test_workers_out_of_reach(play):
    answers = {
        "tpu-vm describe": states("READY"),
        "worker.sh state": [{"err": "ssh: connect to host: timed out", "rc": 255}],
    }
    done, calls = play(*resuming(), answers=answers)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "timed out" in done.stderr
    assert len(calls) == 10
    answers["worker.sh state"] += [workers("running"), workers("exited 0")]
    assert play(*resuming(), answers=answers)[0].returncode == 0


# ---- all of them ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "answers"),
    [
        (["create", "--type", "v4-32"], {"describe": [GONE]}),
        (["create", "--type", "v6e-16", "--spot"], {"describe": states("GONE", "ACTIVE")}),
        (["setup", "--bucket", "my-bucket"], {}),
        (["launch", "--bucket", "b", "--upload", "runs/my run", "--", *TRAIN], {}),
        (["logs"], {}),
        (["status", "--spot"], {"describe": states("ACTIVE", "READY")}),
        (["delete", "--yes"], {"describe": states("READY")}),
        (["delete", "--yes", "--spot"], {"describe": states("ACTIVE")}),
        (
            resuming(),
            {
                "tpu-vm describe": states("PREEMPTED", "READY", "GONE", "READY"),
                "worker.sh state": [workers("exited 0")],
            },
        ),
        (
            resuming("--spot"),
            {
                "tpu-vm describe": states("PREEMPTED", "READY"),
                "queued-resources describe": states("SUSPENDED", "GONE", "ACTIVE"),
                "worker.sh state": [workers("exited 0")],
            },
        ),
    ],
)
def test_a_dry_run_prints_what_would_run(play, tmp_path, words, answers):
    (tmp_path / "laptop" / "runs" / "my run").mkdir(parents=True)
    done, calls = play(*words, answers=answers)
    assert done.returncode == 0, done.stderr
    dry = [words[0], "--dry-run", *words[1:]]
    printed, none = play(*dry)
    assert printed.returncode == 0, printed.stderr
    assert none == []
    lines = [shlex.split(line) for line in printed.stdout.splitlines()]
    assert [line[1:] for line in lines if line[0] == "gcloud"] == calls
    assert {line[0] for line in lines} <= {"gcloud", "tar", "mkdir"}


def test_no_secret_is_sent(play):
    secrets = {name: f"secret-{name}" for name in ("HF_TOKEN", "TEACHER_KEY", "XAI_API_KEY")}
    answers = {
        "tpu-vm describe": states("PREEMPTED", "GONE", "GONE", "READY"),
        "worker.sh state": [workers("exited 0")],
    }
    done, calls = play(*resuming(), answers=answers, **secrets)
    assert done.returncode == 0, done.stderr
    assert "secret" not in json.dumps(calls) + done.stdout + done.stderr


def test_names_with_spaces_stay_one_word(play):
    done, calls = play("delete", "--yes", "--name", "my pod", answers={"describe": states("READY")})
    assert done.returncode == 0
    assert calls[1] == tpu("delete", "my pod", "--quiet")


def test_settings_file_environment_and_flags(play, tmp_path):
    file = tmp_path / "laptop" / "tpu_vm.env"
    file.write_text("# ours\n\nTPU_NAME='from file'\nTPU_TYPE=v4-8\nTPU_ZONE=other\nTPU_SPOT=no\n")
    done, calls = play("create", "--type", "v4-32", answers={"describe": [GONE]})
    assert done.returncode == 0, done.stderr
    assert calls[1][4] == "from file"
    assert "v4-32" in calls[1]  # a flag goes before the file,
    assert calls[1][-1] == "us-east5-b"  # and so does the environment
    other = tmp_path / "other.env"
    other.write_text('TPU_NAME="pod 2"')
    _, calls = play("delete", "--yes", "--settings", str(other), answers={"describe": [GONE]})
    assert calls[0][4] == "pod 2"
    assert not (tmp_path / "laptop" / "ran").exists()
    file.write_text("TPU_NAME=$(touch ran)\n")
    _, calls = play("logs")
    assert calls[0][4] == "$(touch ran)"  # read, never run
    assert not (tmp_path / "laptop" / "ran").exists()


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(play, name):
    done, calls = play(name, "--help", TPU_PROJECT="")
    assert done.returncode == 0
    assert not calls
    assert f"scripts/tpu_vm/{name}.sh" in done.stdout
    for flag in ("--settings", "--project", "--zone", "--dry-run"):
        assert flag in done.stdout
    assert "set -euo" not in done.stdout


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["create", "--type", "v4-8"], {"TPU_PROJECT": ""}, "which project?"),
        (["create", "--type", "v4-8"], {"TPU_ZONE": ""}, "which zone?"),
        (["create"], {}, "which type of TPU?"),
        (["create", "--type", "v5e-16"], {}, "Google's name for v5e is v5litepod-N"),
        (["create", "--type", "tpu7x-8"], {}, "GKE"),
        (["create", "--type", "v6e"], {}, "expected v4-N, v5litepod-N, v5p-N or v6e-N"),
        (["create", "--type", "v6e-0"], {}, "expected v4-N"),
        (["create", "--type"], {}, "--type needs a value"),
        (["create", "--typ", "v4-8"], {}, "unknown argument --typ"),
        (["create", "--yes", "--type", "v4-8"], {}, "unknown argument --yes"),
        (["status", "--settings", "none.env"], {}, "there is no settings file none.env"),
        (["status"], {"TPU_SPOT": "maybe"}, "expected yes or no"),
        (["status", "--poll", "soon"], {}, "expected seconds"),
        (["setup"], {}, "which bucket?"),
        (["setup", "--bucket", "gs://mine"], {}, "without gs://"),
        (["launch"], {}, "launch what?"),
        (["resume", "--type", "v4-8", "--bucket", "b"], {}, "resume what?"),
        (["logs", "--worker", "one"], {}, "expected a number from 0, or all"),
    ],
)
def test_a_wrong_call_is_one_line(play, words, environment, said):
    done, calls = play(*words, **environment)
    assert done.returncode == 2
    assert not calls
    (line,) = done.stderr.splitlines()
    assert line.startswith("tpu_vm: ")
    assert said in line


def test_a_wrong_settings_file_is_one_line(play, tmp_path):
    (tmp_path / "laptop" / "tpu_vm.env").write_text("TPU_ZON=a\n")
    done, _ = play("status")
    assert done.returncode == 2
    assert "tpu_vm.env has TPU_ZON" in done.stderr


def test_gcloud_that_is_missing_or_not_allowed(play, scripts, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "sed", "tr", "dirname", "cat", "mktemp", "rm", "grep"):
        (tools / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        [str(tools / "bash"), str(scripts / "status.sh")],
        env=WHERE | {"PATH": str(tools)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "gcloud is not installed" in done.stderr
    refused = {"describe": [{"err": "ERROR: PERMISSION_DENIED\nfor you\n", "rc": 1}]}
    done, _ = play("delete", "--yes", answers=refused)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "PERMISSION_DENIED for you" in done.stderr


# ---- on the worker ----------------------------------------------------------------------------


@pytest.fixture
def worker(scripts, tmp_path):
    """worker.sh in a home of its own; `bin/` there goes first in PATH."""
    root = tmp_path / "opengrok-jax"
    (root / "scripts" / "tpu_vm").mkdir(parents=True)
    shutil.copy(scripts / "worker.sh", root / "scripts" / "tpu_vm")
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / "bin").mkdir()

    def run(*words):
        return subprocess.run(
            ["bash", str(root / "scripts" / "tpu_vm" / "worker.sh"), *words],
            env=os.environ | {"PATH": f"{root / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return root, run


def executable(path, text):
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(0o755)


def until(run, ending):
    deadline, said = time.monotonic() + 30, ""
    while time.monotonic() < deadline:
        said = run("state").stdout.strip()
        if said.endswith(ending):
            return said
        time.sleep(0.02)
    raise AssertionError(f"never {ending}: {said}")


def test_a_command_runs_in_the_background(worker):
    root, run = worker
    opengrok = root / ".venv" / "bin" / "opengrok"
    wait = 'printf "%s|" "$@"; while [ ! -e go ]; do sleep 0.02; done; exit 7\n'
    executable(opengrok, wait)
    assert run("state").stdout.endswith(": none\n")
    done = run("launch", *TRAIN)
    assert (done.returncode, done.stderr) == (0, "")
    until(run, ": running")
    again = run("launch", *TRAIN)
    assert again.returncode == 1
    assert "a command is running already" in again.stderr
    (root / "go").touch()
    until(run, ": exited 7")
    assert (root / ".job" / "log").read_text() == "|".join(TRAIN) + "|"
    executable(opengrok, "exit 0\n")
    assert run("launch", "finetune").returncode == 0
    until(run, ": exited 0")


def test_a_command_that_vanished_is_lost(worker):
    root, run = worker
    executable(root / ".venv" / "bin" / "opengrok", "sleep 60\n")
    run("launch", "finetune")
    until(run, ": running")
    pid = int((root / ".job" / "pid").read_text())
    os.killpg(pid, 9)  # as a machine that is switched off does; setsid made it a group of its own
    until(run, ": exited lost")


def test_setup_installs_and_mounts(worker):
    root, run = worker
    heard = root / "heard"
    for tool in ("python3", "gcsfuse"):
        executable(root / "bin" / tool, f'printf "%s\\n" "{tool} $*" >>"{heard}"\n')
    executable(root / "bin" / "mountpoint", "exit 1\n")
    executable(root / ".venv" / "bin" / "python", "")
    done = run("setup", "my-bucket")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(": ready\n")
    lines = heard.read_text().splitlines()
    assert lines[0] == "python3 -m pip install --user --quiet uv"
    assert lines[1].endswith(
        "--constraint scripts/constraints.txt .[train,hub,tensorboard] jax[tpu]"
    )
    assert (
        lines[2] == f"gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 my-bucket {root}/bucket"
    )
    assert (root / "runs").resolve() == root / "bucket" / "runs"
    assert [path.name for path in (root / "bucket").iterdir()] == ["runs"]
    executable(root / "bin" / "mv", "exit 1\n")  # a bucket without folders
    done = run("setup", "my-bucket")
    assert done.returncode == 1
    assert "--enable-hierarchical-namespace" in done.stderr


# ---- form -------------------------------------------------------------------------------------


def test_the_scripts_are_strict_bash(scripts):
    for path in scripts.glob("*.sh"):
        subprocess.run(["bash", "-n", str(path)], check=True)
        if path.name != "common.sh":  # sourced
            assert path.read_text().startswith("#!/usr/bin/env bash\n# ")
            assert "\nset -euo pipefail\n" in path.read_text()
            assert os.access(path, os.X_OK)
    assert {path.stem for path in scripts.glob("*.sh")} == {*SCRIPTS, "common", "worker"}


def test_shellcheck_finds_nothing(scripts):
    found = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if not found:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        [found, "-x", *map(str, sorted(scripts.glob("*.sh")))],
        cwd=scripts,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
