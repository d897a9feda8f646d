import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax.errors import CheckpointError, RunFolderError, StorageError
from opengrok_jax.training.checkpoints import Checkpoints, bytes_on_disk
from opengrok_jax.training.step import TrainState


def state(step):
    w = jnp.arange(600.0).reshape(20, 30) + step
    return TrainState(step=jnp.int32(step), params={"w": w}, opt_state={"mu": w * 2})


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


def taken_up(checkpoints, like) -> Any:
    return checkpoints.restore(like, lambda host: None)


def assert_state(found: TrainState, step):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state(step)), strict=True):
        np.testing.assert_array_equal(a, b)


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
    assert_state(found, 3)
    assert names(folder / "last") == ["2", "3"]


def test_a_save_goes_on_while_the_memory_of_the_state_is_used_again(folder):
    """It goes on in the background, and the next update may overwrite what it read."""
    before = state(1)._replace(params={"w": jax.random.normal(jax.random.key(0), (2000, 5000))})
    expected = np.array(before.params["w"])
    overwrite = jax.jit(lambda old: jax.tree.map(lambda x: x * 0 + 7, old), donate_argnums=0)
    with opened(folder) as checkpoints:
        checkpoints.save_best(1, before.params)
        checkpoints.save(before, host(1, 1))  # not even waiting for the best
        after = jax.block_until_ready(overwrite(before))
    with opened(folder) as checkpoints:
        found, note = taken_up(checkpoints, after)
        best = checkpoints.best(1, after.params)
    assert note == host(1, 1)
    np.testing.assert_array_equal(found.params["w"], expected)
    np.testing.assert_array_equal(best["w"], expected)


def cut_short(path: Path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path):
    os.truncate(path, 0)


def flip_a_bit(path: Path):
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 16
    path.write_bytes(body)


def remove(path: Path):
    path.unlink()


def put_a_folder_there(path: Path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [cut_short, empty, flip_a_bit, remove, put_a_folder_there])
def test_whatever_file_is_damaged_nothing_false_is_taken(folder, tmp_path, capfd, damage):
    """File by file of the newest state: it still says the same, or is set aside, and that is said."""
    save(folder, 1, 2)
    files = [p.relative_to(folder) for p in (folder / "last" / "2").rglob("*") if p.is_file()]
    assert len(files) > 10
    fell_back = set()
    for number, name in enumerate(files):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        damage(copy / name)
        found, note = restored(copy)
        assert note == host(note["step"]), name
        assert_state(found, note["step"])
        said = [x for x in capfd.readouterr().err.splitlines() if not x.startswith("ERROR:absl")]
        if note["step"] == 1:
            fell_back.add(name)
            assert len(said) == 1, said  # one line, and no traceback of TensorStore's threads
            assert said[0].startswith("checkpoint of step 2 cannot be used (")
            assert names(copy / "last") == ["1", "2.damaged"]
        else:
            assert not said
    largest = largest_file(folder / "last" / "2").relative_to(folder)
    assert {largest, Path("last", "2", "note", "metadata")} <= fell_back


@pytest.mark.parametrize("lost", [".", "note", "arrays", "arrays/d"])
def test_a_newest_with_an_empty_folder_is_set_aside(folder, capsys, lost):
    save(folder, 1, 2)
    shutil.rmtree(folder / "last" / "2" / lost)
    (folder / "last" / "2" / lost).mkdir()
    assert_state(restored(folder)[0], 1)
    assert capsys.readouterr().err.startswith("checkpoint of step 2 cannot be used (")
    save(folder, 2)  # the run gets there again
    assert_state(restored(folder)[0], 2)
    assert names(folder / "last") == ["1", "2"]  # what was set aside is of no use any more


@pytest.mark.parametrize(
    ("old", "new"), [('"step": 2', '"step": 3'), ("0.30000000000000004", "0.3")]
)
def test_a_changed_digit_of_the_note_is_noticed(folder, capsys, old, new):
    save(folder, 1, 2)
    path = folder / "last" / "2" / "note" / "metadata"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert restored(folder)[1] == host(1)
    assert "the note of step 2 is not what was written" in capsys.readouterr().err


def test_a_copy_under_a_higher_number_does_not_hide_what_is_newer(folder, capsys):
    save(folder, 1, 2)
    shutil.copytree(folder / "last" / "2", folder / "last" / "9")
    assert restored(folder)[1] == host(2)
    assert capsys.readouterr().err == (
        "checkpoint of step 9 cannot be used (it is a copy of step 2); taking the one before it\n"
    )
    save(folder, 3)
    assert restored(folder)[1] == host(3)


def test_a_file_where_the_folder_should_be_is_said_in_one_line(folder, capsys):
    folder.mkdir()
    (folder / "last").touch()
    with pytest.raises(StorageError, match="File exists") as caught:
        restored(folder)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""


@pytest.fixture
def as_nobody():
    """A folder of somebody whom permissions bind, as they do not bind root."""
    if os.geteuid():
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_what_may_not_be_read_is_set_aside(as_nobody, capsys):
    folder = as_nobody / "checkpoints"
    save(folder, 1, 2)
    largest_file(folder / "last" / "2").chmod(0)
    assert_state(restored(folder)[0], 1)
    assert capsys.readouterr().err.startswith("checkpoint of step 2 cannot be used (")


def test_a_folder_that_may_not_be_written_is_said_in_one_line(as_nobody):
    folder = as_nobody / "checkpoints"
    save(folder, 1)
    (folder / "last").chmod(0o500)
    with pytest.raises(StorageError, match="Permission denied") as caught:
        save(folder, 2)
    assert "\n" not in str(caught.value)
    (folder / "last").chmod(0o700)
    assert_state(restored(folder)[0], 1)


def test_none_good_is_an_error_and_then_a_new_beginning(folder):
    save(folder, 1, 2)
    for step in ("1", "2"):
        cut_short(largest_file(folder / "last" / step))
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


def keep(checkpoints, *steps):
    """States of (step, best step); a best one also keeps its parameters."""
    for step, best in steps:
        if step == best:
            checkpoints.save_best(step, state(step).params)
        checkpoints.save(state(step), host(step, best))


def assert_best(folder, step, expected):
    with opened(folder) as checkpoints:
        found = checkpoints.best(step, state(0).params)
    np.testing.assert_array_equal(found["w"], state(expected).params["w"])


def test_best_parameters_stay_as_long_as_a_kept_state_needs_them(folder):
    with opened(folder) as checkpoints:
        keep(checkpoints, (1, 1), (2, 1), (3, 3), (4, 4))
        checkpoints.wait()
        assert names(folder / "best") == ["3", "4"]  # states 3 and 4 are kept
        keep(checkpoints, (5, 4), (6, 4))
        checkpoints.wait()
        assert names(folder / "best") == ["4"]
    assert_best(folder, 4, 4)


def test_bests_between_two_states_do_not_pile_up(folder):
    with opened(folder) as checkpoints:
        keep(checkpoints, (1, 1))
        for step in range(2, 9):
            checkpoints.save_best(step, state(step).params)
            checkpoints.wait()
            assert names(folder / "best") == ["1", str(step)]


def test_bests_from_after_the_state_taken_up_are_written_anew(folder):
    """Killed after evaluations 4 and 6, neither kept with a state: they come again."""
    with opened(folder) as checkpoints:
        keep(checkpoints, (2, 2))
        for step in (4, 6):
            checkpoints.save_best(step, state(step).params)
    with opened(folder) as checkpoints:
        assert taken_up(checkpoints, state(0))[1] == host(2, 2)
        assert names(folder / "best") == ["2"]
        checkpoints.save_best(4, state(40).params)
        checkpoints.save(state(5), host(5, 4))
    assert restored(folder)[1] == host(5, 4)
    assert_best(folder, 4, 40)


def test_a_state_that_is_the_best_holds_its_parameters(folder, capsys):
    """It is kept without waiting for them; killed in between, they are written from the state."""
    with opened(folder) as checkpoints:
        keep(checkpoints, (1, 1), (2, 2))
    shutil.rmtree(folder / "best" / "2")
    found, note = restored(folder)
    assert_state(found, 2)
    assert note == host(2, 2)
    assert capsys.readouterr().err == ""
    assert_best(folder, 2, 2)


def test_damaged_best_parameters_are_computed_again_from_an_older_state(folder, capsys):
    with opened(folder) as checkpoints:
        keep(checkpoints, (1, 1), (2, 2))
        checkpoints.save_best(3, state(3).params)
        checkpoints.save(state(4), host(4, 3))
    flip_a_bit(largest_file(folder / "best" / "3"))
    found, note = restored(folder)
    assert_state(found, 2)
    assert note == host(2, 2)
    said = capsys.readouterr().err
    assert said.startswith("checkpoint of step 4 cannot be used (")
    assert str(folder / "best" / "3") in said
    assert said.count("\n") == 1


def test_damaged_best_parameters_that_no_state_can_bring_back(folder, capsys):
    """An error every time, until somebody mends or removes them; the states stay as they are."""
    with opened(folder) as checkpoints:
        keep(checkpoints, (1, 1), (2, 1), (3, 1))
    whole = folder.with_name("whole")
    shutil.copytree(folder / "best" / "1", whole)
    flip_a_bit(largest_file(folder / "best" / "1"))
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match=r"damaged.*The state of step 3 is good"
        ) as caught:
            restored(folder)
        assert "\n" not in str(caught.value)
        assert names(folder / "last") == ["2", "3"]
    shutil.rmtree(folder / "best" / "1")
    shutil.copytree(whole, folder / "best" / "1")
    assert restored(folder)[1] == host(3, 1)
    assert capsys.readouterr().err == ""
    shutil.rmtree(folder / "best" / "1")
    found, note = restored(folder)
    assert_state(found, 3)
    assert note == host(3, 3) | {"best_valid_loss": None, "misses": 0}
    assert "missing; until the next evaluation the state of step 3" in capsys.readouterr().err
    assert_best(folder, 3, 3)


def test_damaged_best_parameters_are_an_error(folder):
    with opened(folder) as checkpoints:
        checkpoints.save_best(3, state(3).params)
        checkpoints.wait()
        flip_a_bit(largest_file(folder / "best" / "3"))
        with pytest.raises(CheckpointError, match="best"):
            checkpoints.best(3, state(0).params)


def test_what_was_set_aside_does_not_pile_up(folder):
    for step in range(1, 7):
        save(folder, step, step + 1)
        cut_short(largest_file(folder / "last" / str(step + 1)))
        assert restored(folder)[1]["step"] == step
        assert names(folder / "last").count(f"{step + 1}.damaged") == 1
        assert sum(name.endswith(".damaged") for name in names(folder / "last")) == 1


def test_what_killed_saves_left_does_not_pile_up(folder):
    save(folder, 1)
    for kind, step in [("last", 2), ("last", 3), ("best", 2)]:
        (folder / kind / f"{step}.orbax-checkpoint-tmp" / "arrays").mkdir(parents=True)
    with opened(folder) as checkpoints:
        keep(checkpoints, (2, 2))
    assert (names(folder / "last"), names(folder / "best")) == (["1", "2"], ["2"])


def test_a_disk_that_fills_up_is_said_in_one_line_and_what_was_kept_stays(small_disk):
    """Then, with room again, the next states are kept as if nothing had been."""

    def random(step):
        w = jax.random.normal(jax.random.key(step), (20, 12_500))  # 1 MB, not to be compressed
        return TrainState(step=jnp.int32(step), params={"w": w}, opt_state={"mu": w * 2})

    folder, filler = small_disk / "checkpoints", small_disk / "filler"
    with opened(folder) as checkpoints:
        checkpoints.save(random(1), host(1))
        checkpoints.save(random(2), host(2))
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 1_000_000))
    with pytest.raises(StorageError, match="No space left on device; free some space") as caught:
        with opened(folder) as checkpoints:
            checkpoints.save(random(3), host(3))
            checkpoints.save(random(4), host(4))
    assert "\n" not in str(caught.value)
    with opened(folder) as checkpoints:
        assert taken_up(checkpoints, random(0))[1] == host(2)
    filler.unlink()
    with opened(folder) as checkpoints:
        found, note = taken_up(checkpoints, random(0))
        assert note == host(2)
        np.testing.assert_array_equal(found.params["w"], random(2).params["w"])
        checkpoints.save(random(3), host(3))
    assert names(folder / "last") == ["2", "3"]
