"""Relevance: does the answer speak of what was asked about?

Words are weighed by how rare they are in a fixed reference, the posts and answers that ship:
"the" weighs next to nothing, a name that no reference text has weighs most. The reference never
changes with the data at hand, so that a row's score does not depend on the other rows.

    asked about    people say the Kestrel 9 ships without a charger
    answer         Most are annoyed that the charger is extra.        kestrel and charger would
                                                  ^^^^^^^             each be enough alone
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from pathlib import Path

from opengrok_jax import storage
from opengrok_jax.curation.looks import PROSE, Look, Reason, Settings, judged
from opengrok_jax.curation.shingles import words
from opengrok_jax.records import Prompt, Response

LEAST_WORDS = 8  # shorter answers may be right without a word of the question
ENOUGH = 8.0  # nats of shared words; the weight of a word is ln(texts / texts that have it)
COMMON = 2.0  # nats; a lighter word stands in every seventh text and tells nothing
LEAST_ASKED = 24.0  # nats; a question with fewer telling words can be answered in any
DOUBT, LINE = 0.5, 0.9
_ASSETS = Path(__file__).parents[1] / "assets"
_TAG = re.compile(r"#\w+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=\D)(?=\d)")


def relevance(prompt: Prompt, response: Response, settings: Settings) -> Look | None:
    """1 minus the weight of the words shared with what was asked about, over `ENOUGH`."""
    said = terms(response.text)
    if prompt.cell.intent not in PROSE or len(words(response.text)) < LEAST_WORDS:
        return None
    about = (*prompt.posts, prompt.cell.topic, prompt.cell.event)
    asked = terms(" \n ".join(about if prompt.posts else [prompt.messages[-1].content, *about]))
    telling = {term for term in asked if weight(term) >= COMMON}
    if sum(map(weight, telling)) < LEAST_ASKED:
        return None
    shared = said & telling
    score = 1.0 - min(1.0, sum(map(weight, shared)) / ENOUGH)
    detail = f"shares only {', '.join(sorted(shared)) or 'nothing'} with what was asked about"
    return judged(round(score, 3), DOUBT, LINE, Reason.OFF_TOPIC, detail)


def terms(text: str) -> frozenset[str]:
    """Word stems, the words of a #CamelCase tag apart."""
    if "#" in text:
        text = _TAG.sub(lambda tag: _CAMEL.sub(" ", tag.group()), text)
    return frozenset(map(_stem, words(text)))


@functools.lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    """The first six letters, without a plural s: enough to meet again, cheap, no dictionary."""
    word = word.removesuffix("'s")
    return word[:6] if len(word) > 6 else word.removesuffix("s") if len(word) > 3 else word


@functools.lru_cache(maxsize=65536)
def weight(term: str) -> float:
    """Inverse document frequency in the reference, in nats."""
    texts, having = _reference()
    return math.log((1 + texts) / (1 + having[term]))


@functools.cache
def _reference() -> tuple[int, Counter[str]]:
    texts = [row["text"] for row in storage.read_jsonl(_ASSETS / "posts.jsonl")]
    texts += [row["response"] for row in storage.read_jsonl(_ASSETS / "recorded.jsonl")]
    return len(texts), Counter(term for text in texts for term in terms(text))
