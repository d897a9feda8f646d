from typing import Any

import pytest

from opengrok_jax.curation.looks import Settings
from opengrok_jax.curation.refusals import refusal
from tests.curation.curation_rows import prompt, response


def look(text) -> Any:
    return refusal(prompt(), response(text), Settings())


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, but I’m not able to judge which of them is right.",
        "I'm afraid I can't assess claims about health.",
        "I am very sorry, I wasn't there, so I can't write about it.",
        "Unfortunately, I cannot provide an answer.",
        "I cannot comply with this.",
        "We are unable to help with this request.",
        "As an AI language model, I have no feelings about football.",
        "Well, as an AI, I have no opinion.",
        "Great match! But I'm just an AI and could not see it.",
        "Sure! As Grok, I find this hilarious.",
    ],
)
def test_refusals(text):
    assert (look(text).reason, look(text).certain, look(text).score) == ("refusal", True, 1.0)


@pytest.mark.parametrize(
    "text",
    [
        "I cannot summarise what was never said.",
        "I don't have access to live posts, but the mood seems good.",
        "My knowledge cutoff is last year.",
        "This would violate my guidelines, one of them jokes.",
    ],
)
def test_what_a_person_should_look_at(text):
    assert (look(text).reason, look(text).certain, look(text).score) == ("refusal", False, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "I'm so sorry you are going through this. I can't imagine how it feels.",
        "I'm sorry, I can't believe they charge for oat milk now!",
        "Sorry, but I can't help laughing at this.",
        "I can't help but love these buses.",
        "Sorry for the delay, the trains cannot run today.",
        "As an AI startup founder he sees it differently.",
        "Afraid of the dark? The author says she won't share her torch.",
        "I don't have a ticket and I am not sorry.",
    ],
)
def test_what_only_sounds_like_a_refusal(text):
    assert look(text).reason is None
