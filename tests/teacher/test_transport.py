import asyncio
import contextlib
import logging
import ssl
import subprocess

import httpx
import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.client import Client
from opengrok_jax.teacher.secret import MASK, Secret
from opengrok_jax.teacher.transport import MAX_HEAD_BYTES, Local, opener

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(server's context, file of the certificate) for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            [*command, "-keyout", folder / "k.pem", "-out", folder / "c.pem"],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("openssl makes no certificate here")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "c.pem", folder / "k.pem")
    return server, folder / "c.pem"


@pytest.fixture(params=["http", "https"])
def tls(request, monkeypatch):
    """None for plain HTTP, which `Local` speaks; a server's context for httpx's transport."""
    if request.param == "http":
        return None
    server, file = request.getfixturevalue("certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    return server


@contextlib.asynccontextmanager
async def serving(*replies, tls=None, hang_up=False, asked=None):
    """A server that answers the n-th request of a connection with the n-th of `replies`."""
    done, talks = asyncio.Event(), []

    async def talk(reader, writer):
        talks.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for reply in replies:
                head = await reader.readuntil(b"\r\n\r\n")
                if asked is not None:
                    asked.append(head)
                for piece in [reply] if isinstance(reply, bytes) else reply:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)
            if hang_up:
                writer.close()
            await done.wait()
        writer.transport.abort()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    async with server:
        scheme = "https" if tls else "http"
        try:
            yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        finally:
            done.set()
            server.close()
            await asyncio.gather(*talks)
            await asyncio.sleep(0.01)


async def asked_of(transport, url):
    response = await transport.handle_async_request(httpx.Request("GET", f"{url}/models"))
    try:
        body = b"".join([piece async for piece in response.aiter_raw()])
    finally:
        await response.aclose()
    return response.status_code, response.headers, body


def exchange(*replies, tls=None, hang_up=False, times=1):
    """(status, headers, body) of each reply."""

    async def talk():
        async with serving(*replies, tls=tls, hang_up=hang_up) as url:
            transport = opener(httpx.URL(url))()
            assert isinstance(transport, httpx.AsyncHTTPTransport if tls else Local)
            try:
                async with asyncio.timeout(5):
                    return [await asked_of(transport, url) for _ in range(times)]
            finally:
                await transport.aclose()

    return asyncio.run(talk())


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"


def test_a_reply_with_a_length_leaves_the_connection_open(tls):
    # The second reply is there only for a second request on the same connection.
    first, second = exchange(LENGTH, LENGTH.replace(b"hello", b"again"), tls=tls, times=2)
    assert (first[0], first[1]["x-a"], first[2]) == (200, "b", b"hello")
    assert second[2] == b"again"


@pytest.mark.parametrize(
    "pieces",
    [
        [bytes([b]) for b in LENGTH],
        [
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel",
            b"\r\n2\r\nlo\r\n0\r\n\r\n",
        ],
        [b"HTTP/1.1 100 Continue\r\n\r\n", LENGTH],
        [b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + LENGTH],
    ],
    ids=["byte by byte", "chunked", "continue", "early hints"],
)
def test_a_reply_in_pieces(pieces, tls):
    ((status, headers, body),) = exchange(pieces, tls=tls)
    assert (status, body, "link" in headers) == (200, b"hello", False)


def test_a_reply_that_ends_with_the_connection(tls):
    ends = b"HTTP/1.1 200 OK\r\n\r\nhello"
    assert exchange(ends, tls=tls, hang_up=True)[0][2] == b"hello"


CLOSES = LENGTH.replace(b"X-A: b", b"Connection: close")


@pytest.mark.parametrize(("reply", "hang_up"), [(CLOSES, True), (CLOSES, False), (LENGTH, True)])
def test_a_connection_that_closed_or_is_to_close_is_opened_anew(reply, hang_up, tls):
    async def talk():
        async with serving(
            reply,
            *([] if hang_up else [LENGTH.replace(b"hello", b"wrong")]),
            tls=tls,
            hang_up=hang_up,
        ) as url:
            transport = opener(httpx.URL(url))()
            bodies = []
            for _ in range(3):
                bodies.append((await asked_of(transport, url))[2])
                await asyncio.sleep(0.05)
            await transport.aclose()
            return bodies

    assert asyncio.run(talk()) == [b"hello"] * 3


@pytest.mark.parametrize(
    "reply",
    [
        LENGTH[:-2],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"",
        b"\x00\x01 what\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * MAX_HEAD_BYTES,
    ],
    ids=["half", "half of chunks", "half a head", "nothing", "no HTTP", "no chunk", "long head"],
)
def test_what_is_no_whole_reply_is_an_error_of_the_protocol(reply, tls):
    with pytest.raises(httpx.RemoteProtocolError):
        exchange(reply, tls=tls, hang_up=True)


def test_a_switch_to_another_protocol_is_an_error_of_this_one(caplog):
    reply = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nhello"
    with pytest.raises(httpx.RemoteProtocolError, match="another protocol"):
        exchange(reply, hang_up=True)
    assert caplog.records == []  # asyncio logs what its calls raise, with a traceback


def test_a_head_without_an_end_is_given_up():
    with pytest.raises(httpx.RemoteProtocolError, match=f"head of more than {MAX_HEAD_BYTES}"):
        exchange([b"HTTP/1.1 200 OK\r\n", *([b"x: " + b"y" * 2**14 + b"\r\n"] * 16)])


def test_bytes_that_nobody_asked_for_close_the_connection():
    async def talk(reply):
        async with serving(reply, LENGTH.replace(b"hello", b"wrong")) as url:
            transport = Local()
            bodies = []
            for _ in range(2):
                bodies.append((await asked_of(transport, url))[2])
                await asyncio.sleep(0.05)
            await transport.aclose()
            return bodies

    for reply in (LENGTH + LENGTH, [LENGTH, b"more"], [LENGTH, LENGTH]):
        assert asyncio.run(talk(reply)) == [b"hello"] * 2


def test_a_body_that_is_not_read_to_its_end_closes_the_connection():
    async def talk():
        async with serving([LENGTH[:-2], b"lo"], LENGTH) as url:
            transport = Local()
            request = httpx.Request("GET", url)
            await (await transport.handle_async_request(request)).aclose()
            body = (await asked_of(transport, url))[2]
            await transport.aclose()
            return body

    assert asyncio.run(talk()) == b"hello"


def test_nobody_listens(tls):
    async def talk():
        async with serving(tls=tls) as url:
            pass
        await asked_of(opener(httpx.URL(url))(), url)

    with pytest.raises(httpx.ConnectError):
        asyncio.run(talk())


# ---- certificates and proxies, through `Client` -------------------------------------------------


def told(url, key="", timeout_sec=5.0):
    async def ask():
        async with Client(base_url=url, key=Secret(key), timeout_sec=timeout_sec) as client:
            return await client.get("/models")

    return ask()


def test_a_certificate_is_checked(certificate, monkeypatch):
    theirs, file = certificate

    async def talk():
        async with serving(LENGTH, tls=theirs) as url:
            return await told(url)

    refused = asyncio.run(talk())
    assert wire.read(refused).reason == "cannot connect"
    assert "certificate" in refused.error
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    assert asyncio.run(talk()).body == b"hello"
    monkeypatch.setenv("SSL_CERT_FILE", str(file.with_name("none.pem")))
    with pytest.raises(ConfigError, match="SSL_CERT_FILE"):
        asyncio.run(talk())


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (LENGTH[:-2], "broken off"),
        ([LENGTH[:-2], *[b""] * 80], "timed out"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * (2**24 + 1), "oversized"),
    ],
    ids=["half", "stall", "huge"],
)
def test_what_goes_wrong_over_tls_is_told_and_bounded(reply, reason, certificate, monkeypatch):
    theirs, file = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(file))

    async def talk():
        async with serving(reply, tls=theirs, hang_up=True) as url:
            return await told(url, timeout_sec=0.3 if reason == "timed out" else 5.0)

    assert wire.read(asyncio.run(talk())).reason == reason


def test_the_key_shows_in_no_log_of_httpx(certificate, monkeypatch, caplog):
    theirs, file = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    caplog.set_level(logging.DEBUG)
    echo = LENGTH.replace(b"X-A: b", b"X-Request-Id: " + KEY.encode())
    asked = []

    async def talk():
        async with serving(echo, tls=theirs, asked=asked) as url:
            return await told(url, key=KEY)

    reply = asyncio.run(talk())
    assert f"Bearer {KEY}".encode() in asked[0]
    assert reply.headers["x-request-id"] == MASK
    assert KEY not in caplog.text


def test_a_tunnel_through_a_proxy(certificate, monkeypatch):
    theirs, file = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    asked, inside = [], []

    async def forward(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        if b"Basic" not in head:
            writer.write(b"HTTP/1.1 407 Who are you\r\n\r\n")
            writer.close()
            return
        host, port = head.split(b" ")[1].decode().split(":")
        there, here = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 go on\r\n\r\n")

        async def pump(source, target):
            with contextlib.suppress(ConnectionError):
                while data := await source.read(4096):
                    target.write(data)
            target.close()

        await asyncio.gather(pump(reader, here), pump(there, writer))

    async def talk(login, variable):
        proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
        async with proxy, serving(LENGTH, tls=theirs, asked=inside) as url:
            port = proxy.sockets[0].getsockname()[1]
            with monkeypatch.context() as patch:
                patch.setenv(variable, f"http://{login}127.0.0.1:{port}")
                reply = await told(url, key=KEY)
            await asyncio.sleep(0.05)
            return reply

    assert asyncio.run(talk("us%40r:pass@", "https_proxy")).body == b"hello"
    assert b"Basic dXNAcjpwYXNz" in asked[0]  # us@r:pass
    assert KEY.encode() not in asked[0]
    assert (KEY.encode() in inside[0], b"Basic" in inside[0]) == (True, False)
    assert asyncio.run(talk("us%40r:pass@", "ALL_PROXY")).body == b"hello"
    assert len(asked) == 2
    refused = asyncio.run(talk("", "https_proxy"))
    assert (wire.read(refused).reason, "407" in refused.error) == ("cannot connect", True)
    assert "pass" not in refused.error


@pytest.mark.parametrize("proxy", ["socks5://h:1", "ftp://h", "http://", "http://h:port"])
def test_a_proxy_that_is_none_of_http_is_refused_unless_bypassed(proxy, monkeypatch):
    monkeypatch.setenv("https_proxy", proxy.replace("//", "//me:hunter22@"))
    with pytest.raises(ConfigError, match="proxy") as caught:
        opener(httpx.URL("https://teacher.invalid/v1"))
    assert "hunter22" not in str(caught.value)
    monkeypatch.setenv("no_proxy", ".invalid")
    opener(httpx.URL("https://teacher.invalid/v1"))
