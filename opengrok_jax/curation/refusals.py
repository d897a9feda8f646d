"""Refusals, and machines that speak of themselves."""

from __future__ import annotations

import re

from opengrok_jax.curation.looks import SHOWN, Look, Reason, Settings
from opengrok_jax.records import Prompt, Response

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
        r"\bas grok\b|\bi(?:'m| am) grok\b",
    )
)
# What a person writes as well: somebody should look.
_DOUBTS = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        rf"^\W*{_CANNOT}{_HELPING}",
        r"\bi (?:do not|don't) have (?:any )?(?:personal )?"
        r"(?:access to|opinions|feelings|the ability)",
        r"\bmy (?:training data|knowledge cut-?off|guidelines)\b",
        r"\b(?:against|violates?) (?:my|our|the) (?:content |usage )?"
        r"(?:guidelines|polic(?:y|ies))\b",
    )
)


def refusal(prompt: Prompt, response: Response, settings: Settings) -> Look:
    """1 for an answer that declines or speaks of itself as a machine, 0.5 where it might."""
    text = response.text.replace("’", "'")
    for score, patterns in ((1.0, _REFUSALS), (0.5, _DOUBTS)):
        for pattern in patterns:
            if match := pattern.search(text):
                return Look(score, Reason.REFUSAL, score == 1.0, repr(match.group()[:SHOWN]))
    return Look(0.0)
