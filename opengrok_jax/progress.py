"""Progress of a stage: a bar with the time left on a terminal, plain lines elsewhere.

with track("collect", total=400, unit="answers") as advance:
    for ...:
        advance(1, note="3 rejected")
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from opengrok_jax.inert import inert

SECONDS_BETWEEN_LINES = 10.0
_muted = False


def say(text: str) -> None:
    """One plain line to the user, at once; standard error, so that piped output stays clean.

    It may quote an endpoint or a post: what would steer a terminal is spelled out.
    """
    if not _muted:
        print(inert(text, lines=True), file=sys.stderr, flush=True)


def mute() -> None:
    """From here on nothing is told in this process: another one tells it for both."""
    global _muted
    _muted = True


@contextlib.contextmanager
def track(stage: str, *, total: int, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Shows how far a stage is and how long it still takes.

    Args:
      stage: the word before the bar.
      total: how many units there are in all.
      unit: what is counted, in the plural.
      done: how many units an earlier, interrupted call finished.

    Yields:
      `advance(by=1, note="")`: call it after each piece of work.
    """
    if sys.stderr.isatty() and not _muted:
        with _bar(stage, total, unit, done) as advance:
            yield advance
    else:
        yield _lines(stage, total, unit, done)


@contextlib.contextmanager
def _bar(stage: str, total: int, unit: str, done: int) -> Iterator[Callable[..., None]]:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:>12}"),
        progress.BarColumn(bar_width=32),
        progress.MofNCompleteColumn(),
        progress.TextColumn(unit),
        progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        progress.TextColumn("{task.fields[note]}", style="dim"),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bars:
        task = bars.add_task(stage, total=total, completed=done, note="")

        def advance(by: int = 1, note: str = "") -> None:
            bars.update(task, advance=by, note=note)

        yield advance


def _lines(stage: str, total: int, unit: str, done: int) -> Callable[..., None]:
    start = last = time.monotonic()
    now_done, fresh = done, 0

    def advance(by: int = 1, note: str = "") -> None:
        nonlocal now_done, fresh, last
        now_done, fresh = now_done + by, fresh + by
        now = time.monotonic()
        if now_done < total and now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        left = (now - start) / max(fresh, 1) * max(total - now_done, 0)
        say(
            f"{stage}: {now_done}/{total} {unit}, {duration(left)} left"
            + (f", {note}" if note else "")
        )

    return advance


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(7), duration(125), duration(7800)
    ('7 s', '2 min 5 s', '2 h 10 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
