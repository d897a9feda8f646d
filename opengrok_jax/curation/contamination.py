"""Decontamination: no text of an evaluation set may teach the student.

An evaluation set's text is there if one of its runs of eight words is, or, where it is shorter
than that, all of it as a whole post. Eight words are few enough to find quotations and many
enough that set phrases are rare (the PaLM report and Open-R1 use the same length).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from opengrok_jax import storage
from opengrok_jax.curation.looks import SHOWN, Look, Reason, Settings
from opengrok_jax.curation.shingles import runs, words
from opengrok_jax.errors import DataError
from opengrok_jax.records import Prompt, Response

RUN = 8
SHORTEST = 3  # words; "Good morning!" stands in every set and gives nothing away
SHIPPED = Path(__file__).parents[1] / "assets" / "tasks"


def index(files: Iterable[Path]) -> frozenset[str]:
    """All runs and short texts of the files' rows.

    Args:
      files: .jsonl or .jsonl.gz, rows with "text", or "tokens" to be joined by spaces.

    Raises:
      DataError: a file is missing or malformed.
    """
    return frozenset(key for file in files for text in _texts(file) for key in keys(text))


def _texts(file: Path) -> Iterator[str]:
    for row_number, row in enumerate(storage.read_jsonl(file), start=1):
        text = row.get("text") or " ".join(row.get("tokens", ()))
        if not isinstance(text, str) or not text:
            raise DataError(f'{file}, row {row_number}: has no "text" and no "tokens"')
        yield text


def keys(text: str) -> frozenset[str]:
    """The runs of a text; of a shorter one its words as a whole, if they are enough."""
    row = words(text)
    if len(row) >= RUN:
        return runs(row, RUN)
    return frozenset((" ".join(["=", *row]),)) if len(row) >= SHORTEST else frozenset()


def contamination(prompt: Prompt, response: Response, settings: Settings) -> Look | None:
    """How many runs of the prompt, its posts and the answer stand in an evaluation set."""
    if not settings.evaluation:
        return None
    texts = (*prompt.posts, *(m.content for m in prompt.messages), response.text)
    found = {key for text in texts for key in keys(text) if key in settings.evaluation}
    if not found:
        return Look(0.0)
    shown = min(found).removeprefix("= ")[:SHOWN]
    detail = f"{len(found)} in common with an evaluation set, as {shown!r}"
    return Look(float(len(found)), Reason.CONTAMINATED, True, detail)
