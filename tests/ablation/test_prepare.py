import pytest

from opengrok_jax import storage
from opengrok_jax.ablation import grid, prepare
from opengrok_jax.errors import ConfigError
from opengrok_jax.masked_file import read_masked


def test_everything_a_training_needs_stands_in_the_folder(finished):
    workdir, _ = finished
    told = storage.read_json(workdir / "plan.json")
    assert len(told["trainings"]) == 6
    (mask,) = told["masks"]
    rows, made_of = read_masked(workdir / "masks" / mask / "masked.parquet")
    assert made_of["target_keep_rate"] == 0.85
    assert len(rows) == 28
    asked, _ = read_masked(workdir / "masks" / mask / "asked.parquet")
    assert len(asked) == 12
    (data,) = told["data"]
    assert (data["data"], data["answers"]) == ("gold", 28)
    value = storage.read_json(prepare.tasks_file(workdir, "base"))
    assert [len(row["items"]) for row in value["tasks"]] == [12]
    assert {floor["predictor"] for floor in value["floors"] if floor["predicted"]} == {
        "majority",
        "tf-idf + logistic regression",
    }


def test_prepared_again_nothing_is_made_again(finished, base, grid_config):
    workdir, _ = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.glob("masks/**/*") if p.is_file()}
    before |= {p: p.stat().st_mtime_ns for p in workdir.glob("tasks/*")}
    from opengrok_jax import pipeline

    sections = pipeline.parts(base)[1]
    prepare.run(base, grid.read(sections, **grid_config.to_dict()), workdir)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_task_that_likelihood_cannot_answer_is_refused(sections, grid_config, tmp_path):
    given = grid_config.to_dict()
    given["sets"] = {"names": {"evaluation": {"tasks": {"entities": {}}}}}
    with pytest.raises(ConfigError, match="task 'entities' is of kind 'entities'"):
        prepare.write_tasks(tmp_path, "names", sections, grid.read(sections, **given))
