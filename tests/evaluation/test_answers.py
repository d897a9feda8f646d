import pytest

from opengrok_jax.evaluation.answers import parse_entities, parse_label

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
    assert parse_label("not offensive: a joke", labels) == "not offensive"
    assert parse_label("not: rude", labels) == "not"
    assert parse_label("so-so - it varies", labels) == "so-so"
    assert parse_label("a+", labels) == "A+"


def test_every_label_reads_as_itself() -> None:
    assert [parse_label(label, LABELS) for label in LABELS] == list(LABELS)


def test_entities() -> None:
    answer = "person: Ada Lovelace\n\n- Location: Rome\n* WORK: It: Chapter 2\nperson: Ada Lovelace"
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
