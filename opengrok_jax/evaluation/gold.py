"""Labelled posts of a task as the rows that `prompts.source = "posts"` reads, to be learnt from.

Question and answer are worded exactly as the evaluation asks and reads them, whatever the form of
the answer: a label, several, names with their types, a summary.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.answers import write_answer
from opengrok_jax.evaluation.tasks import load_items, make_task
from opengrok_jax.progress import track


def run(*, files: Mapping[str, str], out: Path, count: int = 0) -> dict[str, Any]:
    """Writes `out`, a .jsonl of {"text", "label", "task", "question"}.

    Args:
      files: known task -> a file of its labelled posts in the layout of `tasks.rows`: its training
        split, not the one it is scored on.
      count: at most so many of each, chosen as `tasks.load_items` says; 0 = all.

    Returns:
      rows: of each task; left_out: posts that are empty, or stand there with several answers.

    Raises:
      ConfigError: no task, an unknown one, or one whose gold answers have no words.
      DataError: a file cannot be read, or holds a row that is none.
    """
    if not files:
        raise ConfigError("name at least one task and its file: --task NAME=FILE")
    rows: list[dict[str, str]] = []
    counts: dict[str, int] = {}
    left_out = 0
    with track("gold", total=len(files), unit="tasks") as advance:
        for name, file in files.items():
            task = make_task(name, {"file": file})
            items = load_items(task, count)
            answers: dict[str, set[str]] = {}
            for item in items:
                answers.setdefault(task.ask(item), set()).add(write_answer(task, item))
            clear = [i for i in items if i.text.strip() and len(answers[task.ask(i)]) == 1]
            left_out += len(items) - len(clear)
            told = {task.ask(item): item for item in clear}
            rows += [
                {
                    "text": item.text,
                    "label": write_answer(task, item),
                    "task": name,
                    "question": question,
                }
                for question, item in told.items()
            ]
            counts[name] = len(told)
            advance(1)
    storage.write_jsonl(out, rows)
    return {"rows": counts, "left_out": left_out}
