"""The budget: nothing is sent that could end above a cap, to the tick."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from opengrok_jax.teacher.money import Need

DRIFT_ROWS = 50
DRIFT_TENTHS = 15  # halt once what is paid is 1.5 times what was expected


@dataclass(frozen=True, kw_only=True)
class Caps:
    """The most that a run folder may take, all its runs together; None is no bound."""

    ticks: int | None = None
    tokens: int | None = None
    requests: int | None = None


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What was taken: sendings, ticks and tokens, reservations included where none settled."""

    requests: int = 0
    ticks: int = 0
    tokens: int = 0


class Budget:
    """What is spent and what is reserved, against the caps; one writer, so it is exact.

    Reservations are upper bounds as long as the endpoint bills no more tokens than it was allowed.
    Where one bills more all the same, later reservations grow by the worst ratio seen.
    """

    def __init__(self, caps: Caps, spent: Spent) -> None:
        self.caps = caps
        self.requests, self.ticks, self.tokens = spent.requests, spent.ticks, spent.tokens
        self._worst = (1, 1)
        self._rows: deque[tuple[int, int]] = deque(maxlen=DRIFT_ROWS)
        self._paid = self._expected = 0

    def bound(self, need: Need) -> Need:
        """What is to be reserved for a request that needs so much."""
        over, under = self._worst
        return Need(ticks=-(-need.ticks * over // under), tokens=need.tokens)

    def exceeded(self, need: Need) -> str:
        """The cap that reserving `need` would break: "cap", "cap_tokens" ...; "" if none."""
        caps = self.caps
        if caps.ticks is not None and self.ticks + need.ticks > caps.ticks:
            return "cap"
        if caps.tokens is not None and self.tokens + need.tokens > caps.tokens:
            return "cap_tokens"
        if caps.requests is not None and self.requests + 1 > caps.requests:
            return "cap_requests"
        return ""

    def reserve(self, need: Need) -> None:
        """Takes it; the caller asked `exceeded` before."""
        self.requests += 1
        self.ticks += need.ticks
        self.tokens += need.tokens

    def release(self, need: Need) -> None:
        """Gives back what was reserved for a request that was never sent."""
        self.requests -= 1
        self.ticks -= need.ticks
        self.tokens -= need.tokens

    def settle(self, need: Need, cost: int | None, tokens: int | None) -> None:
        """Puts what it came to in the place of what was reserved; None lets that stand."""
        if tokens is not None:
            self.tokens += tokens - need.tokens
        if cost is None:
            return
        self.ticks += cost - need.ticks
        if cost * self._worst[1] > need.ticks * self._worst[0] > 0:
            self._worst = (cost, need.ticks)

    def drifted(self, paid: int, expected: int) -> bool:
        """Notes an answer's cost beside the expected; True once 50 of them came to 1.5 times."""
        if len(self._rows) == DRIFT_ROWS:
            old_paid, old_expected = self._rows[0]
            self._paid, self._expected = self._paid - old_paid, self._expected - old_expected
        self._rows.append((paid, expected))
        self._paid, self._expected = self._paid + paid, self._expected + expected
        full = len(self._rows) == DRIFT_ROWS
        return full and 10 * self._paid > DRIFT_TENTHS * self._expected

    @property
    def spent(self) -> Spent:
        """The totals as the journal's rows should give them."""
        return Spent(requests=self.requests, ticks=self.ticks, tokens=self.tokens)
