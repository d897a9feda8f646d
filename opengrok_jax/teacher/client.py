"""One exchange with an OpenAI-compatible endpoint; the API key never leaves this module."""

from __future__ import annotations

import asyncio
import os
import time
from types import TracebackType
from urllib.parse import urlsplit

from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.teacher.wire import Reply

with needs_extra("acquire"):
    import httpx

CONNECT_SEC = 30.0
MAX_REPLY_BYTES = 16 * 2**20  # an answer has a few thousand; more is an endpoint gone wrong
KEPT_HEADERS = ("retry-after", "x-request-id", "date")
MASK = "[api key]"


class Secret:
    """A string that shows itself only to whoever calls `reveal`."""

    def __init__(self, value: str) -> None:
        self._value = value
        # Local servers take any key, as "x" or "EMPTY": cutting that out would mangle answers.
        self._masks = len(value) >= 8

    def __repr__(self) -> str:
        """Never the string."""
        return "Secret(***)"

    def __bool__(self) -> bool:
        """Whether there is one."""
        return bool(self._value)

    def reveal(self) -> str:
        """The string itself."""
        return self._value

    def mask(self, text: str) -> str:
        """`text` without the secret."""
        return text.replace(self._value, MASK) if self._masks else text

    def mask_bytes(self, raw: bytes) -> bytes:
        """`raw` without the secret."""
        return raw.replace(self._value.encode(), MASK.encode()) if self._masks else raw


def secret_from(variable: str) -> Secret:
    """The key in an environment variable; an empty one for variable "".

    Raises:
      ConfigError: the variable is not set, or holds what no header can carry.
    """
    if not variable:
        return Secret("")
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(
            f"the environment variable {variable} is not set; it is to hold the teacher's API key: "
            f"export {variable}=..., or set api_key_env to the name of the one that does"
        )
    # Checked here, because the HTTP library would show the whole value in its error.
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ConfigError(
            f"the environment variable {variable} holds spaces or characters that no API key has; "
            "its value is not shown here"
        )
    return Secret(value)


def endpoint(base_url: str) -> str:
    """The base address in one spelling, for the request and for the records.

    Raises:
      ConfigError: it is no http(s) address, or carries a name, a password or a query.
    """
    try:
        parts = urlsplit(base_url.strip())
        host, _ = parts.hostname, parts.port
        httpx.URL(base_url.strip())
    except (ValueError, httpx.InvalidURL):
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
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
    """A pool of connections to one endpoint.

    Args:
      base_url: as `endpoint` gives it; "/chat/completions" is added.
      key: sent as bearer token unless empty.
      timeout_sec: the longest one exchange may take, from connecting to the last byte.
      connections: how many at most.
      transport: stands in for the network; None is the network.
    """

    def __init__(
        self,
        *,
        base_url: str,
        key: Secret,
        timeout_sec: float,
        connections: int,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = f"{base_url}/chat/completions"
        self._key = key
        self._timeout_sec = timeout_sec
        headers = {"content-type": "application/json", "user-agent": "opengrok-jax"}
        if key:
            headers["authorization"] = f"Bearer {key.reveal()}"
        self._http = httpx.AsyncClient(
            headers=headers,
            transport=transport,
            timeout=httpx.Timeout(timeout_sec, connect=min(CONNECT_SEC, timeout_sec)),
            limits=httpx.Limits(max_connections=connections),
        )

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
        await self._http.aclose()

    async def post(self, body: bytes) -> Reply:
        """Sends `body` once; whatever happens on the way is told in the reply, not raised."""
        try:
            # A read timeout alone counts from chunk to chunk: a trickle would never end.
            async with asyncio.timeout(self._timeout_sec):
                return await self._exchange(body)
        except (TimeoutError, httpx.TimeoutException):
            problem = f"timed out: no whole reply within {self._timeout_sec:g} s"
        except httpx.ConnectError as error:
            problem = f"cannot connect: {error}"
        except (httpx.HTTPError, httpx.StreamError) as error:
            problem = f"broken off: {type(error).__name__} {error}"
        return Reply(status=0, error=self._key.mask(problem), received_at=time.time())

    async def _exchange(self, body: bytes) -> Reply:
        async with self._http.stream("POST", self._url, content=body) as response:
            parts, size = [], 0
            async for part in response.aiter_bytes():
                size += len(part)
                if size > MAX_REPLY_BYTES:
                    problem = f"oversized: a reply of more than {MAX_REPLY_BYTES} bytes"
                    return Reply(status=0, error=problem, received_at=time.time())
                parts.append(part)
            kept = {n: response.headers[n] for n in KEPT_HEADERS if n in response.headers}
            return Reply(
                status=response.status_code,
                body=self._key.mask_bytes(b"".join(parts)),
                headers={name: self._key.mask(value) for name, value in kept.items()},
                received_at=time.time(),
            )
