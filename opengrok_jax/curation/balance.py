"""Balance: what the kept answers lean to, and whom the checks hit more often than others.

    sentiment, stance   of each topic, the share of each tone: by the answer's own label where one
                        was asked for, else by counting the words of a small lexicon
    groups              the share of answers kept among the rows that name a group of people or are
                        written in a dialect, beside all other rows

A gap is reported as such only where the interval of the difference leaves out zero. With many
groups one would do so by chance; the level is therefore divided by their number (Bonferroni). A
gap is a question, not an accusation: posts about some groups are more often attacked.

The lexicon reads words, not meaning: no negation, no irony. It is there to see a set lean by tens
of percent, and for nothing finer.
"""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from opengrok_jax.curation.intervals import difference, normal, wilson
from opengrok_jax.curation.shingles import words
from opengrok_jax.errors import DataError
from opengrok_jax.records import Prompt, Response

ASSETS = Path(__file__).parents[1] / "assets" / "curation"
SENTIMENTS = ("positive", "neutral", "negative")
STANCES = ("for", "undecided", "against")
LEVEL = 0.95


def marks(prompt: Prompt, response: Response) -> tuple[str, ...]:
    """What is counted of a row: "sentiment/positive", "stance/for", "identity/women", ..."""
    own = _own_label(prompt, response)
    tones = words(response.text)
    found = [f"sentiment/{own or _lean(tones, 'positive', 'negative', 'neutral')}"]
    if not own:
        found.append(f"stance/{_lean(tones, 'for', 'against', 'undecided')}")
    named = set(tones).union(*map(words, prompt.posts or [m.content for m in prompt.messages]))
    index = _lists("groups.txt")
    found += sorted({group for word in named for group in index.get(word, ())})
    return tuple(found)


def _own_label(prompt: Prompt, response: Response) -> str:
    """The sentiment an answer states, where that was the question."""
    if prompt.cell.intent != "sentiment":
        return ""
    first = next(iter(words(response.text)), "")
    return first if first in SENTIMENTS else ""


def _lean(row: tuple[str, ...], up: str, down: str, level: str) -> str:
    """Which of two lists has more words in a text."""
    counts = Counter(name for word in row for name in _lists("lexicon.txt").get(word, ()))
    higher = counts[up] - counts[down]
    return up if higher > 0 else down if higher < 0 else level


@functools.cache
def _lists(name: str) -> dict[str, tuple[str, ...]]:
    """word -> the lists of a file that hold it. A line "[list]" begins one, "#" a comment."""
    found: dict[str, list[str]] = defaultdict(list)
    current = ""
    for number, line in enumerate((ASSETS / name).read_text(encoding="utf-8").splitlines(), 1):
        line = line.split("#")[0].strip()
        if match := re.fullmatch(r"\[(.+)\]", line):
            current = match[1]
        elif line:
            if not current or any(words(word) != (word,) for word in line.split()):
                raise DataError(f"{ASSETS / name}, line {number}: expected plain lower-case words")
            for word in line.split():
                found[word].append(current)
    return {word: tuple(lists) for word, lists in found.items()}


def report(rows: Iterable[tuple[str, bool, tuple[str, ...]]]) -> dict[str, Any]:
    """The balance of (topic, kept, marks) rows.

    Returns:
      {"topics": {topic: {"kept", "sentiment": {tone: share}, "stance": {side: share}}},
       "groups": [{"group", "rows", "kept", "rate", "low", "high", "rest", "gap", "gap_low",
                   "gap_high", "flagged"}, ...]}, groups by name; rates in [0,1]; low and high are
      Wilson's at 95 %, those of the gap Newcombe's at the level that the number of groups leaves.
    """
    total: Counter[bool] = Counter()
    of_topic: dict[str, Counter[str]] = defaultdict(Counter)
    of_group: dict[str, Counter[bool]] = defaultdict(Counter)
    for topic, kept, marked in rows:
        total[kept] += 1
        for mark in marked:
            kind = mark.split("/")[0]
            if kind not in ("sentiment", "stance"):
                of_group[mark][kept] += 1
            elif kept:
                of_topic[topic][mark] += 1
        of_topic[topic]["kept"] += kept
    z = normal(1 - (1 - LEVEL) / max(len(of_group), 1))
    return {
        "topics": {topic: _topic(of_topic[topic]) for topic in sorted(of_topic)},
        "groups": [_group(name, of_group[name], total, z) for name in sorted(of_group)],
    }


def _topic(counts: Counter[str]) -> dict[str, Any]:
    result: dict[str, Any] = {"kept": counts["kept"]}
    for kind, values in (("sentiment", SENTIMENTS), ("stance", STANCES)):
        all_of_it = sum(counts[f"{kind}/{v}"] for v in values)
        shares = {v: round(counts[f"{kind}/{v}"] / all_of_it, 4) for v in values if all_of_it}
        result[kind] = shares
    return result


def _group(name: str, counts: Counter[bool], total: Counter[bool], z: float) -> dict[str, Any]:
    rows, kept = counts.total(), counts[True]
    others = (total[True] - kept, total.total() - rows)
    low, high = wilson(kept, rows, normal(LEVEL))
    gap_low, gap_high = difference((kept, rows), others, z)
    rest = others[0] / others[1] if others[1] else 0.0
    figures = {
        "rate": kept / rows, "low": low, "high": high, "rest": rest, "gap": kept / rows - rest,
        "gap_low": gap_low, "gap_high": gap_high,
    }  # fmt: skip
    flagged = bool(others[1]) and (gap_low > 0 or gap_high < 0)
    rounded = {key: round(value, 4) for key, value in figures.items()}
    return {"group": name, "rows": rows, "kept": kept, **rounded, "flagged": flagged}
