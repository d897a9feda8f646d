"""What a run can be taken up from: the newest two states, and the best parameters of each.

checkpoints/
  last/<step>/    train state, digests, and the host's part (step, best so far, patience, settings)
  best/<step>/    parameters of the best evaluation so far, digests

Orbax writes beside and renames at the end, in the background: a folder with a step's name is whole.
That a disk has kept it whole is checked when it is read, against checksums taken before it left
the devices; a damaged newest state is set aside and the one before it is taken.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from opengrok_jax import processes
from opengrok_jax.errors import CheckpointError, RunFolderError
from opengrok_jax.model.student import compare_digests, digests
from opengrok_jax.progress import say
from opengrok_jax.storage import storing

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
            self._last = _manager(self.folder / "last", KEPT)
            self._best = _manager(self.folder / "best", None)
        self._best_of: dict[int, int | None] = {}

    def close(self) -> None:
        """Returns when everything is on disk and the background threads have ended.

        At once where another process is lost: they wait for it, and nothing more will be whole.
        """
        if (error := sys.exception()) and processes.lost(error):
            return
        with storing(self.folder):
            self._best.close()
            self._last.close()

    def save(self, state: Any, host: dict[str, Any]) -> None:
        """Keeps a state to take the run up from; goes on in the background.

        Args:
          state: tree of arrays.
          host: JSON-able; "step" names the checkpoint, "best_step" the best parameters it needs.
        """
        step = host["step"]
        if step in self._last.all_steps():
            return
        with storing(self.folder):
            self._best.wait_until_finished()  # no state is kept before the best it speaks of
            self._last.save(step, args=_parts(state, {"digests": digests(state), "host": host}))
            self._best_of[step] = host["best_step"]
            needed = {self._best_step(kept) for kept in self._last.all_steps()}
            for old in set(self._best.all_steps()) - needed - {host["best_step"]}:
                self._best.delete(old)

    def save_best(self, step: int, params: Any) -> None:
        """Keeps the parameters of the best evaluation so far."""
        with storing(self.folder):
            self._best.wait_until_finished()
            if step in self._best.all_steps():  # from before the state that was taken up
                self._best.delete(step)
            self._best.save(step, args=_parts(params, {"digests": digests(params)}))

    def wait(self) -> None:
        """Returns when everything is on disk."""
        with storing(self.folder):
            self._best.wait_until_finished()
            self._last.wait_until_finished()

    def restore(
        self, like: Any, check: Callable[[dict[str, Any]], None]
    ) -> tuple[Any, dict[str, Any]] | None:
        """The newest good state and the host's part; None in a new folder.

        Args:
          like: a state of the same form; gives shapes, dtypes and where each array shall lie.
          check: looks at the host's part before anything large is read; its RunFolderError ends
            the search, for then the folder is not damaged but another run's.

        Raises:
          CheckpointError: there are states, and none is good; or one of several processes could
            not read its part of a state, which is set aside: the next start finds the one before.
        """
        steps = sorted(self._last.all_steps(), reverse=True)
        for step in steps:
            alone = False  # whether what goes wrong may go wrong in this process alone
            try:
                note = _note(self._last, step)
                check(note["host"])
                best = note["host"]["best_step"]
                if best and best not in self._best.all_steps():
                    raise CheckpointError(f"the parameters of its best step {best} are missing")
                alone = processes.count() > 1
                state = _arrays(self._last, step, like)
                alone = False
                compare_digests(digests(state), note["digests"], self.folder / "last" / str(step))
            except RunFolderError:
                raise
            except Exception as error:  # Orbax and TensorStore raise many kinds
                if processes.lost(error):
                    raise
                say(
                    f"checkpoint of step {step} cannot be used ({_first_line(error)}); "
                    "taking the one before it"
                )
                self._set_aside(step)
                if alone:  # the others may have read theirs, and wait for this process in Orbax
                    raise CheckpointError(
                        f"checkpoint of step {step} cannot be used ({_first_line(error)}) and was "
                        "set aside; start all processes again, to go on from the one before"
                    ) from error
            else:
                return state, note["host"]
        if steps:
            raise CheckpointError(
                f"{self.folder}: none of the checkpoints {steps} can be read; they were renamed to "
                "<step>.damaged. Run the same command again to start from the beginning"
            )
        return None

    def best(self, step: int, like: Any) -> Any:
        """The parameters kept by `save_best(step, ..)`.

        Raises:
          CheckpointError: missing or damaged.
        """
        self.wait()
        try:
            params = _arrays(self._best, step, like)
            expected = _note(self._best, step)["digests"]
        except Exception as error:  # Orbax and TensorStore raise many kinds
            raise CheckpointError(
                f"{self.folder / 'best' / str(step)} cannot be read: {_first_line(error)}"
            ) from error
        compare_digests(digests(params), expected, self.folder / "best" / str(step))
        return params

    def _best_step(self, step: int) -> int | None:
        if step not in self._best_of:
            try:
                self._best_of[step] = _note(self._last, step)["host"]["best_step"]
            except Exception:  # unreadable: then nothing will be restored from it either
                self._best_of[step] = None
        return self._best_of[step]

    def _set_aside(self, step: int) -> None:
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


def _parts(arrays: Any, note: dict[str, Any]) -> ocp.args.Composite:
    return ocp.args.Composite(
        arrays=ocp.args.StandardSave(arrays),  # type: ignore[call-arg]
        note=ocp.args.JsonSave(note),  # type: ignore[call-arg]
    )


def _note(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    return manager.restore(step, args=ocp.args.Composite(note=ocp.args.JsonRestore()))["note"]


def _arrays(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
    )
    wanted = ocp.args.Composite(arrays=ocp.args.StandardRestore(abstract))  # type: ignore[call-arg]
    return manager.restore(step, args=wanted)["arrays"]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
