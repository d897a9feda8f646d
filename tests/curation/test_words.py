import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.curation import words
from opengrok_jax.curation.words import find, fold
from opengrok_jax.errors import DataError


def phrases(text):
    return [hit.phrase for hit in find(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("just kill yourself", ["kill yourself"]),
        ("K1LL  y0urs3lf!!!", ["kill yourself"]),
        ("ｋｉｌｌ yourself", ["kill yourself"]),
        ("kіll yourѕelf", ["kill yourself"]),  # Cyrillic і and ѕ
        ("k\u200bill your\u00adself", ["kill yourself"]),
        ("kíll yöurself", ["kill yourself"]),
        ("kiiiill yourseeeelf", ["kill yourself"]),
        ("kill_yourself, kill-yourself", ["kill yourself", "kill yourself"]),
        ("what a $h!t id10t", ["shit", "idiot"]),
        ("I’ll kill you", ["ill kill you"]),
        ("They should all be shot", ["should ... be shot"]),
        ("he should, frankly, one day be shot", ["should ... be shot"]),
        ("he should one day far from here be shot", []),  # more than four words between
        ("SHUT UP", ["shut up"]),
    ],
)
def test_seen_through(text, expected):
    assert phrases(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Scunthorpe, Matsushita, shiitake, cockpit, classic, assess, kill your darlings",
        "drop dead gorgeous",
        "the scene should really be shot on film",
        "an idiot-proof guide to shut up and take my money",
        "nobody should not be shot",
        "455 people, 5417 points, 1d10 dice",
        "",
        "!!! $$$ +1",
    ],
)
def test_innocent(text):
    assert find(text) == []


def test_a_hit_says_tier_and_place():
    (hit,) = find("You 1D1OT!")
    assert (hit.tier, hit.phrase, hit.found) == ("mild", "idiot", "1d1ot!")
    assert find("go die")[0].tier == "severe"


# ---- invariants -------------------------------------------------------------------------------

ENTRIES = [
    (section, " ".join(phrase))
    for rows in words._entries(words.LIST).values()
    for section, phrase in rows
]
HARMFUL = sorted(p for section, p in ENTRIES if section != "allowed" and "..." not in p)
LEET = {"o": "0", "i": "1", "e": "3", "a": "4@", "s": "5$", "t": "7+", "b": "8", "l": "1|"}
LOOK_ALIKE = {"a": "а", "e": "е", "o": "о", "p": "р", "c": "с", "x": "х", "i": "і", "s": "ѕ"}


def disguise(letter: str, how: str) -> str:
    if not letter.isalpha():
        return letter
    if how == "upper":
        return letter.upper()
    if how == "leet":
        return LEET.get(letter, letter)[0]
    if how == "wide":
        return chr(ord(letter) - 0x20 + 0xFF00)
    if how == "accent":
        return letter + "\u0301"
    if how == "invisible":
        return letter + "\u200b"
    if how == "cyrillic":
        return LOOK_ALIKE.get(letter, letter)
    return letter


HOWS = ["plain", "upper", "leet", "wide", "accent", "invisible", "cyrillic"]


@given(st.sampled_from(HARMFUL), st.data())
def test_no_disguise_hides_a_phrase(phrase, data):
    hows = data.draw(st.lists(st.sampled_from(HOWS), min_size=len(phrase), max_size=len(phrase)))
    shown = [disguise(c, how) for c, how in zip(phrase, hows, strict=True)]
    # A word all of whose letters became digits and signs is taken for a number.
    typed = "".join(shown)
    for word, plain in zip(typed.split(" "), phrase.split(" "), strict=True):
        if not any(c.isalpha() for c in unicodedata.normalize("NFKC", word)):
            typed = typed.replace(word, plain)
    assert phrase in phrases(f"well, {typed}. ok?")


@given(st.sampled_from([p for p in HARMFUL if " " not in p]), st.data())
def test_a_longer_word_is_another_word(word, data):
    consonants = st.text("bcdfghjkmnpqvwxz", min_size=2, max_size=4)
    longer = data.draw(consonants) + word + data.draw(consonants)
    assert phrases(f"a {longer} here") == []


@given(st.text())
def test_any_text_can_be_read(text):
    for hit in find(text):
        assert hit.phrase in HARMFUL or "..." in hit.phrase


@given(st.text(string.ascii_lowercase, min_size=1, max_size=12))
def test_a_plain_word_stands_for_itself(word):
    assert word in fold(word)


def test_the_list_is_checked(tmp_path):
    for text, message in (
        ("[wild]\nx", r"line 1: \[wild\]"),
        ("x", "line 1"),
        ("[mild]\nx\nCapital", "line 3"),
        ("[mild]\n... x", "line 2"),
    ):
        path = tmp_path / f"{abs(hash(text))}.txt"
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            words._entries(path)
