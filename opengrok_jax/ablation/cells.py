"""One training: a student is made, asked the test questions, and what it said is written down.

cells/CELL/SET-seed-N.json
    cell, set, seed, print   which training, and the hash of all that it was made of
    tasks                    [{"task", "value", "predicted": an answer a test post, or None,
                              "majority_share"}]
    figures                  parameters, steps, tokens, loss_tokens, train_examples, last_loss
    shared                   whether the student of another cell was asked, in another way
    seconds                  train, compile, evaluate
    losses                   [step, train loss], a few hundred
    device                   what it ran on

Only JAX, Flax, Optax, NumPy, pyarrow, tokenizers and jaxtyping are imported (Orbax, tensorstore and
ml_dtypes too with engine "finetune"): no spaCy, no scikit-learn.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.ablation import plan
from opengrok_jax.records import Message
from opengrok_jax.tokenizer import ChatTokenizer, Encoded

MASKED, ASKED = "masked.parquet", "asked.parquet"


def result_file(workdir: Path, row: Mapping[str, Any]) -> Path:
    """Where the result of a training is."""
    return workdir / "cells" / row["cell"] / f"{row['set']}-seed-{row['seed']}.json"


def print_of(workdir: Path, row: Mapping[str, Any], engine: str, predictor: str) -> str:
    """The hash of all that the result depends on: settings, masked tokens, test questions."""
    from opengrok_jax.masked_file import digest

    mask = workdir / "masks" / row["mask"]
    asked = digest(mask / ASKED) if row["inference_rule"] != "none" else ""
    tasks = storage.read_json(workdir / "tasks" / f"{row['set']}.json")["tasks"]
    how = {k: v for k, v in row.items() if k not in ("cell", "set", "mask")}
    return plan.digest([how, digest(mask / MASKED), asked, tasks, engine, predictor])


@dataclass(frozen=True, kw_only=True)
class _Made:
    """A student: how it is opened for questions, and what its training was."""

    opened: Callable[..., Any]
    figures: dict[str, Any]
    losses: list[Any]
    compiling: float


class Bench:
    """What trainings of one process share: programs, rows on the device, tokenized questions."""

    def __init__(self, workdir: Path, engine: str, predictor: str):
        """Loads nothing yet."""
        self.workdir, self.engine, self.predictor = workdir, engine, predictor
        self._trainer: Any = None
        self._last = ""  # the student at hand; the next row may ask it in another way
        self._made: _Made | None = None

    def run(self, row: Mapping[str, Any], print_: str) -> dict[str, Any]:
        """Makes the student of a row of plan.json, asks it, writes and answers the result."""
        import jax

        begun = time.monotonic()
        shared = self._made is not None and self._last == row["student"]
        if not shared:
            self._last, self._made = "", None
            self._made = self._resident(row) if self.engine == "resident" else self._finetuned(row)
            self._last = row["student"]
        made = self._made
        assert made is not None
        compiling = 0.0 if shared else made.compiling
        trained = time.monotonic() - begun - compiling
        begun = time.monotonic()
        answered = self._ask(made.opened(**self._how(row)), row)
        result = {
            **{key: row[key] for key in ("cell", "set", "seed")},
            "print": print_,
            "tasks": answered,
            "figures": made.figures | ({"tokens": 0, "loss_tokens": 0} if shared else {}),
            "shared": shared,
            "seconds": {
                "train": round(trained, 3),
                "compile": round(compiling, 3),
                "evaluate": round(time.monotonic() - begun, 3),
            },
            "losses": made.losses,
            "device": jax.devices()[0].device_kind,
        }
        storage.write_json(result_file(self.workdir, row), result)
        return result

    def _how(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """How the student is asked: rows at once, and the masks of its prompts."""
        how: dict[str, Any] = {"batch_size": _questions(self.workdir, row["set"])[0]["batch_size"]}
        if row["inference_rule"] != "none":
            asked = self.workdir / "masks" / row["mask"] / ASKED
            how |= {"prompt_masks": _masks(asked), "rule": row["inference_rule"]}
        return how

    def _resident(self, row: Mapping[str, Any]) -> _Made:
        from opengrok_jax.evaluation.predict import Student
        from opengrok_jax.training.resident import Trainer

        self._trainer = self._trainer or Trainer()
        mask = self.workdir / "masks" / row["mask"]
        made = self._trainer.train(
            row["training"], masked_file=mask / MASKED, untrained=row["untrained"]
        )
        chat = _tokenizer(mask / "tokenizer")
        figures = {k: v for k, v in made.figures.items() if not k.startswith("seconds")}
        return _Made(
            opened=lambda **how: Student(made.model, chat, **how),
            figures=figures,
            losses=made.losses,
            compiling=made.figures["seconds_compiling"],
        )

    def _finetuned(self, row: Mapping[str, Any]) -> _Made:
        """The same by `training.finetune`, which resumes within a training."""
        from opengrok_jax.evaluation.predict import Student
        from opengrok_jax.training import finetune

        out = self.workdir / "students" / row["student"]
        settings = dict(row["training"])
        if row["untrained"]:  # as near to no step as a run can be: one, of no size
            settings |= {"max_steps": 1, "learning_rate": 1e-30, "weight_decay": 0.0}
            settings |= {"eval_every": 0, "patience": 0}
        masked = self.workdir / "masks" / row["mask"] / MASKED
        summary = finetune.run(masked_file=masked, out=out, **settings)
        rows = list(storage.read_jsonl(out / "metrics.jsonl"))
        seen = 0 if row["untrained"] else summary["last_step"] * settings["rows_per_batch"]
        figures = {
            "parameters": summary["parameters"],
            "steps": summary["last_step"],
            "tokens": round(seen * settings["row_tokens"] * summary["packing_efficiency"]),
            "loss_tokens": round(seen * summary["loss_tokens_per_epoch"] / summary["rows"]),
            "train_examples": summary["train_examples"],
            "last_loss": rows[-1]["train_loss"],
        }
        return _Made(
            opened=lambda **how: Student.open(out / "student", "", **how),
            figures=figures,
            losses=[[one["step"], one["train_loss"]] for one in rows],
            compiling=0.0,  # meters.jsonl knows; here it is within the training
        )

    def _ask(self, student: Any, row: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The answers to all test questions of the set, and their score."""
        from opengrok_jax.evaluation import metrics

        told, pairs = _questions(self.workdir, row["set"])
        result = []
        for task, items in pairs:
            found = answers(student, task, items, self.predictor, told["max_new_tokens"])
            said = [_plain(p.predicted) for p in found]
            commonest = Counter(str(one) for one in said).most_common(1)[0][1]
            value = metrics.value(metrics.scorer(task, task.metric, found), len(found))
            result.append(
                {
                    "task": task.name,
                    "value": float(value),
                    "predicted": said,
                    "majority_share": round(commonest / len(said), 4),
                }
            )
        return result


def answers(student: Any, task: Any, items: Any, predictor: str, max_new_tokens: int) -> list[Any]:
    """A student's predictions, as `evaluate` makes them."""
    from opengrok_jax.evaluation.answers import predicting, read_answer
    from opengrok_jax.evaluation.ask import likeliest

    prompts = [task.ask(item) for item in items]
    said: dict[int, Any] = {}

    def record(rows: Any, values: Any) -> None:
        said.update(zip(rows, values, strict=True))

    if predictor == "generation":
        student.check(f"task {task.name!r}", prompts, (), max_new_tokens)
        student.answers(prompts, max_new_tokens, record)
        return [
            predicting(item, read_answer(task, item, said[at]), answer=said[at])
            for at, item in enumerate(items)
        ]
    student.check(f"task {task.name!r}", prompts, task.spelled, 0)
    student.log_probs(prompts, task.spelled, record)
    per_token = predictor == "likelihood-per-token"
    lengths = student.label_tokens(task.spelled) if per_token else None
    return [likeliest(task, item, said[at], lengths) for at, item in enumerate(items)]


def read_tasks(value: Mapping[str, Any]) -> list[tuple[Any, tuple[Any, ...]]]:
    """The tasks and posts of a tasks/SET.json."""
    from opengrok_jax.evaluation.tasks import Item, Task

    return [
        (
            Task(**{k: _tuples(v) for k, v in row["task"].items()}),
            tuple(Item(**{k: _tuples(v) for k, v in item.items()}) for item in row["items"]),
        )
        for row in value["tasks"]
    ]


@lru_cache(maxsize=16)
def _questions(workdir: Path, name: str) -> tuple[dict[str, Any], list[Any]]:
    value = storage.read_json(workdir / "tasks" / f"{name}.json")
    return value, read_tasks(value)


@lru_cache(maxsize=16)
def _masks(path: Path) -> Any:
    from opengrok_jax.evaluation.prompt_masks import PromptMasks

    return PromptMasks(path)


class _Remembering(ChatTokenizer):
    """A tokenizer that encodes a chat once, however many students are asked it."""

    def __init__(self, path: Path):
        super().__init__(path)
        self._known: dict[Any, Encoded] = {}

    def encode_chat(self, messages: tuple[Message, ...], response: str | None = None) -> Encoded:
        """As `ChatTokenizer.encode_chat`."""
        key = (messages, response)
        if key not in self._known:
            self._known[key] = super().encode_chat(messages, response)
        return self._known[key]


_tokenizers: dict[str, _Remembering] = {}  # by the hash of the file: every mask has a copy


def _tokenizer(folder: Path) -> _Remembering:
    path = folder / "tokenizer.json"
    sha256 = storage.file_sha256(path)
    if sha256 not in _tokenizers:
        _tokenizers[sha256] = _Remembering(path)
    return _tokenizers[sha256]


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, tuple) else value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
