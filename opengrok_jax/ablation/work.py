"""All trainings of a plan: what is done stays done, the rest is shared out to processes.

A result counts if its file is whole and was made of what would be made now. A process that is
killed loses the training in hand; the same command does the rest.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby
from pathlib import Path
from typing import Any

from opengrok_jax import progress, storage
from opengrok_jax.ablation import cells
from opengrok_jax.errors import ConfigError, TrainingError, UserError

CACHE = "compiled"
Row = Mapping[str, Any]


def run(workdir: Path, rows: Sequence[Row], *, engine: str, predictor: str, jobs: int) -> int:
    """Brings every training of a plan about; answers how many were still to do.

    Args:
      workdir: with everything that `prepare` made.
      rows: of plan.json.
      engine, predictor: as in `grid.read`.
      jobs: processes that train at the same time, and share the device.

    Raises:
      ConfigError: `jobs` below 1.
      TrainingError: a process died; what was done is kept.
      UserError: as the rooms that a training calls.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs is {jobs}; expected at least 1")
    prints = {id(row): cells.print_of(workdir, row, engine, predictor) for row in rows}
    todo = [row for row in rows if not _done(workdir, row, prints[id(row)])]
    if not todo:
        progress.say(f"ablate: all {len(rows)} trainings are done")
        return 0
    begun = len(rows) - len(todo)
    with progress.track("ablate", total=len(rows), unit="trainings", done=begun) as advance:
        for result in _results(workdir, todo, prints, engine, predictor, min(jobs, len(todo))):
            scores = ", ".join(f"{t['task']} {t['value']:.3f}" for t in result["tasks"])
            name = f"{result['set']} {result['cell']} seed {result['seed']}"
            advance(note=f"{name}: {scores}, {sum(result['seconds'].values()):.1f} s")
    return len(todo)


def _done(workdir: Path, row: Row, print_: str) -> bool:
    path = cells.result_file(workdir, row)
    if not path.exists():
        return False
    try:
        return storage.read_json(path)["print"] == print_
    except (UserError, KeyError):
        return False


def _results(
    workdir: Path,
    todo: Sequence[Row],
    prints: Mapping[int, str],
    engine: str,
    predictor: str,
    jobs: int,
) -> Iterator[dict[str, Any]]:
    """The results as they come."""
    if jobs == 1:
        cached(workdir)
        bench = cells.Bench(workdir, engine, predictor)
        for row in todo:
            yield bench.run(row, prints[id(row)])
        return
    # A process that trains alone would take most of a GPU's memory at once.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    context = multiprocessing.get_context("spawn")
    told = (os.getpid(), str(workdir), engine, predictor)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=told)
    try:
        # One process asks a student in every way that is wanted.
        groups = [list(g) for _, g in groupby(todo, key=lambda row: row["student"])]
        yield from _shared(pool, [[(r, prints[id(r)]) for r in g] for g in groups], jobs)
    except BrokenProcessPool:
        raise TrainingError(
            "a process of the ablation was killed, for lack of memory perhaps; what was done is "
            "kept, and the same command with fewer --jobs goes on"
        ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _shared(
    pool: ProcessPoolExecutor, todo: Sequence[list[tuple[Row, str]]], jobs: int
) -> Iterator[dict[str, Any]]:
    """Hands out a student when one comes back, so that none waits in a queue that outlives us."""
    left = iter(todo)
    running: set[Future[list[dict[str, Any]]]] = set()
    with contextlib.suppress(StopIteration):
        for _ in range(jobs):
            running.add(pool.submit(_work, next(left)))
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            with contextlib.suppress(StopIteration):
                running.add(pool.submit(_work, next(left)))
            yield from future.result()


# ---- in a worker --------------------------------------------------------------------------------

_bench: cells.Bench | None = None


def _begin(parent: int, workdir: str, engine: str, predictor: str) -> None:
    global _bench
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    progress.mute()
    cached(Path(workdir))
    _bench = cells.Bench(Path(workdir), engine, predictor)


def _work(group: list[tuple[Row, str]]) -> list[dict[str, Any]]:
    assert _bench is not None
    return [_bench.run(row, print_) for row, print_ in group]


def _end_with(parent: int) -> None:
    """Ends this process when the one that began it is gone: killed, it cannot say so."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def cached(workdir: Path) -> None:
    """Switches JAX's persistent compilation cache on: other processes and runs find the programs.

    A cache that the user has chosen by JAX_COMPILATION_CACHE_DIR is left as it is.
    """
    import jax

    if not jax.config.values.get("jax_compilation_cache_dir"):
        jax.config.update("jax_compilation_cache_dir", str((workdir / CACHE).absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
