"""The loop: update, evaluate, note, keep, stop."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from opengrok_jax import processes
from opengrok_jax.errors import TrainingError
from opengrok_jax.progress import track
from opengrok_jax.storage import replacing, storing
from opengrok_jax.training.batches import Batch, Packed
from opengrok_jax.training.checkpoints import Checkpoints
from opengrok_jax.training.step import StepReport, TrainState

SIGTERM_STATUS = 143  # 128 + 15, as shells report a process that ended on SIGTERM


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
    evaluate: Callable[[Any], float] | None,
    checkpoints: Checkpoints,
    metrics: Path,
    settings: dict[str, Any],
    eval_every: int,
    patience: int,
    min_improvement: float,
    save_every: int,
    asked_to_end: Callable[[], bool],
) -> Standing:
    """Goes on from `standing` to the last step, or to where patience ends.

    Args:
      state: of `standing.step`; its memory is given up.
      standing: where to begin.
      data: the training split; one update for each of its steps.
      place: puts a batch on the devices.
      update: from `step.make_train_step`.
      evaluate: parameters -> validation loss; None = no evaluations, the last state is the best.
      checkpoints: where states are kept.
      metrics: the .jsonl file, of the first process; rows after `standing.step` are cut off first.
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
    else:
        metrics = Path(os.devnull)

    def over() -> bool:
        return standing.step >= steps or bool(patience and standing.misses >= patience)

    def keep() -> None:
        with storing(metrics):
            if processes.first():
                os.fsync(rows.fileno())
        checkpoints.save(state, {**asdict(standing), "settings": settings})

    with (
        open(metrics, "a", encoding="utf-8") as rows,
        track("finetune", total=steps, unit="steps", done=standing.step) as advance,
    ):
        batch = None if over() else place(data.batch(standing.step))
        while batch is not None:
            index = standing.step
            state, report = update(state, batch)
            batch = place(data.batch(index + 1)) if index + 1 < steps else None  # while it runs
            report = jax.device_get(report)
            _check_finite(report, data, index)
            standing = replace(standing, step=index + 1)
            last = standing.step == steps
            valid_loss = None
            if evaluate and (last or standing.step % eval_every == 0):
                valid_loss = evaluate(state.params)
                _check_valid(valid_loss, standing.step)
                standing = standing.after_evaluation(valid_loss, min_improvement)
            elif evaluate is None and last:
                standing = replace(standing, best_step=steps)
            _append(rows, metrics, standing.step, report, valid_loss)
            if standing.best_step == standing.step:
                checkpoints.save_best(standing.step, state.params)
            ending = asked_to_end()
            if over() or ending or (save_every and standing.step % save_every == 0):
                keep()
            advance(1, note=standing.note(float(report.loss)))
            if over():
                break
            if ending:
                checkpoints.wait()
                raise SystemExit(SIGTERM_STATUS)
    checkpoints.wait()
    return standing


def rewind(metrics: Path, step: int) -> None:
    """Cuts a metrics file back to its rows up to `step`; a half-written last one goes too."""
    kept = b""
    if metrics.exists():
        for line in metrics.read_bytes().splitlines(keepends=True)[:step]:
            try:
                row = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or row["step"] > step:
                break
            kept += line
    with replacing(metrics) as file:
        file.write(kept)


def _append(
    rows: IO[str], metrics: Path, step: int, report: StepReport, valid_loss: float | None
) -> None:
    row = {
        "step": step,
        "train_loss": float(report.loss),
        "learning_rate": float(report.learning_rate),
        "grad_norm": float(report.grad_norm),
        "valid_loss": valid_loss,
    }
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


def _check_valid(valid_loss: float, step: int) -> None:
    if not math.isfinite(valid_loss):
        raise TrainingError(
            f"step {step}: validation loss {valid_loss}. The last checkpoint is kept; try a "
            "smaller learning_rate"
        )
