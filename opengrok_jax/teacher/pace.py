"""How many requests at once, and when the next may go: additive increase, multiplicative decrease.

    limit   concurrency -> x 0.7 at a rate limit or overload -> + 1 for as many answers as it is
    wait    everybody's, after such a reply: what Retry-After asks, else 1, 2, 4 ... s, jittered

One decrease counts for all requests that were in flight at it. Where the user named ceilings per
minute, requests and tokens are let through at that rate whatever the limit is.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from opengrok_jax.teacher.outcome import Outcome

DECREASE = 0.7
FIRST_WAIT_SEC, LONGEST_WAIT_SEC = 1.0, 60.0


class Ceiling:
    """So many units a minute, a second's worth of them at once; 0 is no ceiling.

    What is taken may be more than there is: the debt is waited for, so that the rate holds on
    average and what a request really took can be set right afterwards.

    >>> ceiling = Ceiling(120)
    >>> for _ in range(3): ceiling.take(1.0, now=0.0)
    >>> ceiling.wait(now=0.0), ceiling.wait(now=1.0)
    (0.5, 0.0)
    """

    def __init__(self, per_minute: int) -> None:
        self._rate = per_minute / 60
        self._room = self._most = max(1.0, self._rate)
        self._then: float | None = None

    def wait(self, now: float) -> float:
        """Seconds until the next may go."""
        if not self._rate:
            return 0.0
        if self._then is not None:
            self._room = min(self._most, self._room + (now - self._then) * self._rate)
        self._then = now
        return -self._room / self._rate if self._room < -1e-9 else 0.0

    def take(self, amount: float, now: float) -> None:
        """Takes `amount`; a negative one gives back."""
        self.wait(now)
        self._room -= amount


class Pace:
    """The common state of all senders.

    Args:
      concurrency: the most at once.
      alone_first: whether one request goes alone until the first answer.
      requests_per_minute, tokens_per_minute: ceilings; 0 is none.
      chance: of the jitter.
      clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        alone_first: bool,
        requests_per_minute: int,
        tokens_per_minute: int,
        chance: random.Random,
        clock: Callable[[], float],
    ) -> None:
        self.most = concurrency
        self.limit = 1.0 if alone_first else float(concurrency)
        self._alone = alone_first
        self._requests, self._tokens = Ceiling(requests_per_minute), Ceiling(tokens_per_minute)
        self._chance, self._clock = chance, clock
        self._open_at = 0.0
        self._decreased_at = -1.0
        self.decreases_in_a_row = 0
        self._output = 0.0  # tokens of an answer, as a running mean
        self._limited_tokens = tokens_per_minute > 0

    def wait(self) -> float:
        """Seconds until the next request may go, the limit aside."""
        now = self._clock()
        return max(self._open_at - now, self._requests.wait(now), self._tokens.wait(now), 0.0)

    def sent(self, body_bytes: int) -> float:
        """Notes a sending; answers the tokens it is taken for until its answer tells them."""
        now = self._clock()
        self._requests.take(1.0, now)
        expected = body_bytes / 4 + self._output
        self._tokens.take(expected, now)
        return expected

    def answered(self, expected: float, prompt_tokens: int, output_tokens: int) -> None:
        """Notes an answer and what it took."""
        self.decreases_in_a_row = 0
        if self._alone:
            self._alone, self.limit = False, float(self.most)
        else:
            self.limit = min(float(self.most), self.limit + 1 / self.limit)
        if self._limited_tokens and prompt_tokens + output_tokens:
            self._tokens.take(prompt_tokens + output_tokens - expected, self._clock())
            self._output += (output_tokens - self._output) / 8

    def slowed(self, outcome: Outcome, sent_at: float) -> float:
        """Notes a rate limit or an overload; answers the seconds that everybody waits from now.

        Args:
          outcome: the reply; its `wait_sec` wins over our own wait.
          sent_at: when its request was sent, by the clock.
        """
        now = self._clock()
        if sent_at > self._decreased_at:
            self._decreased_at = now
            self.limit = max(1.0, self.limit * DECREASE)
            self.decreases_in_a_row += 1
        if outcome.wait_sec is not None:
            # Late by a little, so that not everybody returns in the same instant.
            wait = outcome.wait_sec * (1 + 0.1 * self._chance.random())
        else:
            doubled = FIRST_WAIT_SEC * 2 ** min(self.decreases_in_a_row - 1, 10)
            wait = min(LONGEST_WAIT_SEC, doubled) * self._chance.uniform(0.5, 1.0)
        self._open_at = max(self._open_at, now + wait)
        return self._open_at - now
