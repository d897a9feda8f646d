import dataclasses

import pytest

from opengrok_jax.rights import Source, bare, objection

OPEN = Source("api", "http://localhost:8000/v1", "qwen3-32b", "qwen3-32b", "Apache-2.0")


@pytest.mark.parametrize("rights", ["", "  ", "\n"])
def test_no_declaration_no_data(rights):
    said = objection(dataclasses.replace(OPEN, rights=rights))
    assert "without a declaration of rights" in said
    assert "qwen3-32b at http://localhost:8000/v1" in said
    assert objection(OPEN) == ""


XAI = [
    {"endpoint": "https://api.x.ai/v1"},
    {"endpoint": "https://eu-west-1.api.x.ai/v1"},
    {"endpoint": "https://API.X.AI:443/v1"},
    {"model_served": "grok-4.7"},
    {"model_served": "Grok-4.7-fast"},
    {"model_served": "x-ai/grok-4"},
    {"model_asked": "xai:grok-4"},
    {"model_asked": "grok-4", "model_served": "something-else"},
]


@pytest.mark.parametrize("change", XAI)
def test_xai_needs_a_named_agreement(change):
    source = dataclasses.replace(OPEN, **change)
    for rights in ("own-model", "Apache-2.0", "agreement:", "agreement: ", "we have an agreement"):
        said = objection(dataclasses.replace(source, rights=rights))
        assert "written order form" in said
        assert "agreement: NAME" in said
        assert "\n" not in said
    assert objection(dataclasses.replace(source, rights="agreement: order form 17")) == ""
    assert objection(dataclasses.replace(source, rights=" Agreement:OF-17 ")) == ""


@pytest.mark.parametrize(
    "change",
    [
        {"endpoint": "https://api.max.ai/v1"},
        {"endpoint": "https://api.x.ai.example.org/v1"},
        {"endpoint": "http://localhost/x.ai"},
        {"model_served": "opengrokking-7b"},
        {"model_served": "agrok"},
    ],
)
def test_others_do_not(change):
    assert objection(dataclasses.replace(OPEN, **change)) == ""


def test_addresses_come_without_secrets():
    assert bare("https://me:secret@h.example:8000/v1?key=abc#x") == "https://h.example:8000/v1"
    assert bare("http://recorded.invalid/v1") == "http://recorded.invalid/v1"
    assert bare("") == ""
