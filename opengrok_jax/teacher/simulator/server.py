"""An OpenAI-compatible endpoint on 127.0.0.1 that answers and fails as it is told to.

    with simulating(Settings(plan={"share": {"rate_429": 0.1}})) as teacher:
        ask(teacher.base_url)
        teacher.ledger.report()

Real sockets, HTTP/1.1 with connections kept open, one event loop: POST /v1/chat/completions and
/v1/responses, GET /v1/models, and for `xai` /v1/language-models and /v1/api-key. The books are
at GET /simulator/ledger too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from opengrok_jax.teacher.simulator.acts import Act
from opengrok_jax.teacher.simulator.endpoint import Script, Settings, Teacher

MOST_BYTES = 2**24  # of a request
_APIS = {"/v1/chat/completions": "chat", "/v1/responses": "responses"}


class _Connection(asyncio.Protocol):
    """One connection: a request, its reply, the next request."""

    def __init__(self, teacher: Teacher, open_ones: set[asyncio.Transport]) -> None:
        self._teacher, self._open_ones = teacher, open_ones
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._busy: str | None = None  # key of the request that is being answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open_ones.add(transport)
        self._teacher.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_ones.discard(self._transport)
        self._over(delivered=False)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._busy is None:
            self._next()

    def _next(self) -> None:
        """Takes a whole request out of the buffer and begins to answer it."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > 2**16:
                self._transport.abort()
            return
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        method, _, rest = first.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self._transport.abort()
            return
        total = end + 4 + int(length)
        if len(self._buffer) < total:
            return
        raw, self._buffer = self._buffer[end + 4 : total], self._buffer[total:]
        if method == "POST" and path in _APIS:
            self._busy, act = self._teacher.act(_APIS[path], raw, headers)
            wait = self._teacher.settings.latency_sec + act.delay_sec
            self._loop.call_later(wait, self._act, act) if wait else self._act(act)
        else:
            status, told = self._teacher.get(path, headers)
            if method != "GET":
                status, told = 404, {"error": {"message": f"no {method} {path}"}}
            self._transport.write(_head(status, {}, len(body := json.dumps(told).encode())) + body)
            self._next()

    def _act(self, act: Act) -> None:
        if self._transport.is_closing() or act.silent:
            return
        if act.reset:
            # Without lingering, closing is a reset (RST) and not an end (FIN).
            held = self._transport.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        elif act.raw is not None:
            self._transport.write(act.raw)
            self._transport.close()
        elif act.drip_sec:
            self._transport.write(_head(act.status, act.headers, len(act.body)))
            self._drip(act, 0)
        else:
            body = act.body[: act.cut_to]
            if act.close:
                act = replace(act, headers={**act.headers, "connection": "close"})
            if act.chunked:
                sent = _head(act.status, act.headers, None) + _chunks(body)
            else:
                sent = _head(act.status, act.headers, len(act.body)) + body
            self._transport.write(sent)
            self._sent(act)

    def _drip(self, act: Act, at: int) -> None:
        if self._transport.is_closing():
            return
        if at >= len(act.body):
            self._sent(act)
            return
        self._transport.write(act.body[at : at + act.drip_bytes])
        self._loop.call_later(act.drip_sec, self._drip, act, at + act.drip_bytes)

    def _sent(self, act: Act) -> None:
        self._over(delivered=act.status == 200 and act.cut_to is None)
        if act.cut_to is not None or act.close:
            self._transport.close()
        elif self._buffer:
            self._next()

    def _over(self, *, delivered: bool) -> None:
        if self._busy is not None:
            key, self._busy = self._busy, None
            self._teacher.ledger.left(key, delivered=delivered)


def _head(status: int, headers: Mapping[str, str], length: int | None) -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    given = {"content-type": "application/json", **headers}
    lines = [f"HTTP/1.1 {status} Simulated", *(f"{k}: {v}" for k, v in given.items()), size]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _chunks(body: bytes) -> bytes:
    pieces = [body[n : n + 64] for n in range(0, len(body), 64)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


async def serve(
    teacher: Teacher, port: int, ready: Callable[[], None], stop: asyncio.Event
) -> None:
    """Serves on 127.0.0.1 until `stop`; `ready` is called once `teacher.base_url` is known.

    Raises:
      OSError: the port is taken.
    """
    open_ones: set[asyncio.Transport] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: _Connection(teacher, open_ones), "127.0.0.1", port, backlog=4096
    )
    async with server:
        teacher.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready()
        await stop.wait()
        server.close()
        for transport in list(open_ones):
            transport.abort()
        await asyncio.sleep(0)


@contextlib.contextmanager
def simulating(
    settings: Settings | None = None, script: Script | None = None, **changes: Any
) -> Iterator[Teacher]:
    """The endpoint in a thread of this process; `changes` are fields of `Settings`."""
    teacher = Teacher(replace(settings or Settings(), **changes), script)
    began, held = threading.Event(), []

    async def main() -> None:
        stop = asyncio.Event()
        held.extend((asyncio.get_running_loop(), stop))
        await serve(teacher, 0, began.set, stop)

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="simulated-teacher")
    thread.start()
    try:
        if not began.wait(30):
            raise RuntimeError("the simulated teacher did not start")
        yield teacher
    finally:
        if held:
            loop, stop = held
            loop.call_soon_threadsafe(stop.set)
        thread.join()
