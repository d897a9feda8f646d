from typing import Any

import pytest

from opengrok_jax.curation import language
from opengrok_jax.curation.looks import Settings
from opengrok_jax.errors import ConfigError
from tests.curation.curation_rows import prompt, response

pytest.importorskip("py3langid", reason="the extra 'language' is not installed")
ENGLISH = "The free buses please nearly everybody in town, though two posts ask who pays for them."
GERMAN = "Die kostenlosen Busse freuen fast alle in der Stadt, nur zwei fragen, wer das bezahlt."


def look(text, *languages) -> Any:
    return language.language(prompt(), response(text), Settings(languages=languages))


def test_off_by_default():
    assert look(GERMAN) is None


def test_other_languages_are_found():
    assert look(ENGLISH, "en").reason is None
    assert (look(GERMAN, "en").reason, look(GERMAN, "en").certain) == ("language", True)
    assert look(GERMAN, "en").detail.startswith("de with probability")
    assert look(GERMAN, "de", "en").reason is None


def test_short_answers_placeholders_and_tags_are_in_no_language():
    assert look("Genau so ist es!", "en") is None
    assert look("[HANDLE] #genausoistes https://h.example/das-ist-alles " * 3, "en") is None


@pytest.mark.parametrize(
    "text",
    [
        "finna head out, dis party ain't it n my bruh tryna get sum food fr fr",
        "aye the wee bairn cannae sleep, whit a night we had the noo pal",
        "omg u guys this is sooo gud lol cant even rn im ded 😂😂😂",
    ],
)
def test_dialect_is_never_rejected_for_certain(text):
    assert not look(text, "en").certain


def test_unknown_codes_are_refused():
    with pytest.raises(ConfigError, match="klingon"):
        language.check(("en", "klingon"))
    language.check(())
