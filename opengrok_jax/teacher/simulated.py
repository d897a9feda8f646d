"""The simulated teacher's words: an answer made of the question, the same for the same seed."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from opengrok_jax.records import Message, canonical_json

_OPENINGS = ("People mostly talk about", "The mood turns on", "What stands out is", "It is about")
_CLOSINGS = ("and few agree.", "and most find it funny.", "and many are tired of it.", "so far.")
_WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What a simulated teacher says; `finish_reason` as in `records.Response`."""

    text: str
    finish_reason: str = "stop"


def answer(messages: Sequence[Message], *, seed: int) -> Answered:
    """An answer to the last user turn: some of its longer words between two stock phrases."""
    asked = canonical_json([[m.role, m.content] for m in messages])
    chance = random.Random(hashlib.sha256(f"{seed}:{asked}".encode()).digest())
    words = list(dict.fromkeys(_WORD.findall(messages[-1].content))) or ["nothing"]
    chosen = chance.sample(words, min(len(words), chance.randint(3, 8)))
    return Answered(
        text=f"{chance.choice(_OPENINGS)} {', '.join(chosen)} {chance.choice(_CLOSINGS)}"
    )
