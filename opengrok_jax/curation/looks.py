"""What a check answers: a score, and the fault where the score is past its line.

A check is a pure function (prompt, response, settings) -> Look, or None where it does not apply:
a label is not measured as prose. A score is larger the worse the answer is; each check says in
its docstring what it counts. Past the first line a person should look, past the second the answer
is rejected.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from opengrok_jax.errors import ConfigError


class Reason(enum.StrEnum):
    """The fault found."""

    EMPTY = "empty"  # no word at all
    TRUNCATED = "truncated"  # cut at the token limit
    CONTAMINATED = "contaminated"  # holds text of an evaluation set
    REFUSAL = "refusal"  # declines, or speaks of itself as a machine
    HARMFUL = "harmful"  # a severe phrase or slur, or several mild words
    LANGUAGE = "language"  # not in a language that was asked for
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    INVALID_LABEL = "invalid_label"  # a label was asked for, and this is none
    REPETITIVE = "repetitive"  # says the same again and again
    ECHO = "echo"  # repeats the prompt
    OFF_TOPIC = "off_topic"  # shares no telling word with what was asked about
    NEAR_DUPLICATE = "near_duplicate"  # says what an earlier answer says
    HUMAN = "human"  # a person rejected it


# No matter of opinion; a person's time is not spent on them, and no person overrules them.
FINAL = frozenset(
    (
        Reason.EMPTY, Reason.TRUNCATED, Reason.CONTAMINATED, Reason.TOO_SHORT, Reason.TOO_LONG,
        Reason.NEAR_DUPLICATE,
    )
)  # fmt: skip
# Intents that ask for prose; elsewhere (labels, entities, the user's own tasks) "joy" is an answer.
PROSE = frozenset(
    ("trend_summary", "public_opinion", "platform_post", "tone_rewrite", "conflicting_posts")
)
SHOWN = 80  # characters of evidence


@dataclass(frozen=True)
class Look:
    """What a check saw.

    Attributes:
      score: larger is worse, in the check's own unit.
      reason: the fault, or None.
      certain: whether the fault rejects the answer, or a person should decide.
      detail: the evidence.
    """

    score: float
    reason: Reason | None = None
    certain: bool = False
    detail: str = ""


def judged(score: float, doubt: float, line: float, reason: Reason, detail: str) -> Look:
    """A fault above `line`, the doubt of one above `doubt`, nothing otherwise.

    doubt 2, line 3     score 1.9  2.0 | 2.1  3.0 | 3.1
                              fine     | doubt    | certain
    """
    if score <= doubt:
        return Look(score)
    return Look(score, reason, score > line, detail)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the checks draw their lines.

    Attributes:
      min_words: fewer are too short, where the intent asks for prose; one word is enough elsewhere.
      max_words: more are too long.
      echo_overlap: in [0,1]; an answer with a larger share of its word triples out of the prompt
        echoes it.
      languages: ISO 639-1 codes of the languages that answers may be in; none means any.
      labels: for tasks of the user's own, task -> its labels; those of the tasks that ship are
        known.
      evaluation: `contamination.index` of the evaluation sets.
    """

    min_words: int = 3
    max_words: int = 400
    echo_overlap: float = 0.8
    languages: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    evaluation: frozenset[tuple[str, ...]] = field(default=frozenset(), repr=False)

    def __post_init__(self) -> None:
        """Refuses lines that nothing can lie between."""
        if not 1 <= self.min_words <= self.max_words:
            raise ConfigError(
                f"curation needs 1 <= min_words <= max_words, got {self.min_words} and "
                f"{self.max_words}"
            )
        if not 0 <= self.echo_overlap <= 1:
            raise ConfigError(f"curation.echo_overlap is {self.echo_overlap}; expected 0 to 1")
