"""Predictions as TweetEval's own evaluation script reads them: anybody can check our numbers.

    tweeteval/emotion.txt            one number a line, in the order of the test set
    tweeteval/stance/abortion.txt    the stance task, a file a target

    python evaluation_script.py --tweeteval_path datasets --predictions_path .../tweeteval

An answer that could not be read is written as `metrics.wrong_label`, as it counts here. The script
wants whole test sets: what was limited, or asked of other rows, it compares with the wrong lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opengrok_jax import storage
from opengrok_jax.errors import DataError
from opengrok_jax.evaluation.answers import Prediction
from opengrok_jax.evaluation.metrics import wrong_label
from opengrok_jax.evaluation.tasks import Item, Task

PREFIX = "tweeteval-"


def export(
    folder: Path, task: Task, items: Sequence[Item], predictions: Sequence[Prediction]
) -> list[Path]:
    """Writes one task's file, for stance one a target; answers their paths.

    Raises:
      DataError: stance rows without their target.
    """
    numbers = {label: number for number, label in enumerate(task.labels)}
    lines = [
        f"{numbers[wrong_label(task, p.gold) if p.predicted is None else str(p.predicted)]}\n"
        for p in predictions
    ]
    name = task.name.removeprefix(PREFIX)
    if not task.group:
        return [_write(folder / f"{name}.txt", lines)]
    if any(not item.group for item in items):
        raise DataError(f"{task.name}: rows without their target cannot be written for TweetEval")
    paths = []
    for group in dict.fromkeys(item.group for item in items):
        own = [line for item, line in zip(items, lines, strict=True) if item.group == group]
        paths.append(_write(folder / name / f"{group}.txt", own))
    return paths


def _write(path: Path, lines: Sequence[str]) -> Path:
    storage.write_text(path, "".join(lines))
    return path
