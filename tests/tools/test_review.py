"""review as a user meets it, and as kill -9 meets it."""

import contextlib
import http.client
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from opengrok_jax import cli
from opengrok_jax.curation.review import decision_log as decisions
from opengrok_jax.records import Decision
from tests.command import opengrok
from tests.curation.review_rows import decision, verdict, write_run


@pytest.fixture
def words(repository, tmp_path):
    write_run(
        tmp_path / "run", [verdict(f"p{n}", f"answer {n}", reason="harmful") for n in range(900)]
    )
    config = repository / "configs" / "demo.py"
    return ["review", "--config", str(config), f"--config.run_dir={tmp_path / 'run'}"]


def file(tmp_path):
    return tmp_path / "run" / "review" / "decisions.jsonl"


@contextlib.contextmanager
def started(words, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "opengrok_jax", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def client(url):
    """A function that asks the server, over one connection."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    headers = {
        "X-Opengrok-Token": parts.query.removeprefix("token="),
        "Origin": f"http://{parts.netloc}",
        "Content-Type": "application/json",
    }

    def ask(path, body=None):
        sent = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, sent, headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        assert answer.status == 200, told
        return told

    with contextlib.closing(connection):
        yield ask


def test_a_review_ended_with_ctrl_c(words, tmp_path):
    with started([*words, "--reviewer", "ann"], tmp_path) as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{43}", url)
        with client(url) as ask:
            state = ask("/state")
            assert state["reviewer"] == "ann"
            item = state["item"]
            ask("/decide", {"ticket": item["ticket"], "decision": "accept", "seconds": 2.5})
        second = opengrok(*words, cwd=tmp_path)
        assert second.returncode == 4
        assert "in use by another opengrok process" in second.stderr
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0
    assert out == ""
    assert "review: everything is saved, 989 answers are open" in err
    assert "1 accepted, 0 edited, 0 rejected" in err
    assert "no bound on harmful rows: 0 rows of the hidden audit are reviewed" in err
    assert "next: opengrok curate --config" in err
    assert url.partition("token=")[2] not in err  # it is on standard output alone
    (row,) = decisions.read(file(tmp_path))
    assert (row.decision, row.seconds) == ("accept", 2.5)


def edit_all(url, confirmed):
    """Edits answer after answer until the server is gone; notes what it confirmed."""
    gone = (OSError, http.client.HTTPException, ValueError)
    with contextlib.suppress(*gone), client(url) as ask:
        item = ask("/state")["item"]
        while item:
            body = {"ticket": item["ticket"], "decision": "edit", "edited": "x" * 5000}
            following = ask("/decide", body)["item"]
            confirmed.append(item["answer"])
            item = following


def test_kill_9_loses_nothing_that_was_confirmed(words, tmp_path):
    """Again and again, at any moment; what the page was told is there, once, and in order."""
    chance = random.Random(0)
    confirmed: list[str] = []
    rows: list[Decision] = []
    for _ in range(4):
        with started(words, tmp_path) as (process, url):
            begun = len(confirmed)
            thread = threading.Thread(target=edit_all, args=(url, confirmed))
            thread.start()
            deadline = time.monotonic() + 30
            while len(confirmed) < begun + 5 and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(chance.random() * 0.05)
            process.send_signal(signal.SIGKILL)
            thread.join()
        assert len(confirmed) >= begun + 5
        rows = decisions.read(file(tmp_path))
        assert len({decisions.look(r) for r in rows}) == len(rows)
        written = {(r.prompt_id, r.look) for r in rows}
        assert len(confirmed) <= len(rows)
        for answer in confirmed:
            assert (answer.replace("answer ", "p"), 1) in written
        # One more may have reached the disk before its confirmation was sent.
        assert len(rows) <= len(confirmed) + 4
        with open(file(tmp_path), "ab") as torn:  # as if the kill had come amid a write
            torn.write(b'{"prompt_id": "p1", "body_sha": "')
    with started(words, tmp_path) as (process, url):
        with client(url) as ask:
            assert ask("/state")["done"] == len(rows)
        process.send_signal(signal.SIGINT)
        assert "cut off 33 bytes of a decision that was never confirmed" in process.communicate()[1]


def test_files_out_and_in(words, tmp_path):
    done = opengrok(*words, "--export", "a.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "900 rows in a.jsonl" in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    rows[0] |= {"decision": "accept", "reviewer": "ann"}
    rows[1] |= {"decision": "reject", "reviewer": "ann", "reason": "poor"}
    rows[2] |= {"decision": "accept", "reviewer": "ann", "body_sha": "0" * 64}
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = opengrok(*words, "--import", "b.jsonl", cwd=tmp_path)
    assert done.returncode == 0
    assert (
        "2 decisions taken in, 0 known, 0 older than what stands, 897 rows undecided" in done.stderr
    )
    assert "1 left out: the answer is another one now" in done.stderr
    done = opengrok(*words, "--summary", cwd=tmp_path)
    assert "review: 1 accepted, 0 edited, 1 rejected" in done.stderr
    assert len(decisions.read(file(tmp_path))) == 2


@pytest.mark.parametrize(
    ("more", "status", "said"),
    [
        (("--reviewer", ""), 2, "--reviewer: the reviewer's name"),
        (("--audit", "2"), 2, "--audit is 2.0; expected a share, 0 to 1"),
        (("--port", "99999"), 2, "port 99999 cannot be used"),
        (("--export", "a.xlsx"), 2, "expected .jsonl, .csv, .json"),
        (("--import", "none.csv"), 3, "none.csv: no such file"),
        (("--export", "a.csv", "--port", "1"), 2, "--port does nothing here"),
        (("--import", "a.csv", "--audit", "0.1"), 2, "--audit does nothing here"),
        (("--summary", "--reviewer", "ann"), 2, "--reviewer does nothing here"),
        (("--config.nothing=1",), 2, "nothing"),
    ],
)
def test_refused_in_one_line(capsys, words, more, status, said):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words, *more])
    assert stopped.value.code == status
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_before_curate_there_is_nothing_to_review(capsys, words, tmp_path):
    (tmp_path / "run" / "curation" / "verdicts.jsonl").unlink()
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 3
    assert "run `opengrok curate` first" in capsys.readouterr().err


def test_a_broken_decision_is_named(capsys, words, tmp_path):
    with decisions.opened(tmp_path / "run") as log:
        log.append(decision())
    file(tmp_path).write_text("{}\n" + file(tmp_path).read_text())
    with pytest.raises(SystemExit):
        cli.main([*words, "--summary"])
    assert "decisions.jsonl, line 1: no decision" in capsys.readouterr().err
