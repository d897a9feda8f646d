import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation import answers
from opengrok_jax.evaluation.answers import (
    parse_entities,
    parse_label,
    parse_labels,
    parse_topic,
    read_answer,
    write_answer,
)
from opengrok_jax.evaluation.tasks import BUNDLED, PUBLISHED, Item, known

LABELS = ("negative", "neutral", "positive")
TYPES = ("person", "location", "work")


@pytest.mark.parametrize(
    "answer",
    [
        "negative",
        "Negative",
        " NEGATIVE \n",
        '"negative"',
        "'Negative.'",
        "**negative**",
        "negative!",
    ],
)
def test_the_whole_answer_is_a_label(answer: str) -> None:
    assert parse_label(answer, LABELS) == "negative"


@pytest.mark.parametrize(
    "answer",
    [
        "Negative, because the fan died.",
        "negative: they want their money back",
        "Negative. The post is not positive at all.",
        "negative - it rains",
        "negative — it rains",
        "negative (mostly)",
        "negative\nThe writer is angry.",
        "**Negative**\n\nThe writer is angry.",
        '"Negative", says the tone.',
        "negative, and rightly so",
        "Negative (not positive)",
    ],
)
def test_the_first_word_is_a_label_and_a_reason_follows(answer: str) -> None:
    assert parse_label(answer, LABELS) == "negative"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        ".",
        "rather negative",
        "negatively put",
        "negative because it rains",
        "negative or neutral, hard to say",
        "negative, neutral or positive",
        "negative,  neutral or positive",
        "negative. Positive.",
        "negative, and positive",
        "Negative. But also positive.",
        "negative! (positive)",
        "negative\n\n- neutral",
        "negative / positive",
        "negative, maybe neutral",
        "negat\u0456ve",  # a Cyrillic letter
        "negative\u200b",
        "<b>negative</b>",
        "negative " * 40,
        "negative-ish",
        "The sentiment is negative.",
        "#negative",
        "bad",
    ],
)
def test_everything_else_is_unparsable(answer: str) -> None:
    assert parse_label(answer, LABELS) is None


def test_labels_of_several_words_and_with_prefixes_of_each_other() -> None:
    labels = ("not", "not offensive", "so-so", "A+")
    assert parse_label("Not offensive.", labels) == "not offensive"
    assert parse_label("not  offensive", labels) == "not offensive"
    assert parse_label("not offensive, and not", labels) is None
    assert parse_label("not offensive: a joke", labels) == "not offensive"
    assert parse_label("not: rude", labels) == "not"
    assert parse_label("so-so - it varies", labels) == "so-so"
    assert parse_label("a+", labels) == "A+"


def test_every_label_reads_as_itself() -> None:
    assert [parse_label(label, LABELS) for label in LABELS] == list(LABELS)


def test_entities() -> None:
    answer = (
        "• person: Ada Lovelace\n\n- Location: Rome\n* WORK: It: Chapter 2\nperson: Ada Lovelace"
    )
    assert parse_entities(answer, TYPES) == (
        ("person", "Ada Lovelace"),
        ("location", "Rome"),
        ("work", "It: Chapter 2"),
    )


@pytest.mark.parametrize("answer", ["none", "None.", ' "none"\n'])
def test_no_entities(answer: str) -> None:
    assert parse_entities(answer, TYPES) == ()


@pytest.mark.parametrize(
    "answer", ["", "I see Ada", "animal: Rex", "person:", "none: not one", "Ada: person"]
)
def test_unparsable_entities(answer: str) -> None:
    assert parse_entities(answer, TYPES) is None


def test_an_unreadable_line_is_one_wrong_entity() -> None:
    answer = "Here they are\nperson: Ada\nnone"
    assert parse_entities(answer, TYPES) == (("", "Here they are"), ("person", "Ada"), ("", "none"))


TOPICS = ("sports", "film, tv and video", "arts and culture", "arts")


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("sports", ("sports",)),
        ("Sports.", ("sports",)),
        ("sports; arts", ("sports", "arts")),
        ("arts and sports", ("sports", "arts")),
        ("arts, sports, and film, TV and video", ("sports", "film, tv and video", "arts")),
        ("arts and culture and sports", ("sports", "arts and culture")),
        ("- sports\n- arts and culture\n", ("sports", "arts and culture")),
        ("sports\narts", ("sports", "arts")),
        ("**sports**, 'arts'", ("sports", "arts")),
        ("sports; sports", ("sports",)),
        ("None.", ()),
    ],
)
def test_lists_of_labels(answer: str, labels: tuple[str, ...]) -> None:
    assert parse_labels(answer, TOPICS) == labels


@pytest.mark.parametrize(
    "answer",
    [
        "",
        ";",
        "sport",
        "sports arts",
        "sports; football",
        "sports because they play",
        "sports, because they play",
        "sports;",
        "sportsmanship",
        "none; sports",
        "Topics: sports",
        "sports / arts",
    ],
)
def test_other_lists_are_unreadable(answer: str) -> None:
    assert parse_labels(answer, TOPICS) is None


def test_a_topic_is_one_short_line() -> None:
    assert parse_topic(' "Royal   Wedding". ') == "royal wedding"
    for answer in ("", " . ", "a\nb", "one two three four five six"):
        assert parse_topic(answer) is None


def test_labels_that_end_in_no_letter() -> None:
    emoji = ("❤", "😂", "🇺🇸")
    assert parse_label("❤", emoji) == "❤"
    assert parse_label("😂, because it is funny", emoji) == "😂"
    assert parse_label("😂, 🇺🇸", emoji) is None


def test_doctests() -> None:
    assert doctest.testmod(answers).failed == 0


@given(st.text(alphabet="sportarse,;\n -*.", max_size=30))
def test_no_answer_breaks_a_parser(answer: str) -> None:
    labels = parse_labels(answer, TOPICS)
    assert labels is None or set(labels) <= set(TOPICS)
    assert parse_label(answer, TOPICS) in (None, *TOPICS)
    parse_entities(answer, TYPES)
    parse_topic(answer)


def item(gold, tokens: tuple[str, ...] = ()) -> Item:
    return Item(id="1", text=" ".join(tokens) or "x", gold=gold, tokens=tokens)


@pytest.mark.parametrize("name", [*BUNDLED, *PUBLISHED])
def test_gold_in_words_reads_as_gold_again(name: str) -> None:
    task = known(name)
    assert task is not None
    golds = {
        "label": [item(label) for label in task.labels],
        "labels": [item(()), item(task.labels), item(task.labels[2:4])],
        "entities": [item(()), item(tuple((kind, f"A: {kind}") for kind in task.types))],
        "tags": [
            item(("O",), ("none",)),
            item(
                (*(f"B-{kind}" for kind in task.types), "O", f"B-{(*task.types, 'x')[0]}"),
                (*(f"Na:me{n}" for n in range(len(task.types))), "and", "Ada"),
            ),
        ],
        "summary": [item(("A customer\nwaits.", "Another."))],
    }  # fmt: skip
    if task.kind == "clusters":
        with pytest.raises(ConfigError, match="nobody can answer"):
            write_answer(task, item("5"))
        return
    for one in golds[task.kind]:
        said = write_answer(task, one)
        read = read_answer(task, one, said)
        assert read == (one.gold[0] if task.kind == "summary" else one.gold), said
