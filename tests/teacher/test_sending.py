import asyncio
import random
import time

import pytest

from opengrok_jax.teacher import wire
from opengrok_jax.teacher.client import Client, Secret
from opengrok_jax.teacher.journal import NAME, opened
from opengrok_jax.teacher.sending import Patience, ask_all
from opengrok_jax.teacher.wire import Kind, Outcome
from tests.teacher.fault_server import Act, echo, prompts, serving

QUICK = Patience(attempts=3, first_wait_sec=0.01, first_rate_wait_sec=0.01, longest_wait_sec=0.05)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def send(script, folder, *, count=6, concurrency=3, patience=QUICK, timeout_sec=5.0):
    """(stopped_by, kinds of the settled, counts, failed, server) of one crowd at work."""
    requests = [wire.request(p, model="m", temperature=0.7, max_tokens=8) for p in prompts(count)]
    settled: list[Kind] = []

    async def crowd(journal, server):
        client = Client(
            base_url=server.base_url,
            key=Secret(""),
            timeout_sec=timeout_sec,
            connections=concurrency,
        )
        async with client:
            return await ask_all(
                requests,
                client=client,
                journal=journal,
                concurrency=concurrency,
                patience=patience,
                settled=lambda outcome: settled.append(outcome.kind),
                chance=random.Random(0),
            )

    with serving(script) as server, opened(folder / NAME, server.base_url) as journal:
        journal.plan(requests)
        stopped_by = asyncio.run(crowd(journal, server))
        return stopped_by, settled, journal.counts(), journal.failed(), server


def ok(body):
    return Act(body=echo(body))


def test_all_are_asked_once_and_no_more_than_allowed_at_once(tmp_path):
    def slow(body, n):
        return Act(body=echo(body), delay_sec=0.03)

    stopped_by, settled, counts, _, server = send(slow, tmp_path, count=12, concurrency=3)
    assert stopped_by is None
    assert settled == [Kind.OK] * 12
    assert counts.ok == 12
    assert set(server.hits.values()) == {1}
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    "fault",
    [
        Act(status=500, body=b"oops"),
        Act(body=b"<html>"),
        Act(body=b'{"choices": [{"message": {"content": "lost"}}]}', cut_to=10),
        Act(body=b"{}", delay_sec=0.6),
        Act(status=429, body=b"slow down", headers={"retry-after": "0.02"}),
    ],
    ids=["500", "not json", "half body", "stall", "rate"],
)
def test_a_hiccup_is_asked_again_and_answered(tmp_path, fault):
    def script(body, n):
        return fault if n == 1 else ok(body)

    stopped_by, settled, counts, _, server = send(script, tmp_path, count=3, timeout_sec=0.3)
    assert stopped_by is None
    assert settled == [Kind.OK] * 3
    assert counts.ok == 3
    assert set(server.hits.values()) == {2}


def test_one_prompt_that_always_fails_hurts_no_other(tmp_path):
    def script(body, n):
        return Act(status=500) if "post 1?" in body["messages"][0]["content"] else ok(body)

    stopped_by, settled, counts, failed, server = send(script, tmp_path)
    assert stopped_by is None
    assert sorted(settled) == [Kind.OK] * 5 + [Kind.TRANSIENT]
    assert (counts.ok, counts.failed, counts.pending) == (5, 1, 0)
    assert failed == [(prompts(2)[1].id, "HTTP 500", "")]
    assert sorted(server.hits.values()) == [1, 1, 1, 1, 1, 3]


def test_blocked_and_unanswerable_are_asked_once(tmp_path):
    def script(body, n):
        content = body["messages"][0]["content"]
        if "post 0?" in content:
            return Act(status=403, body=b'{"error": "Content violates usage guidelines"}')
        return Act(status=413) if "post 1?" in content else ok(body)

    stopped_by, settled, counts, _, server = send(script, tmp_path)
    assert stopped_by is None
    assert sorted(settled) == [Kind.BLOCKED] + [Kind.OK] * 4 + [Kind.UNANSWERABLE]
    assert (counts.ok, counts.blocked, counts.failed) == (4, 1, 1)
    assert set(server.hits.values()) == {1}


@pytest.mark.parametrize(
    ("act", "kind"),
    [
        (Act(status=401, body=b'{"error": {"message": "bad key"}}'), Kind.FATAL),
        (Act(status=429, body=b'{"error": "used all available credits"}'), Kind.OUT_OF_MONEY),
    ],
)
def test_a_stop_sends_nothing_more_but_saves_what_is_in_flight(tmp_path, act, kind):
    def script(body, n):
        number = int(body["messages"][0]["content"].split()[-1].rstrip("?"))
        if number == 2:
            return act
        return Act(body=echo(body), delay_sec=0.4)  # in flight while the third is refused

    stopped_by, settled, counts, failed, server = send(script, tmp_path, count=20)
    assert stopped_by is not None
    assert stopped_by.kind is kind
    assert settled == [Kind.OK, Kind.OK]
    assert (counts.ok, counts.failed, counts.pending) == (2, 1, 17)
    assert failed[0][1] == f"HTTP {act.status}"
    assert sum(server.hits.values()) == 3


def test_a_stop_wakes_those_who_wait(tmp_path):
    def script(body, n):
        if "post 0?" in body["messages"][0]["content"]:
            return Act(status=500)
        return Act(status=401, delay_sec=0.1)

    patience = Patience(attempts=3, first_wait_sec=60.0)
    start = time.monotonic()
    stopped_by, _, counts, _, server = send(script, tmp_path, count=2, patience=patience)
    assert stopped_by is not None
    assert time.monotonic() - start < 10
    assert counts.failed == 2
    assert sum(server.hits.values()) == 2


def test_prompt_after_prompt_failing_closes_the_shop(tmp_path):
    stopped_by, settled, counts, _, server = send(
        lambda body, n: Act(status=502), tmp_path, count=20, concurrency=1
    )
    assert stopped_by is not None
    assert stopped_by.kind is Kind.TRANSIENT
    assert settled == [Kind.TRANSIENT] * 3
    assert (counts.failed, counts.pending) == (3, 17)
    assert set(server.hits.values()) == {3}


def test_an_answer_in_between_keeps_the_shop_open(tmp_path):
    def script(body, n):
        number = int(body["messages"][0]["content"].split()[-1].rstrip("?"))
        return ok(body) if number % 3 == 2 else Act(status=502)

    stopped_by, _, counts, _, _ = send(script, tmp_path, count=9, concurrency=1)
    assert stopped_by is None
    assert (counts.ok, counts.failed) == (3, 6)


def test_a_rate_limit_holds_back_everybody(tmp_path):
    times = []

    def script(body, n):
        times.append(time.monotonic())
        if len(times) == 1:
            return Act(status=429, headers={"retry-after": "0.6"})
        return ok(body)

    stopped_by, _, counts, _, _ = send(script, tmp_path, count=4, concurrency=1)
    assert stopped_by is None
    assert counts.ok == 4
    assert times[1] - times[0] >= 0.6  # Retry-After won over our own 0.01 s


def test_a_rate_limit_is_shared_between_workers(tmp_path):
    times = []

    def script(body, n):
        times.append(time.monotonic())
        if "post 0?" in body["messages"][0]["content"] and n == 1:
            return Act(status=429, headers={"retry-after": "0.6"})
        return Act(body=echo(body), delay_sec=0.1)

    _, _, counts, _, _ = send(script, tmp_path, count=6, concurrency=2)
    assert counts.ok == 6
    # the two first ones go out together; then nobody asks for 0.6 s
    assert times[2] - times[0] >= 0.55


def test_an_endpoint_that_asks_for_hours_closes_the_run(tmp_path):
    late = Act(status=429, headers={"retry-after": "3600"})
    stopped_by, _, counts, _, _ = send(lambda body, n: late, tmp_path, concurrency=1)
    assert stopped_by is not None
    assert stopped_by.wait_sec == 3600
    assert (counts.failed, counts.pending) == (1, 5)


def test_waits_double_jitter_and_end():
    patience = Patience(attempts=9, longest_wait_sec=20.0)
    chance = random.Random(1)
    hiccup, rate = Outcome(kind=Kind.TRANSIENT), Outcome(kind=Kind.RATE_LIMITED)
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 20.0)):
        waits = [patience.wait(hiccup, attempt, chance) for _ in range(50)]
        assert most / 2 <= min(waits) < max(waits) <= most
    assert 2.5 <= patience.wait(rate, 1, chance) <= 5.0
    told = Outcome(kind=Kind.TRANSIENT, wait_sec=100.0)
    assert 100.0 <= patience.wait(told, 1, chance) <= 110.0
