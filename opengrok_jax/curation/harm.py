"""What listed words mean for an answer, by tier and by whose words they are.

severe, slur    rejects; only doubtful where the prompt holds the phrase, too, and the answer
                quotes it, perhaps to speak against it
contested       never more than doubtful: a slur to some, a name of their own or plain dialect
                to others
mild            `MILD_LIMIT` of them reject, one less is doubtful; those of the prompt do not
                count
"""

from __future__ import annotations

from opengrok_jax.curation import words as harmful_words
from opengrok_jax.curation.looks import Look, Reason, Settings
from opengrok_jax.records import Prompt, Response

MILD_LIMIT = 3
_WEIGHT = {"severe": 1.0, "slur": 1.0, "contested": 0.5, "mild": 1 / MILD_LIMIT}
_QUOTED = {"severe": 0.5, "slur": 0.5, "contested": 0.5, "mild": 0.0}


def harm(prompt: Prompt, response: Response, settings: Settings) -> Look:
    """The weights of the listed phrases; the worst by itself, or all mild ones together."""
    hits = harmful_words.find(response.text)
    if not hits:
        return Look(0.0)
    asked = {
        hit.phrase
        for text in (*(m.content for m in prompt.messages), *prompt.posts)
        for hit in harmful_words.find(text)
    }
    weighed = [(_QUOTED if h.phrase in asked else _WEIGHT)[h.tier] for h in hits]
    graver = [w for h, w in zip(hits, weighed, strict=True) if h.tier != "mild"]
    mild = sum(w for h, w in zip(hits, weighed, strict=True) if h.tier == "mild")
    score = round(max([*graver, mild]), 3)
    shown = ", ".join(
        f"{h.tier}: {h.found!r}" + (" (as in the prompt)" if h.phrase in asked else "")
        for h, w in zip(hits, weighed, strict=True)
        if w
    )
    if score < 0.5:
        return Look(score)
    return Look(score, Reason.HARMFUL, score >= 1.0, shown)
