"""The simulator's own books: what came, what was answered, what was billed; whole numbers only."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What one answer was counted as."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ticks: int = 0


class Ledger:
    """Totals and sums by request key (SHA-256 of the body, hex); safe to read while it serves."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.sent: Counter[str] = Counter()  # requests that arrived whole
        self.answered: Counter[str] = Counter()  # answers whose last byte was handed to the socket
        self.billed: Counter[str] = Counter()  # ticks
        self.acts: Counter[str] = Counter()  # what was done with them: "answer", "rate_429", ...
        self.prompt_tokens = self.completion_tokens = 0
        self.at_once = self.most_at_once = 0

    def arrived(self, key: str) -> int:
        """Notes a request; answers how often this one has come, from 1."""
        with self._guard:
            self.sent[key] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            return self.sent[key]

    def acted(self, key: str, name: str, bill: Bill | None) -> None:
        """Notes what is done with a request, and bills it."""
        with self._guard:
            self.acts[name] += 1
            if bill is not None:
                self.billed[key] += bill.ticks
                self.prompt_tokens += bill.prompt_tokens
                self.completion_tokens += bill.completion_tokens

    def left(self, key: str, *, delivered: bool) -> None:
        """Notes that a request is over."""
        with self._guard:
            self.at_once -= 1
            if delivered:
                self.answered[key] += 1

    @property
    def billed_ticks(self) -> int:
        """All that was billed."""
        with self._guard:
            return sum(self.billed.values())

    def report(self) -> dict[str, Any]:
        """The books as one JSON value."""
        with self._guard:
            keys = {
                key: {
                    "sent": sent,
                    "answered": self.answered[key],
                    "billed_ticks": self.billed[key],
                }
                for key, sent in self.sent.items()
            }
            return {
                "requests": sum(self.sent.values()),
                "answered": sum(self.answered.values()),
                "billed_ticks": sum(self.billed.values()),
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": self.completion_tokens,
                "most_at_once": self.most_at_once,
                "acts": dict(self.acts),
                "keys": keys,
            }


class Bucket:
    """So many units a minute, a second's worth of them at once; the caller gives the time.

    >>> bucket = Bucket(120)
    >>> [bucket.wait(1, now=0.0) for _ in range(3)]
    [0.0, 0.0, 0.5]
    >>> bucket.wait(1, now=0.5)
    0.0
    """

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._room = self._most = max(1.0, self._rate)
        self._then: float | None = None

    def wait(self, amount: int | float, now: float) -> float:
        """0.0 and takes `amount`; or takes nothing and answers the seconds until it could."""
        if self._then is not None:
            self._room = min(self._most, self._room + (now - self._then) * self._rate)
        self._then = now
        if self._room >= min(amount, self._most) - 1e-9:
            self._room -= amount
            return 0.0
        return (min(amount, self._most) - self._room) / self._rate
