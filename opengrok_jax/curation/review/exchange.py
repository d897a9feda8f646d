"""Decisions in and out: JSONL, CSV for spreadsheets, JSON tasks for Label Studio.

A row of a file is an answer with, where there is one, a decision on it:

    prompt_id body_sha reviewer decision reason note edited at seconds look | prompt answer why

What stands right of the line is for the reader. Taken in are rows with a decision; they are
recognised by prompt id, hash of the answer and reviewer, so that the same file twice changes
nothing. Of two decisions of one reviewer the later counts, whichever came from the file; a row that
says something else at the same time, or at none, was changed by hand and counts as of now.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opengrok_jax import records, storage
from opengrok_jax.curation.review import csv_table, decision_log, label_studio
from opengrok_jax.curation.review.decision_log import CHOICES, Body, Log
from opengrok_jax.curation.review.queueing import findings, key
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.records import Decision, Verdict

DECISION = tuple(field.name for field in dataclasses.fields(Decision))
COLUMNS = (*DECISION, "prompt", "answer", "why")
FORMATS = (".jsonl", ".csv", ".json")
_SHOWN = 8  # malformed rows that a message lists

Numbered = Iterator[tuple[str, dict[str, Any]]]  # where it stands, a flat row


def write(path: Path, rows: Iterable[Verdict], decisions: Iterable[Decision]) -> int:
    """Writes rows and decisions in the format of the file's ending; answers how many lines.

    Raises:
      ConfigError: no such format.
    """
    known = _format(path)
    flat = list(_flat(rows, decisions))
    if known == ".jsonl":
        # Half characters are escapes in ASCII, and could not be written otherwise.
        lines = (json.dumps(row) + "\n" for row in flat)
        storage.write_bytes(path, "".join(lines).encode("ascii"))
    elif known == ".csv":
        storage.write_bytes(path, csv_table.table(flat, COLUMNS))
    else:
        tasks = label_studio.tasks(flat)
        storage.write_bytes(path, (json.dumps(tasks, indent=1) + "\n").encode("ascii"))
        storage.write_text(path.with_suffix(".xml"), label_studio.labelling())
    return len(flat)


def _format(path: Path) -> str:
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: the ending says the format; expected {', '.join(FORMATS)}")
    return path.suffix


def _flat(rows: Iterable[Verdict], decisions: Iterable[Decision]) -> Iterator[dict[str, Any]]:
    """A flat row for each settled look at each answer; one with an empty decision where none is."""
    found: dict[Body, list[Decision]] = {}
    for decision in decision_log.by_look(decisions).values():
        if decision.decision in CHOICES:
            found.setdefault(decision_log.body(decision), []).append(decision)
    for row in rows:
        shown = {
            "prompt": "\n\n".join(f"{m.role}: {m.content}" for m in row.messages),
            "answer": row.response,
            # As on the page: of the others it would part the doubtful from the audit.
            "why": "; ".join(f"{w.reason}: {w.detail}" for w in findings(row))
            if row.flagged
            else "",
        }
        blank = dict.fromkeys(DECISION, "") | {"seconds": 0.0, "look": 1}
        said = [records.to_json(d) for d in found.get(key(row), ())]
        for decided in said or [{**blank, "prompt_id": row.prompt_id, "body_sha": row.body_sha}]:
            yield {**decided, **shown}


# ---- in ---------------------------------------------------------------------------------------


@dataclass
class Taken:
    """What came of a file.

    Attributes:
      taken: decisions that are new, or later than what stood.
      known: stood already.
      older: something later stands, or was taken back later.
      undecided: rows without a decision.
      stale: why -> how many decisions are on an answer that is not there any more.
    """

    taken: int = 0
    known: int = 0
    older: int = 0
    undecided: int = 0
    stale: Counter[str] = field(default_factory=Counter)


def take(path: Path, rows: Iterable[Verdict], log: Log, earlier: Iterable[Decision]) -> Taken:
    """Adds the decisions of a file to the log; all that count, or on any error none.

    Args:
      path: .jsonl or .csv as `write` makes them, or .json as Label Studio exports tasks.
      rows: the answers there are.
      log: of the run.
      earlier: the decisions in it.

    Raises:
      ConfigError: no such format.
      DataError: the file is missing, or rows are malformed (each named by where it stands).
    """
    reader: dict[str, Callable[[Path], Numbered]] = {
        ".jsonl": _read_jsonl,
        ".csv": csv_table.read,
        ".json": label_studio.read,
    }
    said: list[Decision | None] = []
    wrong: list[str] = []
    answers = {key(row): row.response for row in rows}
    for where, row in reader[_format(path)](path):
        try:
            decision = _decision(row)
            if decision is not None:
                _unchanged(row, answers.get(decision_log.body(decision)))
            said.append(decision)
        except DataError as error:
            wrong.append(f"{where}: {error}")
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise DataError(
            f"{path}: nothing was taken in, {len(wrong)} rows are malformed: "
            f"{'; '.join(wrong[:_SHOWN])}{more}"
        )
    result, new = _merge(said, answers, earlier)
    log.append_all(new)
    return result


def _merge(
    said: Iterable[Decision | None], there: Collection[Body], earlier: Iterable[Decision]
) -> tuple[Taken, list[Decision]]:
    """What to add to the decisions, and the count of the rest."""
    result, new = Taken(), []
    last = {decision_log.look(d): d for d in earlier}  # the last event of each look
    prompts = {prompt for prompt, _ in there}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    for decision in said:
        if decision is None:
            result.undecided += 1
            continue
        if decision_log.body(decision) not in there:
            known = decision.prompt_id in prompts
            result.stale["the answer is another one now" if known else "no such prompt"] += 1
            continue
        before = last.get(decision_log.look(decision))
        if before is not None:
            if _content(before) == _content(decision):
                result.known += 1
                continue
            if decision.at and _time(decision.at) < _time(before.at):
                result.older += 1
                continue
            if not decision.at or _time(decision.at) == _time(before.at):
                decision = dataclasses.replace(decision, at=now)
        if not decision.at:
            decision = dataclasses.replace(decision, at=now)
        last[decision_log.look(decision)] = decision
        new.append(decision)
        result.taken += 1
    return result, new


def _content(decision: Decision) -> tuple[str, str, str, str]:
    return decision.decision, decision.reason, decision.note, decision.edited


def _time(at: str) -> datetime:
    """Raises DataError where it is no time with a zone."""
    try:
        found = datetime.fromisoformat(at)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise DataError(f"at is {at!r}; expected a time with its zone, 2026-11-25T12:00:00+00:00")
    return found


def _decision(row: dict[str, Any]) -> Decision | None:
    """The decision of a flat row, None where it has none.

    Raises:
      DataError: says what is wrong with it.
    """
    if "" in row:  # a reader could not make a row of it, and says why
        raise DataError(row[""])
    said = row.get("decision", "")
    if not isinstance(said, str) or said.strip().lower() not in ("", *CHOICES):
        raise DataError(f"decision is {said!r}; expected {', '.join(CHOICES)} or nothing")
    if not said.strip():
        return None
    fields = {name: row[name] for name in DECISION if name in row}
    fields |= {"decision": said.strip().lower(), "at": row.get("at") or ""}
    fields["seconds"] = _number(float, row.get("seconds"), 0.0, "seconds")
    fields["look"] = _number(int, row.get("look"), 1, "look")
    decision = records.from_json(Decision, fields)
    decision_log.check(decision)
    if decision.at:
        _time(decision.at)
    return decision


def _unchanged(row: dict[str, Any], there: str | None) -> None:
    """Refuses a row whose answer somebody wrote over, which would be lost; spaces aside."""
    given = row.get("answer") or ""
    if there is not None and given and str(given).split() != there.split():
        raise DataError("the answer was changed; a new text belongs into edited, with edit")


def _number(kind: Callable[[Any], Any], value: Any, blank: Any, name: str) -> Any:
    if value is None or value == "":
        return blank
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{name} is {value!r}; expected a number") from None


def _read_jsonl(path: Path) -> Numbered:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        yield f"line {number}", row if isinstance(row, dict) else {"": "no JSON object"}
