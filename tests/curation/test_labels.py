from typing import Any

import pytest

from opengrok_jax.curation.labels import ENTITY_TYPES, SHIPPED, labels
from opengrok_jax.curation.looks import Settings
from opengrok_jax.evaluation import tasks
from opengrok_jax.prompts import templates
from tests.curation.curation_rows import prompt, response


def look(text, asked, intent, posts=(), **settings) -> Any:
    to = prompt(asked.replace("{post}", "a post"), intent=intent, posts=posts)
    return labels(to, response(text, to), Settings(**settings))


def test_the_labels_are_those_of_the_tasks():
    for name in SHIPPED:
        assert sorted(SHIPPED[name]) == sorted(tasks.make_task(name, {}).labels)
    assert sorted(ENTITY_TYPES) == sorted(tasks.make_task("entities", {}).types)


@pytest.mark.parametrize(
    ("text", "score"),
    [("joy", 0), (" Joy.\n", 0), ("happiness", 1), ("joy or anger", 1), ("It is joy", 1)],
)
def test_one_word(text, score):
    found = look(text, templates.EMOTION, "emotion")
    assert (found.score, found.certain) == (score, score == 1)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Neutral: it only lists dates, nothing negative.", 0),
        ("I would say neutral.", 0),
        ("Negative or neutral, hard to say.", 0.5),
        ("Hard to say.", 1),
    ],
)
def test_a_label_with_a_reason(text, score):
    asked = "Is this post negative, neutral or positive? Give the label first.\n\nwell"
    assert look(text, asked, "sentiment").score == score


def test_prompts_that_name_no_labels_ask_for_none():
    assert look("#BusLife", "Suggest three hashtags for this post.", "topic") is None
    assert look("fine", "Who is named?", "entities") is None
    assert look("fine", "What now?", "a_task_of_the_user") is None


def test_the_users_own_labels():
    asked = "Is this post spam or not spam? Answer with one word.\n\n{post}"
    mine = {"spam": ("spam", "not spam")}
    assert look("not spam", asked, "spam", labels=mine).score == 0
    assert look("ham", asked, "spam", labels=mine).score == 1


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("none", 0),
        ("person: Dana Okafor\n- location: Aldermoor", 0),
        ("Person: dana okafor", 0),
        ("person: Ruben Hale", 0.5),
        ("politician: Dana Okafor", 1),
        ("Dana Okafor", 1),
    ],
)
def test_entities(text, score):
    post = "Dana Okafor speaks in Aldermoor"
    assert look(text, templates.ENTITIES, "entities", posts=(post,)).score == score
