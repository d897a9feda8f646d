import pytest

from opengrok_jax.curation import checks
from opengrok_jax.curation.checks import CHECKS, PROSE, Reason, Settings, judge
from opengrok_jax.errors import ConfigError
from opengrok_jax.prompts.templates import INTENTS
from tests.curation.curation_rows import prompt, response

FINE = "People are glad about the free buses, though some wonder who will pay for them."


def reason(text, to=None, settings=None, **more):
    to = to or prompt()
    return judge(to, response(text, to, **more), settings or Settings())[1].reason


def test_a_good_answer_is_kept():
    assert judge(prompt(), response(FINE), Settings()) == ("", checks.KEEP)


@pytest.mark.parametrize(
    ("text", "check", "expected"),
    [
        ("", "presence", Reason.EMPTY),
        (" \n\t", "presence", Reason.EMPTY),
        ("Mixed feelings.", "length", Reason.TOO_SHORT),
        ("🎉", "length", Reason.TOO_SHORT),
        ("word " * 401, "length", Reason.TOO_LONG),
        ("They should all be shot, says one.", "harm", Reason.HARMFUL),
        ("Sorry, but I can't help with that.", "refusal", Reason.REFUSAL),
    ],
)
def test_each_fault_has_its_reason_its_check_and_evidence(text, check, expected):
    name, verdict = judge(prompt(), response(text), Settings())
    assert (name, verdict.keep, verdict.reason) == (check, False, expected)
    assert verdict.detail


def test_cut_answers():
    assert reason(FINE, finish_reason="length") == "truncated"
    assert reason(FINE, finish_reason="unknown") == ""


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.",
        "I’m sorry, but I’m not able to judge which of them is right.",
        "I'm afraid I can't assess claims about health.",
        "I am very sorry, I wasn't there, so I can't write about it.",
        "Unfortunately, I cannot provide an answer.",
        "I cannot comply with this.",
        "We are unable to help with this request.",
        "As an AI language model, I have no feelings about football.",
        "Well, as an AI, I have no opinion.",
        "Great match! But I'm just an AI and could not see it.",
    ],
)
def test_refusals(text):
    assert reason(text) == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "I'm so sorry you are going through this. I can't imagine how it feels.",
        "I'm sorry, I can't believe they charge for oat milk now!",
        "Sorry, but I can't help laughing at this.",
        "I can't help but love these buses.",
        "Sorry for the delay, the trains cannot run today.",
        "As an AI startup founder he sees it differently.",
        "Afraid of the dark? The author says she won't share her torch.",
    ],
)
def test_what_only_sounds_like_a_refusal(text):
    assert reason(text) == ""


def test_harm_counts_mild_words():
    assert reason("What an idiot, says one; a moron, says another one here.") == ""
    verdict = judge(prompt(), response("Idiot, moron and scum, they say."), Settings())[1]
    assert (verdict.reason, verdict.detail) == (
        "harmful",
        "mild: 'idiot', mild: 'moron', mild: 'scum'",
    )


def test_short_answers_are_answers_where_a_label_is_asked_for():
    for intent in [*sorted(set(INTENTS) - PROSE), "a_task_of_the_user"]:
        assert reason("joy", prompt(intent=intent)) == ""
        assert reason("...", prompt(intent=intent)) == "too_short"
    for intent in sorted(PROSE):
        assert reason("joy", prompt(intent=intent)) == "too_short"
        assert reason("joy", prompt(intent=intent, label="joy")) == ""


def test_prose_intents_are_intents():
    assert set(INTENTS) > PROSE


def test_the_echo_of_the_drawing(monkeypatch):
    # prompt       the cat sat on the mat .  what now
    # response         cat sat on the mat    twice
    # triples         (cat sat on) (sat on the) (on the mat) (the mat twice)    3 of 4 echo
    monkeypatch.setattr(checks, "ECHO_WORDS", 1)
    to = prompt("The cat sat on the mat. What now")
    said = response("cat sat on the mat twice", to)
    assert not checks.echo(to, said, Settings(echo_overlap=0.7)).keep
    assert checks.echo(to, said, Settings(echo_overlap=0.75)).keep
    assert "75%" in checks.echo(to, said, Settings(echo_overlap=0.7)).detail


def test_echo_looks_at_messages_and_posts_but_not_at_short_answers():
    post = "Weekend buses are free in Aldermoor from the first of May onwards"
    assert reason(post, prompt(f"Sum up: {post}")) == "echo"
    assert reason(post.upper() + "!", prompt("Sum up", posts=(post,))) == "echo"
    assert reason(post, prompt("Sum up")) == ""
    label = "one of negative, neutral or positive"
    assert reason(label, prompt(f"Say {label}")) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_words": 0},
        {"min_words": 9, "max_words": 8},
        {"echo_overlap": 1.1},
        {"echo_overlap": -0.1},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError):
        Settings(**wrong)


def test_every_setting_moves_a_line():
    assert reason("one two three four", settings=Settings(min_words=5)) == "too_short"
    assert reason("one two three four", settings=Settings(max_words=3)) == "too_long"
    to = prompt("a b c d e f g h i j")
    assert reason("a b c d e x y z q", to) == ""
    assert reason("a b c d e x y z q", to, Settings(echo_overlap=0.2)) == "echo"


def test_the_checks_are_named_after_themselves():
    assert list(CHECKS) == ["presence", "finish", "refusal", "harm", "length", "echo"]
