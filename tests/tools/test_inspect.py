"""inspect as a user meets it."""

import json

import pytest

from tests.command import opengrok
from tests.tools.masked import example, folder

CONFIG = """
from ml_collections import ConfigDict


def get_config(variant=""):
    from opengrok_jax.stages import STAGES

    sections = {stage.section: {} for stage in STAGES}
    return ConfigDict(sections | {"run_dir": "run", "training": {"row_tokens": 160}})
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    at = tmp_path_factory.mktemp("inspect")
    folder(at / "run", 9)
    (at / "config.py").write_text(CONFIG)
    return at


def inspect(here, *arguments: str):
    return opengrok("inspect", "--config", "config.py", *arguments, cwd=here)


def test_an_example_as_text_and_json(here):
    text, same = inspect(here), inspect(here, "--id", example(0).id[:6], "--json")
    assert (text.returncode, same.returncode) == (0, 0), text.stderr + same.stderr
    assert text.stdout.startswith(f"example 0: {example(0).id} (train)\n")
    assert "\x1b" not in text.stdout
    told = json.loads(same.stdout)
    assert told["id"] == example(0).id
    assert [token["visible"] for token in told["tokens"]] == example(0).key_mask.tolist()
    assert all(token["why"] in text.stdout for token in told["tokens"])


def test_a_row_uses_the_config_and_the_defaults_of_training(here):
    done = inspect(here, "--row", "0", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["row_tokens"], told["rule"], len(told["positions"])) == (160, "exclude", 160)


def test_statistics_become_a_page(here):
    done = inspect(here, "--stats", "--page", "stats.html")
    assert done.returncode == 0, done.stderr
    assert "page: stats.html" in done.stderr
    assert (here / "stats.html").read_text().startswith("<!doctype html>")


def test_mistakes_are_one_line(here):
    for words, status, said in (
        (["--number", "9"], 3, "there is no example 9"),
        (["--config.run_dir=elsewhere"], 3, "elsewhere/masking/masked.parquet: no such file"),
        (["--row", "0", "--epoch", "2"], 2, "the mask is the same in every epoch"),
    ):
        done = inspect(here, *words)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
        assert said in done.stderr
