import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from opengrok_jax import records, storage
from opengrok_jax.errors import ConfigError, DataError, RunFolderError, TeacherError
from opengrok_jax.records import Likely, Logprobs, Response
from opengrok_jax.teacher import collect
from tests.teacher.fault_server import Act, completion, echo, prompts, serving

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("TEACHER_KEY", KEY)


@pytest.fixture
def asked(tmp_path):
    """A file of eight prompts."""
    path = tmp_path / "prompts.jsonl"
    storage.write_jsonl(path, prompts(8))
    return path


def recordings(path, made, **changes):
    rows = [
        {
            "id": p.id,
            "messages": [records.to_json(m) for m in p.messages],
            "response": f"answer {n}",
            "finish_reason": "length" if n == 0 else "stop",
        }
        | changes
        for n, p in enumerate(made)
    ]
    storage.write_jsonl(path, rows)
    return str(path)


def from_api(server, asked, out, **changes):
    settings = {
        "prompts_file": asked,
        "out": out,
        "kind": "api",
        "base_url": server.base_url,
        "model": "tiny",
        "api_key_env": "TEACHER_KEY",
        "concurrency": 4,
        "timeout_sec": 10.0,
        "rights": "own-model",
    }
    return collect.run(**{**settings, **changes})


def states(out):
    with closing(sqlite3.connect(out / "journal.sqlite")) as database:
        return database.execute("SELECT key, state FROM attempt ORDER BY id").fetchall()


# ---- the whole way ----------------------------------------------------------------------------


def test_recorded_answers_become_responses_in_order(tmp_path, asked):
    book = recordings(tmp_path / "r.jsonl", reversed(prompts(8)))
    counts = collect.run(
        prompts_file=asked, out=tmp_path / "out", kind="recorded", recorded_file=book
    )
    assert counts.pop("models_served").popitem()[1] == 8
    assert counts == {
        "planned": 8,
        "ok": 8,
        "failed": 0,
        "blocked": 0,
        "orphaned": 0,
        "finish_reasons": {"stop": 7, "length": 1},
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "with_logprobs": 0,
    }
    assert (tmp_path / "out" / "logprobs.jsonl").read_bytes() == b""
    rows = storage.read_records(tmp_path / "out" / "responses.jsonl", Response)
    assert [r.prompt_id for r in rows] == [p.id for p in prompts(8)]
    assert [r.text for r in rows] == [f"answer {n}" for n in range(7, -1, -1)]
    assert {r.rights for r in rows} == {collect.RIGHTS_RECORDED}
    assert {r.source for r in rows} == {"recorded"}
    assert rows[0].model_asked == rows[0].model_served


def test_labelled_answers(tmp_path, asked):
    storage.write_jsonl(asked, prompts(3, label="joy"))
    collect.run(prompts_file=asked, out=tmp_path / "out", kind="labelled")
    rows = storage.read_records(tmp_path / "out" / "responses.jsonl", Response)
    assert [(r.text, r.source, r.rights) for r in rows] == [
        ("joy", "labelled", collect.RIGHTS_LABELLED)
    ] * 3


def test_an_api_is_asked_and_told_of(tmp_path, asked):
    def script(body, n):
        assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny", 0.2, 99)
        return Act(body=completion("hi", model="tiny-2026-11"))

    with serving(script) as server:
        counts = from_api(server, asked, tmp_path / "out", temperature=0.2, max_tokens=99)
        assert set(server.authorizations) == {f"Bearer {KEY}"}
    row = storage.read_records(tmp_path / "out" / "responses.jsonl", Response)[0]
    assert (row.model_asked, row.model_served) == ("tiny", "tiny-2026-11")
    assert (row.endpoint, row.rights, row.source) == (server.base_url, "own-model", "api")
    assert (row.prompt_tokens, row.completion_tokens) == (7, 5)
    assert (counts["prompt_tokens"], counts["models_served"]) == (56, {"tiny-2026-11": 8})


def test_log_probabilities_are_kept_and_their_lack_is_told(tmp_path, asked, capfd):
    def script(body, n):
        assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
        told = {"token": "hi", "logprob": -0.25, "bytes": [104, 105]}
        content = [told | {"top_logprobs": [told]}]
        # One prompt's answer comes without, as from an endpoint that ignores the wish.
        ignored = body["messages"][0]["content"] == "What is the mood of post 3?"
        return Act(body=completion("hi", logprobs=None if ignored else {"content": content}))

    with serving(script) as server:
        counts = from_api(server, asked, tmp_path / "out", top_logprobs=2)
    assert counts["with_logprobs"] == 7
    assert "1 of 8 answers came without usable log-probabilities" in capfd.readouterr().err
    rows = storage.read_records(tmp_path / "out" / "logprobs.jsonl", Logprobs)
    assert {row.prompt_id for row in rows} == {p.id for n, p in enumerate(prompts(8)) if n != 3}
    assert rows[0].tokens == (Likely(bytes="6869", logprob=-0.25),)
    assert rows[0].top == (rows[0].tokens,)


def test_the_same_command_again_asks_nothing_and_writes_the_same(tmp_path, asked):
    with serving(lambda body, n: Act(body=echo(body))) as server:
        from_api(server, asked, tmp_path / "out")
        first = (tmp_path / "out" / "responses.jsonl").read_bytes()
        from_api(server, asked, tmp_path / "out", concurrency=1)
        assert (tmp_path / "out" / "responses.jsonl").read_bytes() == first
        assert sum(server.hits.values()) == 8


def test_new_recordings_are_not_hidden_by_the_journal(tmp_path, asked):
    for response in ("old", "new"):
        book = recordings(tmp_path / "r.jsonl", prompts(8), response=response)
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="recorded", recorded_file=book)
        rows = storage.read_records(tmp_path / "out" / "responses.jsonl", Response)
        assert {r.text for r in rows} == {response}


# ---- what fails -------------------------------------------------------------------------------


def test_failures_are_told_at_the_end_and_only_they_are_asked_again(tmp_path, asked):
    broken = True

    def script(body, n):
        if broken and "post 3?" in body["messages"][0]["content"]:
            return Act(status=500, body=b'{"error": "disk on fire"}', headers={"retry-after": "0"})
        return Act(body=echo(body))

    with serving(script) as server:
        with pytest.raises(TeacherError) as caught:
            from_api(server, asked, tmp_path / "out", max_attempts=2)
        message = str(caught.value)
        assert message.startswith("1 of 8 prompts got no answer; commonest reason: HTTP 500 (1)")
        assert prompts(8)[3].id in message
        assert "disk on fire" in message
        assert "All 7 answers so far are kept" in message
        assert not (tmp_path / "out" / "responses.jsonl").exists()
        broken = False
        assert from_api(server, asked, tmp_path / "out")["ok"] == 8
        assert sorted(server.hits.values()) == [1] * 7 + [3]


def test_a_prompt_without_recording_is_named(tmp_path, asked):
    book = recordings(tmp_path / "r.jsonl", prompts(7))
    with pytest.raises(TeacherError, match=rf"1 of 8 .*no recorded answer.*{prompts(8)[7].id}"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="recorded", recorded_file=book)


def test_blocked_prompts_are_left_out_and_never_asked_again(tmp_path, asked):
    def script(body, n):
        if "post 0?" in body["messages"][0]["content"]:
            return Act(status=403, body=b'{"error": "Content violates usage guidelines"}')
        return Act(body=echo(body))

    with serving(script) as server:
        for _ in range(2):
            counts = from_api(server, asked, tmp_path / "out")
            assert (counts["ok"], counts["blocked"]) == (7, 1)
        assert set(server.hits.values()) == {1}
    assert sum(1 for _ in storage.read_jsonl(tmp_path / "out" / "responses.jsonl")) == 7


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            Act(status=401, body=f'{{"error": "bad key {KEY}"}}'.encode()),
            "check the key in TEACHER_KEY",
        ),
        (Act(status=429, body=b'{"error": "no credits left"}'), "out of money.*filled up"),
        (Act(status=429, headers={"retry-after": "5000"}), "asks to wait 5000 s"),
        (Act(status=500, headers={"retry-after": "0"}), "prompt after prompt failed"),
    ],
)
def test_a_stop_says_why_and_what_to_do(tmp_path, asked, act, message):
    with serving(lambda body, n: act) as server:
        with pytest.raises(TeacherError, match=message) as caught:
            from_api(server, asked, tmp_path / "out", concurrency=1, max_attempts=2)
        assert KEY not in str(caught.value)
        server.script = lambda body, n: Act(body=echo(body))
        assert from_api(server, asked, tmp_path / "out")["ok"] == 8


def test_a_prompt_that_failed_is_asked_last(tmp_path, asked):
    order = []

    def script(body, n):
        order.append(int(body["messages"][0]["content"].split()[-1].rstrip("?")))
        return Act(status=413) if order[-1] == 0 else Act(body=echo(body))

    with serving(script) as server:
        storage.write_jsonl(asked, prompts(1))
        with pytest.raises(TeacherError):
            from_api(server, asked, tmp_path / "out", concurrency=1)
        storage.write_jsonl(asked, prompts(3))
        with pytest.raises(TeacherError):
            from_api(server, asked, tmp_path / "out", concurrency=1)
    assert order == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "oracle"}, "expected recorded, labelled, api"),
        ({"base_url": ""}, "needs teacher.base_url"),
        ({"model": ""}, "needs teacher.base_url and teacher.model"),
        ({"rights": "  "}, "xAI's terms bar training on its output without a written order form"),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ({"temperature": -0.1}, "teacher.temperature"),
        ({"temperature": float("nan")}, "teacher.temperature"),
        ({"max_tokens": 0}, "teacher.max_tokens"),
        ({"concurrency": 0}, "teacher.concurrency"),
        ({"timeout_sec": float("inf")}, "teacher.timeout_sec"),
        ({"max_attempts": 0}, "teacher.max_attempts"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_sent(tmp_path, asked, changes, message):
    with serving(lambda body, n: Act(body=echo(body))) as server:
        with pytest.raises(ConfigError, match=message):
            from_api(server, asked, tmp_path / "out", **changes)
        assert not server.hits
    assert not (tmp_path / "out").exists()


def test_wrong_prompts_are_told(tmp_path, asked):
    storage.write_jsonl(asked, [])
    with pytest.raises(DataError, match="holds no prompt"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="labelled")
    storage.write_jsonl(asked, prompts(1))
    with pytest.raises(DataError, match=f"prompt {prompts(1)[0].id} .*has no label"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="labelled")
    storage.write_jsonl(asked, [replace(p, label="x") for p in prompts(1) * 2])
    with pytest.raises(DataError, match="twice"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="labelled")


def test_a_second_process_is_kept_away(tmp_path, asked):
    book = recordings(tmp_path / "r.jsonl", prompts(8))
    with storage.locked(tmp_path / "out"), pytest.raises(RunFolderError, match="in use"):
        collect.run(prompts_file=asked, out=tmp_path / "out", kind="recorded", recorded_file=book)


# ---- kill -9 ----------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from opengrok_jax.teacher import collect
url, prompts_file, out = sys.argv[1:]
collect.run(prompts_file=Path(prompts_file), out=Path(out), kind="api", base_url=url, model="tiny",
            api_key_env="TEACHER_KEY", concurrency=4, timeout_sec=20.0, rights="own-model")
"""


def child(server, asked, out):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, server.base_url, str(asked), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def test_kill_9_loses_no_answer(tmp_path):
    asked, count = tmp_path / "prompts.jsonl", 60
    storage.write_jsonl(asked, prompts(count))
    enough, kill_at = threading.Event(), 0

    def script(body, n):
        reached = sum(server.answered.values()) >= kill_at
        if reached:
            enough.set()
        # Slow from then on, so that the kill comes in the middle however busy the machine is.
        return Act(body=echo(body), delay_sec=1.0 if reached else 0.03)

    output = b""
    with serving(script) as server:
        for wanted in (10, 30):
            kill_at = wanted
            enough.clear()
            process = child(server, asked, tmp_path / "out")
            assert enough.wait(60)
            process.send_signal(signal.SIGKILL)
            output += process.communicate()[0]
            assert process.returncode == -signal.SIGKILL
        before = states(tmp_path / "out")
        kept = {key for key, state in before if state == "ok"}
        assert len(kept) >= 20
        assert not (tmp_path / "out" / "responses.jsonl").exists()
        hits_of_kept = {key: server.hits[key] for key in kept}

        kill_at = count * 9
        process = child(server, asked, tmp_path / "out")
        output += process.communicate(timeout=60)[0]
        assert process.returncode == 0, output.decode()
        # no answer that was kept is asked for again
        assert {key: server.hits[key] for key in kept} == hits_of_kept
        # each sending beyond one a prompt is an orphan that the journal names
        after = states(tmp_path / "out")
        orphans = [key for key, state in after if state == "orphaned"]
        assert 1 <= len(orphans) <= 2 * 4
        assert sum(server.hits.values()) <= count + len(orphans)
        assert sorted(state for _, state in after if state != "orphaned") == ["ok"] * count

        smooth = child(server, asked, tmp_path / "smooth")
        output += smooth.communicate(timeout=60)[0]
        assert smooth.returncode == 0, output.decode()

    resumed = (tmp_path / "out" / "responses.jsonl").read_bytes()
    assert resumed == (tmp_path / "smooth" / "responses.jsonl").read_bytes()
    assert len(resumed.splitlines()) == count
    assert b"in flight when an earlier run ended" in output
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert {"journal.sqlite", "responses.jsonl"} <= {p.name for p in written}
    for path in written:
        assert KEY.encode() not in path.read_bytes(), path
    assert KEY.encode() not in output


def test_the_key_is_in_no_file_even_if_the_endpoint_echoes_it(tmp_path, asked, capfd):
    def script(body, n):
        if n == 1:
            headers = {"retry-after": "0", "x-request-id": KEY}
            return Act(status=500, body=KEY.encode(), headers=headers)
        return Act(body=completion(f"your key is {KEY}"))

    with serving(script) as server:
        from_api(server, asked, tmp_path / "out")
    text = (tmp_path / "out" / "responses.jsonl").read_text()
    assert "your key is [api key]" in text
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in "".join(capfd.readouterr())
