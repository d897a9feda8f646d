"""The wire format: a prompt as a request body, a reply as a typed outcome.

    chat, responses_api   the two APIs        faults   what is no answer

Pure functions; nothing here opens a socket, and a reply kept from an earlier run is read anew
without asking again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from opengrok_jax.errors import ConfigError
from opengrok_jax.records import Prompt, canonical_json
from opengrok_jax.teacher import chat, faults, plain, responses_api
from opengrok_jax.teacher.outcome import Asking, Kind, Outcome, Reply, Request

APIS = {"chat": chat, "responses": responses_api}
_OURS = {
    *("model", "messages", "input", "stream", "n", "best_of", "max_tokens"),
    *("max_completion_tokens", "max_output_tokens", "logprobs", "top_logprobs", "include"),
}
_SNAPSHOT = re.compile(r"-[0-9][0-9-]{3,}")  # "-0709", "-2026-11-05": the model's own date


def request(prompt: Prompt, asking: Asking) -> Request:
    """The request as sent: canonical JSON, so that the same question has the same key."""
    body = APIS[asking.api].body(prompt, asking) | json.loads(asking.extra_body)
    sent = canonical_json({k: v for k, v in body.items() if v is not None}).encode()
    return Request(key=hashlib.sha256(sent).hexdigest(), prompt_id=prompt.id, body=sent)


def extra(told: str) -> str:
    """`teacher.extra_body` as canonical JSON.

    Raises:
      ConfigError: it is no JSON object, or names a field that has a setting of its own.
    """
    try:
        fields = json.loads(told or "{}")
        json.dumps(fields, allow_nan=False, ensure_ascii=False).encode()  # NaN, half a character
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise ConfigError(f"teacher.extra_body is {told!r}; expected a JSON object")
    # The budget reserves by these, and the replies are read by them.
    if ours := sorted(set(fields) & _OURS):
        raise ConfigError(f"teacher.extra_body may not hold {ours[0]!r}: opengrok sets it")
    return canonical_json(fields)


def path(asking: Asking) -> str:
    """Where it goes, after the base address."""
    return APIS[asking.api].PATH


def read(reply: Reply) -> Outcome:
    """What a reply means, whichever API it is of."""
    if reply.error:
        return Outcome(
            kind=Kind.TRANSIENT, reason=reply.error.split(":")[0], detail=reply.error[:300]
        )
    told = plain.value(reply.body)
    if not 200 <= reply.status < 300:
        return faults.read(reply.status, told, reply)
    inner = faults.embedded_status(told)
    if inner is not None:
        return faults.read(inner, told, reply)
    outcome = _answer(told)
    if outcome is not None:
        return outcome
    if told is None:
        page = reply.body[:300].lstrip().lower().startswith((b"<!doctype", b"<html"))
        what = "a web page instead of an answer" if page else "a reply that is not JSON"
    else:
        what = "a reply without an answer"
    detail = plain.text(reply.body[:1200].decode("utf-8", "replace"))[:300]
    return Outcome(kind=Kind.TRANSIENT, reason=what, detail=detail)


def _answer(told: Any) -> Outcome | None:
    if not isinstance(told, dict):
        return None
    return responses_api.read(told) if "output" in told else chat.read(told)


def held_to(outcome: Outcome, asking: Asking, served_as: Sequence[str]) -> Outcome:
    """The outcome, or WRONG_MODEL where another model served than the one asked for.

    A date behind the name is the same model, and an endpoint that names none is believed.

    >>> ok = Outcome(kind=Kind.OK, answer=Answer(text="", finish_reason="stop", model="m-2026-11"))
    >>> asking = Asking(api="chat", model="m", temperature=0.7, max_tokens=9)
    >>> held_to(ok, asking, ()).kind, held_to(ok, replace(asking, model="n"), ()).kind
    (<Kind.OK: 'ok'>, <Kind.WRONG_MODEL: 'wrong_model'>)
    """
    if outcome.kind is not Kind.OK or outcome.answer is None:
        return outcome
    served = outcome.answer.model
    if served in ("", asking.model, *served_as):
        return outcome
    if served.startswith(asking.model) and _SNAPSHOT.fullmatch(served[len(asking.model) :]):
        return outcome
    return Outcome(
        kind=Kind.WRONG_MODEL,
        reason="another model answered",
        detail=f"asked for {asking.model}, served by {served}",
        answer=outcome.answer,
    )
