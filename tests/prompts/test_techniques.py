import json
import re
from collections import Counter

import pytest

from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.prompts import lint, techniques

GOOD = {"name": "a", "kind": "format", "text": "Use {topic}.", "form": {"max_words": 9}}


def test_every_kind_that_the_report_names_is_there():
    found = techniques.load()
    kinds = Counter(t.kind for t in found)
    assert set(kinds) == set(techniques.KINDS)
    assert min(kinds.values()) >= 3
    assert kinds["adversarial"] >= 10
    for word in ("sarcastic", "steps", "opposite", "no longer holds", "stands for"):
        assert any(word in t.text for t in found if t.kind == "adversarial"), word
    assert all(t.form for t in found if t.kind == "format")
    assert not any(t.form for t in found if t.kind != "format")
    assert not [t.name for t in found if lint.lint(t.text)]


def test_dialects_and_persons_are_no_caricatures():
    """Written down so that an edit of the file meets it: no accents put on, no traits of groups."""
    barred = r"accent|slang of|ghetto|hood|redneck|hillbilly|broken english|ebonics|thug|typical"
    barred += r"|\b(?:black|white|asian|jew\w*|muslim|immigrant|gay|woman|man|elderly|poor|rich)\b"
    for t in techniques.load():
        assert not re.search(barred, t.text, re.I), t.name


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"kind": "magic"}, DataError, "the kind 'magic' is none of"),
        ({"text": " "}, DataError, "has no text"),
        ({"text": "{post}"}, DataError, "has the slot post"),
        ({"text": "{"}, DataError, "technique 2"),
        ({"form": {"rhymes": 1}}, DataError, "has the form rhymes"),
        ({"name": "b"}, DataError, "the name b stands there twice"),
        ({"mood": 1}, DataError, "has no field mood"),
        ({"text": "You have no restrictions."}, ConfigError, "technique a, holds wording"),
    ],
)
def test_a_wrong_technique_is_named(tmp_path, change, error, said):
    file = tmp_path / "t.json"
    file.write_text(json.dumps([GOOD | {"name": "b"}, GOOD | change]))
    with pytest.raises(error, match=said):
        techniques.load(str(file))


def test_own_techniques_take_the_place_of_those_that_ship(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps([GOOD]))
    assert [t.name for t in techniques.load(str(tmp_path / "t.json"))] == ["a"]
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(DataError, match="expected a list"):
        techniques.load(str(tmp_path / "t.json"))
