import pytest

from opengrok_jax.curation.shingles import number, triples, words


def test_the_drawing():
    # words     a  b  c  a  b  c
    # triples  (a  b  c)
    #             (b  c  a)
    #                (c  a  b)
    #                   (a  b  c)  again
    assert triples("a b c a b c") == {tuple("abc"), tuple("bca"), tuple("cab")}


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
    assert triples("a b") == frozenset()


def test_a_words_number_stays():
    assert number("bus") == 0x326CC663A57BA65C
    assert number("bus") != number("buses")
