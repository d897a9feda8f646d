"""What the simulator does with a request: answers it, or one of the faults below.

A plan says which, by script and by chance:

    {"script": [{"request": 7, "act": "rate_429", "retry_after": 2},
                {"contains": "poison", "act": "blocked_403"},
                {"attempt": 1, "act": "half_body", "times": 20}],
     "share": {"error_500": 0.02, "stall": 0.001}}

The first rule of the script that fits decides: `request` is the how-manieth request of all,
`attempt` the how-manieth of the same body, `contains` words of the chat, `times` how often the rule
holds. Else each share is that act's probability, drawn from the seed and the request's number.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher.simulator.ledger import Bill
from opengrok_jax.teacher.simulator.wire import Made, Question


@dataclass(frozen=True, kw_only=True)
class Act:
    """One exchange, down to the socket.

    Attributes:
      name: what the ledger counts it as.
      delay_sec: before the first byte, beside the simulator's latency.
      cut_to: bytes sent of the body that content-length promises; then the connection closes.
      drip_sec: pause before each piece of `drip_bytes` bytes of the body.
      reset: the connection is reset instead of a reply.
      silent: nothing is sent and the connection stays open.
      raw: sent instead of head and body; then the connection closes.
      chunked: sent in chunks, without a content-length.
      close: the connection closes after the reply.
      bill: what the request is billed; None bills nothing.
    """

    name: str = "scripted"
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_sec: float = 0.0
    cut_to: int | None = None
    drip_sec: float = 0.0
    drip_bytes: int = 1
    reset: bool = False
    silent: bool = False
    raw: bytes | None = None
    chunked: bool = False
    close: bool = False
    bill: Bill | None = None


# Answers a question: `encode` spells an answer; both come from the simulator.
Answering = Callable[[], Made]
Encoding = Callable[[Made], bytes]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an act may be made of.

    Attributes:
      answer: the answer that the question would have got.
      encode: its JSON; `encode_bare` leaves log-probabilities out.
      rule: the rule's own settings ("retry_after", "seconds", "bytes").
    """

    question: Question
    answer: Answering
    encode: Encoding
    encode_bare: Encoding
    rule: Mapping[str, Any] = field(default_factory=dict)


def _error(status: int, body: Any, **headers: str) -> Callable[[Context], Act]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind = "text/html" if content.startswith(b"<") else "application/json"

    def act(context: Context) -> Act:
        given = {"content-type": kind, **{k.replace("_", "-"): v for k, v in headers.items()}}
        if "retry_after" in context.rule:
            given["retry-after"] = str(context.rule["retry_after"])
        return Act(status=status, body=content, headers=given)

    return act


def _nested(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code}}


def _flat(message: str, code: str) -> dict[str, Any]:
    return {"code": code, "error": message}


def _answered(change: Callable[[Act, Context], Act]) -> Callable[[Context], Act]:
    """An act made of the right answer, which is billed."""

    def act(context: Context) -> Act:
        answer = context.answer()
        right = Act(body=context.encode(answer), bill=answer.bill)
        return change(right, context)

    return act


def _told(change: Callable[[Made, Context], Made]) -> Callable[[Context], Act]:
    """The answer with another content."""

    def act(context: Context) -> Act:
        answer = change(context.answer(), context)
        return Act(body=context.encode(answer), bill=answer.bill)

    return act


def _without(act: Act, *path: str) -> Act:
    told = json.loads(act.body)
    inner = told
    for name in path[:-1]:
        inner = inner[name]
    inner.pop(path[-1])
    return replace(act, body=json.dumps(told).encode())


def _no_logprobs(context: Context) -> Act:
    answer = context.answer()
    return Act(body=context.encode_bare(answer), bill=answer.bill)


def _gzipped(act: Act, context: Context) -> Act:
    headers = {**act.headers, "content-encoding": "gzip"}
    return replace(act, body=gzip.compress(act.body, 1), headers=headers)


def _echo_key(context: Context) -> Act:
    sent = context.question.headers.get("authorization", "")
    body = json.dumps(_nested(f"bad header: Authorization: {sent}", "server_error")).encode()
    return Act(status=500, body=body, headers={"x-request-id": sent})


ACTS: dict[str, Callable[[Context], Act]] = {
    "answer": _answered(lambda act, c: act),
    # too fast, or no money left: the status is the same
    "rate_429": _error(429, _nested("Rate limit reached, slow down", "rate_limit_exceeded")),
    "rate_429_flat": _error(429, _flat("Too many tokens for team t (actual/limit): 9/8", "busy")),
    "money_429": _error(429, _nested("See your plan and billing details", "insufficient_quota")),
    "money_429_flat": _error(
        429,
        _flat("Team t has used all available credits or reached its monthly spending limit", "x"),
    ),
    "money_402": _error(402, _nested("Payment required", "payment_required")),
    # hiccups
    "error_500": _error(500, _nested("The server had an error", "server_error")),
    "html_502": _error(502, b"<html><head><title>502 Bad Gateway</title></head></html>"),
    "overloaded_503": _error(503, _nested("The engine is overloaded", "overloaded")),
    "overloaded_529": _error(529, _flat("Overloaded", "overloaded_error")),
    "error_in_200": _error(200, _nested("upstream is down", "bad_gateway")),
    "rate_in_200": _error(200, {"error": {"message": "slow down", "code": 429}}),
    "not_json": _error(200, b"not json at all"),
    "html_200": _error(200, b"<!doctype html><html><title>Sign in</title></html>"),
    "empty_200": _error(200, b""),
    # content
    "blocked_403": _error(
        403, _flat("Content violates usage guidelines. SAFETY_CHECK_TYPE_BIO", "denied")
    ),
    "blocked_400": _error(400, _nested("flagged by content policy", "content_policy_violation")),
    "content_filter": _told(lambda a, c: replace(a, text="", finish_reason="content_filter")),
    "too_long_400": _error(
        400, _nested("maximum context length is 10 tokens", "context_length_exceeded")
    ),
    # key, model, argument
    "unauthorized_401": _error(401, _nested("Incorrect API key provided", "invalid_api_key")),
    "key_400": _error(400, _flat("Incorrect API key provided: xa***", "bad-key")),
    "forbidden_403": _error(403, _flat("The key is disabled", "denied")),
    "argument_400": _error(400, _nested("Argument not supported: temperature", "bad_argument")),
    "unknown_404": _error(404, _nested("The model does not exist", "model_not_found")),
    "retired_410": _error(410, _flat("The model was retired", "gone")),
    "retired_404": _error(404, _nested("The model has been deprecated", "model_not_found")),
    # the answer, but ...
    "truncated": _told(
        lambda a, c: replace(a, text=a.text[: len(a.text) // 2], finish_reason="length")
    ),
    "wrong_model": _told(lambda a, c: replace(a, model=c.rule.get("model", "another-model"))),
    "reasoning": _told(lambda a, c: replace(a, text=f"<think>\nWell.\n</think>\n\n{a.text}")),
    "empty": _told(lambda a, c: replace(a, text="")),
    "no_logprobs": _no_logprobs,
    "no_usage": _answered(lambda act, c: _without(act, "usage")),
    "gzip": _answered(_gzipped),
    "chunked": _answered(lambda act, c: replace(act, chunked=True)),
    "close": _answered(lambda act, c: replace(act, close=True)),
    "slow": _answered(lambda act, c: replace(act, delay_sec=float(c.rule.get("seconds", 1.0)))),
    "drip": _answered(lambda act, c: replace(act, drip_sec=float(c.rule.get("seconds", 0.05)))),
    "half_body": _answered(lambda act, c: replace(act, cut_to=len(act.body) // 2)),
    "half_head": _answered(lambda act, c: replace(act, raw=b"HTTP/1.1 200 OK\r\ncontent-le")),
    "reset_after": _answered(lambda act, c: replace(act, reset=True)),
    "huge": _answered(lambda act, c: replace(act, body=b" " * int(c.rule.get("bytes", 2**25)))),
    # nothing at all
    "reset": lambda context: Act(reset=True),
    "stall": lambda context: Act(silent=True),
    "garbage": lambda context: Act(raw=b"\x00\xff\x17 not http\r\n\r\n"),
    "echo_key": _echo_key,
}
_RULE = {"request", "attempt", "contains", "times", "act", "retry_after", "seconds", "bytes"}
_RULE |= {"model"}


def checked(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan as above, every part there and known.

    Raises:
      ConfigError: an act, a field or a share is not known.
    """
    script, share = plan.get("script", []), plan.get("share", {})
    if set(plan) - {"script", "share"} or not isinstance(script, list):
        raise ConfigError('a plan of faults has "script", a list, and "share", an object')
    if not isinstance(share, dict):
        raise ConfigError('"share" names acts with their probabilities: {"error_500": 0.02}')
    for rule in script:
        if not isinstance(rule, dict) or "act" not in rule or set(rule) - _RULE:
            raise ConfigError(f'{json.dumps(rule)}: a rule has "act", and of {sorted(_RULE)}')
    for name in [rule["act"] for rule in script] + list(share):
        if name not in ACTS:
            raise ConfigError(f"there is no act {name!r}; there are {', '.join(ACTS)}")
    if not all(type(p) in (int, float) and 0 <= p <= 1 for p in share.values()):
        raise ConfigError("the shares are probabilities, each from 0 to 1")
    if sum(share.values()) > 1:
        raise ConfigError(f"the shares add up to {sum(share.values())}, which is more than 1")
    return {"script": [dict(rule) for rule in script], "share": dict(share)}


def rule_for(plan: Mapping[str, Any], question: Question, chance: float) -> dict[str, Any]:
    """The rule that decides on a question; one that holds `times` is counted down.

    Args:
      plan: as `checked` gives it.
      chance: uniform in [0,1), for the shares.
    """
    for rule in plan["script"]:
        if rule.get("times", 1) <= 0:
            continue
        if rule.get("request", question.number) != question.number:
            continue
        if rule.get("attempt", question.attempt) != question.attempt:
            continue
        if "contains" in rule and not any(rule["contains"] in m.content for m in question.messages):
            continue
        if "times" in rule:
            rule["times"] -= 1
        return rule
    for name, share in plan["share"].items():
        if chance < share:
            return {"act": name}
        chance -= share
    return {"act": "answer"}
