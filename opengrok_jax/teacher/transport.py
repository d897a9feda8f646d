"""Transports of one connection each, of which `Client` keeps those that wait for work.

    https, or through a proxy   httpx.AsyncHTTPTransport: the TLS, certificates and proxies are its
    plain http                  `Local`: the same border, on asyncio and httptools (llhttp)

Why not one pool of httpx's for all: it looks at every connection for every request, so that the
work grows with the square of how many are at once. Why not its transport for plain http too: that
is where the rates are, and with a connection each it still takes more of the processor for a
request than all the rest of `collect`. `scripts/bench/collect.py --systems ours,ours_httpx,openai`
times the three; docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import urllib.request
from collections.abc import AsyncIterator, Callable
from typing import Protocol, runtime_checkable

from opengrok_jax.errors import ConfigError, needs_extra

with needs_extra("acquire"):
    import httptools
    import httpx

MAX_HEAD_BYTES = 2**17
_FRAMED = {b"content-length", b"transfer-encoding"}


def opener(address: httpx.URL) -> Callable[[], httpx.AsyncBaseTransport]:
    """What makes a transport to `address` of one connection, which opens with its first request.

    Raises:
      ConfigError: the environment names a proxy or certificates that cannot be used.
    """
    proxy = _proxy(address)
    if address.scheme == "http" and proxy is None:
        return Local
    # Its debug lines tell the heads of replies, which may echo the key.
    logging.getLogger("httpcore").setLevel(logging.INFO)
    try:
        trusted = httpx.create_ssl_context()
    except OSError as error:
        raise ConfigError(
            f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read ({error}): "
            "set it to a file or folder of PEM certificates, or unset it"
        ) from None
    one = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=None)
    return functools.partial(httpx.AsyncHTTPTransport, verify=trusted, limits=one, proxy=proxy)


def _proxy(address: httpx.URL) -> httpx.Proxy | None:
    """The proxy that the environment names for this address (HTTPS_PROXY, NO_PROXY, ...).

    Raises:
      ConfigError: it is no HTTP proxy.
    """
    named = urllib.request.getproxies()
    found = named.get(address.scheme) or named.get("all")
    if not found or urllib.request.proxy_bypass(address.host):
        return None
    try:
        proxy = httpx.Proxy(found if "://" in found else f"http://{found}")
    except (ValueError, httpx.InvalidURL):
        proxy = None
    if proxy is None or proxy.url.scheme not in ("http", "https") or not proxy.url.host:
        kind = found.split("://")[0] if "://" in found else "http"
        raise ConfigError(
            f"{address.scheme}_proxy or all_proxy names a proxy of the kind {kind!r} that cannot "
            "be spoken to; expected an HTTP proxy such as http://host:8080: set it to one, unset "
            f"it, or add {address.host} to NO_PROXY"
        )
    return proxy


@runtime_checkable
class Ahead(Protocol):
    """A transport that can connect before it is asked to send."""

    async def connect(self, url: httpx.URL, seconds: float) -> None:
        """Opens the connection within so many seconds; raises what a request would."""
        ...


class Local(httpx.AsyncBaseTransport):
    """One connection over plain HTTP/1.1, one exchange at a time; opened anew where it closed."""

    def __init__(self) -> None:
        self._connection: _Connection | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request and waits for the head of its reply; the stream has the body as sent.

        Raises:
          httpx.ConnectError, httpx.ConnectTimeout: no connection; nothing was sent.
          httpx.RemoteProtocolError: the connection closed, or what came is not HTTP. The stream
            raises it too.
        """
        if self._connection is None or self._connection.closed:
            seconds = request.extensions.get("timeout", {}).get("connect")
            self._connection = await _opened(request.url, seconds)
        return await self._connection.ask(request)

    async def connect(self, url: httpx.URL, seconds: float) -> None:
        """Opens the connection ahead of its first request."""
        self._connection = await _opened(url, seconds)

    async def aclose(self) -> None:
        """Closes at once, whatever is under way."""
        if self._connection is not None:
            self._connection.abort()
            await asyncio.sleep(0)  # the loop forgets it


async def _opened(url: httpx.URL, seconds: float | None) -> _Connection:
    """A connection, within so many seconds."""
    host, port = url.raw_host.decode("ascii"), url.port or 80
    try:
        async with asyncio.timeout(seconds):
            _, connection = await asyncio.get_running_loop().create_connection(
                _Connection, host, port, happy_eyeballs_delay=0.25
            )
    except TimeoutError as error:
        raise httpx.ConnectTimeout(str(error)) from None
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(getattr(error, "strerror", None) or str(error)) from None
    return connection


class _Reply(httpx.AsyncByteStream):
    """A reply as it comes in; iterated, the body as it was sent."""

    def __init__(self, abort: Callable[[], None]) -> None:
        self._abort = abort
        self._news: asyncio.Future[None] | None = None
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.came = 0  # bytes so far, head included
        self.headed = self.whole = False
        self.error: httpx.TransportError | None = None

    def tell(self) -> None:
        """Wakes whoever waits for more."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def more(self) -> None:
        """Waits until more is there than when it was called; raises what went wrong."""
        if self.error is not None:
            raise self.error
        self._news = asyncio.get_running_loop().create_future()
        await self._news

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The body, piece by piece."""
        while self.pieces or not self.whole:
            if not self.pieces:
                await self.more()
            pieces, self.pieces = self.pieces, []
            for piece in pieces:
                yield piece

    async def aclose(self) -> None:
        """Gives up the rest, and with it the connection."""
        if not self.whole:
            self._abort()


class _Connection(asyncio.Protocol):
    """One open connection: asyncio's calls and httptools' calls make a reply."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._reply: _Reply | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def closed(self) -> bool:
        """Whether no other request can go over it."""
        return self._transport is None or self._transport.is_closing()

    async def ask(self, request: httpx.Request) -> httpx.Response:
        """Sends the request and waits for the head of the reply."""
        assert self._transport is not None
        assert self._reply is None
        body = await request.aread()
        first = b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)
        lines = (b"%s: %s" % pair for pair in request.headers.raw)
        reply = self._reply = _Reply(self.abort)
        self._transport.write(b"\r\n".join((first, *lines, b"", body)))
        try:
            while not reply.headed:
                await reply.more()
        except BaseException:
            self.abort()
            raise
        return httpx.Response(self._parser.get_status_code(), headers=reply.headers, stream=reply)

    def abort(self) -> None:
        """Closes at once, whatever is under way."""
        self._reply = None
        if self._transport is not None:
            self._transport.abort()

    # ---- asyncio's calls ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        reply, problem = self._reply, ""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:  # what the calls below raise comes as one too
            problem = f"no HTTP: {error}"
        except httptools.HttpParserUpgrade:
            problem = "a switch to another protocol that nobody asked for"
        if reply is not None:
            reply.came += len(data)
            if not reply.headed and reply.came > MAX_HEAD_BYTES:
                problem = f"a head of more than {MAX_HEAD_BYTES} bytes"
            if problem and not reply.whole:
                reply.error = httpx.RemoteProtocolError(problem)
            reply.tell()
        if problem:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The other side hung up; without a length in the head, that ends the body."""
        reply, self._reply = self._reply, None
        if reply is None:
            return
        framed = any(name.lower() in _FRAMED for name, _ in reply.headers)
        if reply.headed and not framed and exc is None:
            reply.whole = True
        else:
            when = "within a body" if reply.headed else "with no reply"
            reply.error = httpx.RemoteProtocolError(f"the connection closed {when}")
        reply.tell()

    # ---- httptools' calls ----

    def on_message_begin(self) -> None:
        """A reply begins."""
        if self._reply is None:
            raise ValueError("nobody asked")
        self._reply.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line came."""
        assert self._reply is not None
        self._reply.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is there, unless it only announces another one (1xx)."""
        assert self._reply is not None
        self._reply.headed = self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        """A piece of the body came."""
        assert self._reply is not None
        self._reply.pieces.append(body)

    def on_message_complete(self) -> None:
        """The reply is whole."""
        assert self._reply is not None
        if not self._reply.headed:
            return
        self._reply.whole, self._reply = True, None
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
