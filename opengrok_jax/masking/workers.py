"""Jobs on all cores: spawned processes of one thread each, which read and write files themselves.

with local(4) as work:
    for result in work(task, jobs):      # in the order in which they finish
        ...

A task is a function of a module, a job its arguments; what goes between processes is small. The
processes are spawned, never forked: a fork of a process in which JAX has started can hang. They end
with the process that began them, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from opengrok_jax import progress
from opengrok_jax.errors import ConfigError, UserError

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # glibc keeps what was freed: given back to the system and fetched again for every batch, the
    # memory of arrays took a tenth of the annotator's time.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
JOBS_AHEAD = 2  # of each worker: one is done, one waits


# Does a task for many jobs and gives the results in any order, or raises what the task raised.
Work = Callable[[Callable[..., Any], Iterable[tuple[Any, ...]]], Iterator[Any]]


def cores() -> int:
    """How many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


def check_count(count: int) -> None:
    """Raises ConfigError unless it is a whole number from 0."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise ConfigError(f"workers is {count!r}; expected a whole number, 0 = all cores")


@contextlib.contextmanager
def local(count: int) -> Iterator[Work]:
    """Processes of this machine; with one the work is done in this process.

    Raises:
      UserError: a process was killed, by the system for its memory perhaps.
    """
    if count <= 1:
        yield _here
        return
    with contextlib.ExitStack() as stack:
        stack.enter_context(_environment(ENVIRONMENT))
        pool = ProcessPoolExecutor(
            count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
        )
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)

        def work(task: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
            return _pooled(pool, count, task, jobs)

        yield work


def _here(task: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    for job in jobs:
        yield task(*job)


def _pooled(
    pool: ProcessPoolExecutor,
    count: int,
    task: Callable[..., Any],
    jobs: Iterable[tuple[Any, ...]],
) -> Iterator[Any]:
    waiting, jobs, more = set(), iter(jobs), True
    try:
        while more or waiting:
            while more and len(waiting) < JOBS_AHEAD * count:
                job = next(jobs, None)
                more = job is not None
                if job is not None:
                    waiting.add(pool.submit(task, *job))
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process of the mask was killed, perhaps because the memory ran out; the same "
            "command goes on from here, with fewer masking.workers it needs less memory"
        ) from None
    finally:
        for future in waiting:
            future.cancel()


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """What child processes find in their environment."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin() -> None:
    """In a new worker: Ctrl-C is for the parent, and without it there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    progress.mute()
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
