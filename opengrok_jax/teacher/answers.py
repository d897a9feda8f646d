"""Answers without a network: recorded ones, and gold labels, in the place of the HTTP client.

Both give the JSON that a real endpoint gives, so that everything behind the client is the same
code whoever answers. A prompt without an answer gets HTTP 404 and a body that says so.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrok_jax import records, storage
from opengrok_jax.errors import DataError
from opengrok_jax.records import Message, Prompt
from opengrok_jax.teacher.faults import NO_RECORDING
from opengrok_jax.teacher.outcome import Reply

SHIPPED = Path(__file__).parent.parent / "assets" / "recorded.jsonl"
_ROW = {"id", "messages", "response", "finish_reason"}
_NOTE = {"flaw"}  # what is wrong on purpose, to measure the curation by; no room gets to see it


@dataclass(frozen=True)
class Recording:
    """An answer; `finish_reason` is "stop" or "length"."""

    response: str
    finish_reason: str = "stop"


def recorded(path: Path) -> dict[str, Recording]:
    """The answers of a recordings file, by prompt id.

    Each line: {"id", "messages": [{"role", "content"}, ...], "response", "finish_reason"};
    it may also note a "flaw".

    Raises:
      DataError: a row is malformed, its id is not that of its messages, or an id comes twice.
    """
    book: dict[str, Recording] = {}
    for number, row in enumerate(storage.read_jsonl(path), start=1):
        where = f"{path}, record {number}"
        if set(row) - _NOTE != _ROW or not isinstance(row["messages"], list):
            raise DataError(f"{where}: expected the fields {', '.join(sorted(_ROW))}")
        if row["finish_reason"] not in ("stop", "length") or not isinstance(row["response"], str):
            raise DataError(f'{where}: response must be text, finish_reason "stop" or "length"')
        messages = tuple(records.from_json(Message, message) for message in row["messages"])
        if row["id"] != (right := records.prompt_id(messages)):
            raise DataError(f"{where}: id is {row['id']!r}, but these messages have {right!r}")
        if right in book:
            raise DataError(f"{where}: prompt {right} was recorded before; keep one answer")
        book[right] = Recording(row["response"], row["finish_reason"])
    return book


def labelled(prompts: Iterable[Prompt]) -> dict[str, Recording]:
    """The gold label of each prompt as its answer.

    Raises:
      DataError: a prompt has no label.
    """
    book = {}
    for prompt in prompts:
        if not prompt.label:
            raise DataError(
                f"prompt {prompt.id} (template {prompt.template}) has no label; the labelled "
                "teacher answers only prompts made of labelled posts"
            )
        book[records.prompt_id(prompt.messages)] = Recording(prompt.label)
    return book


def name(kind: str, book: Mapping[str, Recording]) -> str:
    """A model name that changes with the answers, so that the journal never mixes two books."""
    rows = {key: [r.response, r.finish_reason] for key, r in book.items()}
    return f"{kind}-{hashlib.sha256(records.canonical_json(rows).encode()).hexdigest()[:12]}"


class Book:
    """Answers chat completions from recordings, in the JSON of a real endpoint; an `Exchange`."""

    def __init__(self, recordings: Mapping[str, Recording]) -> None:
        self._recordings = recordings

    async def post(self, path: str, body: bytes) -> Reply:
        """The reply to one body of the chat-completions API."""
        asked = json.loads(body)
        key = records.prompt_id(tuple(Message(**message) for message in asked["messages"]))
        recording = self._recordings.get(key)
        if recording is None:
            message = f"there is no recorded answer for prompt {key}"
            return _reply(404, {"error": {"code": NO_RECORDING, "message": message}})
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": recording.response},
            "finish_reason": recording.finish_reason,
        }
        return _reply(
            200,
            {
                "id": f"chatcmpl-{key}",
                "object": "chat.completion",
                "created": 0,
                "model": asked["model"],
                "choices": [choice],
            },
        )


def _reply(status: int, told: dict[str, Any]) -> Reply:
    return Reply(status=status, body=json.dumps(told).encode(), received_at=time.time())
