import random

from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.teacher.budget import Budget, Caps, Spent
from opengrok_jax.teacher.money import Need


def test_a_cap_is_met_to_the_tick():
    budget = Budget(Caps(ticks=100), Spent(ticks=40))
    assert budget.exceeded(Need(ticks=61, tokens=0)) == "cap"
    assert budget.exceeded(Need(ticks=60, tokens=0)) == ""
    budget.reserve(Need(ticks=60, tokens=0))
    assert budget.exceeded(Need(ticks=1, tokens=0)) == "cap"
    budget.settle(Need(ticks=60, tokens=0), 59, 0)
    assert budget.exceeded(Need(ticks=1, tokens=0)) == ""


def test_tokens_and_requests_have_caps_too():
    budget = Budget(Caps(tokens=10, requests=2), Spent(requests=1))
    assert budget.exceeded(Need(ticks=0, tokens=11)) == "cap_tokens"
    budget.reserve(Need(ticks=0, tokens=5))
    assert budget.exceeded(Need(ticks=0, tokens=5)) == "cap_requests"


def test_an_unknown_cost_lets_the_reservation_stand():
    budget = Budget(Caps(), Spent())
    budget.reserve(Need(ticks=9, tokens=8))
    budget.settle(Need(ticks=9, tokens=8), None, None)
    assert budget.spent == Spent(requests=1, ticks=9, tokens=8)


@given(st.integers(0, 2**32), st.integers(0, 300))
def test_whatever_is_sent_and_settled_the_cap_holds(seed, cap):
    chance = random.Random(seed)
    budget, open_needs, paid = Budget(Caps(ticks=cap), Spent()), [], 0
    for _ in range(60):
        wanted = Need(ticks=chance.randint(1, 40), tokens=1)
        if chance.random() < 0.5 and not budget.exceeded(wanted):
            budget.reserve(wanted)
            open_needs.append(wanted)
        elif open_needs:
            done = open_needs.pop(chance.randrange(len(open_needs)))
            cost = chance.choice([None, chance.randint(0, done.ticks)])
            budget.settle(done, cost, 1)
            paid += done.ticks if cost is None else cost
        assert paid + sum(n.ticks for n in open_needs) == budget.ticks <= cap


def test_reservations_grow_by_the_worst_bill():
    budget = Budget(Caps(), Spent())
    assert budget.bound(Need(ticks=10, tokens=1)).ticks == 10
    budget.settle(Need(ticks=10, tokens=1), 25, 1)
    assert budget.bound(Need(ticks=11, tokens=1)).ticks == 28  # 27.5, rounded up
    budget.settle(Need(ticks=10, tokens=1), 20, 1)
    assert budget.bound(Need(ticks=10, tokens=1)).ticks == 25


def test_drift_shows_after_fifty_rows_at_half_as_much_again():
    budget = Budget(Caps(), Spent())
    assert not any(budget.drifted(16, 10) for _ in range(49))
    assert budget.drifted(16, 10)
    budget = Budget(Caps(), Spent())
    assert not any(budget.drifted(15, 10) for _ in range(200))  # 1.5 times is not above it
    budget = Budget(Caps(), Spent())
    assert not any(budget.drifted(10, 10) for _ in range(200))
    # the last fifty count: 8 at 1 times and 42 at 1.6 times come to 1.504
    assert not any(budget.drifted(16, 10) for _ in range(41))
    assert budget.drifted(16, 10)
