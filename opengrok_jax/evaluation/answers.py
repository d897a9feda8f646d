"""From an answer's words to a label or to entities, by rules that are stated and strict.

A late change of the parser can move a score by points, so the rules stand here, each with a test,
and the share of answers that they cannot read is reported beside every score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from opengrok_jax.evaluation.tasks import Entity, Item

# Around a label: white space, quotes, and the emphasis that chat models put on it.
_AROUND = " \t\r\n\"'`*“”‘’«»"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a predictor said of one post.

    Attributes:
      id, text, gold: as in `tasks.Item`.
      predicted: a label or (type, surface form) pairs; None where the answer could not be read.
      answer: the generated words, verbatim; "" for a predictor that writes none.
      scores: natural logarithm of the probability of each label; empty where there is none.
    """

    id: str
    text: str
    gold: str | tuple[Entity, ...]
    predicted: str | tuple[Entity, ...] | None
    answer: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


def predicting(
    item: Item,
    predicted: str | tuple[Entity, ...] | None,
    *,
    answer: str = "",
    scores: Mapping[str, float] | None = None,
) -> Prediction:
    """The prediction for an item."""
    return Prediction(
        id=item.id,
        text=item.text,
        gold=item.gold,
        predicted=predicted,
        answer=answer,
        scores=scores or {},
    )


def parse_label(answer: str, labels: tuple[str, ...]) -> str | None:
    """The label that an answer gives, or None.

    Case, white space, quotes and a final full stop or exclamation mark do not matter. Then one of
    two rules must hold:

      whole       the answer is a label and nothing else
      first word  the answer starts with a label, then comes a line break or one of . , : ; ! ( or
                  a dash, then something that is not itself a label: a reason, not an enumeration

    >>> labels = ("negative", "positive")
    >>> parse_label(" 'Positive.' ", labels), parse_label("Negative: the fan died.", labels)
    ('positive', 'negative')
    >>> parse_label("negative, positive", labels), parse_label("rather negative", labels)
    (None, None)
    """
    folded = {label.strip().casefold(): label for label in labels}
    if (whole := _whole(answer)) in folded:
        return folded[whole]
    # The longest label first: "not offensive" must not be read as a shorter label before it.
    any_label = "|".join(re.escape(label) for label in sorted(folded, key=len, reverse=True))
    around = re.escape(_AROUND.replace("\n", ""))
    # The possessive *+ gives nothing back, so a second label cannot slip past the look-ahead.
    match = re.match(
        rf"({any_label})[{around}]*(?:[.,:;!(\n–—]|-(?!\w))[{around}\n–—-]*+(?!(?:{any_label})\b)",
        answer.strip(_AROUND).casefold(),
    )
    return folded[match[1]] if match else None


def _whole(answer: str) -> str:
    return answer.strip(_AROUND).rstrip(".!").strip(_AROUND).casefold()


def parse_entities(answer: str, types: tuple[str, ...]) -> tuple[Entity, ...] | None:
    """The distinct (type, name) pairs of an answer of "type: name" lines, or None.

    Blank lines and list dashes are passed over, the case of the type does not matter, the name is
    taken as it is spelled. The single word "none" is the empty list. A line that is nothing of
    this counts as one wrong entity, of type ""; an answer without one readable line is None.

    >>> parse_entities("person: Ada\\nwork: Nine Winters", ("person", "work"))
    (('person', 'Ada'), ('work', 'Nine Winters'))
    >>> parse_entities("None.", ("person",)), parse_entities("I see nobody", ("person",))
    ((), None)
    """
    if _whole(answer) == "none":
        return ()
    folded = {kind.casefold(): kind for kind in types}
    pairs: dict[Entity, None] = {}
    for line in filter(None, (line.strip() for line in answer.splitlines())):
        kind, colon, name = line.removeprefix("-").partition(":")
        kind, name = kind.strip(_AROUND).casefold(), name.strip()
        readable = bool(colon and name and kind in folded)
        pairs[(folded[kind], name) if readable else ("", line)] = None
    return tuple(pairs) if any(kind for kind, _ in pairs) else None
