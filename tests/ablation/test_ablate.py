"""The whole of it, once, small; and what a second call finds."""

import json
import subprocess
import sys

import pytest

from opengrok_jax import storage
from opengrok_jax.ablation import ablate
from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation import ablated


def test_the_result_is_as_the_docstring_says(finished):
    workdir, told = finished
    assert json.loads((workdir / "ablation.json").read_text()) == json.loads(json.dumps(told))
    assert [q["name"] for q in told["questions"]] == ["inference", "rule"]
    assert told["cost"]["trainings"] == 6
    cells = {cell["id"]: cell for cell in told["cells"]}
    assert len(cells) == 3
    for cell in cells.values():
        assert set(cell["scores"][0]["seeds"]) == {"0", "1"}
        assert cell["money"]["amount"] == pytest.approx(cell["seconds"]["total"] / 1000, abs=1e-4)
    whole = next(c for c in told["cells"] if c["names"].get("inference") == "whole")
    assert whole["names"] == {"inference": "whole", "rule": "exclude"}
    assert 0.5 < whole["kept"]["base"] < 1
    assert {f["predictor"] for f in told["floors"]} == {"majority", "tf-idf + logistic regression"}
    for question in told["questions"]:
        assert (workdir / question["figure"]).read_text().startswith("<svg")
        assert question["ask"] in (workdir / "ablation.md").read_text()
    shown = ablated.read(workdir)  # what the report of a run shows of it
    assert [q["answer"] for q in shown["questions"]] == [q["answer"] for q in told["questions"]]
    assert shown["made"].startswith("base.py with grid.py, 2 seeds; 20")


def test_the_second_call_trains_nothing_and_says_the_same(finished, base, grid_config, capsys):
    workdir, told = finished
    again = ablate.run(
        config=base, grid_config=grid_config, workdir=workdir, called=("base.py", "grid.py")
    )
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(told))
    said = capsys.readouterr().err
    assert "prepared before" in said
    assert "all 6 trainings are done" in said


def test_a_further_seed_trains_only_that(finished, base, grid_config, capsys):
    workdir, _ = finished
    result = ablate.run(config=base, grid_config=grid_config, workdir=workdir, seeds=(0, 1, 5))
    assert result["seeds"] == [0, 1, 5]
    assert "3 trainings took" in capsys.readouterr().err
    # Back to what the other tests look at.
    ablate.run(config=base, grid_config=grid_config, workdir=workdir, called=("base.py", "grid.py"))


def test_a_dry_run_writes_nothing(base, grid_config, tmp_path, capsys):
    out = tmp_path / "none"
    assert ablate.run(config=base, grid_config=grid_config, workdir=out, dry_run=True) == {}
    assert not out.exists()
    assert "6 trainings, 1 masks" in capsys.readouterr().err


def test_an_unknown_key_of_the_grid_is_refused(base, grid_config, tmp_path):
    wrong = grid_config.copy_and_resolve_references()
    wrong.repeats = 3
    with pytest.raises(ConfigError, match="no repeats"):
        ablate.run(config=base, grid_config=wrong, workdir=tmp_path)


def test_training_needs_neither_spacy_nor_scikit_learn(finished):
    """A copy of the folder travels to a machine that has neither."""
    workdir, _ = finished
    told = storage.read_json(workdir / "plan.json")
    code = (
        "import sys, json\n"
        "for name in ('spacy', 'sklearn', 'ray', 'httpx'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from opengrok_jax.ablation import ablate, cells, prepare, results, work\n"
        f"workdir = Path({str(workdir)!r})\n"
        "row = json.loads(sys.argv[1])\n"
        "print(cells.print_of(workdir, row, 'resident', 'likelihood'))\n"
    )
    row = told["trainings"][0]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(row)], capture_output=True, text=True, check=True
    )
    file = workdir / "cells" / row["cell"] / f"{row['set']}-seed-{row['seed']}.json"
    assert done.stdout.strip() == storage.read_json(file)["print"]
