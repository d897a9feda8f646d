import asyncio
import logging

import httpx
import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.teacher import client as client_module
from opengrok_jax.teacher import wire
from opengrok_jax.teacher.client import MASK, Client, Secret, endpoint, secret_from
from opengrok_jax.teacher.wire import Kind
from tests.teacher.fault_server import Act, completion, serving

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def post(base_url, timeout_sec=5.0, transport=None, key=KEY):
    async def exchange():
        client = Client(
            base_url=base_url,
            key=Secret(key),
            timeout_sec=timeout_sec,
            connections=1,
            transport=transport,
        )
        async with client:
            return await client.post(b'{"messages": []}')

    return asyncio.run(exchange())


def test_an_answer_comes_back_verbatim_and_the_key_was_sent_as_bearer():
    with serving(lambda body, n: Act(body=completion("hi"), headers={"x-request-id": "r1"})) as s:
        reply = post(s.base_url)
        assert s.authorizations == [f"Bearer {KEY}"]
    assert (reply.status, reply.body, reply.error) == (200, completion("hi"), "")
    assert reply.headers["x-request-id"] == "r1"
    assert reply.received_at > 1_600_000_000


def test_without_a_key_there_is_no_authorization():
    with serving(lambda body, n: Act(body=completion("hi"))) as s:
        post(s.base_url, key="")
        assert s.authorizations == [None]


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (Act(body=completion("hi"), delay_sec=1.5), "timed out"),
        (Act(body=completion("hi"), trickle_sec=0.05), "timed out"),  # 0.05 s a byte, never idle
        (Act(body=completion("hi"), cut_to=20), "broken off"),
        (Act(body=b"not gzip", headers={"content-encoding": "gzip"}), "broken off"),
    ],
)
def test_a_broken_exchange_is_told_not_raised(act, reason):
    with serving(lambda body, n: act) as s:
        reply = post(s.base_url, timeout_sec=0.5)
    read = wire.read(reply)
    assert (reply.status, read.kind, read.reason) == (0, Kind.TRANSIENT, reason)


def test_nobody_listens():
    with serving(lambda body, n: Act()) as s:
        url = s.base_url
    assert wire.read(post(url)).reason == "cannot connect"


def test_an_endless_reply_is_cut(monkeypatch):
    monkeypatch.setattr(client_module, "MAX_REPLY_BYTES", 1000)
    with serving(lambda body, n: Act(body=b"x" * 1001)) as s:
        assert wire.read(post(s.base_url)).reason == "oversized"


def test_the_key_shows_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    echoed = Act(status=401, body=f'{{"error": "bad key {KEY}"}}'.encode())
    with serving(lambda body, n: echoed) as s:
        reply = post(s.base_url)
    assert reply.body == f'{{"error": "bad key {MASK}"}}'.encode()
    client = Client(base_url="http://h/v1", key=Secret(KEY), timeout_sec=1.0, connections=1)
    assert "Secret(***)" in repr(client)
    assert KEY not in repr(client) + repr(Secret(KEY)) + str(Secret(KEY)) + caplog.text
    assert "127.0.0.1" in caplog.text  # the log was on


def test_the_key_is_cut_out_of_a_transport_error():
    def fail(request):
        raise httpx.ReadError(f"while sending {request.headers['authorization']}")

    reply = post("http://h.invalid/v1", transport=httpx.MockTransport(fail))
    assert reply.error == f"broken off: ReadError while sending Bearer {MASK}"


def test_a_dummy_key_does_not_mangle_answers():
    with serving(lambda body, n: Act(body=completion("x marks the spot"))) as s:
        assert post(s.base_url, key="x").body == completion("x marks the spot")


def test_secret_from_environment(monkeypatch):
    monkeypatch.setenv("TEACHER_KEY", f"  {KEY}\n")
    assert secret_from("TEACHER_KEY").reveal() == KEY
    assert not secret_from("")
    monkeypatch.delenv("TEACHER_KEY")
    with pytest.raises(ConfigError, match="TEACHER_KEY is not set"):
        secret_from("TEACHER_KEY")


@pytest.mark.parametrize("value", ["two words", "ключ", "a\x07b", "a\nb"])
def test_a_key_that_no_header_carries_is_refused_unseen(monkeypatch, value):
    monkeypatch.setenv("TEACHER_KEY", value)
    with pytest.raises(ConfigError) as caught:
        secret_from("TEACHER_KEY")
    assert value not in str(caught.value)


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
