"""Many exchanges: when to ask, when to ask again, when to stop.

    answer, blocked, unanswerable   that prompt is done
    transient                       again after a growing, jittered wait, so and so often
    rate limited, overloaded        again, and everybody waits and fewer go at once (see pace.py)
    out of money, wrong model,
    retired, fatal, a cap           nothing is sent any more; what is in flight is awaited and saved

Where prompt after prompt fails for good with no answer in between, the endpoint is taken to be down
and sending stops too.

Intents are written ahead, as many as there are places: one is on the disk by the time that a place
is free for it, and the place sends on as soon as the reply that it got is committed. What was
written ahead and not sent is withdrawn at the end.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opengrok_jax.progress import duration, say
from opengrok_jax.teacher.budget import Budget
from opengrok_jax.teacher.client import Exchange
from opengrok_jax.teacher.commits import Commits
from opengrok_jax.teacher.journal import Journal
from opengrok_jax.teacher.journal_plan import Todo
from opengrok_jax.teacher.money import Need, need, settlement
from opengrok_jax.teacher.outcome import STOPPING, Kind, Outcome
from opengrok_jax.teacher.pace import Pace
from opengrok_jax.teacher.rules import BLOCKED_ROWS, Cause, Patience, Rules, Stop

ANNOUNCED_SEC = 10.0  # a common wait longer than this is told to the user
SLOWED = (Kind.RATE_LIMITED, Kind.OVERLOADED)
FINAL = (Kind.OK, Kind.BLOCKED, Kind.UNANSWERABLE)


@dataclass
class _Job:
    """A prompt under way in this run."""

    todo: Todo
    need: Need
    faults: int = 0
    again: bool = False  # it had a sending before, and keeps its place
    sent_at: float = 0.0
    expected: float = 0.0


@dataclass(slots=True)
class _Intent:
    """A sending with its row in the journal and what is reserved for it."""

    job: _Job
    number: int
    reserved: Need


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
        self._held: deque[_Job] = deque()  # next to have an intent, once the caps have room
        self._coming: dict[int, _Intent] = {}  # on their way to the disk
        self._ready: deque[_Intent] = deque()
        self._ready_again: deque[_Intent] = deque()
        self._numbers = self._failures = self._in_flight = self._returning = 0
        self._seen_first = self._exhausted = False
        self._blocked: deque[bool] = deque(maxlen=BLOCKED_ROWS)  # of the last ones
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
                for intent in (*self._ready_again, *self._ready, *self._coming.values()):
                    self._withdraw(intent)
        return self.stopped

    def stop(self, stop: Stop) -> None:
        """Nothing is sent any more; what is in flight is awaited."""
        if self.stopped is None:
            self.stopped = stop
        self._fill()

    def _fill(self) -> None:
        """Sends whatever may be sent now, writes ahead, and sets the clock for the next."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        while (intent := self._taken()) is not None:
            task = asyncio.create_task(self._place(intent))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        self._write_ahead()
        waiting = self.stopped is None and (self._coming or self._ready or self._ready_again)
        if not (self._in_flight or self._timer or waiting or self._over.done()):
            self._over.set_result(None)

    def _taken(self) -> _Intent | None:
        """An intent whose sending begins now, if there is a place and the pace allows it."""
        while self.stopped is None and self._in_flight < int(self._pace.limit):
            # Who waits to be asked again keeps a place, or a dead endpoint would be sent all.
            if self._ready_again:
                line = self._ready_again
            elif self._ready and self._in_flight + self._kept_places() < int(self._pace.limit):
                line = self._ready
            else:
                return None
            if (wait := self._pace.wait()) > 0:
                self._later(wait)
                return None
            intent = line.popleft()
            job = intent.job
            if self._budget.bound(job.need) != intent.reserved:  # dearer than was thought then
                self._withdraw(intent)
                self._held.append(job)
                continue
            self._in_flight += 1
            self._returning -= job.again
            job.sent_at = time.monotonic()
            job.expected = self._pace.sent(len(job.todo.body))
            self._journal.begin(intent.number)
            return intent
        return None

    def _kept_places(self) -> int:
        """Places of those who are to be asked again; none once a cap holds them back."""
        return 0 if self._held and not self._in_flight else self._returning

    def _write_ahead(self) -> None:
        """Puts intents into the next commit, for all that is due and for one more in each place."""
        now, written = time.monotonic(), []
        # By the half of it, so that many share the work of a few calls.
        fresh = len(self._coming) + len(self._ready) <= self._pace.most // 2
        while self.stopped is None and (job := self._next(now, fresh)) is not None:
            reserved = self._budget.bound(job.need)
            if cap := self._budget.exceeded(reserved):
                # An answer under way may cost less than is reserved for it: then there is room.
                self._held.append(job)
                if not (self._in_flight or self._coming or self._ready or self._ready_again):
                    self.stopped = Stop(cause=Cause.CAP, detail=cap)
                break
            self._budget.reserve(reserved)
            intent = _Intent(job, self._journal.intend(job.todo, reserved), reserved)
            self._coming[intent.number] = intent
            written.append(intent)
        if written:
            self._commits.durable().add_done_callback(lambda done: self._arrived(written, done))
        if self._again and self.stopped is None:
            self._later(self._again[0][0] - now)

    def _next(self, now: float, fresh: bool) -> _Job | None:
        """A prompt that may have its intent now, if `fresh` one that was not asked yet."""
        if self._again and self._again[0][0] <= now:
            return heapq.heappop(self._again)[2]
        if self._held:
            return self._held.popleft()
        ahead = len(self._coming) + len(self._ready)
        if not fresh or self._exhausted or ahead >= self._pace.most:
            return None
        todo = next(self._todo, None)
        if todo is None:
            self._exhausted = True
            return None
        turns = todo.body.count(b'"role"')
        rules = self._rules
        return _Job(todo, need(len(todo.body), turns, rules.max_tokens, rules.prices))

    def _later(self, seconds: float) -> None:
        """Comes back then, or earlier if that was said before."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(seconds, 0.001)
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._fill()

    def _arrived(self, intents: list[_Intent], durable: asyncio.Future[None]) -> None:
        """Those that are on the disk wait for a place."""
        if self._over.done():
            return
        if error := durable.exception():
            self._over.set_exception(error)
            return
        for intent in intents:
            del self._coming[intent.number]
            (self._ready_again if intent.job.again else self._ready).append(intent)
        self._fill()

    def _withdraw(self, intent: _Intent) -> None:
        self._journal.withdraw(intent.number)
        self._budget.release(intent.reserved)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not self._over.done():
            self._over.set_exception(error)

    async def _place(self, intent: _Intent | None) -> None:
        """One place: a request, its reply, the next request, as long as there is one for it."""
        while intent is not None:
            await self._commits.kept()  # the mark that it begins, and the reply before it
            job, reserved = intent.job, intent.reserved
            reply = await self._exchange.post(self._rules.path, job.todo.body)
            outcome = self._rules.judge(reply)
            cost, tokens = settlement(outcome, reply, self._rules.prices)
            self._journal.received(intent.number, reply, outcome, cost, tokens)
            durable = self._commits.durable()
            self._budget.settle(reserved, cost, tokens)
            self._in_flight -= 1
            self._decide(job, outcome, reserved, cost, durable)
            intent = self._taken()
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
            self._blocked.append(outcome.kind is Kind.BLOCKED)
            # Each of them may be charged; that this share of all is refused is no accident.
            if outcome.kind is Kind.BLOCKED and (
                sum(self._blocked) > self._patience.max_blocked * BLOCKED_ROWS
            ):
                self._stop(Stop(cause=Cause.BLOCKED, outcome=outcome))
        durable.add_done_callback(lambda done: self._counted(outcome, done))

    def _counted(self, outcome: Outcome, durable: asyncio.Future[None]) -> None:
        """Tells of a prompt that is done with, now that its reply is on the disk."""
        if (error := durable.exception()) is None:
            self._settled(outcome)
        elif not self._over.done():
            self._over.set_exception(error)

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
        job.again, self._returning = True, self._returning + 1
        heapq.heappush(self._again, (time.monotonic() + wait, self._numbers, job))

    def _stop(self, stop: Stop) -> None:
        if self.stopped is None:
            self.stopped = stop
