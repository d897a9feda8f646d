"""The same jobs on Ray Data: the processes of one machine, or of a cluster that shares the folder.

A data set of jobs goes through a pool of actors, each of which keeps its annotator; what they make
they write into the run folder, which every machine has to see under the same path. An actor that
dies is replaced and its job done again: a job's file is there whole or not at all, and whoever
makes it makes the same bytes. Nothing is sent to Ray's makers.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from opengrok_jax.errors import ConfigError, UserError, needs_extra
from opengrok_jax.masking.workers import ENVIRONMENT, Work

JOBS_AT_ONCE = 64  # of each worker, in one data set; they are in memory
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}


@contextlib.contextmanager
def cluster(address: str, count: int) -> Iterator[Work]:
    """Processes of a Ray cluster.

    Args:
      address: of a running one; "" starts one on this machine and ends it again.
      count: how many; 0 = a process for each core of the cluster.

    Raises:
      ConfigError: no cluster at this address.
      MissingExtra: Ray is not installed.
      UserError: the cluster cannot go on.
    """
    os.environ.update(QUIET)
    with needs_extra("ray"):
        import ray  # pyright: ignore[reportMissingImports]
        import ray.data  # pyright: ignore[reportMissingImports]
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    options |= {"include_dashboard": False, "num_cpus": count or None} if not address else {}
    environment = {"env_vars": {**QUIET, **ENVIRONMENT}}
    try:
        ray.init(address=address or "local", runtime_env=environment, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        raise ConfigError(
            f"no Ray cluster at {address or 'this machine'} ({cause}); start one with `ray start "
            "--head`, or leave ray_address empty"
        ) from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    number = count or max(1, int(ray.cluster_resources().get("CPU", 1)))

    def work(task: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        jobs = iter(jobs)
        while some := list(itertools.islice(jobs, JOBS_AT_ONCE * number)):
            yield from _round(task, some, number)

    try:
        yield work
    finally:
        ray.shutdown()


def _round(task: Callable[..., Any], jobs: list[tuple[Any, ...]], number: int) -> Iterator[Any]:
    """One data set of jobs through a pool of actors."""
    import ray.data  # pyright: ignore[reportMissingImports]
    from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

    name = (task.__module__, task.__qualname__)
    rows = [{"job": pickle.dumps((*name, job))} for job in jobs]
    actors = min(number, len(jobs))
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Actor,
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    try:
        for row in results.iter_rows():
            answer, failure = pickle.loads(row["answer"])
            if failure is not None:
                raise failure
            yield answer
    except RayError as error:
        cause = str(error).strip().rpartition("\n")[2]
        raise UserError(
            f"the Ray cluster cannot go on ({cause}); the same command goes on from here"
        ) from error


class _Actor:
    """A process that does one job after the other; an error of the user's is an answer too."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        answers = []
        for body in batch["job"]:
            module, task, job = pickle.loads(body)
            try:
                answers.append((getattr(importlib.import_module(module), task)(*job), None))
            except UserError as error:
                answers.append((None, error))
        return {"answer": [pickle.dumps(answer) for answer in answers]}
