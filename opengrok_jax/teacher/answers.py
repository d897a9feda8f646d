"""Answers without a network: recorded ones, and gold labels, behind the HTTP border.

Both give the JSON that a real endpoint gives, so that everything behind the client is the same
code whoever answers. A prompt without an answer gets HTTP 404 and a body that says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrok_jax import records, storage
from opengrok_jax.errors import DataError, needs_extra
from opengrok_jax.records import Message, Prompt
from opengrok_jax.teacher.wire import NO_RECORDING

with needs_extra("acquire"):
    import httpx

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


def labelled(prompts: Sequence[Prompt]) -> dict[str, Recording]:
    """The gold label of each prompt as its answer.

    Raises:
      DataError: a prompt has no label.
    """
    for prompt in prompts:
        if not prompt.label:
            raise DataError(
                f"prompt {prompt.id} (template {prompt.template}) has no label; the labelled "
                "teacher answers only prompts made of labelled posts"
            )
    return {records.prompt_id(p.messages): Recording(p.label) for p in prompts}


def name(kind: str, book: Mapping[str, Recording]) -> str:
    """A model name that changes with the answers, so that the journal never mixes two books."""
    rows = {key: [r.response, r.finish_reason] for key, r in book.items()}
    return f"{kind}-{hashlib.sha256(records.canonical_json(rows).encode()).hexdigest()[:12]}"


class BookTransport(httpx.AsyncBaseTransport):
    """Answers chat completions from a book of recordings."""

    def __init__(self, book: Mapping[str, Recording]) -> None:
        self._book = book

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The reply to one POST of a chat-completions body."""
        body = json.loads(await request.aread())
        key = records.prompt_id(tuple(Message(**message) for message in body["messages"]))
        recording = self._book.get(key)
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
                "model": body["model"],
                "choices": [choice],
            },
        )


def _reply(status: int, plain: dict[str, Any]) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(plain).encode())
