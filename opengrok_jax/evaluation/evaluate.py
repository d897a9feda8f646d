"""Room 7's run: a student and the kept examples become predictions/ and scores.json.

evaluation/
  predictions/TASK.PREDICTOR.jsonl   one `answers.Prediction` a line
  predictions/made_of.json           what each of them was made of; a re-run keeps what still holds
  scores.json                        {"scores": [records.Score ...], "notes": [...]}
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrok_jax import progress, storage
from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation import floors, metrics, predict
from opengrok_jax.evaluation.answers import Prediction, predicting
from opengrok_jax.evaluation.tasks import Item, Task, load_items, make_task
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.student import CONFIG, DIGESTS, load_student
from opengrok_jax.records import Example, Score, to_json

SCORES = "scores.json"
PREDICTIONS = "predictions"
MADE_OF = "made_of.json"


def run(
    *,
    student: Path,
    examples_file: Path,
    out: Path,
    tokenizer: str = "",
    tasks: dict[str, Any],
    predictors: tuple[str, ...] = ("likelihood", "generation"),
    limit: int = 0,
    max_new_tokens: int = 48,
    batch_size: int = 32,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, int]:
    """Scores the student and its floors on every task. The same command again goes on.

    Args:
      student: folder that `student.save_student` wrote.
      examples_file: kept.jsonl; its training examples teach the floors.
      out: folder of this stage.
      tokenizer: folder or file, as in `tokenizer.load`; "" = the one in the student's folder, or
        else the small one that ships with us.
      tasks: name -> settings, as in `tasks.make_task`.
      predictors: "likelihood", "generation" or both.
      limit: posts of each task, 0 for all; chosen as `tasks.load_items` says.
      max_new_tokens: room for a generated answer; a longer one is cut and read as it is.
      batch_size: rows that the student reads at once.
      bootstrap: resamples behind each interval.
      seed: of the resampling.

    Returns:
      {"scores": rows in scores.json, "tasks": tasks scored}.

    Raises:
      ConfigError: an argument, a task's settings, or a post too long for the student.
      DataError: the examples or a task's file cannot be read.
      CheckpointError: there is no student in that folder, or a broken one.
    """
    _check(tasks, predictors, limit, max_new_tokens, batch_size, bootstrap, seed)
    made = [make_task(name, settings) for name, settings in tasks.items()]
    items = {task.name: load_items(task, limit) for task in made}
    examples = storage.read_records(examples_file, Example)
    tokenizer = tokenizers.beside(student, tokenizer)
    opened = tokenizers.load(tokenizer)
    model, _ = load_student(student)
    inputs = {
        "student": storage.file_sha256(student / DIGESTS),
        "config": storage.file_sha256(student / CONFIG),
        "tokenizer": storage.file_sha256(tokenizers.path_of(tokenizer)),
    }
    jobs = [
        _Job(
            task=task,
            items=items[task.name],
            kind=kind,
            max_new_tokens=max_new_tokens if kind == "generation" else 0,
            inputs=inputs,
            folder=out / PREDICTIONS,
        )
        for task in made
        for kind in predictors
        if task.labels or kind == "generation"
    ]
    _answer_all(jobs, model, opened, batch_size)

    scores: list[Score] = []
    notes: list[str] = []

    def add(task: Task, predictor: str, found: list[Prediction]) -> None:
        scores.append(metrics.score(task, predictor, found, resamples=bootstrap, seed=seed))

    for task in made:
        for job in (job for job in jobs if job.task is task):
            add(task, job.predictor, job.read())
        for predictor, found, note in _floors(task, examples, items[task.name]):
            if found:
                storage.write_jsonl(_path(out / PREDICTIONS, task, predictor), found)
                add(task, predictor, found)
            notes += [note] if note else []
        notes += _notes(task, items[task.name], examples, predictors)
    storage.write_json(out / SCORES, {"scores": [to_json(s) for s in scores], "notes": notes})
    return {"scores": len(scores), "tasks": len(made)}


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One file of the student's predictions, to be made or there already.

    Attributes:
      kind: "likelihood" or "generation".
      max_new_tokens: 0 where nothing is generated.
      inputs: hashes of the student and the tokenizer.
    """

    task: Task
    items: tuple[Item, ...]
    kind: str
    max_new_tokens: int
    inputs: dict[str, str]
    folder: Path

    @property
    def predictor(self) -> str:
        return f"student ({self.kind})"

    @property
    def path(self) -> Path:
        return _path(self.folder, self.task, self.predictor)

    @property
    def answers(self) -> tuple[str | None, ...]:
        """With which answers each question is put to it; None is the one it gives itself."""
        return self.task.labels if self.kind == "likelihood" else (None,)

    @property
    def rows(self) -> int:
        """How many rows the student reads for it."""
        return len(self.items) * len(self.answers)

    def made_of(self) -> str:
        """Fingerprint of everything that the answers depend on."""
        section = {
            "items": [[item.id, item.text, item.gold] for item in self.items],
            "instruction": self.task.instruction,
            "labels": self.task.labels,
            "types": self.task.types,
            "kind": self.kind,
            "max_new_tokens": self.max_new_tokens,
        }
        return storage.fingerprint(section, self.inputs)

    def is_done(self, finished: dict[str, Any]) -> bool:
        """Is the file there, made of the same things, and as it was when it was written?"""
        note = finished.get(self.path.name, {})
        return (
            note.get("made_of") == self.made_of()
            and self.path.exists()
            and note.get("sha256") == storage.file_sha256(self.path)
        )

    def read(self) -> list[Prediction]:
        """The finished predictions."""
        rows = storage.read_jsonl(self.path)
        return [
            predicting(
                item, _as_tuple(row["predicted"]), answer=row["answer"], scores=row["scores"]
            )
            for item, row in zip(self.items, rows, strict=True)
        ]


def _answer_all(
    jobs: Sequence[_Job], model: Phi3, tokenizer: tokenizers.ChatTokenizer, batch_size: int
) -> None:
    """Makes what is missing; each file is complete, or not there."""
    if not jobs:
        return
    ledger = jobs[0].folder / MADE_OF
    finished: dict[str, Any] = storage.read_json(ledger) if ledger.exists() else {}
    missing = [job for job in jobs if not job.is_done(finished)]
    for job in missing:  # a post that does not fit is found now, not hours later
        predict.encode(
            model,
            tokenizer,
            job.task,
            job.items,
            answers=job.answers,
            new_tokens=job.max_new_tokens,
        )
    total = sum(job.rows for job in jobs)
    done = total - sum(job.rows for job in missing)
    with progress.track("evaluate", total=total, unit="rows", done=done) as advance:
        for job in missing:
            note = functools.partial(advance, note=f"{job.task.name}, {job.kind}")
            if job.kind == "likelihood":
                found = predict.by_likelihood(
                    model, tokenizer, job.task, job.items, batch_size=batch_size, advance=note
                )
            else:
                found = predict.by_generation(
                    model,
                    tokenizer,
                    job.task,
                    job.items,
                    batch_size=batch_size,
                    max_new_tokens=job.max_new_tokens,
                    advance=note,
                )
            storage.write_jsonl(job.path, found)
            finished[job.path.name] = {
                "made_of": job.made_of(),
                "sha256": storage.file_sha256(job.path),
            }
            storage.write_json(ledger, finished)


def _floors(
    task: Task, examples: Sequence[Example], items: tuple[Item, ...]
) -> list[tuple[str, list[Prediction], str]]:
    """(predictor, predictions, note) of each floor; no predictions where it could not be made."""
    if task.types:
        return [(floors.ALWAYS_NONE, floors.always_none(items), "")]
    rows = floors.training_rows(task, examples)
    return [
        (floors.MAJORITY, *floors.majority(task, rows, items)),
        (floors.TFIDF, *floors.tfidf_regression(task, rows, items)),
    ]


def _notes(
    task: Task, items: tuple[Item, ...], examples: Sequence[Example], predictors: Sequence[str]
) -> list[str]:
    """What a reader of the scores has to know beside them."""
    notes = []
    if task.types and "likelihood" in predictors:
        notes.append(f"{task.name}: no fixed labels, so the student is scored by generation only")
    trained = {post.strip() for e in examples if e.split == "train" for post in e.posts}
    if leaked := [item.id for item in items if item.text.strip() in trained]:
        shown = ", ".join(leaked[:5]) + (", ..." if leaked[5:] else "")
        notes.append(
            f"{task.name}: {len(leaked)} of {len(items)} test posts stand word for word among the "
            f"training posts too ({shown}); the scores flatter every predictor that was trained"
        )
    return notes


def _check(
    tasks: dict[str, Any],
    predictors: tuple[str, ...],
    limit: int,
    max_new_tokens: int,
    batch_size: int,
    bootstrap: int,
    seed: int,
) -> None:
    if not tasks:
        raise ConfigError("evaluate.tasks is empty; name at least one task")
    if not predictors or sorted(predictors) != sorted(set(predictors) & set(predict.PREDICTORS)):
        raise ConfigError(
            f"evaluate.predictors is {list(predictors)}; give one or more of "
            f"{', '.join(predict.PREDICTORS)}, each once"
        )
    for key, size in {"limit": limit, "seed": seed}.items():
        if size < 0:
            raise ConfigError(f"evaluate.{key}={size} must not be negative")
    sizes = {"max_new_tokens": max_new_tokens, "batch_size": batch_size, "bootstrap": bootstrap}
    for key, size in sizes.items():
        if size < 1:
            raise ConfigError(f"evaluate.{key}={size} must be positive")


def _path(folder: Path, task: Task, predictor: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", predictor.lower()).strip("-")
    return folder / f"{task.name}.{slug}.jsonl"


def _as_tuple(value: Any) -> Any:
    """JSON has no tuples; labels and None stay what they are."""
    return tuple(_as_tuple(v) for v in value) if isinstance(value, list) else value
