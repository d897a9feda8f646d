"""Money in whole numbers: a tick is 1e-10 USD, xAI's unit; a price is ticks for a million tokens.

Prices and caps are decimal strings in a config, never floats: "0.15" is 1,500,000,000 ticks, and
what one request costs is rounded up to a tick once, at its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher.outcome import Kind, Outcome, Reply, Usage

TICKS_PER_USD = 10**10
MILLION = 10**6
TURN_TOKENS = 16  # what a chat template adds to a turn, at most
_DECIMAL = re.compile(r"\d{1,9}(?:\.\d{1,10})?")


def ticks(amount: str, name: str) -> int:
    """USD as ticks.

    >>> ticks("0.15", "price"), ticks("2", "price")
    (1500000000, 20000000000)

    Raises:
      ConfigError: it is no plain decimal with up to ten places; `name` says which.
    """
    if not _DECIMAL.fullmatch(amount):
        raise ConfigError(f'{name} is {amount!r}; expected US dollars as a decimal, such as "0.15"')
    whole, _, part = amount.partition(".")
    return int(whole) * TICKS_PER_USD + int(part.ljust(10, "0") or 0)


def usd(amount: int, places: int = 4) -> str:
    """Ticks for a reader, rounded to `places`.

    >>> usd(15_000_000_000), usd(12_345), usd(12_345, 10)
    ('1.5000 USD', '0.0000 USD', '0.0000012345 USD')
    """
    unit = 10 ** (10 - places)
    rounded = (amount + unit // 2) // unit
    return f"{rounded // 10**places}.{rounded % 10**places:0{places}} USD"


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What the endpoint asks, in ticks.

    Attributes:
      input, cached, output: for a million tokens.
      request: for each answered request.
      blocked: for a request that the content policy refused.
    """

    input: int = 0
    cached: int = 0
    output: int = 0
    request: int = 0
    blocked: int = 0

    def __bool__(self) -> bool:
        """Whether anything costs anything."""
        return bool(self.input or self.cached or self.output or self.request or self.blocked)

    def of(self, prompt: int, output: int, cached: int = 0) -> int:
        """What an answer of so many tokens costs, `cached` of the prompt's among them.

        >>> Prices(input=ticks("2", ""), output=ticks("6", "")).of(1000, 100)
        26000000
        """
        parts = (prompt - cached) * self.input + cached * self.cached + output * self.output
        return -(-parts // MILLION) + self.request

    def paid(self, usage: Usage) -> int:
        """What an answer cost: as the endpoint tells it, else by its tokens; -1 if neither."""
        if usage.cost_ticks >= 0:
            return usage.cost_ticks
        if not self or not (usage.told or self.request):
            return -1
        return self.of(usage.prompt_tokens, usage.billed_tokens, usage.cached_tokens)


def prices(
    *, input: str, output: str, cached: str = "", request: str = "", blocked: str = ""
) -> Prices:
    """Prices from the decimal strings of a config; "" is nothing, and `input` for `cached`.

    Raises:
      ConfigError: one is no decimal.
    """
    read = {
        "input": ticks(input, "teacher.price_input") if input else 0,
        "output": ticks(output, "teacher.price_output") if output else 0,
        "request": ticks(request, "teacher.price_request") if request else 0,
        "blocked": ticks(blocked, "teacher.price_blocked") if blocked else 0,
    }
    return Prices(cached=ticks(cached, "teacher.price_cached") if cached else read["input"], **read)


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one request can take at most: ticks, and tokens in and out."""

    ticks: int
    tokens: int


def need(body_bytes: int, turns: int, max_tokens: int, prices: Prices) -> Need:
    """What is reserved before a request is sent.

    A token spells at least one byte, so the bytes of the body bound those of the prompt; the
    output is bounded by `max_tokens`. A refusal by the content policy may cost more than both.
    """
    prompt = body_bytes + TURN_TOKENS * turns
    return Need(
        ticks=max(prices.of(prompt, max_tokens), prices.blocked),
        tokens=prompt + max_tokens,
    )


def settlement(outcome: Outcome, reply: Reply, prices: Prices) -> tuple[int | None, int | None]:
    """What an exchange cost in ticks and in tokens; None where that is not known.

    An answer costs what it says. What the endpoint refused with an error status costs nothing, or,
    for its content, what such a refusal costs. Where a request went out and no whole reply came, it
    may have been billed: nobody knows, and the reservation stands.
    """
    usage = outcome.answer.usage if outcome.answer else outcome.usage
    paid = prices.paid(usage)
    counted = usage.prompt_tokens + usage.billed_tokens if usage.told else None
    if outcome.answer is not None:
        return (paid if paid >= 0 else None), counted
    if outcome.kind is Kind.BLOCKED:
        if usage.told or usage.cost_ticks >= 0:
            return max(paid, prices.blocked), counted
        return prices.blocked, 0
    refused = reply.status >= 400 or outcome.reason.startswith("HTTP ")
    if refused or reply.error.startswith("cannot connect"):
        return max(usage.cost_ticks, 0), 0
    return None, None
