"""Meters: how fast a run goes, how well it uses the devices, and what its time was spent on.

They stand apart from metrics.jsonl, which an interrupted run repeats bit by bit: time never does.

meters.jsonl, one row per update
  step                     updates done
  seconds                  wall time since the row before, by what it was spent on; the parts are
                           whole: start  data, weights or checkpoint, up to the first update
                                  compile  XLA, wherever it happens
                                  input  waiting for a batch
                                  step  updates, and the little the host does between them
                                  eval, save  evaluations; checkpoints, as far as they hold it up
                                  lost  what an earlier process spent on updates that its end undid
  tokens_per_second        no padding, over step + input
  loss_tokens_per_second   those that bear loss
  packing_efficiency       tokens / (tokens + padding)
  model_flops              of the update, see flops.py
  mfu                      model_flops / (step + input) / peak of all devices; absent where the
                           peak is not published (chips.py)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax

from opengrok_jax.errors import needs_extra
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.storage import storing
from opengrok_jax.training import chips
from opengrok_jax.training.batches import Batch
from opengrok_jax.training.flops import Load, load, train_flops

PHASES = ("start", "compile", "input", "step", "eval", "save", "lost")
COMPILED = "/jax/core/compile/backend_compile_duration"
RECENT = 20  # updates that the pace is taken over


class Clock:
    """Splits wall time into phases: at any moment exactly one is running."""

    def __init__(self, phase: str, now: Callable[[], float] = time.perf_counter):
        self._now, self._phase, self._since = now, phase, now()
        self._spent: dict[str, float] = {}

    def switch(self, phase: str) -> str:
        """Goes over to another phase; answers which one ran."""
        now, before = self._now(), self._phase
        self.add(before, now - self._since)
        self._phase, self._since = phase, now
        return before

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Runs a phase for the length of a block, then goes on with the one before it."""
        before = self.switch(name)
        try:
            yield
        finally:
            self.switch(before)

    def add(self, phase: str, seconds: float) -> None:
        """Counts seconds that this clock has not seen."""
        self._spent[phase] = self._spent.get(phase, 0.0) + seconds

    def move(self, phase: str, seconds: float) -> None:
        """Counts seconds of the phase that runs under another one."""
        self.add(phase, seconds)
        self.add(self._phase, -seconds)

    def take(self) -> dict[str, float]:
        """Seconds of each phase since the last call."""
        self.switch(self._phase)
        spent, self._spent = self._spent, {}
        return {name: max(spent[name], 0.0) for name in PHASES if spent.get(name)}


class Meters:
    """The open files of a run's meters; `contextlib.closing` closes them.

    Args of the constructor:
      path: the .jsonl file; None = nothing is written (of several processes only the first writes).
      clock: runs since the beginning of the process's work.
      config: sizes of the model.
      adapters: as in `flops.train_flops`.
      device_kind, devices: JAX's word for a device, and how many there are.
      tensorboard: folder for event files of all figures; None = none are written.

    Raises:
      MissingExtra: `tensorboard` is given and its library is not installed.
      StorageError: from every method that writes, if the disk refuses.
    """

    def __init__(
        self,
        path: Path | None,
        clock: Clock,
        *,
        config: Phi3Config,
        device_kind: str,
        devices: int,
        adapters: int | None = None,
        tensorboard: Path | None = None,
    ):
        self.path, self.clock, self._config, self._adapters = path, clock, config, adapters
        peak = chips.peak_flops(device_kind)
        self._peak = peak * devices if peak else None
        self._tensorboard = tensorboard
        self._rows: IO[str] | None = None
        self._events: Any = None
        self._recent: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self._thread = threading.get_ident()
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def begin(self, step: int, undone: Iterable[Mapping[str, Any]]) -> None:
        """Opens the files, before the first update.

        Args:
          step: updates done already.
          undone: rows of an earlier process beyond `step`, cut off the file; their time is lost.
        """
        lost = math.fsum(seconds for row in undone for seconds in row["seconds"].values())
        self.clock.switch("step")
        self.clock.add("lost", lost)
        if self.path is None:
            return
        with storing(self.path):
            self._rows = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  `close` does
        if self._tensorboard is not None:
            self._events = Events(self._tensorboard, step)

    def load(self, batch: Batch) -> Load:
        """What a host batch holds."""
        return load(batch, self._config.sliding_window)

    def row(self, step: int, load: Load, figures: Mapping[str, float | None]) -> None:
        """Notes an update, with the time since the one before it.

        Args:
          step: updates done.
          load: of its batch.
          figures: what the run measures anyway; goes to TensorBoard beside the meters.
        """
        seconds = self.clock.take()
        busy = max(seconds.get("step", 0.0) + seconds.get("input", 0.0), 1e-9)
        self._recent.append((load.tokens, busy))
        if self.path is None or self._rows is None:
            return
        flops = train_flops(self._config, load, self._adapters)
        row: dict[str, Any] = {
            "step": step,
            "seconds": {name: round(value, 6) for name, value in seconds.items()},
            "tokens_per_second": load.tokens / busy,
            "loss_tokens_per_second": load.loss_tokens / busy,
            "packing_efficiency": load.tokens / load.places,
            "model_flops": flops,
        }
        if self._peak is not None:
            row["mfu"] = flops / busy / self._peak
        with storing(self.path):
            self._rows.write(json.dumps(row) + "\n")
            self._rows.flush()
        if self._events is not None:
            timed = {f"seconds/{name}": value for name, value in row.pop("seconds").items()}
            del row["step"]
            self._events.write(step, {**figures, **row, **timed})

    def pace(self) -> str:
        """Tokens per second over the last updates, for the progress line; "" before the first."""
        if not self._recent:
            return ""
        tokens, busy = map(sum, zip(*self._recent, strict=True))
        return f"{tokens / busy:,.0f} tokens/s"

    def sync(self) -> None:
        """Has the disk keep the rows: with every state that is kept."""
        if self.path is None or self._rows is None:
            return
        with storing(self.path):
            os.fsync(self._rows.fileno())

    def close(self) -> None:
        """Closes what is open and listens no more."""
        jax.monitoring.unregister_event_duration_listener(self._heard)
        if self._events is not None:
            self._events.close()
        if self.path is not None and self._rows is not None:
            with storing(self.path):
                self._rows.close()

    def _heard(self, event: str, duration_secs: float, **_: Any) -> None:
        if event == COMPILED and threading.get_ident() == self._thread:
            self.clock.move("compile", duration_secs)


class Events:
    """TensorBoard's event file of one process, written at once and not in a thread, so that a full
    disk is an error here and not a queue that nobody empties.

    Raises:
      MissingExtra: tensorboardX is not installed.
      StorageError: the disk refused.
    """

    def __init__(self, folder: Path, step: int):
        files, self._protocol, self._summary = _tensorboard()
        self.folder = folder
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = files.EventsWriter(str(folder / "events"), f".from-{step}")
            # The viewer forgets what an earlier process wrote from here on.
            log = self._protocol.SessionLog
            self._put(step + 1, session_log=log(status=log.START))
            self._writer.flush()

    def write(self, step: int, figures: Mapping[str, float | None]) -> None:
        """One scalar for each figure that is not None."""
        with storing(self.folder):
            for name, value in figures.items():
                if value is not None:
                    self._put(step, summary=self._summary.scalar(name, value))
            self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        with storing(self.folder):
            self._writer.close()

    def _put(self, step: int, **content: Any) -> None:
        event = self._protocol.Event(wall_time=time.time(), step=step, **content)
        self._writer.write_event(event)


def check_tensorboard() -> None:
    """Raises MissingExtra unless event files can be written."""
    _tensorboard()


def _tensorboard() -> tuple[Any, ...]:
    parts = ("event_file_writer", "proto.event_pb2", "summary")
    with needs_extra("tensorboard"):
        return tuple(importlib.import_module(f"tensorboardX.{part}") for part in parts)


def goodput(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Share of the wall time of all processes that went into each phase; adds up to 1.

    Args:
      rows: of meters.jsonl.

    Returns:
      A share for each of `PHASES` that took any time; empty without rows.
    """
    spent = dict.fromkeys(PHASES, 0.0)
    for row in rows:
        for name, seconds in row["seconds"].items():
            spent[name] += seconds
    total = sum(spent.values())
    return {name: seconds / total for name, seconds in spent.items() if seconds}
