"""Many exchanges: how many at once, when to ask again, when to stop.

    answer, blocked, unanswerable   that prompt is done
    transient                       again after a growing, jittered wait
    rate limited                    the same, and everybody waits
    out of money, fatal             nobody sends any more; what is in flight is awaited and saved

Retry-After wins over our own wait. Where prompt after prompt fails for good with no answer in
between, the endpoint is taken to be down and sending stops too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from opengrok_jax.progress import duration, say
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.client import Client
from opengrok_jax.teacher.journal import Journal
from opengrok_jax.teacher.wire import Kind, Outcome, Request

ANNOUNCED_SEC = 10.0  # a common wait longer than this is told to the user
_FINAL = (Kind.OK, Kind.BLOCKED, Kind.UNANSWERABLE)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long we try.

    Attributes:
      attempts: sendings of one prompt within this run.
      first_wait_sec: before the second sending; doubles from one to the next.
      first_rate_wait_sec: the same after a rate limit; five doublings outlast a minute's quota.
      longest_wait_sec: where doubling ends.
      longest_retry_after_sec: an endpoint that asks for more than this closes the run.
      failures_in_a_row: prompts that fail for good, without one answer in between, until we stop.
    """

    attempts: int
    first_wait_sec: float = 1.0
    first_rate_wait_sec: float = 5.0
    longest_wait_sec: float = 60.0
    longest_retry_after_sec: float = 900.0
    failures_in_a_row: int = 3

    def wait(self, outcome: Outcome, attempt: int, chance: random.Random) -> float:
        """Seconds from the `attempt`-th failed sending (from 1) to the next, jitter included."""
        if outcome.wait_sec is not None:
            # Late by a little, so that not everybody returns in the same instant.
            return outcome.wait_sec * (1 + 0.1 * chance.random())
        rated = outcome.kind is Kind.RATE_LIMITED
        first = self.first_rate_wait_sec if rated else self.first_wait_sec
        return min(self.longest_wait_sec, first * 2 ** (attempt - 1)) * chance.uniform(0.5, 1.0)


async def ask_all(
    requests: Sequence[Request],
    *,
    client: Client,
    journal: Journal,
    concurrency: int,
    patience: Patience,
    settled: Callable[[Outcome], None],
    chance: random.Random,
) -> Outcome | None:
    """Asks every request, at most `concurrency` at a time, and journals all that happens.

    Args:
      settled: called with the last outcome of each prompt that is done with for this run.
      chance: of the jitter.

    Returns:
      None when all were asked; else the outcome that stopped the sending.
    """
    crowd = _Crowd(requests, client, journal, patience, settled, chance)
    workers = [asyncio.create_task(crowd.work()) for _ in range(min(concurrency, len(requests)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return crowd.stopped_by


class _Crowd:
    """What the workers share: the queue, the common wait, and whether the shop is closed."""

    def __init__(
        self,
        requests: Sequence[Request],
        client: Client,
        journal: Journal,
        patience: Patience,
        settled: Callable[[Outcome], None],
        chance: random.Random,
    ) -> None:
        self.stopped_by: Outcome | None = None
        self._queue = deque(requests)
        self._client, self._journal, self._patience = client, journal, patience
        self._settled, self._chance = settled, chance
        self._closed = asyncio.Event()
        self._open_at = 0.0
        self._failures = 0

    async def work(self) -> None:
        """One worker: takes prompts until there are none, or the shop is closed."""
        while self._queue and not self._closed.is_set():
            await self._ask(self._queue.popleft())

    async def _ask(self, request: Request) -> None:
        attempt = 0
        while await self._may_send():
            attempt += 1
            outcome = await self._send(request)
            if outcome.kind in (Kind.FATAL, Kind.OUT_OF_MONEY):
                self._close(outcome)
                return
            if outcome.kind in _FINAL or attempt == self._patience.attempts:
                self._count(outcome)
                self._settled(outcome)
                return
            await self._back_off(outcome, attempt)

    async def _send(self, request: Request) -> Outcome:
        number = self._journal.sent(request.key)
        reply = await self._client.post(request.body)
        outcome = wire.read(reply)
        self._journal.received(number, reply, outcome)
        return outcome

    async def _may_send(self) -> bool:
        """Waits out the common wait; False once the shop is closed."""
        while not self._closed.is_set():
            left = self._open_at - time.monotonic()
            if left <= 0:
                return True
            await self._sleep(left)
        return False

    async def _back_off(self, outcome: Outcome, attempt: int) -> None:
        if (outcome.wait_sec or 0) > self._patience.longest_retry_after_sec:
            self._close(outcome)
            return
        wait = self._patience.wait(outcome, attempt, self._chance)
        if outcome.kind is not Kind.RATE_LIMITED:
            await self._sleep(wait)
            return
        until = time.monotonic() + wait
        if wait > ANNOUNCED_SEC and until > self._open_at + 1:
            say(f"the teacher limits the rate: waiting {duration(wait)}")
        self._open_at = max(self._open_at, until)

    async def _sleep(self, seconds: float) -> None:
        """Sleeps, but wakes when the shop closes."""
        try:
            async with asyncio.timeout(seconds):
                await self._closed.wait()
        except TimeoutError:
            pass

    def _count(self, outcome: Outcome) -> None:
        if outcome.kind in _FINAL:
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= self._patience.failures_in_a_row:
            self._close(outcome)

    def _close(self, outcome: Outcome) -> None:
        if self.stopped_by is None:
            self.stopped_by = outcome
        self._closed.set()
