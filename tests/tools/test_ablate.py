"""ablate as a user meets it."""

import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.tools import ablate
from tests.command import opengrok


def test_a_dry_run_tells_the_cells(repository, tmp_path):
    configs = repository / "configs"
    words = ["--config", str(configs / "demo.py"), "--grid", str(configs / "ablation.py:smoke")]
    done = opengrok("ablate", *words, "--workdir", "w", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 cells, 1 set(s), 1 seed(s): 2 trainings" in done.stderr
    more = ["--grid.common.rule=multiply", "--seeds", "1,2", "--questions", "rule"]
    done = opengrok("ablate", *words, *more, "--workdir", "w", "--dry-run", cwd=tmp_path)
    assert "2 seed(s): 4 trainings" in done.stderr
    assert not (tmp_path / "w").exists()


def test_wrong_words_are_refused(repository, tmp_path):
    configs = repository / "configs"
    words = ["--config", str(configs / "demo.py"), "--grid", str(configs / "demo.py")]
    done = opengrok("ablate", *words, "--workdir", "w", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2
    assert "the grid has no" in done.stderr
    assert "Traceback" not in done.stderr


def test_seeds_are_read():
    assert ablate._seeds("0, 2,5") == (0, 2, 5)
    assert ablate._seeds("") == ()
    with pytest.raises(ConfigError, match="--seeds is 'a'"):
        ablate._seeds("a")
