"""The README and docs/ are kept true: their paths exist, their commands run."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from opengrok_jax import cli, stages
from opengrok_jax import config as config_module


@pytest.fixture(scope="module")
def readme(repository) -> str:
    return (repository / "README.md").read_text()


@pytest.fixture(scope="module")
def pages(readme, repository) -> dict[str, str]:
    """Every page's text by its name."""
    docs = {path.name: path.read_text() for path in (repository / "docs").glob("*.md")}
    assert len(docs) > 4
    return {"README.md": readme, **docs}


def commands(text: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def test_the_first_screen_has_the_two_commands_and_a_picture(readme):
    screen = "\n".join(readme.splitlines()[:30])
    for wanted in ("bash scripts/demo.sh", "bash scripts/test.sh", "![", "docs/report.png"):
        assert wanted in screen


def test_every_path_exists(pages, repository):
    found = re.compile(r"[`( ]((?:configs|scripts|tests|docs|opengrok_jax)/[\w./-]*)")
    for name, text in pages.items():
        mentioned = set(found.findall(text))
        assert len(mentioned) > 8 or name != "README.md"
        for path in mentioned:
            assert (repository / path.rstrip(".")).exists(), f"{name}: {path}"


def test_the_drawn_tree_is_the_tree(readme, repository):
    tree = readme.split("## Where to look in the code")[1].split("```")[1]
    package = tree.split("opengrok_jax/")[1].split("\nconfigs/")[0]
    drawn = set(re.findall(r"([\w]+/)", package)) | set(re.findall(r"(\w+\.py)", package))
    rooms = {p.name + "/" for p in (repository / "opengrok_jax").iterdir() if p.is_dir()}
    assert rooms - {"__pycache__/"} <= drawn
    assert all((repository / "opengrok_jax" / name).exists() for name in drawn)


def test_the_drawn_run_folder_is_the_pipelines(readme):
    tree = readme.split("## The run folder")[1].split("```")[1]
    for stage in stages.STAGES:
        line = next(x for x in tree.splitlines() if x.strip().startswith(f"{stage.folder}/"))
        assert set(re.findall(r"[\w.]+\.(?:jsonl|parquet|html)", line)) - {"metrics.jsonl"} <= {
            *(name.split("/")[0] for name in stage.writes),
            "journal.sqlite",
        }
        assert f"`{stage.verb}`" in readme or f"opengrok {stage.verb}" in readme


def test_the_five_commands_are_dry_runs_of_themselves(readme, repository, tmp_path):
    """In order, with the README's own settings file; each says what it would run."""
    section = readme.split("## From your laptop to a pod in five commands")[1].split("\n## ")[0]
    (settings,) = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    (tmp_path / "tpu_vm.env").write_text(settings)
    (tmp_path / "scripts").symlink_to(repository / "scripts")
    found = [command for command in commands(section) if command.startswith("bash scripts/tpu_vm/")]
    assert len(found) == 5
    for command in found:
        words = shlex.split(command)
        done = subprocess.run(
            [*words[:2], "--dry-run", *words[2:]],
            cwd=tmp_path,
            env={k: v for k, v in os.environ.items() if not k.startswith("TPU_")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert "gcloud compute tpus" in done.stdout
        assert "my-project" in done.stdout


def test_every_opengrok_command_runs(readme, repository, tmp_path):
    for name in ("configs", "opengrok_jax"):
        (tmp_path / name).symlink_to(repository / name)
    (tmp_path / "my").mkdir()
    rows = [{"text": f"post {n}", "label": label} for n, label in enumerate(["joy", "anger"] * 4)]
    for split in ("train", "test"):
        (tmp_path / "my" / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    found = [c for c in commands(readme) if c.startswith("opengrok")]
    assert len(found) >= 3
    for command in found:
        words = shlex.split(command)[1:]
        words += [] if "--dry-run" in words else ["--dry-run"]
        done = subprocess.run(
            [sys.executable, "-m", "opengrok_jax", *words],
            cwd=tmp_path,
            env={**os.environ, "TEACHER_KEY": "x"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert "would" in done.stderr


def test_every_opengrok_line_is_understood(pages, repository, monkeypatch):
    """Also of the verbs that cannot say what they would do: flags, configs, keys, values."""
    monkeypatch.chdir(repository)
    seen = set()
    for name, text in pages.items():
        for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if not line.startswith("opengrok "):
                    continue
                words = shlex.split(line.split("  #")[0])[1:]
                flags, rest = cli._parser().parse_known_args(words)
                seen.add(flags.verb)
                for spec in filter(None, (getattr(flags, n, "") for n in ("config", "grid"))):
                    config_module.load(spec, rest if spec == flags.config else ())
                assert not rest or flags.config, f"{name}: {line}"
    assert len(seen) > 12


@pytest.mark.parametrize("script", ["demo.sh", "test.sh", "setup.sh"])
def test_the_scripts_are_valid_bash(repository, script):
    subprocess.run(["bash", "-n", str(repository / "scripts" / script)], check=True)


def test_ci_runs_the_readmes_test_command(repository):
    assert "bash scripts/test.sh" in (repository / ".ci" / "run").read_text()


def test_no_figure_stands_without_its_command(readme):
    """Speed and scores in the README need the command, hardware and date beside them."""
    for paragraph in readme.split("\n\n"):
        if re.search(r"\d+(\.\d+)? (seconds|minutes|tokens/s|%)(?! of)", paragraph):
            assert re.search(r"20\d\d-\d\d-\d\d", paragraph), paragraph


def test_nothing_of_a_workplace_is_committed(repository):
    listed = subprocess.run(
        ["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    barred = re.compile(r"/(?:work|root)/|pypi\.org|files\.pythonhosted")
    for name in listed.stdout.split():
        path = repository / name
        text = path.suffix in (".py", ".md", ".sh", ".toml", ".txt", ".j2", ".cfg")
        if text and path.exists() and path.name not in ("LICENSE", "test_readme.py"):
            assert not barred.search(path.read_text()), name
