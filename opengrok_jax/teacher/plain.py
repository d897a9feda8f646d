"""Values out of JSON that somebody else wrote: each function takes anything and never raises."""

from __future__ import annotations

import json
import math
from typing import Any

from opengrok_jax.records import Likely
from opengrok_jax.teacher.outcome import Usage


def value(raw: bytes) -> Any:
    """The JSON value in `raw`; None where there is none.

    Some servers cut a character in two where an answer ends: what was paid for is read all the
    same, with U+FFFD in its place.
    """
    try:
        return json.loads(raw)
    except UnicodeDecodeError:
        try:
            return json.loads(raw.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return None
    except (ValueError, RecursionError):
        return None


def text(told: Any) -> str:
    """A string that UTF-8 can hold: JSON may carry half of a surrogate pair, a file may not."""
    if not isinstance(told, str):
        return ""
    return (
        told
        if told.isascii()
        else told.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    )


def count(told: Any) -> int:
    """A whole number from 0 on; 0 for anything else."""
    return told if type(told) is int and 0 < told < 2**53 else 0


def section(told: Any, name: str) -> dict[str, Any]:
    """The object under `name`; empty where there is none."""
    found = told.get(name) if isinstance(told, dict) else None
    return found if isinstance(found, dict) else {}


def usage(told: Any, sent: str, made: str) -> Usage:
    """The object "usage"; `sent` and `made` are the API's names for the two counts of tokens."""
    told = told if isinstance(told, dict) else {}
    prompt, completion = count(told.get(sent)), count(told.get(made))
    ticks = told.get("cost_in_usd_ticks")
    details = section(told, sent + "_details")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(count(details.get("cached_tokens")), prompt),
        billed_tokens=max(count(told.get("total_tokens")) - prompt, completion),
        cost_ticks=ticks if type(ticks) is int and 0 <= ticks < 2**62 else -1,
    )


def logprobs(listed: Any, said: str) -> tuple[tuple[Likely, ...], tuple[tuple[Likely, ...], ...]]:
    """Tokens and alternatives; nothing unless the tokens' bytes begin with those of `said`.

    A last token after the text (the end of the turn) is told by some endpoints and dropped here.
    """
    try:
        tokens = [_likely(entry) for entry in listed]
        top = [tuple(_likely(other) for other in entry["top_logprobs"]) for entry in listed]
    except (TypeError, KeyError, ValueError, AttributeError):
        return (), ()
    wanted, seen = said.encode(), b""
    for number, token in enumerate(tokens, start=1):
        seen += bytes.fromhex(token.bytes)
        if seen == wanted:
            return tuple(tokens[:number]), tuple(top[:number])
    return (), ()


def _likely(entry: dict[str, Any]) -> Likely:
    """A token with its bytes, or with its text where the endpoint gives no bytes."""
    logprob, raw = float(entry["logprob"]), entry.get("bytes")
    if math.isnan(logprob) or logprob > 1e-3:
        raise ValueError(f"a log-probability of {logprob}")
    spelled = entry["token"].encode() if raw is None else bytes(raw)
    return Likely(bytes=spelled.hex(), logprob=min(logprob, 0.0))
