import random
from collections import Counter

from opengrok_jax.prompts.bandit import Bandit


def played(rates, costs, turns, seed=0):
    """How often each arm is drawn in the second half."""
    bandit, chance = Bandit(), random.Random(seed)
    drawn = Counter()
    for turn in range(turns):
        name = bandit.draw(rates, chance)
        bandit.update(name, chance.random() < rates[name], costs[name])
        if turn >= turns // 2:
            drawn[name] += 1
    return drawn


def test_what_is_accepted_more_often_is_drawn_more_often():
    drawn = played(
        {"good": 0.9, "bad": 0.3, "worse": 0.1}, dict.fromkeys(("good", "bad", "worse"), 100), 400
    )
    assert drawn["good"] > 150


def test_of_arms_accepted_alike_the_cheaper_is_drawn():
    for seed in range(3):
        drawn = played({"dear": 0.6, "cheap": 0.6}, {"dear": 300, "cheap": 100}, 300, seed)
        assert drawn["cheap"] > 2 * drawn["dear"]


def test_an_untried_arm_gets_its_turn():
    bandit, chance = Bandit(), random.Random(1)
    for _ in range(50):
        bandit.update("known", chance.random() < 0.5, 10)
    drawn = Counter(bandit.draw(("known", "new"), chance) for _ in range(200))
    assert drawn["new"] > 50
    assert drawn["known"] > 30


def test_the_same_seed_draws_the_same():
    assert played({"a": 0.5, "b": 0.5}, {"a": 1, "b": 1}, 60, 5) == played(
        {"a": 0.5, "b": 0.5}, {"a": 1, "b": 1}, 60, 5
    )


def test_costs_of_nothing_are_no_division_by_nothing():
    bandit = Bandit()
    bandit.update("free", True, 0)
    assert 0 < bandit.sample("free", random.Random(0)) <= 1
