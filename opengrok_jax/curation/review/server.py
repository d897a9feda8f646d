"""The page's server: 127.0.0.1 alone, a token on every request, nothing cached, nothing logged.

    GET  /?token=T       the page; its own script and style, allowed by a nonce that is used once
    GET  /state          what to show         header X-Opengrok-Token: T
    POST /decide         a decision           the same, and Origin: the page's own
    POST /undo           take the last back   the same

It serves one person on one machine: four addresses, no files, no sessions. The standard library
does that; a framework would add four packages to what must be trusted here. Who may ask is decided
before anything is read: the Host header must name this very address (so that no other name, bound
to 127.0.0.1, reaches us), then the token, then for POST the Origin.
"""

from __future__ import annotations

import hmac
import importlib.resources
import json
import secrets
import socketserver
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn
from urllib.parse import parse_qs, urlsplit

from opengrok_jax.curation.review.session import Session, Stale
from opengrok_jax.errors import DataError, StorageError

ADDRESS = "127.0.0.1"
TOKEN_HEADER = "X-Opengrok-Token"
LARGEST_BODY = 2_000_000  # bytes
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Refused(Exception):
    """A request that is not answered; status and one line."""

    def __init__(self, status: HTTPStatus, said: str) -> None:
        super().__init__(said)
        self.status = status


class Server(ThreadingHTTPServer):
    """Listens from the moment it is made; `serve_forever` answers."""

    daemon_threads = True
    allow_reuse_port = False  # no other process may listen beside us

    def __init__(self, session: Session, port: int = 0) -> None:
        """Binds to `port`, or to any that is free."""
        self.session = session
        self.token = secrets.token_urlsafe(32)
        super().__init__((ADDRESS, port), _Handler)

    def server_bind(self) -> None:
        """Without the base class's question to the name service what 127.0.0.1 is called."""
        socketserver.TCPServer.server_bind(self)

    @property
    def origin(self) -> str:
        """The scheme, address and port that the browser sees."""
        return f"http://{ADDRESS}:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """What to open in a browser; whoever has it may decide."""
        return f"{self.origin}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news; anything else is a bug and is shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may be silent

    def do_GET(self) -> None:
        self._answer({"/": self._page, "/state": self._state})

    def do_POST(self) -> None:
        self._answer({"/decide": self._decide, "/undo": self._undo})

    def version_string(self) -> str:
        return "opengrok"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a request line holds the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Also for what the base class refuses by itself; never repeats what came."""
        self.close_connection = True
        self._send(HTTPStatus(code), HTTPStatus(code).phrase.encode(), "text/plain; charset=utf-8")

    def _answer(self, doors: dict[str, Any]) -> None:
        try:
            try:
                parts = urlsplit(self.path)
            except ValueError:
                raise Refused(HTTPStatus.BAD_REQUEST, "not an address") from None
            self._admit(parts.path, parts.query)
            if parts.path not in doors:
                raise Refused(HTTPStatus.NOT_FOUND, "there is nothing here")
            doors[parts.path]()
        except Refused as refused:
            self.close_connection = True  # its body, if any, was not read
            self._send_json(refused.status, {"error": str(refused)})
        except DataError as error:
            self._send_json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})
        except Stale as error:
            state = self.server.session.state()
            self._send_json(HTTPStatus.CONFLICT, {"error": str(error), "state": state})
        except StorageError as error:
            self._send_json(HTTPStatus.INSUFFICIENT_STORAGE, {"error": str(error)})

    # ---- who may ask --------------------------------------------------------------------------

    def _admit(self, path: str, query: str) -> None:
        host = self.server.origin.removeprefix("http://")
        if self.headers.get_all("Host") != [host]:
            self._refuse(f"this page answers to {host} alone")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            self._refuse("another site asked")
        if path == "/":
            try:
                given = parse_qs(query, max_num_fields=4).get("token", [""])
            except ValueError:
                given = [""]
        else:
            given = self.headers.get_all(TOKEN_HEADER) or [""]
        wanted = self.server.token.encode()
        if len(given) != 1 or not hmac.compare_digest(given[0].encode("utf-8", "replace"), wanted):
            self._refuse("the token is missing or wrong; open the address that the command printed")
        if self.command == "POST" and self.headers.get_all("Origin") != [self.server.origin]:
            self._refuse("another page asked")

    def _refuse(self, said: str) -> NoReturn:
        raise Refused(HTTPStatus.FORBIDDEN, said)

    # ---- the doors ----------------------------------------------------------------------------

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"{CLOSED}; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; "
            "img-src data:; require-trusted-types-for 'script'; trusted-types 'none'"
        )
        self._send(HTTPStatus.OK, page(nonce).encode(), "text/html; charset=utf-8", policy)

    def _state(self) -> None:
        self._send_json(HTTPStatus.OK, self.server.session.state())

    def _decide(self) -> None:
        said = self._body()
        wanted: dict[str, tuple[type, ...]] = {
            "ticket": (str,),
            "decision": (str,),
            "reason": (str,),
            "note": (str,),
            "edited": (str,),
            "seconds": (int, float),
        }
        for name, value in said.items():
            if name not in wanted or not isinstance(value, wanted[name]) or value is True:
                raise Refused(HTTPStatus.BAD_REQUEST, "not a decision as this page sends it")
        if not {"ticket", "decision"} <= said.keys() or not 0 <= said.get("seconds", 0) < 1e9:
            raise Refused(HTTPStatus.BAD_REQUEST, "not a decision as this page sends it")
        said["seconds"] = float(said.get("seconds", 0))
        self._send_json(HTTPStatus.OK, self.server.session.decide(**said))

    def _undo(self) -> None:
        self._body()
        self._send_json(HTTPStatus.OK, self.server.session.undo())

    # ---- bytes --------------------------------------------------------------------------------

    def _body(self) -> dict[str, Any]:
        length, *more = self.headers.get_all("Content-Length") or [""]
        plain = length.isascii() and length.isdigit() and not more
        if not plain or self.headers.get("Transfer-Encoding"):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "a body needs its length")
        if int(length) > LARGEST_BODY:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"over {LARGEST_BODY:,} bytes")
        if self.headers.get_content_type() != "application/json":
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected application/json")
        body = self.rfile.read(int(length))
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(HTTPStatus.BAD_REQUEST, "not JSON") from None
        if not isinstance(value, dict):
            raise Refused(HTTPStatus.BAD_REQUEST, "expected a JSON object")
        return value

    def _send_json(self, status: HTTPStatus, value: Any) -> None:
        # ASCII: half characters travel as \\u escapes, which UTF-8 could not carry.
        self._send(status, json.dumps(value).encode("ascii"), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, policy: str = CLOSED) -> None:
        self.send_response(status)
        for name, value in (*HEADERS.items(), ("Content-Security-Policy", policy)):
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def page(nonce: str) -> str:
    """The page with its style and script inside, both bearing the nonce; no data."""
    files = importlib.resources.files("opengrok_jax.curation.review")
    text, style, script = (
        (files / f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    named = text.replace("NONCE", nonce)
    return named.replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
