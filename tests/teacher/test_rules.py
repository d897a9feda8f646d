import random

from opengrok_jax.teacher.outcome import Kind, Outcome
from opengrok_jax.teacher.rules import Patience


def test_waits_double_jitter_and_end():
    patience = Patience(attempts=9, longest_wait_sec=20.0)
    chance = random.Random(1)
    hiccup = Outcome(kind=Kind.TRANSIENT)
    for attempt, most in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 20.0)):
        waits = [patience.wait(hiccup, attempt, chance) for _ in range(50)]
        assert most / 2 <= min(waits) < max(waits) <= most
    told = Outcome(kind=Kind.TRANSIENT, wait_sec=100.0)
    assert 100.0 <= patience.wait(told, 1, chance) <= 110.0
