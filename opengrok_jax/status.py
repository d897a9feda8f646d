"""`opengrok status`: what is done in a run folder, what is not, and what the journals say."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from opengrok_jax import pipeline, stages
from opengrok_jax.errors import DataError
from opengrok_jax.inert import inert
from opengrok_jax.progress import duration
from opengrok_jax.teacher import books, journal_file
from opengrok_jax.teacher.books import Books
from opengrok_jax.teacher.money import usd

PLACES = 6  # of US dollars: an answer of a small model costs less than a hundredth of a cent


def show(folder: Path, *, as_json: bool, orphans: bool) -> int:
    """Prints it; `orphans` names every one of them. Answers the exit status."""
    rows = pipeline.status(folder)
    for row in rows:
        row["journals"] = _journals(folder, stages.stage_of(row["stage"]).folder)
    if as_json:
        print(json.dumps({"run_dir": str(folder), "stages": [_plain(r) for r in rows]}, indent=1))
        return 0
    print(f"{folder}")
    for row in rows:
        state = "done" if row["done"] else "begun" if row["begun"] else "to do"
        took = duration(row["seconds"]) if row["done"] and row["seconds"] is not None else ""
        counts = ", ".join(
            f"{key} {value}"
            for key, value in row["counts"].items()
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)
        )
        shown = counts if len(counts) <= 90 else counts[:90].rpartition(", ")[0] + " ..."
        print(f"  {row['stage']:<13} {state:<6} {took:>11}  {inert(shown)}".rstrip())
        for where, found in row["journals"].items():
            for line in _told(where, found, orphans):
                print(f"    {line}")
    return 0


def _journals(folder: Path, stage: str) -> dict[str, Books | str]:
    """Path below the run folder -> the books of the journal there, or why they cannot be read."""
    found: dict[str, Books | str] = {}
    for path in sorted((folder / stage).rglob(journal_file.NAME)):
        try:
            read = books.read(path.parent)
        except DataError as error:
            read = str(error)
        if read is not None:
            found[str(path.relative_to(folder))] = read
    return found


def _told(where: str, found: Books | str, name_orphans: bool) -> list[str]:
    if isinstance(found, str):
        return [f"{where}: {found}"]
    names = ("ok", "failed", "blocked", "orphaned", "pending", "under_way")
    parts = " + ".join(f"{getattr(found, n)} {n.replace('_', ' ')}" for n in names[:-1])
    if found.under_way:
        parts += f" + {found.under_way} under way (or killed)"
    lines = [
        f"{where}: planned {found.planned} = {parts}; {found.requests} requests, "
        f"{usd(found.settled_ticks, PLACES)} settled, {usd(found.reserved_ticks, PLACES)} reserved"
    ]
    if found.orphans:
        again = sum(orphan.answered for orphan in found.orphans)
        lines.append(
            f"{len(found.orphans)} requests ended with their process and may have been paid "
            f"({usd(found.at_risk_ticks, PLACES)} at risk); {again} of them were asked again and "
            "answered" + ("" if name_orphans else "; `opengrok status --orphans` names them")
        )
        for orphan in found.orphans if name_orphans else ():
            at = datetime.fromtimestamp(orphan.sent_at, UTC).isoformat(timespec="seconds")
            then = "answered since" if orphan.answered else "no answer yet"
            lines.append(
                f"  prompt {orphan.prompt_id}, sent {at}, {usd(orphan.reserved, 10)}, {then}"
            )
    return lines


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    told = {
        where: {"error": found}
        if isinstance(found, str)
        else {**asdict(found), "at_risk_ticks": found.at_risk_ticks}
        for where, found in row["journals"].items()
    }
    return {**row, "journals": told}
