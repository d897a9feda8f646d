import pytest

from opengrok_jax.teacher import explain, settings
from opengrok_jax.teacher.budget import Budget, Caps, Spent
from opengrok_jax.teacher.journal_plan import Counts
from opengrok_jax.teacher.outcome import Kind, Outcome
from opengrok_jax.teacher.rules import Cause, Stop
from opengrok_jax.teacher.secret import Secret
from tests.teacher.questions import ASKING

TEACHER = settings.Teacher(
    source="api",
    endpoint="http://h/v1",
    asking=ASKING,
    rights="x",
    key=Secret(""),
    key_env="",
    timeout_sec=5.0,
    book=None,
)
COUNTS = Counts(planned=9, ok=4, blocked=1, failed=0, orphaned=0, pending=4)


def told(cause, kind=Kind.FATAL, detail="", hint="", wait=None, caps=None):
    outcome = Outcome(kind=kind, reason="HTTP 400", detail=detail, wait_sec=wait)
    return explain.stopped(
        Stop(cause=cause, outcome=outcome, detail=detail),
        counts=COUNTS,
        failures=(),
        teacher=TEACHER,
        budget=Budget(caps or Caps(), Spent(requests=5, ticks=7, tokens=8)),
        hint=hint,
        where="journal.sqlite",
    )


@pytest.mark.parametrize("cause", Cause)
def test_every_stop_says_what_is_kept(cause):
    message = told(cause, detail="cap", caps=Caps(ticks=10))
    assert "All 4 answers so far are kept in journal.sqlite; the same command" in message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cause": Cause.REFUSED}, "check teacher.api_key_env (none named)"),
        ({"cause": Cause.REFUSED, "hint": "it has x, y"}, "(HTTP 400): it has x, y. All 4"),
        ({"cause": Cause.REFUSED, "kind": Kind.OUT_OF_MONEY}, "out of money"),
        ({"cause": Cause.LONG_WAIT, "wait": 5000.0}, "asks to wait 5000 s"),
        ({"cause": Cause.SLOW}, "lower teacher.concurrency"),
        ({"cause": Cause.DOWN}, "prompt after prompt failed"),
        ({"cause": Cause.DOWN, "detail": "two\r\nlines"}, "(HTTP 400: two lines): prompt"),
        ({"cause": Cause.PRICE}, "more than 1.5 times"),
        ({"cause": Cause.FIRST, "detail": "no such thing"}, "http://h/v1: no such thing"),
        (
            {"cause": Cause.CAP, "detail": "cap_requests", "caps": Caps(requests=5)},
            "5 of 5 requests are spent or reserved",
        ),
        (
            {"cause": Cause.CAP, "detail": "cap_tokens", "caps": Caps(tokens=9)},
            "8 of 9 tokens are spent or reserved, and one more request could go above it; "
            "4 of 9 prompts have no answer yet",
        ),
    ],
)
def test_what_to_do(given, message):
    assert message in told(**given)
