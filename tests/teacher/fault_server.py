"""An endpoint on 127.0.0.1 that answers, or fails, by script: real sockets, no network."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opengrok_jax.records import Cell, Message, Prompt, prompt_id


@dataclass(frozen=True)
class Act:
    """What the server does with one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_sec: float = 0.0
    cut_to: int | None = None  # bytes sent of the body that content-length promises
    trickle_sec: float = 0.0  # pause before each byte


Script = Callable[[dict[str, Any], int], Act]


class FaultServer(ThreadingHTTPServer):
    """`script(body, n)` decides what becomes of the n-th sending (from 1) of one body."""

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.guard = threading.Lock()
        self.hits: Counter[str] = Counter()  # by SHA-256 of the body
        self.answered: Counter[str] = Counter()
        self.authorizations: list[str | None] = []
        self.at_once = self.most_at_once = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, FaultServer)
        raw = self.rfile.read(int(self.headers["content-length"]))
        key = hashlib.sha256(raw).hexdigest()
        with server.guard:
            server.hits[key] += 1
            number = server.hits[key]
            server.authorizations.append(self.headers.get("authorization"))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            self._act(server.script(json.loads(raw), number), key, server)
        finally:
            with server.guard:
                server.at_once -= 1

    def _act(self, act: Act, key: str, server: FaultServer) -> None:
        time.sleep(act.delay_sec)
        self.send_response(act.status)
        for name, value in {**act.headers, "content-length": str(len(act.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        shown = act.body[: act.cut_to]
        if act.trickle_sec:
            for byte in shown:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(act.trickle_sec)
        else:
            self.wfile.write(shown)
        self.wfile.flush()
        if act.cut_to is not None:
            self.close_connection = True
        elif act.status == 200:
            with server.guard:
                server.answered[key] += 1

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@contextmanager
def serving(script: Script) -> Iterator[FaultServer]:
    server = FaultServer(script)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


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


def echo(body: dict[str, Any]) -> bytes:
    """An answer that only the question determines."""
    return completion(f"you asked: {body['messages'][-1]['content']}")


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
