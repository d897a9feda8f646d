import asyncio
import gzip
import itertools
import json
import logging
import zlib

import httpx
import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher import client as client_module
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.client import Client, Oversized, endpoint, read
from opengrok_jax.teacher.outcome import Kind
from opengrok_jax.teacher.secret import MASK, Secret
from opengrok_jax.teacher.simulator import simulating
from opengrok_jax.teacher.simulator.acts import Act
from tests.teacher.questions import completion, requests

KEY = "sk-test-0123456789abcdef"
BODY = b"hello " * 1000


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def post(base_url, timeout_sec=5.0, key=KEY, times=1):
    async def exchange():
        async with Client(base_url=base_url, key=Secret(key), timeout_sec=timeout_sec) as client:
            bodies = [r.body for r in requests(times)]
            return [await client.post("/chat/completions", body) for body in bodies]

    return asyncio.run(exchange())


def test_an_answer_comes_back_verbatim_and_the_key_was_sent_as_bearer():
    seen = []

    def script(question):
        seen.append(question.headers)
        return Act(body=completion("hi"), headers={"x-request-id": "r1"})

    with simulating(script=script) as teacher:
        (reply,) = post(teacher.base_url)
        assert seen[0]["authorization"] == f"Bearer {KEY}"
        assert teacher.base_url == f"http://{seen[0]['host']}/v1"
        post(teacher.base_url, key="")
        assert "authorization" not in seen[1]
    assert (reply.status, reply.body, reply.error) == (200, completion("hi"), "")
    assert reply.headers["x-request-id"] == "r1"
    assert reply.received_at > 1_600_000_000


def test_one_connection_serves_one_request_after_the_other():
    with simulating() as teacher:
        replies = post(teacher.base_url, times=5)
        assert [r.status for r in replies] == [200] * 5
        assert teacher.connections == 1


def test_connections_opened_ahead_serve_the_requests_that_follow():
    async def exchange():
        async with Client(base_url=teacher.base_url, key=Secret(""), timeout_sec=5.0) as client:
            await client.open_ahead(20)
            bodies = [r.body for r in requests(20)]
            # One after the other at first: while it answers them, the server takes all that wait.
            for body in bodies:
                await client.post("/chat/completions", body)
            opened = teacher.connections
            await asyncio.gather(*(client.post("/chat/completions", body) for body in bodies))
            return opened

    with simulating() as teacher:
        assert asyncio.run(exchange()) == 20
        assert teacher.connections == 20


def test_nobody_there_to_open_ahead_to_is_told_by_a_request_only():
    async def exchange():
        async with Client(
            base_url="http://127.0.0.1:9/v1", key=Secret(""), timeout_sec=5.0
        ) as client:
            await client.open_ahead(20)
            return await client.post("/chat/completions", b"{}")

    assert asyncio.run(exchange()).error.startswith("cannot connect")


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"act": "slow", "seconds": 9.0}, "timed out"),
        ({"act": "drip", "seconds": 0.05}, "timed out"),  # 0.05 s a byte, never idle
        ({"act": "stall"}, "timed out"),
        ({"act": "half_body"}, "broken off"),
        ({"act": "half_head"}, "broken off"),
        ({"act": "reset"}, "broken off"),
        ({"act": "reset_after"}, "broken off"),
        ({"act": "garbage"}, "broken off"),
        ({"act": "huge", "bytes": 2**24 + 1}, "oversized"),
    ],
)
def test_a_broken_exchange_is_told_not_raised_and_the_next_one_works(rule, reason):
    with simulating(plan={"script": [rule | {"request": 1}]}) as teacher:
        broken, fine = post(teacher.base_url, timeout_sec=1.0, times=2)
    read = wire.read(broken)
    assert (broken.status, read.kind, read.reason) == (0, Kind.TRANSIENT, reason)
    assert fine.status == 200


def test_nobody_listens():
    with simulating() as teacher:
        url = teacher.base_url
    (reply,) = post(url)
    assert wire.read(reply).reason == "cannot connect"


def test_the_key_shows_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    with simulating(plan={"share": {"echo_key": 1.0}}) as teacher:
        (reply,) = post(teacher.base_url)
    assert f"Authorization: Bearer {MASK}" in reply.body.decode()
    assert reply.headers["x-request-id"] == f"Bearer {MASK}"
    client = Client(base_url="http://h/v1", key=Secret(KEY), timeout_sec=1.0)
    assert KEY not in repr(client) + repr(vars(client)) + repr(reply) + caplog.text


def test_a_get_carries_the_key_too():
    async def ask(url):
        async with Client(base_url=url, key=Secret(KEY), timeout_sec=5.0) as client:
            return await client.get("/models")

    with simulating(key=KEY) as teacher:
        reply = asyncio.run(ask(teacher.base_url))
    assert json.loads(reply.body)["data"][0]["id"] == "tiny-teacher"


def test_a_plain_request_goes_through_the_proxy_of_the_environment(monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.delenv("no_proxy", raising=False)
    lines = []

    async def proxy(reader, writer):
        lines.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    async def talk():
        server = await asyncio.start_server(proxy, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            monkeypatch.setenv("http_proxy", f"http://me:pw@127.0.0.1:{port}")
            url = "http://somewhere.invalid/v1"
            async with Client(base_url=url, key=Secret(""), timeout_sec=5.0) as client:
                return await client.get("/models")

    assert asyncio.run(talk()).body == b"hi"
    assert lines[0].startswith("GET http://somewhere.invalid/v1/models HTTP/1.1\r\n")
    assert "proxy-authorization: basic bwu6chc=" in lines[0].lower()  # me:pw
    monkeypatch.setenv("http_proxy", "socks5://h:1")
    with pytest.raises(ConfigError, match="socks5"):
        Client(base_url="http://somewhere.invalid/v1", key=Secret(""), timeout_sec=1.0)


@pytest.mark.parametrize("told", ["/chat/completions", "/responses/", "/models"])
def test_an_address_with_the_path_of_a_request_is_told_without(told):
    with pytest.raises(ConfigError, match=r"leave that off: http://h:1/v1$"):
        endpoint(f"http://H:1/v1{told}")


def test_endpoint_has_one_spelling():
    assert endpoint(" https://API.x.ai/v1/ ") == endpoint("https://api.x.ai/v1")
    assert endpoint("http://[::1]:8000/v1") == "http://[::1]:8000/v1"


@pytest.mark.parametrize(
    "url",
    [
        "api.x.ai/v1",
        "ftp://h/v1",
        "http://",
        "http://h:99999/",
        "http://h:x/",
        "http://[::1/v1",
        "http://h/v1\r\nx: y",
        "http://h/a b",
        "",
    ],
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError, match="must be an http"):
        endpoint(url)


@pytest.mark.parametrize("url", ["https://u:hunter22@h/v1", "https://h/v1?key=hunter22"])
def test_an_address_with_credentials_is_refused_unseen(url):
    with pytest.raises(ConfigError, match="carries") as caught:
        endpoint(url)
    assert "hunter22" not in str(caught.value)


def test_no_cookie_is_kept_and_no_redirect_followed():
    seen = []

    def script(question):
        seen.append(question.headers)
        return Act(status=302, headers={"location": "/elsewhere", "set-cookie": "a=b"})

    with simulating(script=script) as teacher:
        replies = post(teacher.base_url, times=2)
    assert [r.status for r in replies] == [302, 302]
    assert len(seen) == 2
    assert "cookie" not in seen[1]
    assert all("set-cookie" not in r.headers for r in replies)
    assert {r.headers["location"] for r in replies} == {"/elsewhere"}  # to be told


def replied(pieces, coding=""):
    """What `read` makes of a body in pieces, in the coding that the head names."""

    class Stream(httpx.AsyncByteStream):
        async def __aiter__(self):
            for piece in pieces:
                yield piece

    headers = {"content-encoding": coding} if coding else {}
    return asyncio.run(read(httpx.Response(200, headers=headers, stream=Stream())))


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "GZIP"])
def test_a_compressed_body_is_unpacked(coding):
    packed = zlib.compress(BODY) if coding == "deflate" else gzip.compress(BODY)
    assert replied([packed[:7], packed[7:]], coding) == BODY
    with pytest.raises(httpx.DecodingError, match="half of a"):
        replied([packed[:-9]], coding)


@pytest.mark.parametrize(("coding", "reason"), [("br", "compressed as br"), ("gzip", "not gzip")])
def test_a_body_that_cannot_be_unpacked_is_told(coding, reason):
    with pytest.raises(httpx.DecodingError, match=reason):
        replied([BODY], coding)


def test_a_body_or_what_it_unpacks_to_is_bounded(monkeypatch):
    monkeypatch.setattr(client_module, "MAX_REPLY_BYTES", 1000)
    assert replied([b"x" * 1000]) == b"x" * 1000
    with pytest.raises(Oversized):
        replied(itertools.repeat(b"x" * 100))  # without end: only a reader that stops comes back
    with pytest.raises(Oversized):
        replied([gzip.compress(b"x" * 10**6)], "gzip")
