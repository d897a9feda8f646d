"""One run of asking: the client, the sending and the progress, put together."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import random
import signal
from collections import Counter
from collections.abc import Iterator

from opengrok_jax.progress import say, track
from opengrok_jax.teacher import preflight, wire
from opengrok_jax.teacher.budget import Budget
from opengrok_jax.teacher.client import Client, Exchange
from opengrok_jax.teacher.journal import Journal
from opengrok_jax.teacher.journal_plan import Plan
from opengrok_jax.teacher.money import Prices
from opengrok_jax.teacher.outcome import Kind, Outcome, Reply
from opengrok_jax.teacher.pace import Pace
from opengrok_jax.teacher.rules import Cause, Patience, Rules, Stop
from opengrok_jax.teacher.sending import Sending
from opengrok_jax.teacher.settings import Teacher

# Fewer connections open in no time, and a server of one thread may wait for what an idle one says.
AHEAD_FROM = 64


class Judge:
    """Reads replies and holds them to the model asked for, and to the one that served before."""

    def __init__(self, teacher: Teacher, served: str) -> None:
        self._teacher = teacher
        # A date behind the name is fine, two dates in one data set are not.
        self._pinned = dataclasses.replace(teacher.asking, model=served) if served else None

    def __call__(self, reply: Reply) -> Outcome:
        """The reply, understood."""
        teacher = self._teacher
        outcome = wire.held_to(wire.read(reply), teacher.asking, teacher.served_as)
        if outcome.kind is not Kind.OK or outcome.answer is None or not outcome.answer.model:
            return outcome
        if teacher.served_as:
            return outcome  # the user named them all
        if self._pinned is None:
            self._pinned = dataclasses.replace(teacher.asking, model=outcome.answer.model)
        return wire.held_to(outcome, self._pinned, ())


async def ask(
    teacher: Teacher,
    *,
    journal: Journal,
    plan: Plan,
    budget: Budget,
    pace: Pace,
    prices: Prices,
    judge: Judge,
    patience: Patience,
) -> Stop | None:
    """Asks what the plan has left; answers why it stopped before the end, else None."""
    tally: Counter[str] = Counter()
    total, done = plan.requests, plan.settled()
    if done == total:
        return None
    ahead = min(pace.most, total - done) - 1
    if ahead < AHEAD_FROM:
        ahead = 0
    with track("collect", total=total, unit="answers", done=done) as advance:

        def settled(outcome: Outcome) -> None:
            if outcome.kind is not Kind.OK:
                tally["blocked" if outcome.kind is Kind.BLOCKED else "failed"] += 1
            advance(1, note=", ".join(f"{n} {what}" for what, n in sorted(tally.items())))

        async with contextlib.AsyncExitStack() as stack:
            exchange: Exchange = teacher.book or await _connected(teacher, stack, ahead)
            rules = Rules(
                path=wire.path(teacher.asking),
                judge=judge,
                prices=prices,
                max_tokens=teacher.asking.max_tokens,
                first=lambda outcome: preflight.first_row(outcome, teacher.asking, prices),
            )
            sending = Sending(
                todo=plan.todo(),
                exchange=exchange,
                journal=journal,
                budget=budget,
                pace=pace,
                patience=patience,
                rules=rules,
                settled=settled,
                chance=random.Random(),
            )
            with _interrupts(sending), _unhurried():
                return await sending.ask_all()


async def _connected(teacher: Teacher, stack: contextlib.AsyncExitStack, ahead: int) -> Client:
    """The client; it opens `ahead` connections while the first request is alone."""
    client = await stack.enter_async_context(teacher.client())
    opening = asyncio.create_task(client.open_ahead(ahead))

    async def closed() -> None:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)

    stack.push_async_callback(closed)
    return client


@contextlib.contextmanager
def _unhurried() -> Iterator[None]:
    """Spares the garbage collector what is there by now: it stands for the whole of a sending.

    Looking through it stops all requests for 25 to 50 ms, several times a minute.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def _interrupts(sending: Sending) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the sending and waits for what is in flight.

    The second Ctrl-C does not wait: this task is cancelled. The second SIGTERM ends the process.
    """
    loop, main = asyncio.get_running_loop(), asyncio.current_task()
    assert main is not None

    def interrupted(cause: Cause) -> None:
        if cause is Cause.TERMINATED:
            loop.remove_signal_handler(signal.SIGTERM)
        elif sending.stopped is not None:
            main.cancel()
            return
        once_more = "; Ctrl-C again does not wait" if cause is Cause.INTERRUPTED else ""
        say(f"collect: no more is sent, waiting for what is in flight{once_more}")
        sending.stop(Stop(cause=cause))

    causes = {signal.SIGINT: Cause.INTERRUPTED, signal.SIGTERM: Cause.TERMINATED}
    try:
        for number, cause in causes.items():
            loop.add_signal_handler(number, interrupted, cause)
    except (ValueError, RuntimeError, NotImplementedError):  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number in causes:
            loop.remove_signal_handler(number)
