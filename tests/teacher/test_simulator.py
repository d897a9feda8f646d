import json
import socket
import urllib.error
import urllib.request

import pytest

from opengrok_jax.teacher.simulator import simulating
from tests.teacher.questions import requests


def post(url, body, path="/chat/completions"):
    request = urllib.request.Request(url + path, data=body)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
        return json.loads(reply.read())


def test_any_client_can_ask_it_and_read_its_books():
    body = requests(1)[0].body
    with simulating() as teacher:
        told = post(teacher.base_url, body)
        assert told["choices"][0]["message"]["role"] == "assistant"
        ledger = teacher.base_url.replace("/v1", "/simulator/ledger")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(ledger) as reply:
            assert json.loads(reply.read()) == teacher.ledger.report()
    assert teacher.ledger.report()["answered"] == 1


def test_what_is_not_there_is_a_404():
    with simulating() as teacher:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(teacher.base_url, b"{}", "/completions")
        assert caught.value.code == 404
        caught.value.close()


def raw(url, *pieces):
    port = int(url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as talk:
        for piece in pieces:
            talk.sendall(piece)
        seen = b""
        while part := talk.recv(65536):
            seen += part
        return seen


def test_requests_in_a_row_and_in_pieces_over_one_connection():
    one, two = (r.body for r in requests(2))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n"
    plan = {"script": [{"request": 2, "act": "close"}]}
    with simulating(plan=plan) as teacher:
        seen = raw(teacher.base_url, head % len(one) + one[:9], one[9:] + head % len(two) + two)
        assert seen.count(b"HTTP/1.1 200") == 2
        assert seen.count(b"connection: close") == 1
        assert teacher.connections == 1
        assert teacher.ledger.at_once == 0


def test_what_is_no_http_is_hung_up_on():
    with simulating() as teacher:
        url = teacher.base_url
        assert raw(url, b"POST /v1/responses HTTP/1.1\r\ncontent-length: -5\r\n\r\n") == b""
        assert teacher.ledger.report()["requests"] == 0


def test_a_reset_is_a_reset():
    body = requests(1)[0].body
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n"
    with simulating(plan={"share": {"reset": 1.0}}) as teacher:
        with pytest.raises(ConnectionResetError):
            raw(teacher.base_url, head % len(body) + body)


def test_it_ends_with_its_block_whatever_is_open():
    with simulating(plan={"share": {"stall": 1.0}}) as teacher:
        port = int(teacher.base_url.split(":")[2].split("/")[0])
        talk = socket.create_connection(("127.0.0.1", port), timeout=5)
        talk.sendall(b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n")
        assert talk.recv(100)
    talk.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
