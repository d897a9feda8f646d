"""What a run can be taken up from: the newest two states, and the best parameters of each.

checkpoints/
  last/<step>/    train state, digests, and the host's part (step, best so far, patience, settings)
  best/<step>/    parameters of the best evaluation so far, digests

Orbax writes beside and renames at the end, in the background: a folder with a step's name is whole.
That a disk has kept it whole is checked when it is read, against checksums taken before it left
the devices; a damaged newest state is set aside and the one before it is taken. A state is good
only together with the best parameters it speaks of: it holds them itself, or they are read too.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from opengrok_jax import processes, records
from opengrok_jax.errors import CheckpointError, RunFolderError
from opengrok_jax.model.student import compare_digests, digests
from opengrok_jax.progress import say
from opengrok_jax.storage import storing
from opengrok_jax.training.step import TrainState

KEPT = 2  # newest states on disk: one may be damaged


def bytes_on_disk(like: Any, frozen: Any = ()) -> int:
    """The most that a run's checkpoints and its student take up, uncompressed.

    Args:
      like: the train state, or an abstract one.
      frozen: the student's parameters that are not in it.
    """
    state, params, rest = (
        sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
        for tree in (like, like.params, frozen)
    )
    # One state and one best more than are kept while the next is written; and the student.
    return (KEPT + 1) * state + (KEPT + 2) * params + rest


class Checkpoints:
    """The open folder; `contextlib.closing` waits for what is still being written.

    Raises:
      StorageError: from every method that writes, if the disk refuses.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).absolute()
        with storing(self.folder):
            for name in ("last", "best"):  # Orbax would say in a traceback that one is a file
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            self._last = _manager(self.folder / "last", KEPT)
            self._best = _manager(self.folder / "best", None)  # `_forget_bests` says which
        self._best_of: dict[int, int | None] = {}
        self._newest_best = 0

    def close(self) -> None:
        """Returns when everything is on disk and the background threads have ended.

        At once where another process is lost: they wait for it, and nothing more will be whole.
        """
        if (error := sys.exception()) and processes.lost(error):
            return
        with storing(self.folder):
            try:
                self._best.close()
            finally:
                self._last.close()

    def save(self, state: Any, host: dict[str, Any]) -> None:
        """Keeps a state to take the run up from; goes on in the background.

        Args:
          state: tree of arrays.
          host: JSON-able; "step" names the checkpoint, "best_step" the best parameters it needs.
        """
        step, best_step = host["step"], host["best_step"]
        if step in self._last.all_steps():
            return
        with storing(self.folder):
            if best_step != step:  # no state is kept before the best it speaks of and lacks
                self._best.wait_until_finished()
            self._last.wait_until_finished()
            self._forget_bests()
            _probe(self.folder / "last")
            note = _sealed({"digests": digests(state), "host": host})
            # `force`: left alone, Orbax passes over a step below one that it has, without a word.
            self._last.save(step, args=_parts(state, note), force=True)
            self._best_of[step] = best_step

    def save_best(self, step: int, params: Any) -> None:
        """Keeps the parameters of the best evaluation so far; goes on in the background."""
        with storing(self.folder):
            self._best.wait_until_finished()
            if step in self._best.all_steps():  # damaged, or from before the state taken up
                self._best.delete(step)
            self._newest_best = step
            self._forget_bests()
            _probe(self.folder / "best")
            note = _sealed({"digests": digests(params)})
            self._best.save(step, args=_parts(params, note), force=True)

    def wait(self) -> None:
        """Returns when everything is on disk."""
        with storing(self.folder):
            self._best.wait_until_finished()
            self._last.wait_until_finished()
            self._forget_bests()

    def restore(
        self, like: TrainState, check: Callable[[dict[str, Any]], None]
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The newest good state and the host's part; None in a new folder.

        A state whose best parameters are damaged gives way to an older one, from which they will
        be computed again. If there is none, that is an error; if somebody has removed them, the
        newest state stands in for the best until an evaluation: best_step is its step,
        best_valid_loss None and misses 0.

        Args:
          like: a state of the same form; gives shapes, dtypes and where each array shall lie.
          check: looks at the host's part before anything large is read; its RunFolderError ends
            the search, for then the folder is not damaged but another run's.

        Raises:
          CheckpointError: there are states, and none is good; or one of several processes could
            not read its part of a state, which is set aside: the next start finds the one before.
        """
        steps = sorted(self._last.all_steps(), reverse=True)
        damaged_before = list((self.folder / "last").glob("*.damaged"))
        found = None
        lacking: dict[int, str] = {}  # good states, and what their best suffers from
        for step in steps:
            alone = False  # whether what goes wrong may go wrong in this process alone
            try:
                note = _note(self._last, step)
                check(note["host"])
                if note["host"]["step"] != step:  # it would hide newer states, now and later
                    raise CheckpointError(f"it is a copy of step {note['host']['step']}")
                alone = processes.count() > 1
                state = _arrays(self._last, step, like)
                alone = False
                compare_digests(digests(state), note["digests"], self.folder / "last" / str(step))
            except RunFolderError:
                raise
            except Exception as error:  # Orbax and TensorStore raise many kinds
                if processes.lost(error):
                    raise
                self._set_aside(step, _first_line(error))
                if alone:  # the others may have read theirs, and wait for this process in Orbax
                    raise CheckpointError(
                        f"checkpoint of step {step} cannot be used ({_first_line(error)}) and was "
                        "set aside; start all processes again, to go on from the one before"
                    ) from error
                continue
            best_step = note["host"]["best_step"]
            fault = self._fault_of_best(best_step, like.params) if best_step else ""
            if fault and best_step != step:
                lacking[step] = fault
                del state  # there may be no room for two
                continue
            if fault:  # what it lacks is its own
                self.save_best(step, state.params)
            for newer, reason in lacking.items():
                self._set_aside(newer, reason)
            found = state, note["host"]
            break
        else:
            if lacking:
                found = self._standing_in(lacking, like)
            elif steps:
                raise CheckpointError(
                    f"{self.folder}: none of the checkpoints {steps} can be read; they were "
                    "renamed to <step>.damaged. Run the same command again to start from the "
                    "beginning"
                )
        if found:
            self._newest_best = found[1]["best_step"]
            for path in damaged_before if processes.first() else ():
                shutil.rmtree(path, ignore_errors=True)
        with storing(self.folder):
            self._forget_bests()
        return found

    def best(self, step: int, like: Any) -> Any:
        """The parameters kept by `save_best(step, ..)`.

        Raises:
          CheckpointError: missing or damaged.
        """
        with storing(self.folder):
            self._best.wait_until_finished()
        return self._best_params(step, like)

    def _best_params(self, step: int, like: Any) -> Any:
        where = self.folder / "best" / str(step)
        if step not in self._best.all_steps():
            raise CheckpointError(f"{where}, the best parameters so far, is missing")
        try:
            params = _arrays(self._best, step, like)
            expected = _note(self._best, step)["digests"]
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise CheckpointError(f"{where} cannot be read: {_first_line(error)}") from error
        compare_digests(digests(params), expected, where)
        return params

    def _fault_of_best(self, step: int, like: Any) -> str:
        try:
            self._best_params(step, like)
        except CheckpointError as error:
            if error.__cause__ and processes.count() > 1:  # unreadable, perhaps here alone
                raise
            return str(error)
        return ""

    def _standing_in(self, lacking: dict[int, str], like: Any) -> tuple[Any, dict[str, Any]]:
        """The newest state, as its own best; only once somebody has removed what was the best."""
        step = max(lacking)
        host = _note(self._last, step)["host"]
        if host["best_step"] in self._best.all_steps():
            raise CheckpointError(
                f"{lacking[step]}. The state of step {step} is good, but none is from before that "
                "best: put back a copy of it; or remove it to go on without, and the state stands "
                "in for the best until the next evaluation"
            )
        say(f"{lacking[step]}; until the next evaluation the state of step {step} stands in for it")
        state = _arrays(self._last, step, like)
        self.save_best(step, state.params)
        return state, host | {"best_step": step, "best_valid_loss": None, "misses": 0}

    def _forget_bests(self) -> None:
        """Removes best parameters of which neither the run nor a kept state speaks any more."""
        needed = {self._best_step(step) for step in self._last.all_steps()}
        for old in set(self._best.all_steps()) - needed - {self._newest_best}:
            self._best.delete(old)

    def _best_step(self, step: int) -> int | None:
        if step not in self._best_of:
            try:
                self._best_of[step] = _note(self._last, step)["host"]["best_step"]
            except Exception:  # unreadable: then nothing will be restored from it either
                self._best_of[step] = None
        return self._best_of[step]

    def _set_aside(self, step: int, reason: str) -> None:
        say(f"checkpoint of step {step} cannot be used ({reason}); taking the one before it")
        path = self.folder / "last" / str(step)
        with storing(path):
            aside = path.with_name(f"{step}.damaged")
            if path.exists():
                shutil.rmtree(aside, ignore_errors=True)
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    path.rename(aside)
            self._last.reload()


def _manager(folder: Path, kept: int | None) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
        max_to_keep=kept,
        cleanup_tmp_directories=True,
        # Both may be writing at once: processes must not meet each other's other save.
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            barrier_sync_key_prefix=folder.name
        ),
    )
    return ocp.CheckpointManager(folder, options=options)


def _probe(folder: Path) -> None:
    """Raises OSError where no folder can be made; Orbax would wait some minutes for it."""
    probe = folder / ".probe"
    if processes.first():
        probe.mkdir(exist_ok=True)
        probe.rmdir()


def _parts(arrays: Any, note: dict[str, Any]) -> ocp.args.Composite:
    return ocp.args.Composite(
        arrays=ocp.args.StandardSave(arrays),  # type: ignore[call-arg]
        note=ocp.args.JsonSave(note),  # type: ignore[call-arg]
    )


def _sealed(note: dict[str, Any]) -> dict[str, Any]:
    """With a checksum of its own: a flipped digit is JSON too."""
    return note | {"seal": hashlib.sha256(records.canonical_json(note).encode()).hexdigest()}


def _note(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    found = manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore()))["note"]
    note = {key: value for key, value in found.items() if key != "seal"}
    if found != _sealed(note):
        raise CheckpointError(f"the note of step {step} is not what was written")
    return note


def _arrays(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
    )
    wanted = ocp.args.Composite(arrays=ocp.args.StandardRestore(abstract))  # type: ignore[call-arg]
    _mute_broken_reads()
    return manager.restore(step, args=wanted)["arrays"]


def _mute_broken_reads() -> None:
    """From now on, the reads that a damaged file breaks off end without a traceback each.

    The error itself is raised; they outlive it in TensorStore's threads, and print.
    """
    before = sys.unraisablehook
    if getattr(before, "__module__", None) == __name__:
        return

    def hook(event: sys.UnraisableHookArgs) -> None:
        of_orbax = "orbax" in getattr(getattr(event.object, "cr_code", None), "co_filename", "")
        if not of_orbax and str(event.exc_value) != "Event loop is closed":
            before(event)

    sys.unraisablehook = hook


def _first_line(error: Exception) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return first.partition(" See full TensorStore details")[0][:200]
