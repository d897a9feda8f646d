"""Exchanges with an OpenAI-compatible endpoint; the API key never leaves this module."""

from __future__ import annotations

import asyncio
import time
import zlib
from types import TracebackType
from typing import Protocol, runtime_checkable
from urllib.parse import urlsplit

from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.teacher import transport
from opengrok_jax.teacher.outcome import Reply
from opengrok_jax.teacher.secret import Secret

with needs_extra("acquire"):
    import httpx

CONNECT_SEC = 30.0
AHEAD_AT_ONCE = 8
KEPT_HEADERS = ("retry-after", "x-request-id", "date", "location")
MAX_REPLY_BYTES = 16 * 2**20  # an answer has a few thousand; more is an endpoint gone wrong


@runtime_checkable
class Exchange(Protocol):
    """Whoever answers a body with a reply; a `Client`, or answers without a network."""

    async def post(self, path: str, body: bytes) -> Reply:
        """One exchange; what goes wrong is told in the reply, not raised."""
        ...


def endpoint(base_url: str) -> str:
    """The base address in one spelling, for the request and for the records.

    Raises:
      ConfigError: it is no http(s) address, carries a name, a password or a query, or ends with
        what is added to it.
    """
    try:
        parts = urlsplit(base_url.strip())
        host, _, _ = parts.hostname, parts.port, httpx.URL(base_url.strip())
    except (ValueError, httpx.InvalidURL):
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
    path = parts.path.rstrip("/")
    for told in ("/chat/completions", "/responses", "/models"):
        if path.endswith(told):
            raise ConfigError(
                f"base_url ends with {told}, which is added to it; leave that off: "
                f"{parts.scheme}://{parts.netloc.lower()}{path.removesuffix(told)}"
            )
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


class Client:
    """Connections to one endpoint, kept open between exchanges.

    An httpx.Request goes to an httpx transport, an httpx.Response comes back. No httpx.AsyncClient
    is between: its redirects and cookies are unwanted, and it takes several times as long.

    Args:
      base_url: as `endpoint` gives it; paths are added to it.
      key: sent as bearer token unless empty.
      timeout_sec: the longest one exchange may take, from connecting to the last byte.

    Raises:
      ConfigError: the environment names a proxy or certificates that cannot be used.
    """

    def __init__(self, *, base_url: str, key: Secret, timeout_sec: float) -> None:
        self._url, self._key, self._timeout_sec = base_url, key, timeout_sec
        self._opened = transport.opener(httpx.URL(base_url))
        self._idle: list[httpx.AsyncBaseTransport] = []  # of one connection each
        self._urls: dict[str, httpx.URL] = {}
        common = {
            "host": httpx.URL(base_url).netloc.decode("ascii"),
            "accept": "application/json",
            "accept-encoding": "identity",
            "user-agent": "opengrok-jax",
        }
        if key:
            common["authorization"] = f"Bearer {key.reveal()}"
        self._headers = {  # their repr masks the authorization
            "GET": httpx.Headers(common),
            "POST": httpx.Headers({**common, "content-type": "application/json"}),
        }

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
            await self._idle.pop().aclose()

    async def open_ahead(self, count: int) -> None:
        """Opens so many connections for requests to come, or fewer: what fails, a request tells.

        Only plain HTTP can: httpx's transports connect with their first request.
        """

        async def some(share: range) -> None:
            for _ in share:
                made = self._opened()
                if not isinstance(made, transport.Ahead):
                    return
                try:
                    await made.connect(httpx.URL(self._url), CONNECT_SEC)
                except httpx.TransportError:
                    return
                self._idle.insert(0, made)  # below those that were used: the first to go stale

        shares = (range(n, count, AHEAD_AT_ONCE) for n in range(AHEAD_AT_ONCE))
        await asyncio.gather(*(some(share) for share in shares))

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
        except httpx.ConnectTimeout:
            problem = f"cannot connect: no connection within {CONNECT_SEC:g} s"
        except httpx.ConnectError as error:
            problem = f"cannot connect: {error}"
        except httpx.ProxyError as error:
            problem = f"cannot connect: the proxy says {error}"
        except Oversized as error:
            problem = f"oversized: {error}"
        except (httpx.HTTPError, OSError) as error:  # OSError: some of TLS come as they are
            problem = f"broken off: {error or type(error).__name__}"
        return Reply(status=0, error=self._key.mask(problem), received_at=time.time())

    async def _exchange(self, method: str, path: str, body: bytes) -> Reply:
        if path not in self._urls:
            self._urls[path] = httpx.URL(f"{self._url}{path}")
        length = [(b"content-length", b"%d" % len(body))] if method == "POST" else []
        request = httpx.Request(
            method,
            self._urls[path],
            headers=[*self._headers[method].raw, *length],
            stream=httpx.ByteStream(body),  # of `content` it would work out the headers anew
            extensions={"timeout": {"connect": CONNECT_SEC}},
        )
        taken = self._idle.pop() if self._idle else self._opened()
        try:
            # One clock for all of it: a trickle of bytes would never run into a read timeout.
            async with asyncio.timeout(self._timeout_sec):
                response = await taken.handle_async_request(request)
                try:
                    received = await read(response)
                finally:
                    await response.aclose()
        except BaseException:
            await taken.aclose()
            raise
        self._idle.append(taken)
        kept = {n: response.headers[n] for n in KEPT_HEADERS if n in response.headers}
        return Reply(
            status=response.status_code,
            body=self._key.mask_bytes(received),
            headers={name: self._key.mask(value) for name, value in kept.items()},
            received_at=time.time(),
        )


class Oversized(Exception):
    """A reply of more than MAX_REPLY_BYTES."""

    def __init__(self) -> None:
        super().__init__(f"a reply of more than {MAX_REPLY_BYTES} bytes")


async def read(response: httpx.Response) -> bytes:
    """The body, without the compression that we do not ask for and some send all the same.

    httpx's own decoding has no bound: a few kilobytes can unpack to gigabytes.

    Raises:
      Oversized: it is, as sent or unpacked.
      httpx.HTTPError: it broke off, or does not unpack.
    """
    assert isinstance(response.stream, httpx.AsyncByteStream)
    pieces, size = [], 0
    async for piece in response.stream:
        size += len(piece)
        if size > MAX_REPLY_BYTES:
            raise Oversized
        pieces.append(piece)
    body, coding = b"".join(pieces), response.headers.get("content-encoding", "").lower()
    if coding in ("identity", "") or not body:
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise httpx.DecodingError(f"a reply compressed as {coding}")
    try:
        unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        plain = unzip.decompress(body, MAX_REPLY_BYTES + 1)
    except zlib.error as error:
        raise httpx.DecodingError(f"a reply that is not {coding}: {error}") from None
    if len(plain) > MAX_REPLY_BYTES:
        raise Oversized
    if not unzip.eof:
        raise httpx.DecodingError(f"a reply that is half of a {coding}")
    return plain
