"""Gold rows, from a file or from the hub, as items.

One JSON object a row, by the task's kind (the layout of README):

    label      {"text", "label"}              a label, its word, or its number from 0
    labels     {"text", "labels": [..]}
    entities   {"text", "entities": [{"type", "text"}, ..]}
    tags       {"tokens": [..], "tags": [..]} BIO
    summary    {"turns": [..] or "text", "summaries": [..]}
    clusters   {"text", "label"}

"id" is optional everywhere; what `Task.fields` and `Task.group` name is read beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from opengrok_jax.errors import DataError, needs_extra
from opengrok_jax.evaluation.tasks import Answer, Hub, Item, Row, Task
from opengrok_jax.storage import read_jsonl


def items(task: Task) -> list[Item]:
    """All items; raises as `tasks.load_items`."""
    source = str(task.file) if task.file is not None else task.hub.path if task.hub else ""
    found: list[Item] = []
    seen: set[str] = set()
    for number, row in enumerate(_rows(task), start=1):
        where = f"{source}, row {number}"
        item = _item(task, row, where, number)
        if item.id in seen:
            raise DataError(f"{where}: the id {item.id!r} came before; ids must differ")
        seen.add(item.id)
        found.append(item)
    if not found:
        raise DataError(f"{source}: holds no rows; task {task.name!r} needs at least one")
    return found


def _rows(task: Task) -> Iterator[Row]:
    if task.file is not None:
        return (task.read(row) for row in read_jsonl(task.file))
    assert task.hub is not None, "make_task refuses a task without any source"
    return from_hub(task.hub, task.name)


def from_hub(hub: Hub, name: str) -> Iterator[Row]:
    """The rows of a set on the hub, part after part, in the order in which they lie there.

    The library keeps what it downloads, so a second call needs no network; HF_TOKEN,
    HF_DATASETS_OFFLINE and the like are read by it. Names and columns are those that the cards on
    the hub state; they were tried on local sets of that form, not on the hub itself.

    Raises:
      DataError: it cannot be had.
      MissingExtra: `datasets` is not installed.
    """
    with needs_extra("tasks"):
        import datasets
    for part, fields in hub.parts.items():
        try:
            loaded: Any = datasets.load_dataset(
                hub.path, part or None, split=hub.split, revision=hub.revision or None
            )
        except Exception as error:  # of whatever library is below, each with its own tree
            told = (str(error).strip().splitlines() or [""])[0][:200]
            raise DataError(
                f"task {name!r}: {hub.path} ({part}, {hub.split}) could not be had from the hub: "
                f"{type(error).__name__}: {told}; set evaluation.data to a folder that has it, or "
                f"evaluation.tasks.{name}.file to a file"
            ) from None
        for row in loaded:
            yield hub.read({**row, **fields})


def _item(task: Task, row: Row, where: str, number: int) -> Item:
    given = row.get("id", f"{task.name}-{number}")
    tokens: tuple[str, ...] = ()
    if task.kind == "tags":
        tokens = _strings(row.get("tokens"), "tokens", where)
        text: Any = " ".join(tokens)
    elif task.kind == "summary" and "turns" in row:
        text = "\n".join(_strings(row["turns"], "turns", where))
    else:
        text = row.get("text")
    if not isinstance(text, str) or not isinstance(given, str):
        raise DataError(f'{where}: expected a string under "text" (and "id"), got {row!r:.80}')
    fields = {name: str(row[name]) for name in task.fields if name in row}
    group = row.get(task.group, task.fields.get(task.group, "")) if task.group else ""
    return Item(
        id=given,
        text=text,
        gold=_GOLD[task.kind](task, row, where),
        tokens=tokens,
        fields=fields,
        group=str(group),
    )


def _label(task: Task, row: Row, where: str) -> Answer:
    return _known_label(task, row.get("label"), where)


def _known_label(task: Task, label: Any, where: str) -> str:
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(task.labels):
        return task.labels[label]
    if label in task.labels:
        return str(label)
    if label in task.words:
        return task.labels[task.words.index(label)]
    raise DataError(
        f"{where}: label {label!r} is none of task {task.name!r}'s labels "
        f"({', '.join(task.labels)}); mend the row or set evaluation.tasks.{task.name}.labels"
    )


def _labels(task: Task, row: Row, where: str) -> Answer:
    given = row.get("labels")
    if not isinstance(given, (list, tuple)):
        raise DataError(f'{where}: expected a list under "labels", got {given!r:.80}')
    found = {_known_label(task, label, where) for label in given}
    return tuple(label for label in task.labels if label in found)


def _entities(task: Task, row: Row, where: str) -> Answer:
    pairs: dict[tuple[str, str], None] = {}
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


def _tags(task: Task, row: Row, where: str) -> Answer:
    tags = _strings(row.get("tags"), "tags", where)
    allowed = {"O", *(f"{b}-{kind}" for b, kind in itertools.product("BI", task.types))}
    if unknown := [tag for tag in tags if tag not in allowed]:
        raise DataError(
            f"{where}: tag {unknown[0]!r} is unknown; expected O, or B- or I- before one of "
            f"{', '.join(task.types)}"
        )
    if any(token.split(" ") != [token] or not token for token in row["tokens"]):
        raise DataError(f"{where}: a token is empty or holds a space")
    if len(tags) != len(row["tokens"]):
        raise DataError(f"{where}: {len(tags)} tags for {len(row['tokens'])} tokens")
    return tags


def _summaries(task: Task, row: Row, where: str) -> Answer:
    summaries = _strings(row.get("summaries"), "summaries", where)
    if not summaries:
        raise DataError(f"{where}: expected at least one summary")
    return summaries


def _cluster(task: Task, row: Row, where: str) -> Answer:
    label = row.get("label")
    if not isinstance(label, (str, int)) or label == "":
        raise DataError(f'{where}: expected a cluster under "label", got {label!r:.80}')
    return str(label)


def _strings(value: Any, name: str, where: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise DataError(f'{where}: expected a list of strings under "{name}", got {value!r:.80}')
    return tuple(value)


_GOLD: dict[str, Callable[[Task, Row, str], Answer]] = {
    "label": _label,
    "labels": _labels,
    "entities": _entities,
    "tags": _tags,
    "summary": _summaries,
    "clusters": _cluster,
}
