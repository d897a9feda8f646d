"""Every config of configs/ binds to the signatures of the rooms: no key can be silently ignored."""

import inspect

import pytest

from opengrok_jax import config as config_module
from opengrok_jax import pipeline, stages
from opengrok_jax.errors import ConfigError

SPECS = [
    *("demo.py", "demo.py:smoke", "tweeteval.py", "tweeteval.py:smoke", "phi3_mini.py"),
    *("study.py", "study.py:short", "study.py:tiny"),
]
# Grids of `opengrok ablate`, each with a base config that it goes with.
GRIDS = {
    "ablation.py": "demo.py",
    "ablation.py:gold": "tweeteval.py",
    "ablation.py:smoke": "demo.py:smoke",
    "study_grid.py": "study.py",
    "study_grid.py:short": "study.py:short",
    "study_grid.py:tiny": "study.py:tiny",
}


def test_every_config_is_listed(repository):
    assert {s.split(":")[0] for s in (*SPECS, *GRIDS)} == {
        p.name for p in (repository / "configs").glob("*.py")
    }


@pytest.mark.parametrize("spec", SPECS)
def test_a_config_binds_to_every_room(repository, spec):
    config = config_module.load(str(repository / "configs" / spec))
    _, sections = pipeline.parts(config)
    for stage in stages.STAGES:
        run = pipeline.room(stage)
        parameters = inspect.signature(run).parameters.values()
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters), stage.verb
        given = {"out", *stage.reads, *stage.watches, *stage.borrows}
        inspect.signature(run).bind(**dict.fromkeys(given), **sections[stage.section])
        config_module.check(stage.section, sections[stage.section], run, given)


@pytest.mark.parametrize("spec", GRIDS)
def test_a_grid_is_understood_and_plans_trainings_that_bind(repository, spec):
    from opengrok_jax.ablation import grid, plan
    from opengrok_jax.training import finetune

    _, sections = pipeline.parts(config_module.load(str(repository / "configs" / GRIDS[spec])))
    given = config_module.load(str(repository / "configs" / spec)).to_dict()
    grid.check_keys(given)
    read = grid.read(sections, **given)
    planned = plan.trainings(sections, read)
    assert len(planned) == len(read.cells()) * len(read.sets) * len(read.seeds)
    for training in planned:
        inspect.signature(finetune.run).bind(masked_file="", out="", **training.settings)


@pytest.mark.parametrize("spec", [*SPECS, *GRIDS])
def test_a_config_opens_with_command_hardware_and_result(repository, spec):
    text = (repository / "configs" / spec.split(":")[0]).read_text()
    head = text.split('"""')[1]
    for word in ("Command:", "Hardware:", "Expected:"):
        assert word in head
    assert spec.split(":")[0] in head


@pytest.mark.parametrize("spec", sorted({s.split(":")[0] for s in (*SPECS, *GRIDS)}))
def test_an_unknown_variant_is_refused(repository, spec):
    with pytest.raises(ConfigError, match="unknown variant 'other'"):
        config_module.load(str(repository / "configs" / spec) + ":other")


def test_the_demo_asks_with_the_words_of_the_evaluation(repository):
    from opengrok_jax.evaluation import tasks
    from opengrok_jax.prompts import templates

    for name in ("sentiment", "emotion", "topic", "entities"):
        assert tasks.make_task(name, {}).instruction == getattr(templates, name.upper())
    plain = config_module.load(str(repository / "configs" / "tweeteval.py")).to_dict()
    settings = plain["evaluation"]["tasks"]["emotion"]
    assert settings["instruction"] == plain["prompts"]["instruction"]


def test_what_is_scored_never_teaches(repository):
    spec = str(repository / "configs" / "tweeteval.py")
    change = "--config.evaluation.tasks.emotion.file=mine.jsonl"
    plain = config_module.load(spec, [change]).to_dict()
    assert plain["curation"]["evaluation_files"] == "mine.jsonl"


def test_the_recorded_teacher_knows_the_demos_plan(repository, tmp_path):
    from opengrok_jax import storage
    from opengrok_jax.prompts import axes, plan

    _, sections = pipeline.parts(config_module.load(str(repository / "configs" / "demo.py")))
    plan.run(out=tmp_path, **sections["prompts"])
    asked = [row["id"] for row in storage.read_jsonl(tmp_path / "prompts.jsonl")]
    recorded = [row["id"] for row in storage.read_jsonl(axes.ASSETS / "recorded.jsonl")]
    assert asked == recorded
    assert len(asked) >= 400
