from collections import Counter

import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.prompts.templates import INTENTS, SLOTS, TEMPLATES, TWISTS, Template


def test_three_templates_are_the_reports_and_at_least_twenty_ours():
    origins = Counter(t.origin for t in TEMPLATES)
    assert origins["report"] == 3
    assert origins["ours"] >= 20
    assert len({t.name for t in TEMPLATES}) == len(TEMPLATES)


def test_a_template_with_an_unknown_slot_is_refused():
    with pytest.raises(ConfigError, match="has the slot mood; known: topic"):
        Template(name="x", intent="y", text="{mood}")


def test_every_intent_has_several_ways_of_asking_and_every_slot_is_used():
    per_intent = Counter(t.intent for t in TEMPLATES)
    assert set(per_intent) == set(INTENTS)
    assert min(per_intent.values()) >= 2
    assert {slot for t in TEMPLATES for slot in t.slots} == set(SLOTS)


def test_no_template_tries_to_get_around_a_safeguard():
    barred = ("ignore", "jailbreak", "system prompt", "no restrictions", "pretend", "uncensored")
    for text in [t.text for t in TEMPLATES] + list(TWISTS.values()):
        assert not [word for word in barred if word in text.lower()], text
