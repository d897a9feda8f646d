"""The loop: update, evaluate, note, keep, stop."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np

from opengrok_jax import processes
from opengrok_jax.errors import TrainingError
from opengrok_jax.progress import say, track
from opengrok_jax.storage import replacing, storing
from opengrok_jax.training import sigterm
from opengrok_jax.training.batches import Batch, Packed
from opengrok_jax.training.checkpoints import Checkpoints
from opengrok_jax.training.feed import feed
from opengrok_jax.training.flops import Load
from opengrok_jax.training.meters import Meters
from opengrok_jax.training.step import StepReport, TrainState


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run stands: with the train state, all that a later process needs to go on.

    Attributes:
      step: updates done.
      best_step, best_valid_loss: of the best evaluation; 0 and None before the first.
      misses: evaluations since then.
    """

    step: int = 0
    best_step: int = 0
    best_valid_loss: float | None = None
    misses: int = 0

    def after_evaluation(self, valid_loss: float, min_improvement: float) -> Standing:
        """Counts an evaluation: the best so far, or one more miss."""
        best = self.best_valid_loss
        if best is None or valid_loss < best - min_improvement:
            return replace(self, best_step=self.step, best_valid_loss=valid_loss, misses=0)
        return replace(self, misses=self.misses + 1)

    def note(self, train_loss: float) -> str:
        """What stands beside the progress bar.

        >>> Standing(step=50, best_step=40, best_valid_loss=1.2).note(1.234)
        'loss 1.23, best 1.20 @ 40'
        """
        loss = f"loss {train_loss:.2f}"
        if self.best_valid_loss is None:
            return loss
        return f"{loss}, best {self.best_valid_loss:.2f} @ {self.best_step}"


def train(
    state: TrainState,
    standing: Standing,
    *,
    data: Packed,
    place: Callable[[Batch], Batch],
    update: Callable[[TrainState, Batch], tuple[TrainState, StepReport]],
    evaluate: Callable[[Any], tuple[float, list[str]]] | None,
    checkpoints: Checkpoints,
    metrics: Path,
    meters: Meters,
    settings: dict[str, Any],
    eval_every: int,
    patience: int,
    min_improvement: float,
    save_every: int,
    asked_to_end: Callable[[], bool],
) -> Standing:
    """Goes on from `standing` to the last step, or to where patience ends.

    An update is sent to the devices before the report of the one before it is fetched, so they
    never wait for the host; where the state is evaluated or kept, the report comes first.

    Args:
      state: of `standing.step`; its memory is given up.
      standing: where to begin.
      data: the training split; one update for each of its steps.
      place: puts a batch on the devices.
      update: from `step.make_train_step`.
      evaluate: parameters -> validation loss, and ids of the examples in batches where it is not
        finite; None = no evaluations, the last state is the best.
      checkpoints: where states are kept.
      metrics: the .jsonl file, of the first process; rows after `standing.step` are cut off first.
      meters: where speed and time are noted; its rows are cut off likewise.
      settings: kept with every state.
      eval_every, patience, min_improvement, save_every: as in `finetune.run`.
      asked_to_end: True after a SIGTERM.

    Returns:
      Where the run stands at its end; all states and the best parameters are on disk.

    Raises:
      TrainingError: a loss or gradient is not finite.
      StorageError: the disk refused.
      SystemExit: status 143 after a SIGTERM; the state is kept.
    """
    steps = len(data.order)
    if processes.first():
        rewind(metrics, standing.step)
        _miss(metrics, standing.step)
    else:
        metrics = Path(os.devnull)
    meters.begin(standing.step, rewind(meters.path, standing.step) if meters.path else [])

    def over() -> bool:
        return standing.step >= steps or bool(patience and standing.misses >= patience)

    def make(index: int) -> tuple[Batch, Load]:
        batch = data.batch(index)
        return place(batch), meters.load(batch)

    def settle(sent: _Sent) -> dict[str, Any]:
        """Waits for an update, checks its numbers and counts it."""
        nonlocal standing
        report = jax.device_get(sent.report)
        _check_finite(report, data, sent.step - 1)
        standing = replace(standing, step=sent.step)
        return {
            "train_loss": float(report.loss),
            "learning_rate": float(report.learning_rate),
            "grad_norm": float(report.grad_norm),
            "valid_loss": None,
        }

    def note(sent: _Sent, figures: dict[str, Any]) -> None:
        _append(rows, metrics, {"step": sent.step} | figures)

    def measure(sent: _Sent, figures: dict[str, Any]) -> None:
        meters.row(sent.step, sent.load, figures)
        advance(1, note=f"{standing.note(figures['train_loss'])}, {meters.pace()}")

    def keep() -> None:
        with storing(metrics):
            if processes.first():
                os.fsync(rows.fileno())
        meters.sync()
        checkpoints.save(state, {**asdict(standing), "settings": settings})

    todo = range(standing.step, standing.step if over() else steps)
    running: _Sent | None = None
    with (
        open(metrics, "a", encoding="utf-8") as rows,
        track("finetune", total=steps, unit="steps", done=standing.step) as advance,
        feed(make, todo) as take,
    ):
        for index in todo:
            with meters.clock.phase("input"):
                batch, load = take()
            with meters.clock.phase("compile" if index == todo.start else "step"):
                state, report = update(state, batch)
            if running is not None:  # the one before; the devices are busy with this one meanwhile
                figures = settle(running)
                note(running, figures)
                measure(running, figures)
            running = _Sent(index + 1, load, report)
            last = running.step == steps
            evaluates = evaluate is not None and (last or running.step % eval_every == 0)
            ending = asked_to_end()
            saves = last or ending or bool(save_every and running.step % save_every == 0)
            if not (evaluates or saves):
                continue
            # What follows reads the state: its own update must have ended well, and no other begun.
            sent, running = running, None
            figures = settle(sent)
            if evaluate is not None and evaluates:
                with meters.clock.phase("eval"):
                    valid_loss, suspects = evaluate(state.params)
                _check_valid(valid_loss, suspects, standing.step)
                standing = standing.after_evaluation(valid_loss, min_improvement)
                figures["valid_loss"] = valid_loss
                ending = ending or asked_to_end()  # it may have taken long
            elif last:
                standing = replace(standing, best_step=steps)
            note(sent, figures)
            with meters.clock.phase("save"):
                if standing.best_step == standing.step:
                    checkpoints.save_best(standing.step, state.params)
                if saves or ending or over():
                    keep()
                if ending or over():
                    checkpoints.wait()
            measure(sent, figures)
            if over():
                break
            if ending:
                raise SystemExit(sigterm.STATUS)
    return standing


class _Sent(NamedTuple):
    """An update on its way: `step` counts it in, `report` may still be computed."""

    step: int
    load: Load
    report: StepReport


def rewind(path: Path, step: int) -> list[dict[str, Any]]:
    """Cuts a file of rows back to those up to `step`; a half-written last one goes too.

    Returns:
      The whole rows that were cut off.
    """
    kept, undone = b"", []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
        try:
            row = json.loads(line)
            later = row["step"] > step
        except (ValueError, KeyError, TypeError):
            break
        if not line.endswith(b"\n"):
            break
        if later:
            undone.append(row)
        else:
            kept += line
    with replacing(path) as file:
        file.write(kept)
    return undone


def _miss(metrics: Path, step: int) -> None:
    """Says what is not there of the rows up to `step`: a kept state has those before it on disk."""
    there = metrics.read_bytes().count(b"\n")
    if there < step:
        say(
            f"{metrics} holds {there} of the rows of {step} steps: the others were lost from "
            "outside and are not made again; the student is the same without them"
        )


def _append(rows: IO[str], metrics: Path, row: dict[str, Any]) -> None:
    with storing(metrics):
        rows.write(json.dumps(row) + "\n")
        rows.flush()


def _check_finite(report: StepReport, data: Packed, index: int) -> None:
    if not np.isfinite([report.loss, report.grad_norm]).all():
        raise TrainingError(
            f"step {index + 1}: loss {report.loss}, gradient norm {report.grad_norm}. The last "
            "checkpoint is kept; try a smaller learning_rate or clip_norm, or look at the examples "
            f"of this batch: {', '.join(data.ids(index))}"
        )


def _check_valid(valid_loss: float, suspects: list[str], step: int) -> None:
    if not math.isfinite(valid_loss):
        raise TrainingError(
            f"step {step}: validation loss {valid_loss}. The last checkpoint is kept; try a "
            f"smaller learning_rate, or look at the validation examples {', '.join(suspects)}"
        )
