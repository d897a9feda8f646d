import pytest

from opengrok_jax.curation.shingles import shingles, words


def test_the_drawing():
    # words      a  b  c  a  b  c
    # shingles  [a  b  c]
    #              [b  c  a]
    #                 [c  a  b]
    #                    (a  b  c)  again
    assert shingles("a b c a b c") == {"a b c", "b c a", "c a b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't panic, it’s ＯＫ! 🎉", ("don't", "panic", "it's", "ok")),
        ("snake_case @me #tag 3.5", ("snake", "case", "me", "tag", "3", "5")),
        ("今日は good", ("今", "日", "は", "good")),
        ("", ()),
        ("...", ()),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_too_few_words_have_no_shingle():
    assert shingles("a b") == frozenset()
    assert shingles("a b", size=2) == {"a b"}
