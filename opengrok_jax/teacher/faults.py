"""What is no answer: the kind of a fault, from its status and its words.

What endpoints disagree on is settled here: error bodies come flat ({"code": "...", "error":
"text"}) and nested ({"error": {"message": ...}}), a 429 means "too fast" or "no money left", a 403
"wrong key" or "not this content", and only the words tell which.
"""

from __future__ import annotations

import email.utils
import math
import re
from typing import Any

from opengrok_jax.teacher import plain
from opengrok_jax.teacher.outcome import Kind, Outcome, Reply

_DETAIL = 300  # characters of the endpoint's words that a message shows
_MONEY = re.compile(
    r"insufficient[_ ](?:quota|funds|balance|credits?)|spending[_ ]limit|billing[_ ]hard[_ ]limit"
    r"|payment[_ ]required|credit[_ ]balance"
    r"|budget (?:has been |is )?exceeded|exceeded .{0,20}budget"
    r"|billing[_ ](?:is[_ ])?not[_ ]active|(?:add|buy|purchase) (?:more )?credits"
    r"|(?:used (?:up )?(?:all|your)|exhausted|run out of|ran out of|out of)\b.{0,30}\bcredits?\b"
    r"|(?:n't|\bno|\bnot) (?:have )?(?:any |enough |sufficient )?(?:remaining |available )?credits"
    r"|credits? (?:is |are |has been |have been )?(?:exhausted|depleted|used up)"
)
# The same words mean money at one endpoint and a minute's wait at another, which then says so.
_QUOTA = re.compile(r"exceeded your current quota|quota (?:has been |is )?exceeded")
_RATE = re.compile(r"rate[_ -]?limit|too many (?:requests|tokens)|slow down")
_POLICY = re.compile(
    r"usage guidelines|safety_check|content[_ ](?:policy|filter|management)|moderation"
    r"|responsible[_ ]?ai|safety system|content violates|violates? (?:our|the) .{0,30}polic"
)
_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)|maximum (?:prompt|input) length"
    r"|(?:prompt|input) is too long"
)
_GONE = re.compile(
    r"(?:been|is|was|are) (?:retired|deprecated|decommissioned|discontinued|sunset|shut down)"
    r"|no longer (?:available|supported|served)"
)
_BUSY = re.compile(r"overloaded|at capacity|server is busy|temporarily unavailable")
NO_RECORDING = "no_recording"


def read(status: int, told: Any, reply: Reply) -> Outcome:
    """What an error means.

    Args:
      status: as HTTP has it, or as a gateway wrote it into the body of a 200.
      told: the body's JSON value; None where it is none.
      reply: the whole of it.
    """
    detail = _words(told) or plain.text(reply.body[: 4 * _DETAIL].decode("utf-8", "replace"))
    if 300 <= status < 400:
        # Not followed: the key would go along, and the answers would be of another address.
        detail = f"it redirects to {reply.headers.get('location', 'nowhere')}"
    wait = _wait(reply)
    kind = _kind(status, detail.lower().replace("’", "'"), wait)
    waits = kind in (Kind.RATE_LIMITED, Kind.OVERLOADED, Kind.TRANSIENT)
    return Outcome(
        kind=kind,
        reason=f"HTTP {status}",
        detail=detail[:_DETAIL],
        wait_sec=wait if waits else None,
        usage=plain.usage(plain.section(told, "usage"), "prompt_tokens", "completion_tokens"),
    )


def _kind(status: int, words: str, wait: float | None) -> Kind:
    if status == 402 or (status in (400, 403, 429) and _MONEY.search(words)):
        return Kind.OUT_OF_MONEY
    if status == 429:
        return Kind.OUT_OF_MONEY if _QUOTA.search(words) and wait is None else Kind.RATE_LIMITED
    if status == 451 or (status in (400, 403, 422) and _POLICY.search(words)):
        return Kind.BLOCKED
    if status == 413 or (status in (400, 422) and _TOO_LONG.search(words)):
        return Kind.UNANSWERABLE
    if status == 404 and NO_RECORDING in words:
        return Kind.UNANSWERABLE
    if status == 410 or (status in (400, 404) and _GONE.search(words)):
        return Kind.RETIRED
    if status in (503, 529) or (status >= 500 and _BUSY.search(words)):
        return Kind.OVERLOADED
    if status >= 500 or status in (408, 409, 425):
        return Kind.TRANSIENT
    return Kind.FATAL


def embedded_status(told: Any) -> int | None:
    """Some gateways answer 200 and put the error inside: its status, 502 where none is told."""
    if not isinstance(told, dict) or not told.get("error"):
        return None
    if told.get("choices") or told.get("output"):
        return None
    error = told["error"]
    for code in (error.get("code") if isinstance(error, dict) else None, told.get("code")):
        if isinstance(code, str) and code.isdecimal() and len(code) == 3:
            code = int(code)
        if type(code) is int and 400 <= code < 600:
            return code
    words = _words(told).lower()
    return 429 if _RATE.search(words) or _MONEY.search(words) else 502


def _words(told: Any) -> str:
    """Code and message of an error body, flat, nested, or in a list; "" for anything else."""
    if isinstance(told, list) and told:
        told = told[0]
    if not isinstance(told, dict):
        return ""
    found: list[str] = []
    for level in (told, told.get("error")):
        if isinstance(level, dict):
            found += [level[k] for k in ("code", "type") if isinstance(level.get(k), str)]
            found += [level[k] for k in ("message", "detail") if isinstance(level.get(k), str)]
        elif isinstance(level, str):
            found.append(level)
    return plain.text(": ".join(dict.fromkeys(found)))


def _wait(reply: Reply) -> float | None:
    """Retry-After in seconds, given as a number or as a date; what is over says nothing."""
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
        seconds = moment.timestamp() - reply.received_at
    return seconds if math.isfinite(seconds) and seconds > 0 else None
