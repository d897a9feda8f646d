"""plan as a user meets it."""

import json

import pytest

from opengrok_jax import cli
from tests.command import opengrok


@pytest.fixture
def plan(repository):
    config = repository / "configs" / "phi3_mini.py"
    return ["plan", "--config", str(config), "--model", "phi-3-mini-4k", "--analytic"]


def test_plan_for_scripts_and_for_people(tmp_path, plan):
    words = (*plan, "--tpu", "v5e:4x4", "--rows", "1600", "--price", "1.25")
    done = opengrok(*words, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["basis"] == "analytic"
    assert found["data"]["steps"] == 150
    assert found["money"] == pytest.approx(found["hours"] * 16 * 1.25)
    done = opengrok(*words, cwd=tmp_path)
    for text in ("Analytic, not compiled", "largest microbatch", "1,600 rows, 150 updates"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tpu", "v9:2x2"), "'v9' is unknown"),
        (("--tpu", "v5e:8x8"), "rows_per_batch is 32; expected a multiple of"),
        (("--tpu", "v5e:4x4", "--config.training.mesh.fsdp=3"), "needs 3 devices"),
        (("--tpu", "v5e:4x4", "--model", "phi-9"), "no published sizes of 'phi-9'"),
    ],
)
def test_plan_refuses_in_one_line(capsys, plan, words, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*plan, *words])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
