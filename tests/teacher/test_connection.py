import asyncio
import contextlib
import ssl
import subprocess
from urllib.parse import urlsplit

import pytest

from opengrok_jax.teacher import connection as connection_module
from opengrok_jax.teacher.connection import Broken, Unreachable, opened, proxy_login

ASK = b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(*replies, tls=None, hang_up=False):
    """A server that answers the n-th request of a connection with the n-th of `replies`."""
    done, talks = asyncio.Event(), []

    async def talk(reader, writer):
        talks.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for reply in replies:
                await reader.readuntil(b"\r\n\r\n")
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
            yield urlsplit(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        finally:
            done.set()
            server.close()
            await asyncio.gather(*talks)
            await asyncio.sleep(0.01)


def exchange(*replies, hang_up=False, times=1):
    async def talk():
        async with serving(*replies, hang_up=hang_up) as address:
            connection = await opened(address, None, None)
            try:
                async with asyncio.timeout(5):
                    return [await connection.ask(ASK) for _ in range(times)], connection.usable
            finally:
                connection.abort()

    return asyncio.run(talk())


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"


def test_a_reply_with_a_length_leaves_the_connection_open():
    (first, second), usable = exchange(LENGTH, LENGTH.replace(b"hello", b"again"), times=2)
    assert (first.status, first.headers["x-a"], first.body) == (200, "b", b"hello")
    assert (second.body, usable) == (b"again", True)


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
def test_a_reply_in_pieces(pieces):
    (received,), _ = exchange(pieces)
    assert (received.status, received.body) == (200, b"hello")


def test_a_reply_that_ends_with_the_connection():
    (received,), usable = exchange(b"HTTP/1.1 200 OK\r\n\r\nhello", hang_up=True)
    assert (received.body, usable) == (b"hello", False)


def test_a_reply_that_closes_is_not_reused():
    (received,), usable = exchange(LENGTH.replace(b"X-A: b", b"Connection: close"))
    assert (received.body, usable) == (b"hello", False)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (LENGTH[:-2], "closed with 3 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", "closed with 3"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "closed with no reply"),
        (b"", "closed with no reply"),
        (b"\x00\x01 what\r\n\r\n", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no HTTP"),
        (LENGTH.replace(b"X-A: b", b"Content-Encoding: gzip"), "not gzip"),
        (LENGTH.replace(b"X-A: b", b"Content-Encoding: br"), "compressed as br"),
    ],
)
def test_what_is_no_whole_reply_is_broken(reply, reason):
    with pytest.raises(Broken, match=reason):
        exchange(reply, hang_up=True)


def test_gzip_is_undone_and_half_of_it_told():
    import gzip

    zipped = gzip.compress(b"hello " * 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    (received,), _ = exchange(head % len(zipped) + zipped)
    assert received.body == b"hello " * 1000
    with pytest.raises(Broken, match="half of a gzip"):
        exchange(head % (len(zipped) - 9) + zipped[:-9])


def test_a_reply_or_what_it_unpacks_to_is_bounded(monkeypatch):
    import gzip

    monkeypatch.setattr(connection_module, "MAX_REPLY_BYTES", 1000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    with pytest.raises(Broken, match="oversized"):
        exchange(head % 1001 + b"x" * 1001)
    bomb = gzip.compress(b"x" * 10**6)
    with pytest.raises(Broken, match="oversized"):
        exchange(head[:-2] % len(bomb) + b"Content-Encoding: gzip\r\n\r\n" + bomb)


def test_bytes_that_nobody_asked_for_close_the_connection():
    (received,), _ = exchange(LENGTH + b"HTTP/1.1 200 OK\r\n", hang_up=True)
    assert received.body == b"hello"

    async def talk():
        async with serving([LENGTH, b"more"]) as address:
            connection = await opened(address, None, None)
            await connection.ask(ASK)
            await asyncio.sleep(0.1)
            return connection.usable

    assert not asyncio.run(talk())


def test_nobody_listens():
    async def talk():
        async with serving() as address:
            pass
        await opened(address, None, None)

    with pytest.raises(Unreachable, match="cannot connect"):
        asyncio.run(talk())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(server's context, client's context) of a certificate for 127.0.0.1."""
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
    return server, ssl.create_default_context(cafile=str(folder / "c.pem"))


def test_tls_with_a_certificate_that_is_checked(certificate):
    theirs, ours = certificate

    async def talk(context):
        async with serving(LENGTH, tls=theirs) as address:
            connection = await opened(address, context, None)
            received = await connection.ask(ASK)
            connection.abort()
            return received.body

    assert asyncio.run(talk(ours)) == b"hello"
    with pytest.raises(Unreachable, match="certificate"):
        asyncio.run(talk(ssl.create_default_context()))


def test_a_tunnel_through_a_proxy(certificate):
    theirs, ours = certificate
    asked = []

    async def forward(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head)
        if b"user" not in head and b"Basic" not in head:
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

    async def talk(login):
        proxy = await asyncio.start_server(forward, "127.0.0.1", 0)
        async with proxy, serving(LENGTH, tls=theirs) as address:
            port = proxy.sockets[0].getsockname()[1]
            connection = await opened(address, ours, urlsplit(f"http://{login}127.0.0.1:{port}"))
            received = await connection.ask(ASK)
            connection.abort()
            await asyncio.sleep(0.05)
            return received.body

    assert asyncio.run(talk("us%40r:pass@")) == b"hello"
    assert b"Basic dXNAcjpwYXNz" in asked[0]  # us@r:pass
    with pytest.raises(Unreachable, match="407"):
        asyncio.run(talk(""))


def test_no_login_without_a_name():
    assert proxy_login(urlsplit("http://h:1")) == ""
