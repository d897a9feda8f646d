"""The rules of a sending: how long we try, what a reply is held to, why it stops."""

from __future__ import annotations

import enum
import random
from collections.abc import Callable
from dataclasses import dataclass

from opengrok_jax.teacher.money import Prices
from opengrok_jax.teacher.outcome import Outcome, Reply

BLOCKED_ROWS = 200


class Cause(enum.StrEnum):
    """Why nothing is sent any more."""

    REFUSED = "refused"  # a reply of a kind in STOPPING
    FIRST = "first"  # the first answer is not what was asked for
    DOWN = "down"  # prompt after prompt failed
    SLOW = "slow"  # rate limits or overload, and nothing else
    LONG_WAIT = "long_wait"  # it asks to wait longer than we do
    CAP = "cap"  # the next request could break a cap
    PRICE = "price"  # answers cost more than the prices say
    BLOCKED = "blocked"  # the content policy refuses prompt after prompt
    INTERRUPTED = "interrupted"  # the user
    TERMINATED = "terminated"  # a SIGTERM: the machine is needed otherwise


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why the sending stopped; `outcome` is the reply behind it, `detail` says more."""

    cause: Cause
    outcome: Outcome | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long we try.

    Attributes:
      attempts: sendings of one prompt within this run; rate limits and overload do not count.
      first_wait_sec: before the second sending; doubles from one to the next.
      longest_wait_sec: where doubling ends.
      longest_retry_after_sec: an endpoint that asks for more than this closes the run.
      failures_in_a_row: prompts that fail for good, without one answer in between, until we stop.
      decreases_in_a_row: rate limits one after the other, without one answer, until we stop.
      max_blocked: of the last BLOCKED_ROWS prompts, the share that the content policy may refuse.
    """

    attempts: int
    first_wait_sec: float = 1.0
    longest_wait_sec: float = 60.0
    longest_retry_after_sec: float = 900.0
    failures_in_a_row: int = 3
    decreases_in_a_row: int = 15
    max_blocked: float = 1.0

    def wait(self, outcome: Outcome, attempt: int, chance: random.Random) -> float:
        """Seconds from the `attempt`-th failed sending (from 1) to the next, jitter included."""
        if outcome.wait_sec is not None:
            return outcome.wait_sec * (1 + 0.1 * chance.random())
        doubled = self.first_wait_sec * 2 ** (attempt - 1)
        return min(self.longest_wait_sec, doubled) * chance.uniform(0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What is made of a reply.

    Attributes:
      path: where requests go.
      judge: a reply, understood.
      prices, max_tokens: what a request may cost.
      first: of the first answer: "" if it is as asked, else what is wrong with it.
    """

    path: str
    judge: Callable[[Reply], Outcome]
    prices: Prices
    max_tokens: int
    first: Callable[[Outcome], str]
