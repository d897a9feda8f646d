"""The simulated endpoint without its socket: what it is told to be, and how it decides."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opengrok_jax.teacher import plain
from opengrok_jax.teacher.money import Prices
from opengrok_jax.teacher.simulator import wire
from opengrok_jax.teacher.simulator.acts import ACTS, Act, Context, checked, rule_for
from opengrok_jax.teacher.simulator.ledger import Bucket, Ledger
from opengrok_jax.teacher.simulator.wire import Made, Question


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the endpoint is.

    Attributes:
      models: what it serves.
      seed: of answers, faults and log-probabilities.
      latency_sec: before each reply.
      key: the API key that it wants; "" wants none.
      xai: tells prices, cost and the key's state as xAI does.
      prices: what it bills.
      logprobs: whether it tells log-probabilities to who asks; else it ignores the wish.
      refuses: parameters of a body that it answers with a 400.
      requests_per_minute, tokens_per_minute, at_once: limits; 0 is none. Beyond them comes a 429.
      retry_after: whether that 429 says when to come again.
      credit_ticks: once so much is billed, every request is a 429 for money; -1 is endless.
      plan: faults, see `acts`.
      text: what every answer says; "" lets `answers` answer.
    """

    models: tuple[str, ...] = ("tiny-teacher",)
    seed: int = 0
    latency_sec: float = 0.0
    key: str = field(default="", repr=False)
    xai: bool = False
    prices: Prices = field(default_factory=Prices)
    logprobs: bool = True
    refuses: tuple[str, ...] = ()
    requests_per_minute: int = 0
    tokens_per_minute: int = 0
    at_once: int = 0
    retry_after: bool = True
    credit_ticks: int = -1
    plan: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""


Script = Callable[[Question], Act | None]


class Teacher:
    """The endpoint behind the socket; `script`, where it answers an act, overrules the plan."""

    def __init__(self, settings: Settings, script: Script | None = None) -> None:
        self.settings, self.script = settings, script
        self.ledger = Ledger()
        self.base_url = ""
        self.connections = 0  # made to it so far
        self._plan = checked(settings.plan)
        self._numbers = 0
        self._requests = Bucket(settings.requests_per_minute)
        self._tokens = Bucket(settings.tokens_per_minute)

    def get(self, path: str, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        settings = self.settings
        if path == "/simulator/ledger":
            return 200, self.ledger.report()
        if not self._allowed(headers):
            return 401, {"error": {"message": "Incorrect API key provided", "code": "bad_key"}}
        if path == "/v1/models":
            return 200, wire.models(settings.models)
        if settings.xai and path == "/v1/language-models":
            return 200, wire.language_models(settings.models, settings.prices)
        if settings.xai and path == "/v1/api-key":
            return 200, {"api_key_blocked": False, "api_key_disabled": False, "team_blocked": False}
        return 404, {"error": {"message": f"there is nothing at {path}", "code": "not_found"}}

    def act(self, api: str, raw: bytes, headers: Mapping[str, str]) -> tuple[str, Act]:
        """What becomes of a POST: the request's key and the act."""
        key = hashlib.sha256(raw).hexdigest()
        attempt = self.ledger.arrived(key)
        self._numbers += 1
        name, act = "malformed_400", _refused(400, "the body is not a question", "bad_request")
        body = plain.value(raw)
        if isinstance(body, dict):
            with contextlib.suppress(KeyError, TypeError, ValueError):
                name, act = self._decided(
                    Question(
                        key=key,
                        number=self._numbers,
                        attempt=attempt,
                        api=api,
                        body=body,
                        headers=headers,
                    )
                )
        self.ledger.acted(key, name, act.bill)
        return key, act

    def _decided(self, question: Question) -> tuple[str, Act]:
        act = self.script(question) if self.script else None
        if act is not None:
            return act.name, act
        if refusal := self._refusal(question):
            return refusal
        chance = random.Random(f"{self.settings.seed}:{question.number}").random()
        rule = rule_for(self._plan, question, chance)
        return rule["act"], ACTS[rule["act"]](self.context(question, rule))

    def context(self, question: Question, rule: Mapping[str, Any] | None = None) -> Context:
        """What acts on a question are made of."""
        settings = self.settings

        def answer() -> Made:
            text = settings.text or None
            return wire.made(question, prices=settings.prices, seed=settings.seed, text=text)

        def encode(made: Made, logprobs: bool = settings.logprobs) -> bytes:
            return wire.encoded(
                question,
                made,
                tells_cost=settings.xai,
                tells_logprobs=logprobs,
                seed=settings.seed,
            )

        return Context(
            question=question,
            answer=answer,
            encode=encode,
            encode_bare=lambda made: encode(made, False),
            rule=rule or {},
        )

    def _allowed(self, headers: Mapping[str, str]) -> bool:
        wanted = self.settings.key
        return not wanted or headers.get("authorization") == f"Bearer {wanted}"

    def _refusal(self, question: Question) -> tuple[str, Act] | None:
        """What the endpoint itself refuses, before any planned fault."""
        settings, body = self.settings, question.body
        if not self._allowed(question.headers):
            return "bad_key_401", _refused(401, "Incorrect API key provided", "invalid_api_key")
        if body["model"] not in settings.models:
            message = f"The model `{body['model']}` does not exist."
            return "no_model_404", _refused(404, message, "model_not_found")
        if unwanted := [name for name in settings.refuses if name in body]:
            message = f"Argument not supported on this model: {unwanted[0]}"
            return "refused_400", _refused(400, message, "invalid_argument")
        if 0 <= settings.credit_ticks <= self.ledger.billed_ticks:
            return "no_credit_429", ACTS["money_429_flat"](self.context(question))
        wait, now = 0.0, time.monotonic()
        if settings.at_once and self.ledger.at_once > settings.at_once:
            wait = 0.05
        elif settings.requests_per_minute:
            wait = self._requests.wait(1, now)
        if not wait and settings.tokens_per_minute:
            asked = sum(wire.tokens(m.content) for m in question.messages)
            wait = self._tokens.wait(asked + min(question.max_tokens, 512), now)
        if not wait:
            return None
        rule = {"retry_after": round(wait + 0.005, 2)} if settings.retry_after else {}
        return "limit_429", ACTS["rate_429"](self.context(question, rule))


def _refused(status: int, message: str, code: str) -> Act:
    body = json.dumps({"error": {"message": message, "type": code, "code": code}}).encode()
    return Act(status=status, body=body)
