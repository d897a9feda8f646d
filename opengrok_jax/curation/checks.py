"""The checks in their order, and what they say together of one answer.

All of them look at every answer that is one; the first certain fault is the reason. Near-
duplicates need the other answers and are looked for afterwards, in `duplicates`.
"""

from __future__ import annotations

from collections.abc import Callable

from opengrok_jax.curation.contamination import contamination
from opengrok_jax.curation.harm import harm
from opengrok_jax.curation.labels import labels
from opengrok_jax.curation.language import language
from opengrok_jax.curation.looks import PROSE, SHOWN, Look, Reason, Settings, judged
from opengrok_jax.curation.refusals import refusal
from opengrok_jax.curation.relevance import relevance
from opengrok_jax.curation.repetition import repetition
from opengrok_jax.curation.shingles import Triple, triples, words
from opengrok_jax.records import Finding, Prompt, Response

ECHO_WORDS = 8  # shorter answers may well stand in the prompt: a label does
ECHO_DOUBT = 0.9  # of the line
HUMAN_SOURCES = frozenset(("labelled",))  # whose answers no machine wrote


def presence(prompt: Prompt, response: Response, settings: Settings) -> Look:
    """1 for an answer without anything to read; a lone emoji is something."""
    if any(not character.isspace() for character in response.text):
        return Look(0.0)
    return Look(1.0, Reason.EMPTY, True, f"{len(response.text)} characters, all blank")


def finish(prompt: Prompt, response: Response, settings: Settings) -> Look:
    """1 where the teacher was cut off."""
    if response.finish_reason != "length":
        return Look(0.0)
    detail = f"cut at the token limit: ...{response.text[-SHOWN:]!r}"
    return Look(1.0, Reason.TRUNCATED, True, detail)


def length(prompt: Prompt, response: Response, settings: Settings) -> Look:
    """By what factor the answer is too short for what was asked, or too long; 1 is just right."""
    count = len(words(response.text))
    prose = prompt.cell.intent in PROSE and not prompt.label
    least = settings.min_words if prose else 1
    if count < least:
        score = least / max(count, 0.5)
        return Look(score, Reason.TOO_SHORT, True, f"{count} words, {least} wanted")
    if count > settings.max_words:
        score, detail = count / settings.max_words, f"{count} words, {settings.max_words} allowed"
        return Look(score, Reason.TOO_LONG, True, detail)
    return Look(1.0)


def echo(prompt: Prompt, response: Response, settings: Settings) -> Look | None:
    """Share of the answer's word triples that the prompt holds.

    prompt       the cat sat on the mat .  what now
    response         cat sat on the mat    twice
    triples         (cat sat on) (sat on the) (on the mat) (the mat twice)    3 of 4 echo

    What people gave as the answer may well stand there: names are to be copied.
    """
    if len(words(response.text)) < ECHO_WORDS or response.source in HUMAN_SOURCES:
        return None
    said = triples(response.text)
    turns = [m.content for m in prompt.messages]
    apart = [p for p in prompt.posts if not any(p in turn for turn in turns)]
    asked = frozenset[Triple]().union(*map(triples, turns), *map(triples, apart))
    overlap, line = len(said & asked) / len(said), settings.echo_overlap
    detail = f"{overlap:.0%} of its word triples stand in the prompt"
    return judged(overlap, ECHO_DOUBT * line, line, Reason.ECHO, detail)


Check = Callable[[Prompt, Response, Settings], Look | None]
CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        presence, finish, contamination, refusal, harm, language, length, labels, repetition, echo,
        relevance,
    )
}  # fmt: skip


def judge(
    prompt: Prompt, response: Response, settings: Settings
) -> tuple[dict[str, float], list[Finding]]:
    """The score of every check that applies, and the findings, certain or not, in order.

    An empty answer is not looked at any further.
    """
    scores, findings = {}, []
    for name, check in CHECKS.items():
        look = check(prompt, response, settings)
        if look is None:
            continue
        scores[name] = round(look.score, 4)
        if look.reason is not None:
            findings.append(
                Finding(
                    check=name,
                    reason=str(look.reason),
                    score=scores[name],
                    certain=look.certain,
                    detail=look.detail,
                )
            )
        if look.reason is Reason.EMPTY:
            break
    return scores, findings
