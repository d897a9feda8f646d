"""Repetition: Gopher's measures where they were made for, compression for what is shorter.

The Gopher rules (Rae et al. 2021, table A1) count how much of a *document* its repeated lines and
word runs take up. A post of twenty words has no such statistics, so below `DOCUMENT_WORDS` the
question is by what factor zlib can shorten it; real posts and labels never come near the line.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence

from opengrok_jax.curation.looks import Look, Reason, Settings, judged
from opengrok_jax.curation.shingles import words
from opengrok_jax.records import Prompt, Response

DOCUMENT_WORDS = 40
SHORTEST = 40  # bytes; below, "goal goal goal!" is a cheer
DOUBT, LINE = 2.5, 3.5  # factors of compression
# Share of the characters in the commonest run of n words, and in all runs of n words that occur
# more than once.
TOP_RUNS = {2: 0.20, 3: 0.18, 4: 0.16}
REPEATED_RUNS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
REPEATED_LINES = 0.30
# A reply may be to ten people; that says nothing ten times.
_ADDRESSES = re.compile(r"https?://\S+|@\w+|\[[A-Z]+\]")
_NEAR = 0.8  # of a line: doubtful


def repetition(prompt: Prompt, response: Response, settings: Settings) -> Look | None:
    """The largest measure over its line (documents), or the factor over its line (shorter texts).

    1 is the line in both cases.
    """
    text = _ADDRESSES.sub(" ", response.text)
    row = words(text)
    if len(row) > DOCUMENT_WORDS:
        name, score = max(measures(text, row).items(), key=lambda item: item[1])
        return judged(score, _NEAR, 1.0, Reason.REPETITIVE, f"{name}: {score:.2f} of what is usual")
    raw = " ".join(text.split()).encode()
    if len(raw) < SHORTEST:
        return None
    factor = len(raw) / len(zlib.compress(raw, 9))
    detail = f"zlib makes it {factor:.1f} times shorter"
    return judged(factor / LINE, DOUBT / LINE, 1.0, Reason.REPETITIVE, detail)


def measures(text: str, row: Sequence[str]) -> dict[str, float]:
    """Every Gopher measure of a document, divided by its line."""
    found = {}
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    again = len(lines) - len(set(lines))
    found["repeated lines"] = again / max(len(lines), 1) / REPEATED_LINES
    size = sum(map(len, row))
    for n, line in TOP_RUNS.items():
        runs = Counter(tuple(row[i : i + n]) for i in range(len(row) - n + 1))
        run, times = runs.most_common(1)[0]
        # In a post of fifty words a phrase said twice is past Gopher's line, and good style.
        share = times * sum(map(len, run)) / size if times > 2 else 0.0
        found[f"commonest run of {n} words"] = share / line
    for n, line in REPEATED_RUNS.items():
        covered = _repeated(row, n)
        found[f"repeated runs of {n} words"] = sum(len(row[i]) for i in covered) / size / line
        if not covered:  # then no longer run is repeated, either
            break
    return found


def _repeated(row: Sequence[str], n: int) -> set[int]:
    """Places of the words in every run of n that occurred before."""
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for i in range(len(row) - n + 1):
        run = tuple(row[i : i + n])
        if run in seen:
            covered.update(range(i, i + n))
        seen.add(run)
    return covered
