"""Label Studio's JSON: tasks with predictions out, exported annotations in.

A task is {"data": {...}, "predictions": [{"model_version", "result": [...]}]}; what the program
exports again has "annotations": [{"result", "completed_by", "updated_at", "lead_time",
"was_cancelled"}, ..] beside the same data (https://labelstud.io/guide/task_format and
/guide/predictions). The names in the results are those of the labelling configuration that
`labelling` writes; give it to the project before importing the tasks.

Decisions of ours stay out of the tasks: the program would take them for those of whoever imports
them, and refuses names that it does not know.

Tried with Label Studio 1.23.2 (2026-11-27): tasks imported, decided on its page and through its
API, exported as JSON and taken in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from opengrok_jax.curation.review.decision_log import CHOICES, REASONS
from opengrok_jax.errors import DataError

DATA = ("prompt_id", "body_sha", "prompt", "answer", "why")


def tasks(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A task for each answer; `rows` as `exchange` makes them."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        result = [_choice("decision", "reject" if row["why"] else "accept")]
        found[row["prompt_id"], row["body_sha"]] = {
            "data": {name: _storable(row[name]) for name in DATA},
            "predictions": [{"model_version": "rules", "result": result}],
        }
    return list(found.values())


def _choice(name: str, value: str) -> dict[str, Any]:
    return {
        "id": name,
        "from_name": name,
        "to_name": "answer",
        "type": "choices",
        "value": {"choices": [value]},
    }


def _storable(text: str) -> str:
    """The text without what the program's database refuses: null and half characters."""
    return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text)


def labelling() -> str:
    """The labelling configuration of a project for such tasks, XML."""

    def options(names: Iterable[str]) -> str:
        return "".join(f"\n    <Choice value={quoteattr(name)}/>" for name in names)

    # On a View, since the program shows a TextArea of its own accord whatever it is told.
    when = '<View visibleWhen="choice-selected" whenTagName="decision" whenChoiceValue='
    return f"""<View>
  <Header value="Asked"/>
  <Text name="prompt" value="$prompt"/>
  <Header value="Answer"/>
  <Text name="answer" value="$answer"/>
  <Text name="why" value="$why"/>
  <Choices name="decision" toName="answer" choice="single" required="true">{options(CHOICES)}
  </Choices>
  {when}"reject">
  <Header value="Why, and a note if you like"/>
  <Choices name="reason" toName="answer" choice="single">{options(REASONS)}
  </Choices>
  <TextArea name="note" toName="answer" maxSubmissions="1" rows="3"/>
  </View>
  {when}"edit">
  <Header value="The answer as it should be"/>
  <TextArea name="edited" toName="answer" maxSubmissions="1" editable="true" rows="8"
    value="$answer"/>
  </View>
</View>
"""


def read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Flat rows, one for each annotation, with where it stands.

    Raises:
      DataError: there is no such file, or it is not a list of tasks.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if not isinstance(found, list):
        raise DataError(f"{path}: expected a list of tasks; export as JSON")
    for number, task in enumerate(found, start=1):
        where = f"task {number}"
        data = task.get("data") if isinstance(task, dict) else None
        if not isinstance(data, dict):
            yield where, {"": "no task with data; export as JSON, not as JSON-MIN"}
            continue
        annotations = task.get("annotations") or []
        if not isinstance(annotations, list):
            yield where, {"": "annotations is no list"}
            continue
        for place, annotation in enumerate(annotations, start=1):
            yield f"{where}, annotation {place}", _row(data, annotation)


def _row(data: dict[str, Any], annotation: Any) -> dict[str, Any]:
    if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
        return {"": "no annotation with a result"}
    if annotation.get("was_cancelled") or not annotation["result"]:
        return {"decision": ""}
    said: dict[str, str] = {}
    for part in annotation["result"]:
        value = part.get("value") if isinstance(part, dict) else None
        texts = (value.get("choices") or value.get("text")) if isinstance(value, dict) else None
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
            return {"": "a result without choices or text"}
        said[str(part.get("from_name"))] = "\n".join(texts)
    if not said.get("decision"):
        return {"": "no decision was chosen"}
    decision = said["decision"]
    return {
        "prompt_id": data.get("prompt_id"),
        "body_sha": data.get("body_sha"),
        "reviewer": _reviewer(annotation.get("completed_by")),
        "decision": decision,
        # What was filled in before the choice changed, and is hidden since, does not count.
        "reason": said.get("reason", "") if decision == "reject" else "",
        "note": said.get("note", "") if decision == "reject" else "",
        "edited": said.get("edited", "") if decision == "edit" else "",
        "at": annotation.get("updated_at") or annotation.get("created_at") or "",
        "seconds": annotation.get("lead_time"),
    }


def _reviewer(completed_by: Any) -> str:
    """The annotator: a number, or an object with more about him."""
    if isinstance(completed_by, dict):
        completed_by = completed_by.get("email") or completed_by.get("id")
    return f"label-studio {completed_by}" if completed_by is not None else "label-studio"
