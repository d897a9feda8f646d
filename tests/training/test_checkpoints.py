import contextlib
import gc
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax.errors import CheckpointError, RunFolderError
from opengrok_jax.training.checkpoints import Checkpoints, bytes_on_disk
from opengrok_jax.training.step import TrainState

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def forget_broken_reads():
    """TensorStore's reads that a damaged file broke off complain when they are collected."""
    yield
    gc.collect()


def state(step):
    return {"w": jnp.arange(600.0).reshape(20, 30) + step, "count": jnp.int32(step)}


def host(step, best_step=0):
    return {"step": step, "best_step": best_step, "best_valid_loss": 0.1 + 0.2, "settings": {}}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@contextlib.contextmanager
def opened(folder):
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        yield checkpoints


def restored(folder, check=lambda host: None) -> Any:
    with opened(folder) as checkpoints:
        return checkpoints.restore(state(0), check)


def names(folder: Path):
    return sorted(p.name for p in folder.iterdir())


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def save(folder, *steps):
    with opened(folder) as checkpoints:
        for step in steps:
            checkpoints.save(state(step), host(step))


def test_the_room_a_run_takes_up():
    w = jnp.zeros((20, 30))
    like = TrainState(step=jnp.int32(0), params={"w": w}, opt_state={"mu": w, "nu": w})
    assert bytes_on_disk(like) == 3 * (4 + 3 * 2400) + 4 * 2400
    assert bytes_on_disk(like, like.params) == bytes_on_disk(like) + 2400


def test_a_new_folder_has_none(folder):
    assert restored(folder) is None


def test_the_newest_comes_back_and_two_are_kept(folder):
    save(folder, 1, 2, 3)
    found, note = restored(folder)
    assert note == host(3)  # floats too: JSON keeps every digit
    assert int(found["count"]) == 3
    np.testing.assert_array_equal(found["w"], state(3)["w"])
    assert names(folder / "last") == ["2", "3"]


def cut_short(newest: Path):
    path = largest_file(newest)
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(newest: Path):
    path = largest_file(newest)
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 16
    path.write_bytes(body)


def lose_the_note(newest: Path):
    (newest / "note" / "metadata").unlink()


def garble_the_note(newest: Path):
    path = newest / "note" / "metadata"
    path.write_text(path.read_text().replace('"digests": {', '"digests": {"more": 1, '))


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, lose_the_note, garble_the_note])
def test_a_damaged_newest_is_set_aside_and_said(folder, capsys, damage):
    save(folder, 1, 2)
    damage(folder / "last" / "2")
    found, note = restored(folder)
    assert note["step"] == int(found["count"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("checkpoint of step 2 cannot be used (")
    assert said.count("\n") == 1
    assert names(folder / "last") == ["1", "2.damaged"]
    save(folder, 2)  # the run gets there again
    assert restored(folder)[1]["step"] == 2


def test_none_good_is_an_error_and_then_a_new_beginning(folder):
    save(folder, 1, 2)
    for step in ("1", "2"):
        cut_short(folder / "last" / step)
    with pytest.raises(CheckpointError, match=r"none of the checkpoints \[2, 1\] can be read"):
        restored(folder)
    assert restored(folder) is None


def test_what_a_killed_save_left_is_no_checkpoint(folder):
    """Orbax writes under another name first; such a folder is not taken for a state."""
    save(folder, 1)
    (folder / "last" / "2.orbax-checkpoint-tmp-123" / "arrays").mkdir(parents=True)
    assert restored(folder)[1]["step"] == 1


def test_another_runs_state_is_not_called_damaged(folder):
    save(folder, 1)

    def refuse(host):
        raise RunFolderError("of another run")

    with pytest.raises(RunFolderError, match="of another run"):
        restored(folder, refuse)
    assert names(folder / "last") == ["1"]


def test_best_parameters_stay_as_long_as_a_kept_state_needs_them(folder):
    with opened(folder) as checkpoints:
        for step, best in [(1, 1), (2, 1), (3, 3), (4, 4), (5, 4), (6, 4)]:
            if step == best:
                checkpoints.save_best(step, {"w": state(step)["w"]})
            checkpoints.save(state(step), host(step, best))
            checkpoints.wait()
            if step == 4:  # states 3 and 4 are kept
                assert names(folder / "best") == ["3", "4"]
        assert names(folder / "best") == ["4"]
        found = checkpoints.best(4, {"w": state(0)["w"]})
        np.testing.assert_array_equal(found["w"], state(4)["w"])
        # Taken up from before step 4, the run evaluates step 4 again.
        checkpoints.save_best(4, {"w": state(40)["w"]})
        found = checkpoints.best(4, {"w": state(0)["w"]})
        np.testing.assert_array_equal(found["w"], state(40)["w"])


def test_a_state_without_its_best_parameters_is_not_taken(folder, capsys):
    with opened(folder) as checkpoints:
        checkpoints.save(state(1), host(1))
        checkpoints.save(state(2), host(2, best_step=2))
    assert restored(folder)[1]["step"] == 1
    assert "parameters of its best step 2 are missing" in capsys.readouterr().err


def test_damaged_best_parameters_are_an_error(folder):
    with opened(folder) as checkpoints:
        checkpoints.save_best(3, {"w": state(3)["w"]})
        checkpoints.wait()
        flip_a_bit(folder / "best" / "3")
        with pytest.raises(CheckpointError, match="best"):
            checkpoints.best(3, {"w": state(0)["w"]})
