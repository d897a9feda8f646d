import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher.secret import MASK, Secret, secret_from

KEY = "sk-test/0123456789+abcdef"


def test_it_shows_nowhere():
    assert KEY not in repr(Secret(KEY)) + str(Secret(KEY)) + f"{Secret(KEY)!r}"
    assert Secret(KEY).reveal() == KEY
    assert Secret(KEY)
    assert not Secret("")


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        KEY.replace("/", "\\/"),
        KEY.replace("/", "\\\\\\/"),  # JSON within JSON
        "sk-test%2F0123456789%2Babcdef",
        "sk-test%2f0123456789%2babcdef",
        "".join(f"\\u{ord(c):04x}" for c in KEY),
        "".join(f"\\u{ord(c):04X}" for c in KEY),
        KEY.replace("/", "\\\\u002F"),
    ],
)
def test_it_is_cut_out_however_it_is_spelled(spelled):
    assert Secret(KEY).mask(f"a {spelled} b") == f"a {MASK} b"
    assert Secret(KEY).mask_bytes(f"a {spelled} b".encode()) == f"a {MASK} b".encode()


def test_a_quote_in_a_key_is_cut_out_of_json_too():
    assert Secret('quo"te-key').mask('{"error": "quo\\"te-key"}') == f'{{"error": "{MASK}"}}'


def test_a_dummy_key_does_not_mangle_answers():
    assert Secret("x").mask("x marks the spot") == "x marks the spot"
    assert Secret("").mask_bytes(b"abc") == b"abc"


def test_secret_from_environment(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", f"  {KEY}\n")
    assert secret_from("TEACHER_KEY").reveal() == KEY
    assert not secret_from("")
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(ConfigError, match="TEACHER_KEY is not set"):
        secret_from("TEACHER_KEY")


@pytest.mark.parametrize("value", ["two words", "ключ", "a\x07b", "a\nb"])
def test_a_key_that_no_header_carries_is_refused_unseen(monkeypatch, value):
    monkeypatch.setenv("TEACHER_KEY", value)
    with pytest.raises(ConfigError) as caught:
        secret_from("TEACHER_KEY")
    assert value not in str(caught.value)
