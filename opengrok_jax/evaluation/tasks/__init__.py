"""What the student is asked: an instruction, the labels, a metric and a file of gold answers.

Four tasks are bundled, one module each. Any .jsonl(.gz) of {"text", "label"} is another one: give
`make_task` its file, instruction, labels and metric.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.storage import read_jsonl

ASSETS = Path(__file__).parents[2] / "assets" / "tasks"
METRICS = ("accuracy", "macro_f1", "macro_recall", "f1:LABEL", "entity_f1")

Entity = tuple[str, str]  # (type, surface form)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One question asked of many posts.

    Attributes:
      name: letters, digits, "-" and "_"; it names files.
      instruction: what is asked, with {post} where the post goes.
      labels: the allowed answers; empty for a task that lists entities.
      metric: one of `METRICS` ("f1:irony" is the F1 of the label irony alone).
      file: .jsonl or .jsonl.gz, rows of {"text", "label"} or {"text", "entities"}, "id" optional.
      types: the entity types; empty for a task with labels.

    Raises ConfigError where these contradict each other.
    """

    name: str
    instruction: str
    labels: tuple[str, ...]
    metric: str
    file: Path
    types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks what `Raises` above promises."""
        where = f"task {self.name!r}:"
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.name):
            raise ConfigError(f"{where} a name is made of letters, digits, '-' and '_'")
        if "{post}" not in self.instruction:
            raise ConfigError(f"{where} the instruction must hold {{post}}: {self.instruction!r}")
        if bool(self.types) != (self.metric == "entity_f1") or bool(self.labels) == bool(
            self.types
        ):
            raise ConfigError(
                f"{where} metric entity_f1 goes with types and without labels, every other metric "
                f"with labels and without types; got metric {self.metric!r}, labels "
                f"{list(self.labels)}, types {list(self.types)}"
            )
        kind, _, of_label = self.metric.partition(":")
        if self.metric not in METRICS[:3] and kind not in ("f1", "entity_f1"):
            raise ConfigError(
                f"{where} metric {self.metric!r} is unknown; choose one of {', '.join(METRICS)}"
            )
        if kind == "f1" and of_label not in self.labels:
            raise ConfigError(
                f"{where} metric {self.metric!r} needs one of the labels {', '.join(self.labels)}"
            )
        self._check_answers(where)

    def _check_answers(self, where: str) -> None:
        answers = self.labels or self.types
        # A parsed answer is casefolded and trimmed, so two labels must differ after that.
        folded = [answer.strip().casefold() for answer in answers]
        if len(set(folded)) != len(folded) or not all(folded):
            raise ConfigError(
                f"{where} labels must be non-empty and differ in more than case: {list(answers)}"
            )
        if self.labels and len(self.labels) < 2:
            raise ConfigError(f"{where} a task needs at least two labels, got {list(self.labels)}")

    def ask(self, post: str) -> str:
        """The instruction with the post in its place."""
        return self.instruction.replace("{post}", post)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One post with its gold answer.

    Attributes:
      id: as in the file, else the task's name and the row's number.
      text: the post, verbatim.
      gold: a label, or the distinct (type, surface form) pairs in order of appearance.
    """

    id: str
    text: str
    gold: str | tuple[Entity, ...]


def bundled() -> dict[str, Task]:
    """The tasks that ship with the package, by name."""
    from opengrok_jax.evaluation.tasks import emotion, entities, sentiment, topic

    return {t.name: t for t in (sentiment.TASK, emotion.TASK, topic.TASK, entities.TASK)}


def make_task(name: str, settings: Mapping[str, Any]) -> Task:
    """A bundled task, changed by `settings`, or a task of the user's own.

    Args:
      name: of a bundled task, or any other name, which then needs file, instruction, metric and
        labels (or types).
      settings: file, instruction, labels, metric, types; an empty value keeps the bundled one.

    Raises:
      ConfigError: an unknown setting, a missing one, or settings that contradict each other.
      DataError: there is no such file.
    """
    known = ("file", "instruction", "labels", "metric", "types")
    if unknown := sorted(set(settings) - set(known)):
        raise ConfigError(
            f"task {name!r} has no setting {', '.join(unknown)}; known: {', '.join(known)}"
        )
    changes: dict[str, Any] = {key: value for key, value in settings.items() if value}
    for key in ("labels", "types"):
        if isinstance(changes.get(key), str):
            raise ConfigError(f"task {name!r}: {key} must be a list of words, got {changes[key]!r}")
    changes |= {key: tuple(changes[key]) for key in ("labels", "types") if key in changes}
    if "file" in changes:
        changes["file"] = Path(changes["file"])
    if (task := bundled().get(name)) is not None:
        if "labels" in changes and task.types:
            changes.setdefault("types", ())
        task = replace(task, **changes)
    else:
        missing = [key for key in ("file", "instruction", "metric") if key not in changes]
        if missing:
            raise ConfigError(
                f"task {name!r} is not bundled ({', '.join(bundled())} are) and lacks "
                f"{', '.join(missing)}"
            )
        task = Task(name=name, **{"labels": (), **changes})
    if not task.file.is_file():
        raise DataError(f"task {name!r}: {task.file}: no such file")
    return task


def load_items(task: Task, limit: int = 0) -> tuple[Item, ...]:
    """The posts of a task with their gold answers, in the order of the file.

    Args:
      limit: 0 takes all; N takes the first N after sorting by the SHA-256 of the UTF-8 text, so
        that a small run is a fixed sample and not the head of the file.

    Raises:
      DataError: no rows, a row without text, an unknown label or type, an id that comes twice.
    """
    items: list[Item] = []
    seen: set[str] = set()
    for number, row in enumerate(read_jsonl(task.file), start=1):
        where = f"{task.file}, row {number}"
        text, given = row.get("text"), row.get("id", f"{task.name}-{number}")
        if not isinstance(text, str) or not isinstance(given, str):
            raise DataError(f'{where}: expected a string under "text" (and "id"), got {row!r:.80}')
        if given in seen:
            raise DataError(f"{where}: the id {given!r} came before; ids must differ")
        seen.add(given)
        gold = _gold_entities(task, row, where) if task.types else _gold_label(task, row, where)
        items.append(Item(id=given, text=text, gold=gold))
    if not items:
        raise DataError(f"{task.file}: holds no rows; task {task.name!r} needs at least one")
    if limit:
        items.sort(key=lambda item: hashlib.sha256(item.text.encode()).digest())
        items = items[:limit]
    return tuple(items)


def _gold_label(task: Task, row: dict[str, Any], where: str) -> str:
    label = row.get("label")
    if label not in task.labels:
        raise DataError(
            f"{where}: label {label!r} is none of task {task.name!r}'s labels "
            f"({', '.join(task.labels)}); mend the row or set evaluate.tasks.{task.name}.labels"
        )
    return str(label)


def _gold_entities(task: Task, row: dict[str, Any], where: str) -> tuple[Entity, ...]:
    pairs: dict[Entity, None] = {}
    entities = row.get("entities")
    if not isinstance(entities, list):
        raise DataError(f'{where}: expected a list under "entities", got {entities!r:.80}')
    for entity in entities:
        kind = entity.get("type") if isinstance(entity, dict) else None
        name = entity.get("text") if isinstance(entity, dict) else None
        if kind not in task.types or not isinstance(name, str) or not name.strip():
            raise DataError(
                f'{where}: expected {{"text": a name, "type": one of {", ".join(task.types)}}}, '
                f"got {entity!r:.80}"
            )
        pairs[(str(kind), name.strip())] = None
    return tuple(pairs)
