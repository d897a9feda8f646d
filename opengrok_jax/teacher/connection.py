"""A connection: one HTTP/1.1 exchange at a time over asyncio, parsed by httptools (llhttp).

Why not httpx: its pool looks at every connection for every request, so that the work grows with the
square of how many are at once. `scripts/bench/collect.py` times openai's client, which is built on
it, beside ours.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import zlib
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote

from opengrok_jax.errors import needs_extra

with needs_extra("acquire"):
    import httptools

MAX_REPLY_BYTES = 16 * 2**20  # an answer has a few thousand; more is an endpoint gone wrong


class Broken(Exception):
    """An exchange that ended without a whole reply; says why."""


class Unreachable(Broken):
    """No connection: nothing was sent."""


@dataclass
class Received:
    """A whole reply; `headers` have names in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Connection(asyncio.Protocol):
    """One open connection; made by `opened`."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._reply: asyncio.Future[Received] | None = None
        self.transport: asyncio.Transport | None = None

    @property
    def usable(self) -> bool:
        """Whether another request can go over it."""
        return self.transport is not None and not self.transport.is_closing()

    def ask(self, request: bytes) -> asyncio.Future[Received]:
        """Sends a request; the future gets the reply, or raises `Broken`."""
        assert self._reply is None
        assert self.transport is not None
        self._begin()
        self._reply = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._reply

    def abort(self) -> None:
        """Closes at once, whatever is under way."""
        self._reply = None
        if self.transport is not None:
            self.transport.abort()

    def _begin(self) -> None:
        self._received = Received()
        self._parts: list[bytes] = []
        self._size = 0
        self._headed = False

    # ---- asyncio's calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._reply is None:
            self.abort()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except Broken as error:
            self._fail(error)
        except httptools.HttpParserError as error:
            # What a callback raises comes wrapped.
            inner = error.__context__
            self._fail(inner if isinstance(inner, Broken) else Broken(f"no HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side hung up; without a length in the head, that ends the body."""
        names = self._received.headers if self._reply is not None and self._headed else None
        if names is not None and exc is None and not names.keys() & _FRAMED:
            self._finish(keep=False)
        elif self._reply is not None:
            told = f"{self._size} bytes of a body" if names is not None else "no reply"
            self._fail(Broken(f"the connection closed with {told}"))

    # ---- httptools' calls ----

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line came."""
        self._received.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._headed = True

    def on_body(self, body: bytes) -> None:
        """A piece of the body came."""
        self._size += len(body)
        if self._size > MAX_REPLY_BYTES:
            raise Broken(f"oversized: a reply of more than {MAX_REPLY_BYTES} bytes")
        self._parts.append(body)

    def on_message_complete(self) -> None:
        """The reply is whole; one that only announces another (1xx) is passed over."""
        if self._parser.get_status_code() < 200:
            self._begin()
        else:
            self._finish(keep=self._parser.should_keep_alive())

    def _finish(self, *, keep: bool) -> None:
        reply, self._reply = self._reply, None
        received = self._received
        received.status = self._parser.get_status_code()
        try:
            received.body = _decoded(b"".join(self._parts), received.headers)
        except Broken as error:
            self._reply = reply
            self._fail(error)
            return
        if not keep and self.transport is not None:
            self.transport.close()
        if reply is not None and not reply.done():
            reply.set_result(received)

    def _fail(self, error: Broken) -> None:
        reply, self._reply = self._reply, None
        self.abort()
        if reply is not None and not reply.done():
            reply.set_exception(error)


_FRAMED = {"content-length", "transfer-encoding"}


def _decoded(body: bytes, headers: dict[str, str]) -> bytes:
    """The body without its compression, which we do not ask for and some send all the same."""
    coding = headers.get("content-encoding", "identity").lower()
    if coding in ("identity", "") or not body:
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Broken(f"a reply compressed as {coding}")
    try:
        unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        plain = unzip.decompress(body, MAX_REPLY_BYTES + 1)
    except zlib.error as error:
        raise Broken(f"a reply that is not {coding}: {error}") from None
    if len(plain) > MAX_REPLY_BYTES:
        raise Broken(f"oversized: a reply of more than {MAX_REPLY_BYTES} bytes")
    if not unzip.eof:
        raise Broken(f"a reply that is half of a {coding}")
    return plain


# ---- opening ----------------------------------------------------------------------------------


async def opened(
    address: SplitResult, tls: ssl.SSLContext | None, proxy: SplitResult | None
) -> Connection:
    """A connection to the host of `address`, through `proxy` where there is one.

    Raises:
      Unreachable: there is none to be had.
    """
    loop = asyncio.get_running_loop()
    host = address.hostname or ""
    port = address.port or (443 if tls else 80)
    try:
        if proxy is not None and tls is not None:
            return await _through(proxy, host, port, tls)
        if proxy is not None:
            host, port = proxy.hostname or "", proxy.port or 8080
        _, connection = await loop.create_connection(
            Connection, host, port, ssl=tls, happy_eyeballs_delay=0.25
        )
    except OSError as error:
        raise Unreachable(f"cannot connect: {error.strerror or error}") from None
    return connection


async def _through(proxy: SplitResult, host: str, port: int, tls: ssl.SSLContext) -> Connection:
    """A tunnel through an HTTP proxy (RFC 9110, 9.3.6), and TLS in it."""
    loop = asyncio.get_running_loop()
    transport, tunnel = await loop.create_connection(
        _Tunnel, proxy.hostname or "", proxy.port or 8080
    )
    try:
        login = proxy_login(proxy)
        asked = f"CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n{login}\r\n"
        transport.write(asked.encode("latin-1"))
        first = await tunnel.answer
        if first.split(" ")[1:2] != ["200"]:
            raise Unreachable(f"cannot connect: the proxy {proxy.hostname} says {first[:80]!r}")
        connection = Connection()
        inner = await loop.start_tls(transport, connection, tls, server_hostname=host)
        if inner is None:
            raise Unreachable(f"cannot connect: the proxy {proxy.hostname} hung up")
        connection.connection_made(inner)
    except BaseException:
        transport.abort()
        raise
    return connection


def proxy_login(proxy: SplitResult) -> str:
    """The header line that a proxy's user name and password make; "" without."""
    if not proxy.username:
        return ""
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return f"proxy-authorization: Basic {base64.b64encode(pair).decode()}\r\n"


class _Tunnel(asyncio.Protocol):
    """Waits for a proxy's answer to CONNECT."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if b"\r\n\r\n" in self._seen and not self.answer.done():
            self.answer.set_result(self._seen.split(b"\r\n")[0].decode("latin-1"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(Unreachable("cannot connect: the proxy hung up"))
