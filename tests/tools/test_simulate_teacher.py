import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.command import opengrok


def test_it_serves_until_it_is_stopped_and_leaves_its_books(tmp_path):
    plan = tmp_path / "faults.json"
    plan.write_text('{"script": [{"request": 1, "act": "error_500"}]}')
    command = [sys.executable, "-m", "opengrok_jax", "simulate-teacher", "--port", "0"]
    command += ["--faults", str(plan), "--ledger", str(tmp_path / "ledger.json")]
    command += ["--latency", "0", "--model", "m", "--price-output", "6"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    url = re.search(r"http\S+/v1", process.stderr.readline())
    assert url is not None
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    code = (
        "import sys, urllib.request as u\n"
        "o = u.build_opener(u.ProxyHandler({}), u.HTTPErrorProcessor())\n"
        "for _ in range(2):\n"
        "    try: print(o.open(u.Request(sys.argv[1], sys.argv[2].encode())).status)\n"
        "    except u.HTTPError as e: print(e.code)\n"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code, url.group() + "/chat/completions", body],
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.split() == ["500", "200"]
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    report = json.loads((tmp_path / "ledger.json").read_text())
    assert report["acts"] == {"error_500": 1, "answer": 1}
    assert report["billed_ticks"] > 0
    assert json.loads(out)["answered"] == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--faults", "missing.json"], "no such file"),
        (["--price-input", "cheap"], "expected US dollars"),
        (["--key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE is not set"),
        (["--nonsense"], "not understood"),
    ],
)
def test_wrong_flags_are_told_in_a_line(tmp_path, flags, message):
    done = opengrok("simulate-teacher", *flags, cwd=tmp_path)
    assert done.returncode in (2, 3)
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_all_faults_are_listed(tmp_path):
    done = opengrok("simulate-teacher", "--list-faults", cwd=tmp_path)
    assert {"rate_429", "half_body", "stall"} <= set(done.stdout.split())
    assert os.listdir(tmp_path) == []
