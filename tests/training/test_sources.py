"""What a fine-tuning is made from, read and held against each other."""

import inspect
import json

import pytest

from opengrok_jax import masked_file
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.training import finetune, soft_targets
from opengrok_jax.training.objective import HARD, Objective
from opengrok_jax.training.sources import PACKED, read_sources
from tests.training.conftest import VOCAB


@pytest.fixture(scope="module")
def given(settings):
    parameters = inspect.signature(finetune.run).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty} | settings


def test_from_scratch(given, examples):
    sources = read_sources(given, HARD)
    assert (sources.init, sources.teacher, sources.teacher_config) == (None, None, None)
    assert sources.config.vocab_size == 64 >= VOCAB
    assert sources.valid is not None
    assert sources.figures["train_examples"] == len(sources.train.examples) == 30
    assert sources.figures["valid_examples"] == len(sources.valid.examples) == 5
    assert sources.digests == {"data": masked_file.digest(given["masked_file"])}
    assert set(PACKED) <= set(given)


def test_without_evaluations_the_validation_examples_are_still_counted(given):
    sources = read_sources({**given, "eval_every": 0}, HARD)
    assert sources.valid is None
    assert sources.figures["valid_examples"] == 5


@pytest.fixture(scope="module")
def teacher(given, tmp_path_factory):
    """A student of one step, as a teacher."""
    out = tmp_path_factory.mktemp("teacher")
    finetune.run(**{**given, "out": out, "max_steps": 1, "eval_every": 0})
    return out / "student"


def test_a_teacher_and_stored_distributions(given, teacher, tmp_path):
    soft_targets.run(masked_file=given["masked_file"], teacher=teacher, out=tmp_path, k=3)
    aim = Objective(loss="topk", weight=0.5, relation_weight=0.1)
    asked = {**given, "teacher": str(teacher), "soft_targets": str(tmp_path)}
    sources = read_sources(asked, aim)
    assert sources.teacher == teacher
    assert sources.teacher_config == sources.config
    assert sources.figures["soft_share"] == 1
    assert sources.train.soft_file is not None
    before = sources.digests["soft_digest"]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"more": 1}))
    assert read_sources(asked, aim).digests["soft_digest"] != before, "other numbers, another run"


def test_what_does_not_fit_is_refused(given, teacher, tmp_path):
    with pytest.raises(ConfigError, match="states are 32 wide and the student's 64"):
        wide = {**given, "teacher": str(teacher), "model": {**given["model"], "hidden_size": 64}}
        read_sources(wide, Objective(feature_weight=1.0))
    with pytest.raises(DataError, match="no finished soft targets"):
        aim = Objective(loss="topk", weight=1.0)
        read_sources({**given, "soft_targets": str(tmp_path)}, aim)
