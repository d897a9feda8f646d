"""export as a user meets it."""

import pytest

from opengrok_jax import storage
from tests.command import opengrok


@pytest.fixture(scope="module")
def curated(repository, tmp_path_factory):
    """A folder with the demo's first stages done, and the flags that name it."""
    folder = tmp_path_factory.mktemp("export")
    config = ["--config", str(repository / "configs" / "demo.py:smoke")]
    flags = [*config, f"--config.run_dir={folder / 'run'}"]
    for verb in ("plan-prompts", "collect", "refine", "curate"):
        done = opengrok(verb, *flags, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder, flags


def test_the_demos_answers_are_exported(curated):
    folder, flags = curated
    done = opengrok("export", *flags, "--out", "data", "--licence", "Apache-2.0", cwd=folder)
    assert done.returncode == 0, done.stderr
    rows = storage.read_json(folder / "data" / "manifest.json")["rows"]
    assert f"{rows['train']} train and {rows['valid']} valid rows: data" in done.stderr
    card = (folder / "data" / "CARD.md").read_text()
    assert card.startswith("# run\n")
    assert "Licence: Apache-2.0" in card


def test_another_config_than_the_curations_is_refused(curated):
    folder, flags = curated
    changed = [*flags, "--config.curation.seed=5"]
    done = opengrok("export", *changed, "--out", "other", cwd=folder)
    assert done.returncode == 4
    assert "curate is not finished" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (folder / "other").exists()


def test_decisions_since_the_curation_are_asked_for(curated):
    folder, flags = curated
    decisions = folder / "run" / "review" / "decisions.jsonl"
    storage.write_text(decisions, "")
    done = opengrok("export", *flags, "--out", "other", cwd=folder)
    decisions.unlink()
    assert done.returncode == 4
    assert "run `opengrok curate` first" in done.stderr


def test_a_missing_run_is_named(repository, tmp_path):
    flags = ["--config", str(repository / "configs" / "demo.py"), "--config.run_dir=nothing"]
    done = opengrok("export", *flags, "--out", "data", cwd=tmp_path)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()
