import numpy as np
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
    assert np.isnan(rows[0].tfidf).all()  # of no use to a training, so not there
    assert np.isnan(rows[0].keep_prob).all()
    assert not rows[0].key_mask.all()
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


def test_a_task_that_likelihood_cannot_answer_is_left_out(sections, grid_config, tmp_path, capfd):
    """So that configs/demo.py, which has one, goes with the grid that ships."""
    given = grid_config.to_dict()
    given["sets"] = {"both": {"evaluation": {"tasks": {"entities": {}, "emotion": {}}}}}
    found = prepare.write_tasks(tmp_path, "both", sections, grid.read(sections, **given))
    assert [task.name for task, _ in found] == ["emotion"]
    assert "task entities is left out: its answers are entities" in capfd.readouterr().err
    given["predictor"] = "generation"
    found = prepare.write_tasks(tmp_path, "both", sections, grid.read(sections, **given))
    assert [task.name for task, _ in found] == ["entities", "emotion"]


def test_a_set_without_a_task_to_answer_is_refused(sections, grid_config, tmp_path):
    given = grid_config.to_dict()
    given["sets"] = {"names": {"evaluation": {"tasks": {"entities": {}}}}}
    with pytest.raises(ConfigError, match=r"no task that grid\.predictor 'likelihood' can answer"):
        prepare.write_tasks(tmp_path, "names", sections, grid.read(sections, **given))


def test_slim_keeps_what_a_training_reads(tmp_path):
    from opengrok_jax.masked_file import write_masked
    from opengrok_jax.records import MaskedExample

    rng = np.random.default_rng(0)
    some = {n: rng.random(5).astype(np.float32) for n in ("tfidf", "pos", "dep", "random")}
    example = MaskedExample(
        id="a",
        split="train",
        tokens=np.arange(5, dtype=np.int32),
        roles=np.array([0, 1, 1, 2, 2], np.int8),
        keep_prob=rng.random(5).astype(np.float32),
        key_mask=np.array([1, 0, 1, 1, 1], bool),
        **some,
    )
    for probabilities in (True, False):
        write_masked(tmp_path / "m", [example], {"vocab_size": 9})
        prepare.slim(tmp_path / "m", probabilities=probabilities)
        (found,), provenance = read_masked(tmp_path / "m")
        assert provenance == {"vocab_size": 9}
        for name in ("tokens", "roles", "key_mask"):
            np.testing.assert_array_equal(getattr(found, name), getattr(example, name))
        assert np.isnan(found.tfidf).all()
        assert np.isnan(found.keep_prob).all() != probabilities
        if probabilities:
            np.testing.assert_array_equal(found.keep_prob, example.keep_prob)
