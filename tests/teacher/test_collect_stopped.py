"""Collections that are killed, stopped or interrupted, and go on: nothing is lost, nothing asked twice."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from opengrok_jax import storage
from opengrok_jax.records import Response
from opengrok_jax.teacher import money
from opengrok_jax.teacher.simulator import simulating
from tests.teacher.questions import prompts

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("TEACHER_KEY", KEY)


def responses(out):
    return storage.read_records(out / "responses.jsonl", Response)


CHILD = """
import sys
from pathlib import Path
from opengrok_jax.teacher import collect
url, prompts_file, out, concurrency = sys.argv[1:]
collect.run(prompts_file=Path(prompts_file), out=Path(out), kind="api", base_url=url,
            model="tiny-teacher", api_key_env="TEACHER_KEY", concurrency=int(concurrency),
            timeout_sec=20.0, rights="own-model", price_input="2", price_output="6", cap="9")
"""


def child(teacher, asked, out, concurrency):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, teacher.base_url, str(asked), str(out), str(concurrency)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def rows(out, query):
    with closing(sqlite3.connect(out / "journal.sqlite")) as database:
        return database.execute(query).fetchall()


def killed_and_resumed(tmp_path, *, count, kills, concurrency, latency_sec):
    """Kills a collection again and again, then lets it end; holds our books against the server's."""
    chance, output, kept = random.Random(7), b"", {}
    asked, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    storage.write_jsonl(asked, prompts(count))
    prices = money.prices(input="2", output="6")
    with simulating(prices=prices, latency_sec=latency_sec, xai=True) as teacher:
        for kill in range(kills):
            process = child(teacher, asked, out, concurrency)
            # From the first answer of this process to somewhere in its share of the work.
            wanted = sum(teacher.ledger.answered.values()) + 1 + chance.randrange(count // kills)
            deadline = time.monotonic() + 240
            while sum(teacher.ledger.answered.values()) < min(wanted, count * kill // kills + 40):
                assert time.monotonic() < deadline
                assert process.poll() is None, process.communicate()[0].decode()
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            output += process.communicate()[0]
            (under_way,) = rows(out, "SELECT COUNT(*) FROM attempt WHERE state = 'sent' AND begun")
            assert under_way[0] <= concurrency
            kept = dict(
                rows(
                    out,
                    "SELECT hex(key), cost FROM attempt JOIN request ON "
                    "request.id = request WHERE state = 'ok'",
                )
            )
            assert not (out / "responses.jsonl").exists()
        process = child(teacher, asked, out, concurrency)
        output += process.communicate(timeout=250)[0]
        assert process.returncode == 0, output.decode()
        ledger = teacher.ledger

    # every answer that was kept is there, once, with its price
    rows_now = responses(out)
    assert [r.prompt_id for r in rows_now] == [p.id for p in prompts(count)]
    costs = {r.request_key: r.cost_ticks for r in rows_now}
    assert {k.lower(): c for k, c in kept.items()} == {
        k: c for k, c in costs.items() if k.upper() in kept
    }
    # whatever was sent more than once is an orphan that the journal names
    names = [row["prompt_id"] for row in storage.read_jsonl(out / "orphans.jsonl")]
    orphans = Counter(names)
    ours = {r.request_key: r.prompt_id for r in rows_now}
    assert len(names) <= kills * concurrency
    for key, sent in ledger.sent.items():
        assert sent <= 1 + orphans[ours[key]]
    # and the books agree: what the server billed is what we settled and, of the orphans, at most
    # what we hold reserved
    settled = sum(costs.values())
    twice = sum(ledger.billed.values()) - settled
    reserved = rows(out, "SELECT COALESCE(SUM(reserved), 0) FROM attempt WHERE state = 'orphaned'")
    assert 0 <= twice <= reserved[0][0]
    for key, billed in ledger.billed.items():
        if not orphans[ours[key]]:
            assert billed == costs[key]
    return out, output


def test_kill_9_loses_no_answer(tmp_path):
    _, output = killed_and_resumed(tmp_path, count=90, kills=3, concurrency=4, latency_sec=0.03)
    assert b"in flight when an earlier run ended" in output
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {"journal.sqlite", "responses.jsonl"} <= {p.name for p in written}
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path
    assert KEY.encode() not in output


@pytest.mark.slow
def test_twenty_kills_in_two_thousand_requests(tmp_path):
    killed_and_resumed(tmp_path, count=2000, kills=20, concurrency=32, latency_sec=0.05)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, None), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_wait_for_what_is_in_flight(tmp_path, number, status):
    asked, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    storage.write_jsonl(asked, prompts(200))
    with simulating(latency_sec=0.3) as teacher:
        process = child(teacher, asked, out, 4)
        under_way(teacher, 6)
        process.send_signal(number)
        output = process.communicate(timeout=60)[0]
        assert process.returncode != 0
        assert status is None or process.returncode == status
        sent = sum(teacher.ledger.sent.values())
    assert b"waiting for what is in flight" in output
    assert rows(out, "SELECT state, COUNT(*) FROM attempt GROUP BY 1") == [("ok", sent)]


def test_ctrl_c_twice_does_not_wait(tmp_path):
    asked, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    storage.write_jsonl(asked, prompts(200))
    script = {"script": [{"request": 1, "act": "answer"}], "share": {"stall": 1.0}}
    with simulating(plan=script) as teacher:
        process = child(teacher, asked, out, 4)
        under_way(teacher, 5)
        process.send_signal(signal.SIGINT)
        until_it_says(process, b"Ctrl-C again")
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=60)[0]
    assert b"KeyboardInterrupt" in output.splitlines()[-1]
    assert b"CancelledError" not in output
    assert rows(out, "SELECT state, COUNT(*) FROM attempt WHERE begun GROUP BY 1") == [
        ("ok", 1),
        ("sent", 4),
    ]


def under_way(teacher, sent):
    """Waits until the server has seen so many requests."""
    deadline = time.monotonic() + 240
    while sum(teacher.ledger.sent.values()) < sent:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def until_it_says(process, words):
    """Reads on until a line with `words`."""
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}")
