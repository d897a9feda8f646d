"""Labels: where the prompt names the choices, the answer must make one of them.

A prompt asks for a label if it names every label of its intent's task; other prompts of the same
intent (hashtags for a post, say) are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from opengrok_jax.curation.looks import SHOWN, Look, Reason, Settings
from opengrok_jax.curation.shingles import words
from opengrok_jax.records import Prompt, Response

SHIPPED: dict[str, tuple[str, ...]] = {
    "sentiment": ("negative", "neutral", "positive"),
    "emotion": ("anger", "joy", "optimism", "sadness"),
    "topic": (
        "football", "smartphones", "transit", "streaming", "food", "weather", "games", "elections",
        "space", "fitness", "housing", "music",
    ),
}  # fmt: skip
ENTITY_TYPES = ("person", "location", "group", "product", "work")
_ENTITY = re.compile(r"\s*[-*]?\s*(?P<type>[^:]+):\s*(?P<name>.+?)\s*")
_ONE_WORD = re.compile(r"\b(?:one|a single|with a) word\b")
_SENTENCE = re.compile(r"[.!?:;\n]")


def labels(prompt: Prompt, response: Response, settings: Settings) -> Look | None:
    """1 for no valid label, 0.5 for one in doubt, 0 for a valid one."""
    asked = prompt.messages[-1].content.casefold()
    if prompt.cell.intent == "entities":
        return _entities(prompt, asked, response.text)
    choices = settings.labels.get(prompt.cell.intent) or SHIPPED.get(prompt.cell.intent, ())
    question = words(asked)
    if not choices or not all(_within(words(c), question) for c in choices):
        return None
    answer = response.text.strip().casefold()
    if _ONE_WORD.search(asked):
        named = [c for c in choices if words(answer) == words(c)]
    else:
        first = words(_SENTENCE.split(answer, maxsplit=1)[0]) or words(answer)
        named = [c for c in choices if _within(words(c), first)]
    if len(named) == 1:
        return Look(0.0)
    if named:
        return Look(0.5, Reason.INVALID_LABEL, False, f"names {', '.join(named)}")
    detail = f"none of {', '.join(choices)}: {response.text[:SHOWN]!r}"
    return Look(1.0, Reason.INVALID_LABEL, True, detail)


def _within(part: Sequence[str], row: Sequence[str]) -> bool:
    return any(row[i : i + len(part)] == part for i in range(len(row) - len(part) + 1))


def _entities(prompt: Prompt, asked: str, answer: str) -> Look | None:
    """Lines of `type: name`, each name out of the post, or "none"."""
    if "type: name" not in asked:
        return None
    if words(answer) == ("none",):
        return Look(0.0)
    posts = " ".join(prompt.posts).casefold() or asked
    for line in filter(str.strip, answer.splitlines()):
        match = _ENTITY.fullmatch(line)
        if match is None or match["type"].strip().casefold() not in ENTITY_TYPES:
            detail = f"not `type: name` with a type that was asked for: {line[:SHOWN]!r}"
            return Look(1.0, Reason.INVALID_LABEL, True, detail)
        if match["name"].casefold() not in posts:
            detail = f"the post does not name {match['name'][:SHOWN]!r}"
            return Look(0.5, Reason.INVALID_LABEL, False, detail)
    return Look(0.0)
