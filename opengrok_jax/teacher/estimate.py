"""The estimate: what a collection will take, before anything is sent; needs no network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError
from opengrok_jax.records import Prompt
from opengrok_jax.teacher import money, settings, wire
from opengrok_jax.teacher.money import Prices
from opengrok_jax.teacher.outcome import Asking

# Bytes to a token: English text has 4 to 5, other scripts fewer; 1 is the bound. Answers: a share
# of max_tokens; the whole of it is the bound.
_LOW, _MID = (5, 8), (4, 2)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What so many prompts take: (low, mid, high); `high` cannot be exceeded.

    Attributes:
      input_tokens, output_tokens: for all prompts together.
      ticks: 1e-10 USD; zeros without prices.
    """

    prompts: int
    input_tokens: tuple[int, int, int]
    output_tokens: tuple[int, int, int]
    ticks: tuple[int, int, int]

    def line(self, prices: Prices) -> str:
        """The estimate for a reader."""
        tokens = "/".join(f"{n:,}" for n in self.input_tokens)
        out = "/".join(f"{n:,}" for n in self.output_tokens)
        said = f"{self.prompts:,} prompts, low/mid/high: {tokens} tokens in, {out} tokens out"
        if not prices:
            return f"{said}; no prices are set, so nothing is reckoned in money"
        return f"{said}, {' / '.join(money.usd(t, 2) for t in self.ticks)}"


def estimate(prompts: Iterable[Prompt], asking: Asking, prices: Prices) -> Estimate:
    """Reckons over the bodies as they would be sent."""
    count = 0
    sent, came, cost = [0, 0, 0], [0, 0, 0], [0, 0, 0]
    for prompt in prompts:
        count += 1
        text = sum(len(m.content.encode()) for m in prompt.messages)
        turns = len(prompt.messages)
        for n, (bytes_each, share) in enumerate((_LOW, _MID)):
            tokens_in, tokens_out = text // bytes_each + 4 * turns, -(-asking.max_tokens // share)
            sent[n] += tokens_in
            came[n] += tokens_out
            cost[n] += prices.of(tokens_in, tokens_out)
        bound = money.need(len(wire.request(prompt, asking).body), turns, asking.max_tokens, prices)
        sent[2] += bound.tokens - asking.max_tokens
        came[2] += asking.max_tokens
        cost[2] += bound.ticks
    return Estimate(
        prompts=count,
        input_tokens=(sent[0], sent[1], sent[2]),
        output_tokens=(came[0], came[1], came[2]),
        ticks=(cost[0], cost[1], cost[2]),
    )


def outlook(prompts_file: Path, teacher: Mapping[str, Any]) -> str:
    """The estimate for the settings of a config's section, as a line.

    Raises:
      ConfigError: a price or the API is wrong.
      DataError: the prompts are missing or malformed.
    """
    prices = money.prices(
        **{
            name: str(teacher.get(f"price_{name}", ""))
            for name in ("input", "cached", "output", "request", "blocked")
        }
    )
    api = str(teacher.get("api", "chat"))
    if api not in wire.APIS:
        raise ConfigError(f"teacher.api is {api!r}; expected {', '.join(wire.APIS)}")
    asking = Asking(
        api=api,
        model=str(teacher.get("model", "")),
        temperature=float(teacher.get("temperature", 0.7)),
        max_tokens=int(teacher.get("max_tokens", 512)),
        top_logprobs=int(teacher.get("top_logprobs", 0)),
        extra_body=wire.extra(str(teacher.get("extra_body", ""))),
    )
    return estimate(settings.prompts_in(prompts_file), asking, prices).line(prices)


def wants_cap(prices: Prices, cap: str, prompts_file: Path, asking: Asking) -> None:
    """Refuses to spend without a bound, and says what to expect.

    Raises:
      ConfigError: there are prices and no cap.
    """
    if prices and not cap:
        reckoned = estimate(settings.prompts_in(prompts_file), asking, prices)
        raise ConfigError(
            f"this costs money and teacher.cap is empty: {reckoned.line(prices)}. Set teacher.cap "
            "to the US dollars it may take at most, such as --config.teacher.cap=5"
        )
