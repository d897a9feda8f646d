import pytest

from opengrok_jax.curation.form import CHECKS, obeyed


@pytest.mark.parametrize(
    ("form", "yes", "no"),
    [
        ({"max_words": 3}, "one two, three!", "one two three four"),
        ({"words": 1}, "Joy.", "Joy, mostly"),
        ({"bullets": 2}, "Well:\n- a\n* b", "- a\n- b\n- c"),
        ({"bullets": 2}, "1. a\n2) b", "a - b"),
        ({"sentences": 1}, "It rained, 2.5 mm of it.", "It rained. It poured."),
        ({"sentences": 1}, "no stop at the end", "One. and a half"),
        ({"sentences": 1}, "Enough! #rain", ""),
        ({"paragraphs": 2}, "a\n\nb", "a\nb"),
        ({"hashtags": 1}, "so #wet", "so #wet #cold"),
        ({"hashtags": 0}, "room #7? no tag & a#b", "#NoFilter"),
        ({"ends_with": "?"}, 'He asked: "why?" #rain #uk', "why? because."),
        ({"emoji": False}, "plain :)", "sunny ☀️ 🎉"),
        ({"starts_with": ["joy", "anger"]}, "Joy, since it won.", "It is joy."),
        ({"starts_with": ["joy"]}, "**Joy** first", ""),
    ],
)
def test_a_form_is_counted(form, yes, no):
    assert obeyed(yes, form) == 1.0
    assert obeyed(no, form) == 0.0


def test_half_of_the_demands_is_half():
    assert obeyed("a b c d", {"max_words": 9, "ends_with": "?"}) == 0.5
    assert obeyed("anything", {}) == 1.0


def test_every_demand_is_checked_above_and_another_one_is_a_bug():
    assert set(CHECKS) == {
        "max_words", "words", "bullets", "sentences", "paragraphs", "hashtags", "ends_with",
        "emoji", "starts_with",
    }  # fmt: skip
    with pytest.raises(KeyError):
        obeyed("a", {"rhymes": 1})
