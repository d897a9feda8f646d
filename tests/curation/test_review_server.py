import http.client
import json
import re
import socket

import pytest

from opengrok_jax.curation.review import decision_log as decisions
from opengrok_jax.curation.review.queueing import Draw
from opengrok_jax.curation.review.server import LARGEST_BODY, page
from tests.curation.review_rows import served, verdict

ALL = Draw(uncertain=1.0, audit=0.0, repeat=0.0)
TOKEN = "X-Opengrok-Token"


@pytest.fixture
def server(tmp_path):
    with served(tmp_path, [verdict(f"p{n}", f"answer {n}") for n in range(5)], ALL) as server:
        yield server


def ask(server, method, path, headers=None, body=None):
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def state(server, **headers):
    return ask(server, "GET", "/state", {TOKEN: server.token} | headers)


def post(server, path, value, **changed):
    headers = {
        TOKEN: server.token,
        "Origin": server.origin,
        "Content-Type": "application/json",
    } | {name.replace("_", "-"): text for name, text in changed.items()}
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    kept = {name: text for name, text in headers.items() if text is not None}
    return ask(server, "POST", path, kept, body)


def ticket(server):
    return json.loads(state(server)[2])["item"]["ticket"]


def decided(tmp_path):
    return [d.decision for d in decisions.read(tmp_path / "review" / "decisions.jsonl")]


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url.startswith("http://127.0.0.1:")
    assert len(server.token) >= 40


def test_the_page_comes_with_the_token_and_holds_no_data(server):
    status, headers, body = ask(server, "GET", f"/?token={server.token}")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"answer 0" not in body
    assert server.token.encode() not in body


def test_a_strict_policy_and_no_trace(server):
    seen = []
    for _ in range(2):
        _, headers, body = ask(server, "GET", f"/?token={server.token}")
        policy = headers["Content-Security-Policy"]
        (nonce,) = set(re.findall(r"'nonce-([^']+)'", policy))
        assert body.decode().count(f'nonce="{nonce}"') == 2
        assert policy.startswith("default-src 'none';")
        for word in ("unsafe", "*", "http:", "https:", "blob:"):
            assert word not in policy
        for part in ("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
            assert part in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Python" not in headers.get("Server", "")
        seen.append(nonce)
    assert seen[0] != seen[1]
    status, headers, _ = state(server)
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_the_page_loads_nothing_from_anywhere():
    text = page("n")
    assert not re.search(
        r"(?:https?:)?//\w+\.\w+|@import|url\(", re.sub(r"^\s*//.*", "", text, flags=re.M)
    )
    assert "innerHTML" not in text
    assert not re.search(r"\son\w+=|style=|javascript:", text)
    assert text.count("</script>") == text.count("</style>") == 1


@pytest.mark.parametrize(
    "path",
    ["/", "/?token=", "/?token=wrong", "/?token=é%00", "/?x", "/state", "/favicon.ico", "/decide"],
)
def test_without_the_token_there_is_nothing(server, path):
    for headers in ({}, {TOKEN: "wrong"}, {TOKEN: server.token[:-1]}):
        status, _, body = ask(server, "GET", path.replace("é", "%C3%A9"), headers)
        assert status == 403
        assert b"token is missing or wrong" in body
        assert server.token.encode() not in body


def test_the_token_counts_only_where_it_belongs(server):
    assert ask(server, "GET", f"/state?token={server.token}")[0] == 403
    assert ask(server, "GET", "/", {TOKEN: server.token})[0] == 403
    twice = f"/?token={server.token}&token={server.token}"
    assert ask(server, "GET", twice)[0] == 403
    assert ask(server, "GET", "/elsewhere", {TOKEN: server.token})[0] == 404
    assert ask(server, "GET", "/../etc/passwd", {TOKEN: server.token})[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost:{port}", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}"]
)
def test_another_name_for_this_address_is_refused(server, host):
    """What a page whose name was rebound to 127.0.0.1 would send."""
    host = host.format(port=server.server_address[1])
    assert state(server, Host=host)[0] == 403
    assert post(server, "/undo", {}, Host=host)[0] == 403


def test_other_pages_cannot_post(server, tmp_path):
    good = {"ticket": ticket(server), "decision": "accept"}
    for origin in (None, "null", "http://evil.example", "http://127.0.0.1:1", server.origin + "/"):
        assert post(server, "/decide", good, Origin=origin)[0] == 403
    assert post(server, "/decide", good, **{TOKEN: None})[0] == 403
    assert post(server, "/decide", good, Sec_Fetch_Site="cross-site")[0] == 403
    assert post(server, "/decide", good, Sec_Fetch_Site="same-site")[0] == 403
    assert decided(tmp_path) == []
    assert post(server, "/decide", good, Sec_Fetch_Site="same-origin")[0] == 200
    assert decided(tmp_path) == ["accept"]


def test_decide_and_undo(server, tmp_path):
    first = ticket(server)
    status, _, body = post(
        server, "/decide", {"ticket": first, "decision": "edit", "edited": "né", "seconds": 2}
    )
    assert status == 200
    told = json.loads(body)
    assert told["done"] == 1
    status, _, body = post(server, "/decide", {"ticket": first, "decision": "accept"})
    assert status == 409
    assert json.loads(body)["state"]["item"]["ticket"] == told["item"]["ticket"]
    assert json.loads(post(server, "/undo", {})[2])["item"]["ticket"] == first
    assert post(server, "/undo", {})[0] == 409
    assert decided(tmp_path) == ["edit", "undo"]


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[1]", 400),
        (b"[" * 100_000, 400),
        (b'"\xff"', 400),
        ({"ticket": "x"}, 400),
        ({"ticket": 1, "decision": "accept"}, 400),
        ({"ticket": "x", "decision": "accept", "more": 1}, 400),
        ({"ticket": "x", "decision": "accept", "seconds": True}, 400),
        ({"ticket": "x", "decision": "accept", "seconds": -1}, 400),
        (b'{"ticket": "x", "decision": "accept", "seconds": NaN}', 400),
        (b'{"ticket": "x", "decision": "accept", "seconds": 1e999}', 400),
        (b'{"ticket": "x", "decision": "accept", "seconds": 1' + b"0" * 400 + b"}", 400),
        ({"ticket": "x", "decision": "undo"}, 422),
        ({"ticket": "\ud800", "decision": "accept"}, 409),
    ],
)
def test_what_no_page_sends_is_refused(server, tmp_path, value, status):
    assert post(server, "/decide", value)[0] == status
    assert decided(tmp_path) == []
    assert state(server)[0] == 200


def test_bodies_have_a_type_a_length_and_an_end(server):
    assert post(server, "/undo", {}, Content_Type="text/plain")[0] == 415
    assert post(server, "/undo", {}, Content_Length=str(LARGEST_BODY + 1))[0] == 413
    assert post(server, "/undo", {}, Content_Length="-1")[0] == 411
    assert post(server, "/undo", b"0\r\n\r\n", Transfer_Encoding="chunked")[0] == 411
    for method in ("PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
        assert ask(server, method, f"/?token={server.token}")[0] == 501


def test_two_lengths_are_none(server):
    lines = [
        "POST /undo HTTP/1.1",
        f"Host: {server.origin.removeprefix('http://')}",
        f"Origin: {server.origin}",
        f"{TOKEN}: {server.token}",
        "Content-Type: application/json",
        "Content-Length: 2",
        "Content-Length: 200",
    ]
    with socket.create_connection(server.server_address, timeout=10) as raw:
        raw.sendall("\r\n".join([*lines, "", "{}"]).encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 411 ")


def test_a_full_disk_is_told_and_nothing_counts(server, tmp_path, monkeypatch):
    import errno
    import os

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    good = {"ticket": ticket(server), "decision": "accept"}
    monkeypatch.setattr(os, "fsync", full)
    status, _, body = post(server, "/decide", good)
    monkeypatch.undo()
    assert status == 507
    assert "No space left" in json.loads(body)["error"]
    assert decided(tmp_path) == []
    assert post(server, "/decide", good)[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ],
)
def test_noise_is_refused_and_never_echoed(server, sent, capfd):
    with socket.create_connection(server.server_address, timeout=10) as raw:
        raw.sendall(sent)
        raw.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := raw.recv(65536):
            got += chunk
    assert b"aaaa" not in got
    assert b" 200 " not in got
    assert state(server)[0] == 200
    out, err = capfd.readouterr()
    assert out == err == ""  # no request is logged: its line may hold the token
