from typing import Any

import pytest

from opengrok_jax.curation import checks
from opengrok_jax.curation.checks import CHECKS, judge
from opengrok_jax.curation.looks import PROSE, Reason, Settings
from opengrok_jax.prompts.templates import INTENTS
from tests.curation.curation_rows import prompt, response

FINE = "People are glad about the free buses, though some wonder who will pay for them."


def first(text, to=None, settings=None, **more) -> Any:
    to = to or prompt()
    _, findings = judge(to, response(text, to, **more), settings or Settings())
    return next((f for f in findings if f.certain), None)


def reason(*given, **more):
    found = first(*given, **more)
    return found.reason if found else ""


def test_a_good_answer_has_scores_and_no_finding():
    scores, findings = judge(prompt(), response(FINE), Settings())
    assert findings == []
    assert scores.keys() == {
        "presence",
        "finish",
        "refusal",
        "harm",
        "length",
        "repetition",
        "echo",
    }


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
        ("so good " * 20, "repetition", Reason.REPETITIVE),
    ],
)
def test_each_fault_has_its_reason_its_check_and_evidence(text, check, expected):
    found = first(text)
    assert (found.check, found.reason) == (check, expected)
    assert found.detail
    assert found.score > 0


def test_an_empty_answer_has_one_fault():
    assert list(judge(prompt(), response(""), Settings())[0]) == ["presence"]


def test_all_faults_are_found():
    text = "Sorry, I can't help with that: they should all be shot"
    _, findings = judge(prompt(), response(text, finish_reason="length"), Settings())
    assert [f.reason for f in findings] == ["truncated", "refusal", "harmful"]


def test_cut_answers():
    assert reason(FINE, finish_reason="length") == "truncated"
    assert reason(FINE, finish_reason="unknown") == ""


def test_short_answers_are_answers_where_a_label_is_asked_for():
    for intent in [*sorted(set(INTENTS) - PROSE), "a_task_of_the_user"]:
        assert reason("joy", prompt(intent=intent)) == ""
        assert reason("...", prompt(intent=intent)) == "too_short"
    for intent in sorted(PROSE):
        assert reason("joy", prompt(intent=intent)) == "too_short"
        assert reason("joy", prompt(intent=intent, label="joy")) == ""


def test_the_echo_of_the_drawing(monkeypatch):
    # prompt       the cat sat on the mat .  what now
    # response         cat sat on the mat    twice
    # triples         (cat sat on) (sat on the) (on the mat) (the mat twice)    3 of 4 echo
    monkeypatch.setattr(checks, "ECHO_WORDS", 1)
    to = prompt("The cat sat on the mat. What now")
    said = response("cat sat on the mat twice", to)
    look: Any = checks.echo(to, said, Settings(echo_overlap=0.7))
    assert (look.score, look.reason, look.certain) == (0.75, "echo", True)
    assert "75%" in look.detail
    near: Any = checks.echo(to, said, Settings(echo_overlap=0.75))
    assert (near.reason, near.certain) == ("echo", False)
    fine: Any = checks.echo(to, said, Settings(echo_overlap=0.9))
    assert fine.reason is None


def test_echo_looks_at_messages_and_posts_but_not_at_short_answers():
    post = "Weekend buses are free in Aldermoor from the first of May onwards"
    assert reason(post, prompt(f"Sum up: {post}")) == "echo"
    assert reason(post.upper() + "!", prompt("Sum up", posts=(post,))) == "echo"
    assert reason(post, prompt("Sum up")) == ""
    label = "one of negative, neutral or positive"
    assert reason(label, prompt(f"Say {label}")) == ""


def test_every_setting_moves_a_line():
    assert reason("one two three four", settings=Settings(min_words=5)) == "too_short"
    assert reason("one two three four", settings=Settings(max_words=3)) == "too_long"
    to = prompt("a b c d e f g h i j")
    assert reason("a b c d e x y z q", to) == ""
    assert reason("a b c d e x y z q", to, Settings(echo_overlap=0.2)) == "echo"


def test_the_checks_are_named_after_themselves():
    assert list(CHECKS) == [
        "presence", "finish", "contamination", "refusal", "harm", "language", "length", "labels",
        "repetition", "echo", "relevance",
    ]  # fmt: skip
