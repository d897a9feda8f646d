import random

import pytest

from opengrok_jax.teacher.outcome import Kind, Outcome
from opengrok_jax.teacher.pace import Ceiling, Pace

SLOW = Outcome(kind=Kind.RATE_LIMITED)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def pace(clock, **changes):
    given = {
        "concurrency": 10,
        "alone_first": False,
        "requests_per_minute": 0,
        "tokens_per_minute": 0,
        "chance": random.Random(0),
    }
    return Pace(**{**given, **changes}, clock=clock)


def test_one_goes_alone_until_the_first_answer():
    made = pace(Clock(), alone_first=True)
    assert made.limit == 1
    made.slowed(SLOW, 100.0)
    assert made.limit == 1
    made.answered(0.0, 1, 1)
    assert made.limit == 10


def test_fewer_after_a_limit_and_one_more_for_as_many_answers_as_it_is():
    clock = Clock()
    made = pace(clock)
    made.slowed(SLOW, 99.0)
    assert made.limit == pytest.approx(7.0)
    for _ in range(7):
        made.answered(0.0, 1, 1)
    assert 7.9 < made.limit < 8.1
    for _ in range(1000):
        made.answered(0.0, 1, 1)
    assert made.limit == 10  # never above what the user allows


def test_one_decrease_for_all_that_were_in_flight_at_it():
    clock = Clock()
    made = pace(clock)
    for sent_at in (99.0, 99.5, 100.0):
        made.slowed(SLOW, sent_at)
    assert made.limit == pytest.approx(7.0)
    assert made.decreases_in_a_row == 1
    clock.now = 105.0
    made.slowed(SLOW, 104.0)
    assert made.limit == pytest.approx(4.9)
    for n in range(50):
        clock.now += 200
        made.slowed(SLOW, clock.now - 1 - n / 100)
    assert made.limit == 1.0


def test_retry_after_wins_and_everybody_waits():
    clock = Clock()
    made = pace(clock)
    made.slowed(Outcome(kind=Kind.RATE_LIMITED, wait_sec=30.0), 99.0)
    assert 30.0 <= made.wait() <= 33.0
    clock.now += 33.0
    assert made.wait() == 0.0


def test_without_it_waits_double_up_to_a_minute_and_an_answer_resets_them():
    clock = Clock()
    made = pace(clock)
    for most in (1, 2, 4, 8, 16, 32, 60, 60, 60):
        wait = made.slowed(SLOW, clock.now)
        assert most / 2 <= wait <= most
        clock.now += wait + 0.01
    made.answered(0.0, 1, 1)
    assert made.slowed(SLOW, clock.now) <= 1.0


def test_a_ceiling_holds_on_average():
    clock = Clock()
    made = pace(clock, requests_per_minute=600)
    sent = 0
    while clock.now < 160.0:
        if wait := made.wait():
            clock.now += wait
        made.sent(100)
        sent += 1
    assert 600 <= sent <= 612  # a second's worth may go at once


def test_tokens_are_set_right_by_the_answer():
    clock = Clock()
    made = pace(clock, tokens_per_minute=6000)  # 100 a second
    expected = made.sent(400)
    assert expected == 100
    made.answered(expected, 150, 150)  # it took 300: 200 above the second's worth
    assert made.wait() == pytest.approx(2.0)


def test_no_ceiling_never_waits():
    ceiling = Ceiling(0)
    ceiling.take(1e9, now=0.0)
    assert ceiling.wait(now=0.0) == 0.0
