"""What was asked, what was kept, what the mask left visible: the report's account of the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from opengrok_jax.records import Example, Prompt

AXES = ("topic", "platform", "style", "hardness")
REASONS_SHOWN = 12


def coverage(prompts: list[Prompt]) -> list[dict[str, Any]]:
    """Heat maps of intent against each other axis: rows, columns, counts, the largest count.

    Axes that no prompt uses are left out, and so are intents that do not use the axis; "" on an
    axis in use reads "any" and does not count for the largest.
    """
    maps = []
    for axis in AXES:
        counts = Counter((p.cell.intent, getattr(p.cell, axis)) for p in prompts)
        values = sorted({value for _, value in counts} - {""})
        intents = list(dict.fromkeys(p.cell.intent for p in prompts))
        intents = [i for i in intents if any(counts[i, value] for value in values)]
        if not intents:
            continue
        columns = values + ([""] if any(counts[i, ""] for i in intents) else [])
        rows = [[counts[intent, value] for value in columns] for intent in intents]
        maps.append(
            {
                "axis": axis,
                "columns": [value or "any" for value in columns],
                "rows": list(zip(intents, rows, strict=True)),
                "largest": max(counts[i, value] for i in intents for value in values),
                "empty": sum(not counts[i, value] for i in intents for value in values),
            }
        )
    return maps


def reasons(rejected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each reason with its count and its first row, the commonest first."""
    counts = Counter(row["reason"] for row in rejected)
    first = {row["reason"]: row for row in reversed(rejected)}
    return [
        {
            "reason": reason.replace("_", " "),
            "count": count,
            "detail": first[reason]["detail"],
            "response": first[reason]["response"],
        }
        for reason, count in counts.most_common(REASONS_SHOWN)
    ]


def authors(kept: Sequence[Example]) -> str:
    """Whether machines or people wrote the answers, in a sentence.

    >>> authors([])
    'No answer was kept.'
    """
    machines = sum(example.provenance.synthetic for example in kept)
    people = len(kept) - machines
    if not kept:
        return "No answer was kept."
    if not people:
        return f"A machine wrote all {machines:,} answers; none is the opinion of a person."
    if not machines:
        return f"All {people:,} answers are labels that came with the posts; no machine wrote one."
    return f"A machine wrote {machines:,} answers; {people:,} are labels that came with the posts."


def rates(corpus: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name, tokens and visible share of prompts, responses, and each part of speech."""
    rows = [(role, corpus["by_role"][role]) for role in ("prompt", "response")]
    tags = sorted(corpus["by_upos"].items(), key=lambda row: -row[1]["tokens"])
    return [(name, row) for name, row in rows + tags if row["tokens"]]
