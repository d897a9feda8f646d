"""Whether an answer has the form that was asked for, as far as that can be counted.

max_words 40      no more words           sentences 1     exactly so many
words 1           exactly so many         paragraphs 2    exactly so many
bullets 3         lines that begin with - or * or a number
hashtags 1        exactly so many; 0 none
ends_with "?"     the last character, spaces, quotes and tags after it left out
starts_with [..]  one of the labels is the first word
emoji False       none
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from opengrok_jax.curation.shingles import words

_BULLET = re.compile(r"^\s*(?:[-*•–]|\d+[.)])\s+\S", re.M)
_SENTENCE = re.compile(r"[.!?…]+[\"'”’)]*(?=\s|$)")
_HASHTAG = re.compile(r"(?<![\w&])#(?!\d+(?!\w))[^\W_]\w*")
_TAIL = re.compile(r"(?:[\s\"'”’)*]|(?<![\w&])#\w+)+$")


def _emoji(text: str) -> bool:
    return any(unicodedata.category(c) == "So" and ord(c) > 0x2190 for c in text)


def _sentences(text: str) -> int:
    """Ends of sentences; what comes after the last one counts as one more, a lone tag does not."""
    ends = len(_SENTENCE.findall(text))
    rest = _HASHTAG.sub("", _SENTENCE.split(text)[-1])
    return ends + bool(words(rest))


CHECKS: dict[str, Callable[[str, Any], bool]] = {
    "max_words": lambda text, n: len(words(text)) <= n,
    "words": lambda text, n: len(words(text)) == n,
    "bullets": lambda text, n: len(_BULLET.findall(text)) == n,
    "sentences": lambda text, n: _sentences(text) == n,
    "paragraphs": lambda text, n: len([p for p in re.split(r"\n\s*\n", text) if p.strip()]) == n,
    "hashtags": lambda text, n: len(_HASHTAG.findall(text)) == n,
    "ends_with": lambda text, end: _TAIL.sub("", text).endswith(end),
    "emoji": lambda text, wanted: _emoji(text) == wanted,
    "starts_with": lambda text, labels: words(text)[:1] in _firsts(labels),
}


def _firsts(labels: Iterable[str]) -> set[tuple[str, ...]]:
    return {words(label)[:1] for label in labels}


def obeyed(text: str, form: Mapping[str, Any]) -> float:
    """Share of the demands that a text meets, in [0,1]; 1 where there are none.

    Raises:
      KeyError: a demand is none of `CHECKS`.
    """
    if not form:
        return 1.0
    return sum(CHECKS[name](text, value) for name, value in form.items()) / len(form)
