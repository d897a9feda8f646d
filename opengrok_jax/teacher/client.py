"""Exchanges with an OpenAI-compatible endpoint; the API key never leaves this module."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
import urllib.request
from types import TracebackType
from typing import Protocol, runtime_checkable
from urllib.parse import SplitResult, urlsplit

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher import connection as connection_module
from opengrok_jax.teacher.connection import Broken, Connection, Unreachable
from opengrok_jax.teacher.outcome import Reply
from opengrok_jax.teacher.secret import Secret

CONNECT_SEC = 30.0
KEPT_HEADERS = ("retry-after", "x-request-id", "date")


@runtime_checkable
class Exchange(Protocol):
    """Whoever answers a body with a reply; a `Client`, or answers without a network."""

    async def post(self, path: str, body: bytes) -> Reply:
        """One exchange; what goes wrong is told in the reply, not raised."""
        ...


def endpoint(base_url: str) -> str:
    """The base address in one spelling, for the request and for the records.

    Raises:
      ConfigError: it is no http(s) address, or carries a name, a password or a query.
    """
    try:
        parts = urlsplit(base_url.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    plain = base_url.strip().isascii() and base_url.strip().isprintable() and " " not in parts.path
    if parts.scheme not in ("http", "https") or not host or not plain:
        raise ConfigError(
            "base_url must be an http or https address such as https://api.x.ai/v1 or "
            "http://127.0.0.1:8000/v1"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"base_url for {host} carries a user name, password, query or fragment; give the bare "
            "address and put the key into the environment variable that api_key_env names"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"


class Client:
    """A pool of connections to one endpoint, kept open between exchanges.

    Args:
      base_url: as `endpoint` gives it; paths are added to it.
      key: sent as bearer token unless empty.
      timeout_sec: the longest one exchange may take, from connecting to the last byte.
    """

    def __init__(self, *, base_url: str, key: Secret, timeout_sec: float) -> None:
        self._url, self._key, self._timeout_sec = base_url, key, timeout_sec
        self._address = urlsplit(base_url)
        self._tls = _tls() if self._address.scheme == "https" else None
        self._proxy = _proxy(self._address)
        self._idle: list[Connection] = []
        self._heads: dict[tuple[str, str], Secret] = {}  # they hold the key

    def __repr__(self) -> str:
        """The address; the key masked."""
        return f"Client({self._url!r}, key={self._key!r})"

    async def __aenter__(self) -> Client:
        """The client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the connections."""
        while self._idle:
            self._idle.pop().abort()
        await asyncio.sleep(0)  # the loop forgets them

    async def post(self, path: str, body: bytes) -> Reply:
        """Sends `body` once; whatever happens on the way is told in the reply, not raised."""
        return await self._told("POST", path, body)

    async def get(self, path: str) -> Reply:
        """The same for a GET."""
        return await self._told("GET", path, b"")

    async def _told(self, method: str, path: str, body: bytes) -> Reply:
        try:
            return await self._exchange(method, path, body)
        except TimeoutError:
            problem = f"timed out: no whole reply within {self._timeout_sec:g} s"
        except Unreachable as error:
            problem = str(error)
        except Broken as error:
            problem = str(error) if str(error).startswith("oversized") else f"broken off: {error}"
        return Reply(status=0, error=self._key.mask(problem), received_at=time.time())

    async def _exchange(self, method: str, path: str, body: bytes) -> Reply:
        request = self._head(method, path, body) + body
        taken: Connection | None = None
        try:
            # One clock for all of it: a trickle of bytes would never run into a read timeout.
            async with asyncio.timeout(self._timeout_sec):
                taken = self._taken() or await self._opened()
                received = await taken.ask(request)
        except BaseException:
            if taken is not None:
                taken.abort()
            raise
        if taken.usable:
            self._idle.append(taken)
        kept = {n: received.headers[n] for n in KEPT_HEADERS if n in received.headers}
        return Reply(
            status=received.status,
            body=self._key.mask_bytes(received.body),
            headers={name: self._key.mask(value) for name, value in kept.items()},
            received_at=time.time(),
        )

    def _taken(self) -> Connection | None:
        """A connection that waits for work; those that the endpoint closed are forgotten."""
        while self._idle:
            if (idle := self._idle.pop()).usable:
                return idle
        return None

    async def _opened(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_SEC):
                return await connection_module.opened(self._address, self._tls, self._proxy)
        except TimeoutError:
            raise Unreachable(f"cannot connect: no connection within {CONNECT_SEC:g} s") from None

    def _head(self, method: str, path: str, body: bytes) -> bytes:
        fixed = self._heads.get((method, path))
        if fixed is None:
            fixed = self._heads[method, path] = Secret(self._fixed(method, path))
        length = f"content-length: {len(body)}\r\n\r\n" if body else "\r\n"
        return (fixed.reveal() + length).encode("latin-1")

    def _fixed(self, method: str, path: str) -> str:
        address = self._address
        target, extra = f"{address.path}{path}", ""
        if self._proxy is not None and self._tls is None:
            target = f"http://{address.netloc}{target}"
            extra = connection_module.proxy_login(self._proxy)
        if self._key:
            extra += f"authorization: Bearer {self._key.reveal()}\r\n"
        if method == "POST":
            extra += "content-type: application/json\r\n"
        return (
            f"{method} {target} HTTP/1.1\r\nhost: {address.netloc}\r\naccept: application/json\r\n"
            f"accept-encoding: identity\r\nuser-agent: opengrok-jax\r\n{extra}"
        )


def _tls() -> ssl.SSLContext:
    """Certificates of the system where the environment names some, else those of certifi."""
    if os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR"):
        return ssl.create_default_context()
    import certifi

    return ssl.create_default_context(cafile=certifi.where())


def _proxy(address: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for this address (HTTPS_PROXY, NO_PROXY, ...).

    Raises:
      ConfigError: it is not an HTTP proxy.
    """
    found = urllib.request.getproxies().get(address.scheme)
    if not found or urllib.request.proxy_bypass(address.hostname or ""):
        return None
    proxy = urlsplit(found if "://" in found else f"http://{found}")
    if proxy.scheme != "http" or not proxy.hostname:
        raise ConfigError(
            f"{address.scheme}_proxy names a proxy of the kind {proxy.scheme!r}; only HTTP proxies "
            f"are spoken to: unset it, or add {address.hostname} to NO_PROXY"
        )
    return proxy
