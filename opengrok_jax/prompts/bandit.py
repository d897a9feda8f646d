"""Which choice pays: accepted rows per unit of cost, by Thompson sampling.

    arm          accepted  rejected  mean cost    sample of the accepted share / cost
    voice              41         9        310    0.79 / 310 = .0025
    simplify            5         0        240    0.93 / 240 = .0039   <- drawn
    adversarial         0         0        (all)  0.55 / 305 = .0018

The share is drawn from Beta(p + accepted, 2 - p + rejected), where p / 2 is the accepted share of
all arms: an arm that was never tried is believed to be like the others, but not firmly.

An arm that was hardly ever tried has a wide distribution and so is tried now and then; one that
pays is drawn most of the time, and never always (Thompson 1933).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

PRIOR_COST = 5  # how many rows at the mean cost of all arms an arm is taken to have had


@dataclass
class Arm:
    """What came of one choice."""

    accepted: int = 0
    rejected: int = 0
    cost: int = 0


class Bandit:
    """The arms by name; an arm comes to be when it is first named."""

    def __init__(self) -> None:
        self.arms: dict[str, Arm] = {}
        self._rows = self._accepted = self._cost = 0

    def update(self, name: str, accepted: bool, cost: int) -> None:
        """Notes one row that a choice led to, and what it cost."""
        arm = self.arms.setdefault(name, Arm())
        arm.accepted += accepted
        arm.rejected += not accepted
        arm.cost += cost
        self._rows += 1
        self._accepted += accepted
        self._cost += cost

    def sample(self, name: str, chance: random.Random) -> float:
        """A draw from what is believed of the arm: accepted rows for what a mean row costs."""
        arm = self.arms.get(name, Arm())
        prior = 2 * (self._accepted + 1) / (self._rows + 2)
        rate = chance.betavariate(prior + arm.accepted, 2 - prior + arm.rejected)
        if not self._cost:
            return rate
        mean = self._cost / self._rows
        own = (arm.cost + PRIOR_COST * mean) / (arm.accepted + arm.rejected + PRIOR_COST)
        return rate * mean / own

    def draw(self, names: Iterable[str], chance: random.Random) -> str:
        """The name with the highest sample."""
        samples = {name: self.sample(name, chance) for name in names}
        return max(samples, key=samples.__getitem__)
