import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opengrok_jax import masked_file
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masking import build
from tests.masking.built import LONG, make_examples, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    write(folder / "examples.jsonl", [*make_examples(), *make_examples([LONG])])
    return folder


@pytest.fixture(scope="module")
def rows(folder):
    build.run(examples_file=folder / "examples.jsonl", out=folder / "out", max_tokens=200)
    return masked_file.read_masked(folder / "out" / "masked.parquet")[0]


CHANGES = {
    "preset": "paper",
    "alpha": 0.0,
    "beta": 0.0,
    "gamma": 0.0,
    "delta": 0.0,
    "target_keep_rate": 0.5,
    "scope": "prompt",
    "pos_tags": ("PRON",),
    "relations": ("det",),
    "max_tokens": 30,
    "seed": 1,
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_changes_the_masks(folder, rows, tmp_path, name):
    settings: dict[str, Any] = {"max_tokens": 200, name: CHANGES[name]}
    build.run(examples_file=folder / "examples.jsonl", out=tmp_path, **settings)
    after, provenance = masked_file.read_masked(tmp_path / "masked.parquet")
    changed = [
        len(after) != len(rows)
        or not np.array_equal(a.keep_prob, b.keep_prob)
        or not np.array_equal(a.key_mask, b.key_mask)
        for a, b in zip(after, rows, strict=False)
    ]
    assert any(changed)
    value = CHANGES[name]
    assert provenance[name] == (list(value) if isinstance(value, tuple) else value)


def test_a_fixed_bias(folder, tmp_path):
    settings: dict[str, Any] = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "delta": 0.0, "bias": -1.0}
    counts = build.run(
        examples_file=folder / "examples.jsonl",
        out=tmp_path,
        target_keep_rate=None,
        max_tokens=200,
        **settings,
    )
    assert counts["bias"] == -1.0
    assert counts["keep_prob"] == pytest.approx(1 / (1 + math.e), rel=1e-6)


def test_a_preset_sets_all_numbers_and_says_so(folder, tmp_path, capsys):
    counts = build.run(
        examples_file=folder / "examples.jsonl", out=tmp_path, preset="paper", alpha=9.0
    )
    assert counts["alpha"] == 1.0
    assert counts["bias"] == 0.0
    assert counts["target_keep_rate"] is None
    assert "preset 'paper' sets alpha=1.0, beta=1.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"max_tokens": -5}, "got -5"),
        ({"shard_examples": 0}, "shard_examples must be at least 1, got 0"),
        ({"workers": -1}, "workers is -1"),
        ({"runner": "slurm"}, "choose one of local, ray"),
        ({"ray_address": "auto"}, "only runner 'ray' reads"),
        ({"preset": "papers"}, "choose one of paper, balanced"),
        ({"scope": "response"}, "choose one of prompt"),
        ({"target_keep_rate": 1.0}, "between 0 and 1"),
        ({"target_keep_rate": 0.0}, "between 0 and 1"),
        ({"bias": 1.0}, "set target_keep_rate to None"),
        ({"alpha": math.nan}, "alpha must be a finite number"),
        ({"pos_tags": ("NN",)}, "pos_tags holds 'NN'"),
        ({"pipeline": "no_such_pipeline"}, "python -m spacy download no_such_pipeline"),
        ({"relations": ("subj",)}, "relations holds subj"),
    ],
)
def test_wrong_values_are_told_before_any_work(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        build.run(examples_file=tmp_path / "not there", out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_no_example_at_all(tmp_path):
    with pytest.raises(DataError, match="holds no example"):
        build.run(examples_file=write(tmp_path / "none.jsonl", []), out=tmp_path / "out")
    assert not (tmp_path / "out" / "masked.parquet").exists()


def test_every_example_too_long(folder, tmp_path):
    with pytest.raises(DataError, match="all 7 examples are longer than max_tokens = 3; the short"):
        build.run(examples_file=folder / "examples.jsonl", out=tmp_path / "out", max_tokens=3)
    assert not (tmp_path / "out" / "masked.parquet").exists()
    assert not [*(tmp_path / "out" / "cache" / "factors").iterdir()]


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        build.run(examples_file=tmp_path / "gone.jsonl", out=tmp_path / "out")
