"""Decontamination: no text of an evaluation set may teach the student.

An evaluation set's text is there if one of its runs of eight words is, or, where it is shorter
than that, all of it as a whole post. Eight words are few enough to find quotations and many
enough that set phrases are rare (the PaLM report and Open-R1 use the same length).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from opengrok_jax import storage
from opengrok_jax.curation.looks import SHOWN, Look, Reason, Settings
from opengrok_jax.curation.shingles import words
from opengrok_jax.errors import DataError
from opengrok_jax.records import Prompt, Response

Run = tuple[str, ...]
Index = frozenset[Run]
RUN = 8
SHORTEST = 3  # words; "Good morning!" stands in every set and gives nothing away
SHIPPED = Path(__file__).parents[1] / "assets" / "tasks"


def index(files: Iterable[Path]) -> Index:
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
            raise DataError(
                f'{file}, row {row_number}: has no "text" and no "tokens"; evaluation files hold '
                "one of them in each row, whatever a task's `read` makes of other columns"
            )
        yield text


def keys(text: str) -> Index:
    """The runs of a text; of a shorter one its words as a whole, if they are enough."""
    row = words(text)
    if len(row) >= RUN:
        return frozenset(row[i : i + RUN] for i in range(len(row) - RUN + 1))
    return frozenset((row,)) if len(row) >= SHORTEST else frozenset()


@functools.lru_cache(maxsize=4)
def _beginnings(evaluation: Index) -> frozenset[Run]:
    """The first two words of every run: quick to look for, and most texts have none of them."""
    return frozenset(key[:2] for key in evaluation)


def _shared(text: str, evaluation: Index) -> set[Run]:
    """The `keys` of a text that are in the index."""
    row, begun = words(text), _beginnings(evaluation)
    if len(row) < RUN:
        return {row} & evaluation
    starts = [i for i, pair in enumerate(itertools.pairwise(row)) if pair in begun]
    # Up to the last whole run: a shorter one at the end is no post of its own.
    return {row[i : i + RUN] for i in starts if i + RUN <= len(row)} & evaluation


def contamination(prompt: Prompt, response: Response, settings: Settings) -> Look | None:
    """How many runs of the prompt, its posts and the answer stand in an evaluation set."""
    if not settings.evaluation:
        return None
    texts = (*prompt.posts, *(m.content for m in prompt.messages), response.text)
    found = set[Run]().union(*(_shared(text, settings.evaluation) for text in texts))
    if not found:
        return Look(0.0)
    detail = f"{len(found)} in common with an evaluation set, as {' '.join(min(found))[:SHOWN]!r}"
    return Look(float(len(found)), Reason.CONTAMINATED, True, detail)
