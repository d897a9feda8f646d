"""Prompts, requests and replies that the tests of this room share."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from opengrok_jax.records import Cell, Message, Prompt, prompt_id
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.outcome import Asking, Outcome, Reply, Request

ASKING = Asking(api="chat", model="tiny-teacher", temperature=0.7, max_tokens=64)


def prompts(count: int, label: str = "") -> list[Prompt]:
    """Distinct prompts."""
    made = []
    for number in range(count):
        messages = (Message(role="user", content=f"What is the mood of post {number}?"),)
        made.append(
            Prompt(
                id=prompt_id(messages),
                messages=messages,
                cell=Cell(intent="trend_summary"),
                template="mood",
                label=label,
            )
        )
    return made


def requests(count: int, **changes: Any) -> list[Request]:
    return [wire.request(p, replace(ASKING, **changes)) for p in prompts(count)]


def number_of(question: Any) -> int:
    """Which of `prompts` a question is."""
    return int(question.messages[-1].content.split()[-1].rstrip("?"))


def completion(
    text: str, *, model: str = "tiny-teacher", finish: str = "stop", logprobs: Any = None
) -> bytes:
    """The JSON of a chat completion."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": finish,
                    **({} if logprobs is None else {"logprobs": logprobs}),
                }
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
        }
    ).encode()


def outcome(status: int, body: Any, **headers: str) -> Outcome:
    """What a reply with this status and JSON value (or these bytes) means."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return wire.read(Reply(status=status, body=raw, headers=headers, received_at=1_000_000_000.0))


def told(token: str, logprob: float, *others: Any, raw: bool = False) -> dict[str, Any]:
    """One entry of logprobs.content; `raw` gives the bytes beside the token's text."""
    entry: dict[str, Any] = {"token": token, "logprob": logprob}
    entry["bytes"] = list(token.encode()) if raw else None
    return entry | {"top_logprobs": [told(t, x, raw=raw) for t, x in others]} if others else entry


def sent(journal: Any, todo: Any, need: Any) -> int:
    """An intent whose sending begins at once."""
    number = journal.intend(todo, need)
    settle_all(journal)
    journal.begin(number)
    return number


def settle_all(journal: Any) -> None:
    """Commits what a journal was given."""
    journal.write()
