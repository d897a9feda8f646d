import asyncio
import random
import time
from types import SimpleNamespace

import pytest

from opengrok_jax.teacher import money, wire
from opengrok_jax.teacher.budget import Budget, Caps
from opengrok_jax.teacher.client import Client
from opengrok_jax.teacher.journal import opened
from opengrok_jax.teacher.journal_file import NAME
from opengrok_jax.teacher.money import Prices
from opengrok_jax.teacher.outcome import Kind
from opengrok_jax.teacher.pace import Pace
from opengrok_jax.teacher.rules import Cause, Patience, Rules
from opengrok_jax.teacher.secret import Secret
from opengrok_jax.teacher.sending import Sending
from opengrok_jax.teacher.simulator import simulating
from opengrok_jax.teacher.simulator.acts import Act
from tests.teacher.questions import ASKING, completion, number_of, prompts, requests

QUICK = Patience(attempts=3, first_wait_sec=0.01, longest_wait_sec=0.05)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def send(
    script,
    folder,
    *,
    count=6,
    concurrency=3,
    patience=QUICK,
    timeout_sec=5.0,
    caps=None,
    prices=None,
    billed=None,
    alone_first=False,
    first="",
    **simulated,
):
    prices, kinds, made = prices or Prices(), [], SimpleNamespace()

    async def crowd(plan, journal, teacher):
        made.pace = Pace(
            concurrency=concurrency,
            alone_first=alone_first,
            requests_per_minute=0,
            tokens_per_minute=0,
            chance=random.Random(0),
            clock=time.monotonic,
        )
        url = teacher.base_url
        async with Client(base_url=url, key=Secret(""), timeout_sec=timeout_sec) as client:
            sending = Sending(
                todo=plan.todo(),
                exchange=client,
                journal=journal,
                budget=made.budget,
                pace=made.pace,
                patience=patience,
                rules=Rules(
                    path=wire.path(ASKING),
                    judge=wire.read,
                    prices=prices,
                    max_tokens=64,
                    first=lambda outcome: first,
                ),
                settled=lambda outcome: kinds.append(outcome.kind),
                chance=random.Random(0),
            )
            return await sending.ask_all()

    with simulating(script=script, prices=billed or prices, **simulated) as teacher:
        with opened(folder / NAME) as journal:
            made.budget = Budget(caps or Caps(), journal.spent())
            plan = journal.plan("p", teacher.base_url, requests(count))
            made.stop = asyncio.run(crowd(plan, journal, teacher))
            made.kinds, made.counts, made.spent = kinds, plan.counts(), journal.spent()
            made.failures = list(plan.failures())
        made.teacher, made.sent = teacher, teacher.ledger.sent
    assert made.spent == made.budget.spent
    return made


def test_all_are_asked_once_and_no_more_than_allowed_at_once(tmp_path):
    made = send(None, tmp_path, count=12, concurrency=3, latency_sec=0.03)
    assert made.stop is None
    assert made.kinds == [Kind.OK] * 12
    assert made.counts.ok == 12
    assert set(made.sent.values()) == {1}
    assert made.teacher.ledger.most_at_once == 3


@pytest.mark.parametrize(
    "fault",
    [
        Act(status=500, body=b"oops"),
        Act(body=b"<html>"),
        Act(body=completion("lost"), cut_to=10),
        Act(silent=True),
        Act(status=429, body=b"slow down", headers={"retry-after": "0.02"}),
        Act(status=529, body=b"overloaded", headers={"retry-after": "0.02"}),
        Act(reset=True),
    ],
    ids=["500", "not json", "half body", "stall", "rate", "overload", "reset"],
)
def test_a_hiccup_is_asked_again_and_answered(tmp_path, fault):
    made = send(lambda q: fault if q.attempt == 1 else None, tmp_path, count=3, timeout_sec=1.0)
    assert made.stop is None
    assert made.kinds == [Kind.OK] * 3
    assert set(made.sent.values()) == {2}


def test_one_prompt_that_always_fails_hurts_no_other(tmp_path):
    made = send(lambda q: Act(status=500) if number_of(q) == 1 else None, tmp_path)
    assert made.stop is None
    assert sorted(made.kinds) == [Kind.OK] * 5 + [Kind.TRANSIENT]
    assert (made.counts.ok, made.counts.failed, made.counts.pending) == (5, 1, 0)
    assert made.failures == [(prompts(2)[1].id, "HTTP 500", "")]
    assert sorted(made.sent.values()) == [1, 1, 1, 1, 1, 3]


def test_blocked_and_unanswerable_are_asked_once(tmp_path):
    def script(question):
        blocked = Act(status=403, body=b'{"error": "Content violates usage guidelines"}')
        return {0: blocked, 1: Act(status=413)}.get(number_of(question))

    made = send(script, tmp_path)
    assert made.stop is None
    assert sorted(made.kinds) == [Kind.BLOCKED] + [Kind.OK] * 4 + [Kind.UNANSWERABLE]
    assert (made.counts.ok, made.counts.blocked, made.counts.failed) == (4, 1, 1)
    assert set(made.sent.values()) == {1}


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (Act(status=401, body=b'{"error": {"message": "bad key"}}'), Kind.FATAL),
        (Act(status=429, body=b'{"error": "used all available credits"}'), Kind.OUT_OF_MONEY),
        (Act(status=410, body=b"gone"), Kind.RETIRED),
    ],
)
def test_a_stop_sends_nothing_more_but_saves_what_is_in_flight(tmp_path, act, kind):
    def script(question):
        # in flight while the third is refused
        return act if number_of(question) == 2 else Act(body=completion("late"), delay_sec=0.4)

    made = send(script, tmp_path, count=20)
    assert made.stop.cause is Cause.REFUSED
    assert made.stop.outcome.kind is kind
    assert made.kinds == [Kind.OK, Kind.OK]
    assert (made.counts.ok, made.counts.failed, made.counts.pending) == (2, 1, 17)
    assert made.failures[0][1] == f"HTTP {act.status}"
    assert sum(made.sent.values()) == 3


def test_a_stop_wakes_those_who_wait(tmp_path):
    def script(question):
        return Act(status=500) if number_of(question) == 0 else Act(status=401, delay_sec=0.1)

    start = time.monotonic()
    patience = Patience(attempts=3, first_wait_sec=60.0)
    made = send(script, tmp_path, count=2, patience=patience)
    assert made.stop is not None
    assert time.monotonic() - start < 20
    assert made.counts.failed == 2
    assert sum(made.sent.values()) == 2


def test_prompt_after_prompt_failing_closes_the_shop(tmp_path):
    made = send(lambda q: Act(status=502), tmp_path, count=20, concurrency=1)
    assert made.stop.cause is Cause.DOWN
    assert made.kinds == [Kind.TRANSIENT] * 3
    assert (made.counts.failed, made.counts.pending) == (3, 17)
    assert set(made.sent.values()) == {3}


def test_an_answer_in_between_keeps_the_shop_open(tmp_path):
    def script(question):
        return None if number_of(question) % 3 == 2 else Act(status=502)

    made = send(script, tmp_path, count=9, concurrency=1)
    assert made.stop is None
    assert (made.counts.ok, made.counts.failed) == (3, 6)


def test_a_rate_limit_holds_back_everybody_and_is_no_failure_of_the_prompt(tmp_path):
    times = []

    def script(question):
        times.append(time.monotonic())
        if number_of(question) == 0 and question.attempt <= 2:
            return Act(status=429, headers={"retry-after": "0.4"})
        return Act(body=completion("ok"), delay_sec=0.1)

    patience = Patience(attempts=1)
    made = send(script, tmp_path, count=6, concurrency=2, patience=patience)
    assert made.stop is None
    assert made.counts.ok == 6
    # the two first ones go out together; then nobody asks for 0.4 s, twice
    assert times[2] - times[0] >= 0.35
    assert max(times) - times[0] >= 0.8


def test_an_endpoint_that_takes_few_at_once_is_found_out(tmp_path):
    made = send(None, tmp_path, count=60, concurrency=32, at_once=4, latency_sec=0.02)
    assert made.stop is None
    assert made.counts.ok == 60
    acts = made.teacher.ledger.acts
    assert 0 < acts["limit_429"] < 180
    assert made.pace.limit < 32


def test_an_endpoint_that_asks_for_hours_closes_the_run(tmp_path):
    late = Act(status=429, headers={"retry-after": "3600"})
    made = send(lambda q: late, tmp_path, concurrency=1)
    assert made.stop.cause is Cause.LONG_WAIT
    assert made.stop.outcome.wait_sec == 3600
    assert (made.counts.failed, made.counts.pending) == (1, 5)


def test_an_endpoint_that_only_limits_the_rate_closes_the_run(tmp_path):
    patience = Patience(attempts=3, decreases_in_a_row=4)
    always = Act(status=429, headers={"retry-after": "0.01"})
    made = send(lambda q: always, tmp_path, patience=patience)
    assert made.stop.cause is Cause.SLOW
    assert made.counts.ok == 0


def test_the_first_goes_alone_and_what_is_wrong_with_it_stops_the_rest(tmp_path):
    made = send(None, tmp_path, count=20, alone_first=True, first="not as asked")
    assert (made.stop.cause, made.stop.detail) == (Cause.FIRST, "not as asked")
    assert made.counts.ok == 1  # it was paid for and is kept
    assert sum(made.sent.values()) == 1


PRICES = money.prices(input="2", output="6")


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_cap_is_never_exceeded_by_a_tick_and_leaves_no_room_for_one_more(tmp_path, concurrency):
    whole = send(None, tmp_path / "whole", count=10, prices=PRICES)
    full = whole.teacher.ledger.billed_ticks
    assert whole.spent.ticks == full
    caps = Caps(ticks=full // 2)
    made = send(
        None, tmp_path / "part", count=10, prices=PRICES, caps=caps, concurrency=concurrency
    )
    assert (made.stop.cause, made.stop.detail) == (Cause.CAP, "cap")
    assert 0 < made.counts.ok < 10
    assert made.teacher.ledger.billed_ticks == made.spent.ticks <= full // 2
    largest = max(money.need(len(r.body), 1, 64, PRICES).ticks for r in requests(10))
    assert made.spent.ticks + largest > full // 2
    # with more money the same plan goes on where it was
    again = send(
        None, tmp_path / "part", count=10, prices=PRICES, caps=Caps(ticks=made.spent.ticks)
    )
    assert again.stop.cause is Cause.CAP
    assert again.spent == made.spent


def test_caps_on_requests_and_tokens(tmp_path):
    made = send(None, tmp_path / "r", count=10, caps=Caps(requests=4))
    assert (made.stop.detail, made.counts.ok) == ("cap_requests", 4)
    made = send(None, tmp_path / "t", count=10, caps=Caps(tokens=300))
    assert made.stop.detail == "cap_tokens"
    assert made.spent.tokens <= 300


def test_what_may_have_been_billed_stays_reserved(tmp_path):
    fault = {"script": [{"request": 1, "act": "reset_after"}]}
    made = send(None, tmp_path, count=1, prices=PRICES, plan=fault)
    assert made.counts.ok == 1
    reserved = money.need(len(requests(1)[0].body), 1, 64, PRICES).ticks
    once = made.spent.ticks - reserved
    assert made.teacher.ledger.billed_ticks <= once + reserved
    assert made.teacher.ledger.billed_ticks > once


def test_answers_that_cost_more_than_the_prices_say_stop_it(tmp_path):
    dear = money.prices(input="5", output="15")
    made = send(
        None, tmp_path / "a", count=200, concurrency=1, prices=PRICES, billed=dear, xai=True
    )
    assert (made.stop.cause, made.counts.ok) == (Cause.PRICE, 50)
    assert made.spent.ticks == made.teacher.ledger.billed_ticks
    made = send(None, tmp_path / "b", count=60, concurrency=1, prices=dear, billed=dear, xai=True)
    assert made.stop is None
