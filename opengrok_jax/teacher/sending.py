"""Many exchanges: when to ask, when to ask again, when to stop.

    answer, blocked, unanswerable   that prompt is done
    transient                       again after a growing, jittered wait, so and so often
    rate limited, overloaded        again, and everybody waits and fewer go at once (see pace.py)
    out of money, wrong model,
    retired, fatal, a cap           nothing is sent any more; what is in flight is awaited and saved

Where prompt after prompt fails for good with no answer in between, the endpoint is taken to be down
and sending stops too.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from opengrok_jax.progress import duration, say
from opengrok_jax.teacher.budget import Budget
from opengrok_jax.teacher.client import Exchange
from opengrok_jax.teacher.commits import Commits
from opengrok_jax.teacher.journal import Journal
from opengrok_jax.teacher.journal_plan import Todo
from opengrok_jax.teacher.money import Need, need, settlement
from opengrok_jax.teacher.outcome import STOPPING, Kind, Outcome
from opengrok_jax.teacher.pace import Pace
from opengrok_jax.teacher.rules import Cause, Patience, Rules, Stop

ANNOUNCED_SEC = 10.0  # a common wait longer than this is told to the user
SLOWED = (Kind.RATE_LIMITED, Kind.OVERLOADED)
FINAL = (Kind.OK, Kind.BLOCKED, Kind.UNANSWERABLE)


@dataclass
class _Job:
    """A prompt under way in this run."""

    todo: Todo
    need: Need
    faults: int = 0
    sent_at: float = field(default=0.0)
    expected: float = 0.0


class Sending:
    """One run of sending; `ask_all` once.

    Args:
      todo: what is to be asked, in order.
      settled: called with the last outcome of each prompt that is done with for this run, once its
        reply is on the disk.
      chance: of the jitter.
    """

    def __init__(
        self,
        *,
        todo: Iterator[Todo],
        exchange: Exchange,
        journal: Journal,
        budget: Budget,
        pace: Pace,
        patience: Patience,
        rules: Rules,
        settled: Callable[[Outcome], None],
        chance: random.Random,
    ) -> None:
        self._todo, self._exchange, self._journal = todo, exchange, journal
        self._budget, self._pace, self._patience, self._rules = budget, pace, patience, rules
        self._settled, self._chance = settled, chance
        self._again: list[tuple[float, int, _Job]] = []  # a heap: when, and in which order
        self._held: _Job | None = None
        self._numbers = self._failures = self._in_flight = 0
        self._seen_first = self._exhausted = False
        self._announced = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.stopped: Stop | None = None

    async def ask_all(self) -> Stop | None:
        """Asks all there is; answers why the sending stopped before the end, else None."""
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with Commits(self._journal) as self._commits:
            try:
                self._fill()
                await self._over
            finally:
                if self._timer:
                    self._timer.cancel()
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        return self.stopped

    def stop(self, stop: Stop) -> None:
        """Nothing is sent any more; what is in flight is awaited."""
        if self.stopped is None:
            self.stopped = stop
        self._fill()

    def _fill(self) -> None:
        """Sends whatever may be sent now, and sets the clock for the next."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while self.stopped is None and self._in_flight < int(self._pace.limit):
            now = time.monotonic()
            job, due = self._next(now)
            if job is None:
                if due is not None:
                    self._later(due - now)
                break
            if (wait := self._pace.wait()) > 0:
                self._held = job
                self._later(wait)
                break
            reserved = self._budget.bound(job.need)
            if cap := self._budget.exceeded(reserved):
                # An answer under way may cost less than is reserved for it: then there is room.
                self._held = job
                if not self._in_flight:
                    self.stopped = Stop(cause=Cause.CAP, detail=cap)
                break
            self._start(job, reserved)
        if self._in_flight == 0 and self._timer is None and not self._over.done():
            self._over.set_result(None)

    def _next(self, now: float) -> tuple[_Job | None, float | None]:
        """A prompt that may go now; else None, and when there may be one."""
        if self._held is not None:
            job, self._held = self._held, None
            return job, None
        if self._again and self._again[0][0] <= now:
            return heapq.heappop(self._again)[2], None
        # Who waits to be asked again keeps a place, or a dead endpoint would be sent everything.
        if not self._exhausted and self._in_flight + len(self._again) < int(self._pace.limit):
            todo = next(self._todo, None)
            if todo is not None:
                turns = todo.body.count(b'"role"')
                rules = self._rules
                needed = need(len(todo.body), turns, rules.max_tokens, rules.prices)
                return _Job(todo, needed), None
            self._exhausted = True
        return None, self._again[0][0] if self._again else None

    def _later(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(seconds, 0.001), self._fill)

    def _start(self, job: _Job, reserved: Need) -> None:
        self._budget.reserve(reserved)
        self._in_flight += 1
        number = self._journal.sent(job.todo, reserved)
        intent = self._commits.durable()
        intent.add_done_callback(lambda done: self._go(job, number, reserved, done))

    def _go(self, job: _Job, number: int, reserved: Need, intent: asyncio.Future[None]) -> None:
        """Sends, now that the intent is on the disk."""
        if self._over.done():
            return
        if error := intent.exception():
            self._over.set_exception(error)
            return
        task = asyncio.create_task(self._send(job, number, reserved))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not self._over.done():
            self._over.set_exception(error)

    async def _send(self, job: _Job, number: int, reserved: Need) -> None:
        job.sent_at = time.monotonic()
        job.expected = self._pace.sent(len(job.todo.body))
        reply = await self._exchange.post(self._rules.path, job.todo.body)
        outcome = self._rules.judge(reply)
        cost, tokens = settlement(outcome, reply, self._rules.prices)
        self._journal.received(number, reply, outcome, cost, tokens)
        durable = self._commits.durable()
        self._budget.settle(reserved, cost, tokens)
        self._in_flight -= 1
        self._decide(job, outcome, reserved, cost, durable)
        self._fill()

    def _decide(
        self,
        job: _Job,
        outcome: Outcome,
        reserved: Need,
        cost: int | None,
        durable: asyncio.Future[None],
    ) -> None:
        if outcome.kind is Kind.OK:
            self._accepted(job, outcome, reserved, cost)
        elif outcome.kind in STOPPING:
            self._stop(Stop(cause=Cause.REFUSED, outcome=outcome))
            return
        elif (outcome.wait_sec or 0) > self._patience.longest_retry_after_sec:
            self._stop(Stop(cause=Cause.LONG_WAIT, outcome=outcome))
            return
        elif outcome.kind in SLOWED:
            self._slow_down(job, outcome)
            return
        elif outcome.kind is Kind.TRANSIENT:
            job.faults += 1
            if job.faults < self._patience.attempts:
                self._put_back(job, self._patience.wait(outcome, job.faults, self._chance))
                return
            self._failures += 1
            if self._failures >= self._patience.failures_in_a_row:
                self._stop(Stop(cause=Cause.DOWN, outcome=outcome))
        if outcome.kind in FINAL:
            self._failures = 0
        durable.add_done_callback(lambda done: done.exception() or self._settled(outcome))

    def _accepted(self, job: _Job, outcome: Outcome, reserved: Need, cost: int | None) -> None:
        assert outcome.answer is not None
        usage, prices = outcome.answer.usage, self._rules.prices
        self._pace.answered(job.expected, usage.prompt_tokens, usage.billed_tokens)
        if not self._seen_first:
            self._seen_first = True
            if wrong := self._rules.first(outcome):
                self._stop(Stop(cause=Cause.FIRST, outcome=outcome, detail=wrong))
        if cost is not None and prices:
            priced = prices.of(usage.prompt_tokens, usage.billed_tokens, usage.cached_tokens)
            expected = min(priced, reserved.ticks) if usage.told else reserved.ticks
            if self._budget.drifted(cost, expected):
                self._stop(Stop(cause=Cause.PRICE, outcome=outcome))

    def _slow_down(self, job: _Job, outcome: Outcome) -> None:
        wait = self._pace.slowed(outcome, job.sent_at)
        if self._pace.decreases_in_a_row > self._patience.decreases_in_a_row:
            self._stop(Stop(cause=Cause.SLOW, outcome=outcome))
            return
        until = time.monotonic() + wait
        if wait > ANNOUNCED_SEC and until > self._announced + 1:
            self._announced = until
            say(f"the teacher limits the rate: waiting {duration(wait)}")
        self._put_back(job, 0.0)

    def _put_back(self, job: _Job, wait: float) -> None:
        self._numbers += 1
        heapq.heappush(self._again, (time.monotonic() + wait, self._numbers, job))

    def _stop(self, stop: Stop) -> None:
        if self.stopped is None:
            self.stopped = stop
