"""The checks: each a pure function (prompt, response, settings) -> Verdict.

They run in the order of `CHECKS`, and the first fault found is the reason. Near-duplicates need
the other answers and are looked for afterwards, in `duplicates`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass

from opengrok_jax.curation import words as harmful_words
from opengrok_jax.curation.shingles import shingles, words
from opengrok_jax.errors import ConfigError
from opengrok_jax.records import Prompt, Response, Verdict


class Reason(enum.StrEnum):
    """The fault found."""

    EMPTY = "empty"  # no word at all
    TRUNCATED = "truncated"  # cut at the token limit
    REFUSAL = "refusal"  # declines, or speaks of itself as a machine
    HARMFUL = "harmful"  # a severe phrase, or several mild ones
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    ECHO = "echo"  # repeats the prompt
    NEAR_DUPLICATE = "near_duplicate"  # says what an earlier answer says


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the checks draw their lines.

    Attributes:
      min_words: fewer are too short, where the intent asks for prose; one word is enough elsewhere.
      max_words: more are too long.
      echo_overlap: in [0,1]; an answer with a larger share of its word triples out of the prompt
        echoes it.
    """

    min_words: int = 3
    max_words: int = 400
    echo_overlap: float = 0.8

    def __post_init__(self) -> None:
        """Refuses lines that nothing can lie between."""
        if not 1 <= self.min_words <= self.max_words:
            raise ConfigError(
                f"curation needs 1 <= min_words <= max_words, got {self.min_words} and "
                f"{self.max_words}"
            )
        if not 0 <= self.echo_overlap <= 1:
            raise ConfigError(f"curation.echo_overlap is {self.echo_overlap}; expected 0 to 1")


KEEP = Verdict(keep=True)
# Intents that ask for prose; elsewhere (labels, entities, the user's own tasks) "joy" is an answer.
PROSE = frozenset(
    ("trend_summary", "public_opinion", "platform_post", "tone_rewrite", "conflicting_posts")
)
ECHO_WORDS = 8  # shorter answers may well stand in the prompt: a label does
MILD_LIMIT = 3
_SHOWN = 80


def _reject(reason: Reason, detail: str) -> Verdict:
    return Verdict(keep=False, reason=str(reason), detail=detail)


def presence(prompt: Prompt, response: Response, settings: Settings) -> Verdict:
    """There is something to read; a lone emoji is."""
    if any(not character.isspace() for character in response.text):
        return KEEP
    return _reject(Reason.EMPTY, f"{len(response.text)} characters, all blank")


def finish(prompt: Prompt, response: Response, settings: Settings) -> Verdict:
    """The teacher came to an end by itself."""
    if response.finish_reason != "length":
        return KEEP
    return _reject(Reason.TRUNCATED, f"cut at the token limit: ...{response.text[-_SHOWN:]!r}")


_CANNOT = (
    r"\b(?:i|we)(?:'m| am|'re| are)? (?:really |simply )?"
    r"(?:can't|cannot|can not|couldn't|could not|won't|will not|not able to|unable to|decline to)"
)
_HELPING = (
    r" (?:really |actually |simply )?(?:help|assist|comply|do (?:that|this)|write|provide|judge"
    r"|assess|evaluate|answer|fulfil|create|generate|produce|summari[sz]e|rewrite|classify|give"
    r"|offer|share|discuss|engage|continue|complete|respond|support|participate|determine"
    r"|speculate|say which|label)\b(?! (?:but|\w+ing)\b)"
)
_SORRY = (
    r"^\W*(?:i'm |i am |we're )?(?:so |very |really )?(?:sorry|afraid|unfortunately|apologi[sz]e)"
)
_REFUSALS = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        # An apology, then what it cannot do, within the first sentence. "I'm sorry, I can't
        # believe they did this to you" is none, and nor is "I can't help laughing".
        rf"{_SORRY}[^.!?\n]{{0,160}}?{_CANNOT}{_HELPING}",
        rf"^\W*{_CANNOT} (?:help with|assist|comply|fulfil|provide|generate|do (?:that|this))\b",
        # A machine speaking of itself, anywhere.
        r"\bas an ai(?: language)?(?: model| assistant| chatbot)?(?:,| i\b|\.)",
        r"\bas a (?:large )?language model\b",
        r"\bi(?:'m| am) (?:just |only )?(?:an ai|an artificial intelligence|a language model)\b",
    )
)


def refusal(prompt: Prompt, response: Response, settings: Settings) -> Verdict:
    """The answer is one."""
    text = response.text.replace("’", "'")
    for pattern in _REFUSALS:
        if match := pattern.search(text):
            return _reject(Reason.REFUSAL, repr(match.group()[:_SHOWN]))
    return KEEP


def harm(prompt: Prompt, response: Response, settings: Settings) -> Verdict:
    """One severe phrase or `MILD_LIMIT` mild ones are too many."""
    hits = harmful_words.find(response.text)
    severe = [hit for hit in hits if hit.tier == "severe"]
    shown = severe or (hits if len(hits) >= MILD_LIMIT else [])
    if not shown:
        return KEEP
    return _reject(Reason.HARMFUL, ", ".join(f"{h.tier}: {h.found!r}" for h in shown))


def length(prompt: Prompt, response: Response, settings: Settings) -> Verdict:
    """Neither too short for what was asked nor too long."""
    count = len(words(response.text))
    prose = prompt.cell.intent in PROSE and not prompt.label
    least = settings.min_words if prose else 1
    if count < least:
        return _reject(Reason.TOO_SHORT, f"{count} words, {least} wanted")
    if count > settings.max_words:
        return _reject(Reason.TOO_LONG, f"{count} words, {settings.max_words} allowed")
    return KEEP


def echo(prompt: Prompt, response: Response, settings: Settings) -> Verdict:
    """The answer says something that the prompt does not.

    prompt       the cat sat on the mat .  what now
    response         cat sat on the mat    twice
    triples         (cat sat on) (sat on the) (on the mat) (the mat twice)    3 of 4 echo
    """
    said = shingles(response.text)
    if len(words(response.text)) < ECHO_WORDS:
        return KEEP
    asked = frozenset[str]().union(
        *(shingles(m.content) for m in prompt.messages), *(shingles(p) for p in prompt.posts)
    )
    overlap = len(said & asked) / len(said)
    if overlap <= settings.echo_overlap:
        return KEEP
    return _reject(Reason.ECHO, f"{overlap:.0%} of its word triples stand in the prompt")


Check = Callable[[Prompt, Response, Settings], Verdict]
CHECKS: dict[str, Check] = {
    check.__name__: check for check in (presence, finish, refusal, harm, length, echo)
}


def judge(prompt: Prompt, response: Response, settings: Settings) -> tuple[str, Verdict]:
    """The first check that rejects, by name, and its verdict; ("", keep) where none does."""
    for name, check in CHECKS.items():
        verdict = check(prompt, response, settings)
        if not verdict.keep:
            return name, verdict
    return "", KEEP
