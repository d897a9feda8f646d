"""The preflight: what can be known of an endpoint for free, before the first paid row.

    GET /models             is anybody there, is it such an endpoint, does it have the model
    GET /language-models    xAI's prices, held against those of the config
    GET /api-key            whether xAI's key is blocked

Then the first prompt goes alone (`pace.Pace`), and what it shows is held against what was asked.
"""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any

from opengrok_jax.errors import TeacherError
from opengrok_jax.teacher import money, plain
from opengrok_jax.teacher.client import Client
from opengrok_jax.teacher.money import Prices
from opengrok_jax.teacher.outcome import Asking, Outcome, Reply
from opengrok_jax.teacher.settings import Teacher

_UNIT = 10**6  # ticks: xAI tells prices in 1/10,000 USD for a million tokens
_WAITS_SEC = (0.5, 1.0)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the endpoint told: its models ([] where it lists none), its prices for ours."""

    models: tuple[str, ...] = ()
    prices: Prices | None = None


async def probe(teacher: Teacher) -> Found:
    """Asks what costs nothing.

    Raises:
      TeacherError: nobody is there, it is no such endpoint, or the key is refused.
    """
    # Its own clock: an endpoint may take minutes for an answer, not for a list.
    quick = dataclasses.replace(teacher, timeout_sec=min(30.0, teacher.timeout_sec))
    async with quick.client() as client:
        reply = await _models(client, teacher)
        told = plain.value(reply.body)
        listed = told.get("data") if isinstance(told, dict) else None
        names = tuple(
            one["id"]
            for one in (listed if isinstance(listed, list) else ())
            if isinstance(one, dict) and isinstance(one.get("id"), str)
        )
        prices = await _prices(client, teacher.asking.model)
        if prices is not None:
            await _check_key(client, teacher)
    return Found(models=names, prices=prices)


async def _models(client: Client, teacher: Teacher) -> Reply:
    at = teacher.endpoint
    reply = await client.get("/models")
    for wait in _WAITS_SEC:
        if not reply.error and reply.status < 500:
            break
        await asyncio.sleep(wait)
        reply = await client.get("/models")
    if reply.error:
        raise TeacherError(
            f"{at} cannot be reached ({reply.error}). Is the server running, and is "
            "teacher.base_url right? Nothing was sent yet"
        )
    if reply.status in (401, 403):
        raise TeacherError(f"{at} refuses the key: {_key_hint(teacher)}. Nothing was sent yet")
    page = plain.value(reply.body) is None and reply.body.lstrip()[:1] == b"<"
    if (reply.status == 404 or page) and not at.endswith("/v1"):
        other = await client.get("/v1/models")
        if other.status == 200 and isinstance(plain.value(other.body), dict):
            raise TeacherError(
                f"{at} has no such API, but {at}/v1 does: set teacher.base_url={at}/v1"
            )
    if reply.status == 200 and page:
        raise TeacherError(
            f"{at} answers with a web page; expected an OpenAI-compatible API, whose address "
            "mostly ends with /v1: check teacher.base_url"
        )
    return reply


def _key_hint(teacher: Teacher) -> str:
    if teacher.key:
        return f"check the key in {teacher.key_env}"
    return (
        "it wants one and none is sent; put it into an environment variable and name that with "
        "teacher.api_key_env"
    )


async def _prices(client: Client, model: str) -> Prices | None:
    """xAI's prices of a model; None where the endpoint has no such list."""
    reply = await client.get("/language-models")
    told = plain.value(reply.body) if reply.status == 200 else None
    listed = told.get("models") if isinstance(told, dict) else None
    for one in listed if isinstance(listed, list) else ():
        if not isinstance(one, dict):
            continue
        aliases = one.get("aliases")
        if model == one.get("id") or (isinstance(aliases, list) and model in aliases):
            sent, came = (
                plain.count(one.get(f"{what}_text_token_price"))
                for what in ("prompt", "completion")
            )
            cached = plain.count(one.get("cached_prompt_text_token_price"))
            return Prices(input=sent * _UNIT, output=came * _UNIT, cached=(cached or sent) * _UNIT)
    return None


async def _check_key(client: Client, teacher: Teacher) -> None:
    reply = await client.get("/api-key")
    told: Any = plain.value(reply.body) if reply.status == 200 else {}
    flags = ("api_key_blocked", "api_key_disabled", "team_blocked")
    bad = [flag for flag in flags if isinstance(told, dict) and told.get(flag) is True]
    if bad:
        raise TeacherError(
            f"{teacher.endpoint} says {', '.join(bad)} of the key in {teacher.key_env}: use "
            "another one. Nothing was sent yet"
        )


def agreed(configured: Prices, found: Found, at: str) -> Prices:
    """The prices to reckon with.

    Raises:
      TeacherError: the endpoint tells others than the config.
    """
    told = found.prices
    if not told:
        return configured
    if configured and (configured.input, configured.output) != (told.input, told.output):
        here, there = (
            f"{money.usd(p.input)} in and {money.usd(p.output)} out" for p in (configured, told)
        )
        raise TeacherError(
            f"{at} asks {there} for a million tokens, the config says {here}: set "
            "teacher.price_input and teacher.price_output to what holds. Nothing was sent yet"
        )
    if configured:
        return configured
    return told


def models_hint(asking: Asking, found: Found) -> str:
    """What the endpoint serves, where the model asked for is not in its list; else ""."""
    if not found.models or asking.model in found.models:
        return ""
    close = difflib.get_close_matches(asking.model, found.models, n=1)
    shown = ", ".join(found.models[:10]) + (" ..." if len(found.models) > 10 else "")
    meant = f" (did you mean {close[0]}?)" if close else ""
    return f"it does not list {asking.model!r}, but {shown}: set teacher.model{meant}"


def first_row(outcome: Outcome, asking: Asking, prices: Prices) -> str:
    """What is wrong with the first answer; "" if it is as asked for."""
    answer = outcome.answer
    assert answer is not None
    if asking.top_logprobs and not answer.logprobs_told:
        return (
            f"{asking.model} gave no log-probabilities, which teacher.top_logprobs="
            f"{asking.top_logprobs} asks for: set it to 0 and learn from the words alone, or ask "
            "another endpoint"
        )
    if answer.usage.cost_ticks > 0 and not prices:
        return (
            f"one answer cost {money.usd(answer.usage.cost_ticks, 10)}, and the config has no "
            "prices: set teacher.price_input, teacher.price_output (US dollars for a million "
            "tokens) and teacher.cap"
        )
    if not answer.text.strip() and answer.finish_reason == "length":
        return (
            f"the first answer has {answer.usage.completion_tokens} tokens and no text: it was cut "
            "while the model was still reasoning. Raise teacher.max_tokens"
        )
    if not answer.text.strip() and answer.finish_reason in ("tool_calls", "function_call"):
        return "the first answer is the call of a tool, without text; ask a model without tools"
    return ""
