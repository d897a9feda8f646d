"""The wire format: a prompt as a chat-completions request, a reply as a typed outcome.

Pure functions; nothing here opens a socket. What endpoints disagree on is settled here: error
bodies come flat ({"code": "...", "error": "text"}) and nested ({"error": {"message": ...}}), and
a 429 means "too fast" or "no money left", which only its words tell apart.
"""

from __future__ import annotations

import email.utils
import enum
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opengrok_jax.records import Likely, Prompt, canonical_json


class Kind(enum.StrEnum):
    """What came of one request, and with it what happens next."""

    OK = "ok"  # an answer: kept
    RATE_LIMITED = "rate_limited"  # too fast: everybody waits, then again
    TRANSIENT = "transient"  # a hiccup of server or network: again after a while
    UNANSWERABLE = "unanswerable"  # this prompt gets no answer (too long, no recording), others may
    BLOCKED = "blocked"  # the endpoint's content policy: never asked again
    OUT_OF_MONEY = "out_of_money"  # sending stops
    FATAL = "fatal"  # key, model, address or argument is wrong: sending stops


@dataclass(frozen=True, kw_only=True)
class Request:
    """A question as it goes over the wire; `key` is the SHA-256 of `body`, in hex."""

    key: str
    prompt_id: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back, verbatim but for the API key, which is cut out wherever it is echoed.

    Attributes:
      status: HTTP status; 0 when no whole reply arrived.
      body: the reply's bytes.
      headers: those worth keeping, names in lower case.
      error: what went wrong on the way; "" when a whole reply arrived.
      received_at: Unix time, in seconds.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    received_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the teacher said; `model` is the one that served, token counts are 0 where not told.

    `tokens` and `top` are as in `records.Logprobs`, empty where the endpoint told nothing usable.
    """

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    tokens: tuple[Likely, ...] = field(default=(), repr=False)
    top: tuple[tuple[Likely, ...], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A reply, understood.

    Attributes:
      reason: the fault in a few words that are the same for the same fault ("HTTP 500").
      detail: the endpoint's own words.
      wait_sec: how long the endpoint asks to wait; None where it says nothing.
      answer: there if and only if kind is OK.
    """

    kind: Kind
    reason: str = ""
    detail: str = ""
    wait_sec: float | None = None
    answer: Answer | None = None


# ---- out --------------------------------------------------------------------------------------


def body(
    prompt: Prompt, *, model: str, temperature: float, max_tokens: int, top_logprobs: int = 0
) -> dict[str, Any]:
    """The chat-completions body that asks `prompt`; `top_logprobs` 0 asks for none."""
    plain = {
        "model": model,
        "messages": [{"role": m.role, "content": m.content} for m in prompt.messages],
        "temperature": float(temperature),
        "max_tokens": max_tokens,
    }
    return plain | ({"logprobs": True, "top_logprobs": top_logprobs} if top_logprobs else {})


def request(
    prompt: Prompt, *, model: str, temperature: float, max_tokens: int, top_logprobs: int = 0
) -> Request:
    """The request as sent: canonical JSON, so that the same question has the same key."""
    plain = body(
        prompt,
        model=model,
        temperature=temperature,
        max_tokens=max_tokens,
        top_logprobs=top_logprobs,
    )
    sent = canonical_json(plain).encode()
    return Request(key=hashlib.sha256(sent).hexdigest(), prompt_id=prompt.id, body=sent)


# ---- back -------------------------------------------------------------------------------------

_DETAIL = 300  # characters of the endpoint's words that a message shows
_MONEY = re.compile(
    r"insufficient[_ ](?:quota|funds|balance|credits?)|spending[_ ]limit|billing[_ ]hard[_ ]limit"
    r"|payment required|credit[_ ]balance"
    r"|(?:used (?:up )?(?:all|your)|exhausted|run out of|ran out of|out of)\b.{0,30}\bcredits?\b"
    r"|(?:n't|\bno|\bnot) (?:have )?(?:any |enough |sufficient )?(?:remaining |available )?credits"
    r"|credits? (?:is |are |has been |have been )?(?:exhausted|depleted|used up)"
)
_POLICY = re.compile(
    r"usage guidelines|safety_check|content[_ ](?:policy|filter|management)|moderation"
    r"|responsible[_ ]?ai|safety system"
)
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)|maximum (?:prompt|input) length"
    r"|(?:prompt|input) is too long"
)
NO_RECORDING = "no_recording"


def read(reply: Reply) -> Outcome:
    """What a reply means."""
    if reply.error:
        return Outcome(
            kind=Kind.TRANSIENT, reason=reply.error.split(":")[0], detail=reply.error[:_DETAIL]
        )
    plain = _json(reply.body)
    if 200 <= reply.status < 300:
        inner = _embedded_status(plain)
        return _read_answer(plain) if inner is None else _read_error(inner, plain, reply)
    return _read_error(reply.status, plain, reply)


def _read_answer(plain: Any) -> Outcome:
    try:
        choice = plain["choices"][0]
        message = choice["message"]
        text, refusal = _content(message["content"]), message.get("refusal")
    except (TypeError, KeyError, IndexError, AttributeError):
        reason = "a reply that is not JSON" if plain is None else "a reply without an answer"
        return Outcome(kind=Kind.TRANSIENT, reason=reason, detail=_clean(str(plain))[:_DETAIL])
    finish = choice.get("finish_reason")
    if finish == "content_filter":
        return Outcome(kind=Kind.BLOCKED, reason="content filter", detail=text[:_DETAIL])
    usage = plain.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    model = plain.get("model")
    tokens, top = _logprobs(choice.get("logprobs"), text)
    answer = Answer(
        text=text or (_clean(refusal) if isinstance(refusal, str) else ""),
        finish_reason=_clean(finish) if isinstance(finish, str) and finish else "unknown",
        model=_clean(model) if isinstance(model, str) else "",
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        tokens=tokens,
        top=top,
    )
    return Outcome(kind=Kind.OK, answer=answer)


def _logprobs(told: Any, text: str) -> tuple[tuple[Likely, ...], tuple[tuple[Likely, ...], ...]]:
    """Tokens and alternatives; nothing unless the tokens' bytes begin with the text's.

    A last token after the text (the end of the turn) is told by some endpoints and dropped here.
    """
    try:
        listed = told["content"]
        tokens = [_likely(entry) for entry in listed]
        top = [tuple(_likely(other) for other in entry["top_logprobs"]) for entry in listed]
    except (TypeError, KeyError, ValueError, AttributeError):
        return (), ()
    wanted, seen = text.encode(), b""
    for count, token in enumerate(tokens, start=1):
        seen += bytes.fromhex(token.bytes)
        if seen == wanted:
            return tuple(tokens[:count]), tuple(top[:count])
    return (), ()


def _likely(entry: dict[str, Any]) -> Likely:
    """A token with its bytes, or with its text where the endpoint gives no bytes."""
    logprob, raw = float(entry["logprob"]), entry.get("bytes")
    if math.isnan(logprob) or logprob > 1e-3:
        raise ValueError(f"a log-probability of {logprob}")
    spelled = entry["token"].encode() if raw is None else bytes(raw)
    return Likely(bytes=spelled.hex(), logprob=min(logprob, 0.0))


def _read_error(status: int, plain: Any, reply: Reply) -> Outcome:
    detail = _error_text(plain) or _clean(reply.body[: 4 * _DETAIL].decode("utf-8", "replace"))
    words = detail.lower().replace("’", "'")
    kind = _error_kind(status, words)
    return Outcome(
        kind=kind,
        reason=f"HTTP {status}",
        detail=detail[:_DETAIL],
        wait_sec=_wait(reply) if kind in (Kind.RATE_LIMITED, Kind.TRANSIENT) else None,
    )


def _error_kind(status: int, words: str) -> Kind:
    if status == 402 or (status in (400, 403, 429) and _MONEY.search(words)):
        return Kind.OUT_OF_MONEY
    if status == 429:
        return Kind.RATE_LIMITED
    if status == 451 or (status in (400, 403, 422) and _POLICY.search(words)):
        return Kind.BLOCKED
    if status == 413 or (status in (400, 422) and _TOO_LONG.search(words)):
        return Kind.UNANSWERABLE
    if status == 404 and NO_RECORDING in words:
        return Kind.UNANSWERABLE
    if status >= 500 or status in (408, 409, 425):
        return Kind.TRANSIENT
    return Kind.FATAL


def _embedded_status(plain: Any) -> int | None:
    """Some gateways answer 200 and put the error inside: its status, 502 where none is told."""
    if not isinstance(plain, dict) or not plain.get("error") or plain.get("choices"):
        return None
    error = plain["error"]
    code = error.get("code") if isinstance(error, dict) else plain.get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else 502


def _error_text(plain: Any) -> str:
    """Code and message of an error body, flat, nested, or in a list; "" for anything else."""
    if isinstance(plain, list) and plain:
        plain = plain[0]
    if not isinstance(plain, dict):
        return ""
    found: list[str] = []
    for level in (plain, plain.get("error")):
        if isinstance(level, dict):
            found += [level[k] for k in ("code", "type") if isinstance(level.get(k), str)]
            found += [level[k] for k in ("message", "detail") if isinstance(level.get(k), str)]
        elif isinstance(level, str):
            found.append(level)
    return _clean(": ".join(dict.fromkeys(found)))


def _content(value: Any) -> str:
    """Content as text: a string, nothing (null), or a list of parts."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "".join(_clean(part["text"]) for part in value if part.get("type") == "text")
    if not isinstance(value, str):
        raise TypeError(f"content is {type(value).__name__}")
    return _clean(value)


def _wait(reply: Reply) -> float | None:
    """Retry-After in seconds, given as a number or as a date."""
    value = reply.headers.get("retry-after", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = max(0.0, moment.timestamp() - reply.received_at)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _json(raw: bytes) -> Any:
    """The JSON value in `raw`; None where there is none."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: JSON may carry half of a surrogate pair, a file may not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
