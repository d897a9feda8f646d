from typing import Any

import pytest

from opengrok_jax.curation.harm import MILD_LIMIT, harm
from opengrok_jax.curation.looks import Settings
from tests.curation.curation_rows import prompt, response


def look(said, *, text="What is the mood?", **asked) -> Any:
    to = prompt(text, **asked)
    return harm(to, response(said, to), Settings())


@pytest.mark.parametrize(
    ("text", "score", "certain"),
    [
        ("All fine.", 0.0, None),
        ("They should all be shot, says one.", 1.0, True),
        ("He calls them kikes.", 1.0, True),
        ("What an idiot.", 0.333, None),
        ("What an idiot and moron.", 0.667, False),
        ("Idiot, moron and scum, they say.", 1.0, True),
        ("my nigga made it home", 0.5, False),
        ("Proud dykes on bikes lead the parade past the Maine coon cafe", 0.0, None),
    ],
)
def test_tiers(text, score, certain):
    found = look(text)
    assert found.score == score
    assert (found.certain if found.reason else None) == certain


def test_evidence_names_tier_and_place():
    assert look("Idiot, moron and scum, they say.").detail == (
        "mild: 'idiot', mild: 'moron', mild: 'scum'"
    )


def test_quoted_speech_is_the_prompts():
    post = "he posted: kill yourself, you idiot idiot idiot"
    said = "One author quotes a threat, 'kill yourself', and rejects it."
    assert (look(said).score, look(said).certain) == (1.0, True)
    quoted = look(said, posts=(post,))
    assert (quoted.score, quoted.certain) == (0.5, False)
    assert "as in the prompt" in quoted.detail
    insults = "idiot, idiot, idiot, that is what it says"
    assert look(insults).score == 1.0
    assert look(insults, posts=(post,)).score == 0.0
    assert look(insults, text=f"Sum up: {post}").score == 0.0


def test_a_new_insult_beside_a_quoted_one_counts():
    assert look("drop dead, and kill yourself", posts=("kill yourself",)).score == 1.0


def test_mild_words_add_up_to_the_limit():
    assert look("scum " * MILD_LIMIT).certain
    assert not look("scum " * (MILD_LIMIT - 1)).certain
