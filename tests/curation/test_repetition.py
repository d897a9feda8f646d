from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.curation.looks import Settings
from opengrok_jax.curation.repetition import DOCUMENT_WORDS, measures, repetition
from opengrok_jax.curation.shingles import words
from tests.curation.curation_rows import prompt, response


def look(text) -> Any:
    return repetition(prompt(), response(text), Settings())


PROSE = (
    "The free buses please nearly everybody in town. Two posts ask who is going to pay for them "
    "once the first year is over, and a third wonders why the night lines were left out. A driver "
    "adds that new vehicles are on order, which nobody else seems to have heard about yet."
)


def test_prose_is_fine_at_every_length():
    assert look(PROSE).score < 0.5
    assert look(PROSE[:150]).score < 0.5
    assert look("GOAL GOAL GOAL!!!") is None


@pytest.mark.parametrize(
    "text",
    [
        "so good " * 15,
        "ha" * 100,
        "The buses are free. " * 8,
        "The buses are free and the drivers are glad about it today.\n" * 12,
        f"{PROSE} {PROSE}",
    ],
)
def test_the_same_again_and_again(text):
    assert (look(text).reason, look(text).certain) == ("repetitive", True)


def test_the_measures_of_a_drawn_document():
    # a b a b a b c d: "a b" three times is 6 of 8 characters, runs of 5 words never come again
    row = words("a b a b a b c d")
    found = measures("a b a b a b c d", row)
    assert found["commonest run of 2 words"] == pytest.approx(6 / 8 / 0.20)
    assert found["commonest run of 3 words"] == 0.0
    assert found["repeated runs of 5 words"] == 0.0
    row = words("a b c d e x a b c d e")
    assert measures("", row)["repeated runs of 5 words"] == pytest.approx(5 / 11 / 0.15)
    lines = "one\ntwo\none\none"
    assert measures(lines, words(lines))["repeated lines"] == pytest.approx(2 / 4 / 0.30)


def test_a_phrase_said_twice_is_style_and_mentions_are_nothing():
    twice = f"I love him because he cares. {PROSE} I love him because he sings, too."
    assert look(twice).reason is None
    assert look("@user " * 40 + "is this seat free, or are you waiting for somebody?").score < 0.5
    assert look("https://h.example/a " * 20 + "[HANDLE] " * 20) is None


@given(st.lists(st.sampled_from("abcdefgh"), min_size=DOCUMENT_WORDS + 1, max_size=80))
def test_doubling_a_document_never_looks_better(row):
    once, twice = " ".join(row), " ".join(row + row)
    longest = "repeated runs of 5 words"
    first = measures(once, words(once))[longest]
    assert measures(twice, words(twice))[longest] >= first / 2
    assert look(twice).certain
