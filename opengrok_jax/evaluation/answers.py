"""From an answer's words to a label, entities or a topic, by rules that are stated and strict.

A late change of the parser can move a score by points, so the rules stand here, each with a test,
and the share of answers that they cannot read is reported beside every score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.spans import tag_names, tagged_names
from opengrok_jax.evaluation.tasks import Answer, Entity, Item, Task

# Around a label: white space, quotes, and the emphasis that chat models put on it.
_AROUND = " \t\r\n\"'`*“”‘’«»"
# Words that go on with an enumeration: "positive, and also negative" names two labels.
_JOINTS = r"\b(?:and|or|also|but|maybe|perhaps|then|possibly)\b"
TOPIC_WORDS = 5  # a longer answer is a sentence about the post, not the name of a topic


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a predictor said of one post.

    Attributes:
      id, text, gold: as in `tasks.Item`.
      predicted: of the form of gold (for a summary one text); None where it could not be read.
      answer: the generated words, verbatim; "" for a predictor that writes none.
      scores: natural logarithm of the probability of each label; empty where there is none.
    """

    id: str
    text: str
    gold: Answer
    predicted: Answer | None
    answer: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


def predicting(
    item: Item,
    predicted: Answer | None,
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


def read_answer(task: Task, item: Item, answer: str) -> Answer | None:
    """What a generated answer says, by the rules of the task's kind; None where it says nothing."""
    of_word = dict(zip(task.spelled, task.labels, strict=True))
    if task.kind == "label":
        word = parse_label(answer, task.spelled)
        return None if word is None else of_word[word]
    if task.kind == "labels":
        words = parse_labels(answer, task.spelled)
        return None if words is None else tuple(of_word[word] for word in words)
    if task.kind == "clusters":
        return parse_topic(answer)
    if task.kind == "summary":
        return answer.strip() or None
    entities = parse_entities(answer, task.types)
    if entities is None or task.kind == "entities":
        return entities
    return tag_names(item.tokens, entities)[0]


def write_answer(task: Task, item: Item) -> str:
    """The gold answer in the words that are asked for: what `read_answer` reads as gold again.

    Of several summaries the first; of tags each name once, so that names that stand there twice,
    once tagged and once not, come back tagged twice. A cluster has no words.
    """
    word = dict(zip(task.labels, task.spelled, strict=True))
    if task.kind == "label":
        return word[str(item.gold)]
    if task.kind == "labels":
        return "; ".join(word[label] for label in item.gold) or "none"
    if task.kind == "summary":
        return str(item.gold[0])
    if task.kind == "clusters":
        raise ConfigError(f"task {task.name!r} has clusters for gold, which nobody can answer with")
    pairs = item.gold if task.kind == "entities" else tagged_names(item.tokens, item.gold)
    return "\n".join(f"{kind}: {name}" for kind, name in pairs) or "none"


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
    folded = {" ".join(label.casefold().split()): label for label in labels}
    if (whole := _whole(answer)) in folded:
        return folded[whole]
    # The longest label first: "not offensive" must not be read as a shorter label before it.
    any_label = "|".join(re.escape(label) for label in sorted(folded, key=len, reverse=True))
    around = re.escape(_AROUND.replace("\n", ""))
    # The possessive *+ gives nothing back, so a second label cannot slip past the look-ahead.
    match = re.match(
        rf"({any_label})[{around}]*(?:[.,:;!(\n–—]|-(?!\w))"
        rf"(?:[{around}\n.,:;!?()/&+–—-]|{_JOINTS})*+(?!(?:{any_label})(?!\w))",
        answer.strip(_AROUND).casefold(),
    )
    return folded[match[1]] if match else None


def parse_labels(answer: str, labels: tuple[str, ...]) -> tuple[str, ...] | None:
    """The labels that an answer lists, in the task's order, or None.

    Between them stand commas, semicolons, line breaks with or without list dashes, or "and"; every
    piece has to be a label, and the word "none" alone is the empty list. A reason after the list,
    or one word that is no label, makes the whole unreadable: what was meant would be a guess.

    >>> labels = ("sports", "film, tv and video")
    >>> parse_labels("- Film, TV and video\\n- sports", labels), parse_labels("none", labels)
    (('sports', 'film, tv and video'), ())
    >>> parse_labels("sports; football", labels), parse_labels("sports, because", labels)
    (None, None)
    """
    if _whole(answer) == "none":
        return ()
    folded = {label.strip().casefold(): label for label in labels}
    any_label = "|".join(re.escape(label) for label in sorted(folded, key=len, reverse=True))
    around = re.escape(_AROUND)
    one = rf"[{around}]*(?:[-•][{around}]+)?({any_label})(?!\w)[{around}]*"
    between = r"(?:[,;\n]+\s*(?:and\s)?|\band\b)"
    rest, found = answer.strip(_AROUND).rstrip(".!").casefold(), set()
    while match := re.match(one, rest):
        found.add(folded[match[1]])
        after = rest[match.end() :]
        if not after:
            return tuple(label for label in labels if label in found)
        # A line break was taken for space around the label; then nothing else need come between.
        joint = re.match(between, after)
        if joint is None and "\n" not in rest[match.end(1) : match.end()]:
            return None
        rest = after[joint.end() :] if joint else after
    return None


def _whole(answer: str) -> str:
    whole = answer.strip(_AROUND).rstrip(".!").strip(_AROUND).casefold()
    return " ".join(whole.split())


def parse_topic(answer: str) -> str | None:
    """The topic that an answer names: its only line, folded; None for nothing or a sentence.

    >>> parse_topic(" *Royal wedding.* "), parse_topic("It seems to be about a royal wedding")
    ('royal wedding', None)
    """
    topic = _whole(answer)
    lines = answer.strip().splitlines()
    return topic if topic and len(lines) == 1 and len(topic.split()) <= TOPIC_WORDS else None


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
        kind, colon, name = line.lstrip("-•").partition(":")
        kind, name = kind.strip(_AROUND).casefold(), name.strip()
        readable = bool(colon and name and kind in folded)
        pairs[(folded[kind], name) if readable else ("", line)] = None
    return tuple(pairs) if any(kind for kind, _ in pairs) else None
