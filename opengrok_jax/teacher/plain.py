"""Values out of JSON that somebody else wrote: each function takes anything and never raises."""

from __future__ import annotations

import itertools
import json
import math
import re
from typing import Any

from opengrok_jax.records import Likely
from opengrok_jax.teacher.outcome import Usage

_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
# Where the chat template has opened the tag, only its end is told, at a line's edge: in the middle
# of a line it is a word of some post.
_CLOSED = re.compile(r"(?:\A|\n)[ \t]*</think>\s*|</think>[ \t]*\n\s*")


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


def spoken(said: str) -> str:
    """The answer without the reasoning that open models put before it, in tags.

    <think>Rain again, so sad.</think>\\n\\nsadness       sadness
    Rain again, so sad.\\n</think>\\n\\nsadness            sadness     the template opened it
    <think>Rain again                                            cut while it was reasoning
    Their bio says </think> and no more.                the same
    """
    for opening, closing in _TAGS:
        if said.lstrip().startswith(opening):
            return said.partition(closing)[2].lstrip()
    closed = _CLOSED.search(said)
    return said[closed.end() :] if closed else said


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
    """Tokens and alternatives; nothing unless the tokens' bytes are those of `said`.

    Some endpoints tell those of the reasoning before it as well, and the end of the turn after it:

    tokens    <think>  Rain  </think>  \\n\\n  sad  ness  <end>
    said                                     sad  ness
    """
    try:
        tokens = [_likely(entry) for entry in listed]
        top = [tuple(_likely(other) for other in entry["top_logprobs"]) for entry in listed]
    except (TypeError, KeyError, ValueError, AttributeError):
        return (), ()
    spelled, wanted = [bytes.fromhex(token.bytes) for token in tokens], said.encode()
    at = {place: n for n, place in enumerate(itertools.accumulate(map(len, spelled), initial=0))}
    whole = b"".join(spelled)
    begin = 0 if whole.startswith(wanted) and len(wanted) in at else whole.rfind(wanted)
    first, last = at.get(begin), at.get(begin + len(wanted))
    if not wanted or first is None or last is None or (begin and last < len(tokens) - 1):
        return (), ()
    return tuple(tokens[first:last]), tuple(top[first:last])


def _likely(entry: dict[str, Any]) -> Likely:
    """A token with its bytes, or with its text where the endpoint gives no bytes."""
    logprob, raw = float(entry["logprob"]), entry.get("bytes")
    if math.isnan(logprob) or logprob > 1e-3:
        raise ValueError(f"a log-probability of {logprob}")
    spelled = entry["token"].encode() if raw is None else bytes(raw)
    return Likely(bytes=spelled.hex(), logprob=min(logprob, 0.0))
