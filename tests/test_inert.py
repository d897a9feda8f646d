import doctest
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from opengrok_jax import inert as module
from opengrok_jax.inert import inert


@settings(max_examples=40)
@given(st.text())
def test_inert_text_is_printable(text):
    said = inert(text)
    assert all(c.isprintable() or c in "\u200d\ufe0e\ufe0f" or c.isspace() for c in said)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", said)


def test_line_breaks_stay_where_they_are_wanted():
    assert inert("a\r\nb\tc", lines=True) == "a\\r\nb\\tc"


def test_doctests():
    assert doctest.testmod(module).failed == 0
