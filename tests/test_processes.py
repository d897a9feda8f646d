"""How processes meet, agree and part; every test with real ones."""

import json
import os
import signal
import socket
import time

import pytest

from opengrok_jax import processes
from opengrok_jax.errors import ConfigError
from tests.together import begin, environments, finish

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


@pytest.fixture
def told(monkeypatch):
    """Sets the three variables."""

    def tell(*values: str) -> None:
        for name, value in zip(VARIABLES, values, strict=True):
            monkeypatch.setenv(name, value)

    return tell


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("", "", ""), None),
        (("10.0.0.1:1234", "4", "3"), processes.Given("10.0.0.1:1234", 4, 3)),
        (("[::1]:1234", "2", "0"), processes.Given("[::1]:1234", 2, 0)),
        (("10.0.0.1:1234", "1", "0"), None),
    ],
)
def test_what_the_environment_says(told, values, expected):
    told(*values)
    assert processes.given() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("a:1", "2", ""), "JAX_PROCESS_ID is not set; give all of JAX_COORDINATOR_ADDRESS"),
        (("", "2", "0"), "JAX_COORDINATOR_ADDRESS is not set"),
        (("localhost", "2", "0"), "'localhost'; expected host:port"),
        (("a:b", "2", "0"), "'a:b'; expected host:port"),
        (("a:1", "two", "0"), "JAX_NUM_PROCESSES is 'two'"),
        (("a:1", "2", "2"), "JAX_PROCESS_ID '2'; expected a number, and one below it"),
        (("a:1", "2", "-1"), "JAX_PROCESS_ID '-1'"),
    ],
)
def test_an_environment_that_makes_no_sense(told, values, message):
    told(*values)
    with pytest.raises(ConfigError, match=message):
        processes.given()


def test_other_verbs_are_refused(told):
    processes.refuse("run")
    told("a:1", "2", "0")
    with pytest.raises(ConfigError, match=r"`opengrok run` works in one process; .* finetune"):
        processes.refuse("run")


def test_alone_nothing_is_asked_of_others():
    with processes.joined():
        assert (processes.count(), processes.first()) == (1, True)
        processes.meet("here")
        processes.check_same("settings", "mine")
        did = []
        processes.on_first(lambda: did.append(1))
        assert did == [1]
        answer = iter([False, True])
        asked = processes.any_asks(lambda: next(answer))
        assert [asked(), asked()] == [False, True]


@pytest.mark.parametrize(("files", "expected"), [([], False), (["accel0"], True)])
def test_tpu_chips_are_found_where_jax_may_use_them(monkeypatch, tmp_path, files, expected):
    monkeypatch.syspath_prepend(tmp_path / "site")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "libtpu.py").touch()
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setenv("JAX_PLATFORMS", "")
    assert processes._on_tpu(tmp_path) == expected
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert not processes._on_tpu(tmp_path)


AGREEING = """
import json, sys, time
from opengrok_jax import processes
from opengrok_jax.errors import ConfigError, DataError, UserError
from opengrok_jax.progress import say
with processes.joined():
    me = __import__("jax").process_index()
    say(f"told by {me}")
    did, heard = [], []
    processes.on_first(lambda: did.append(me))
    try:
        def fail():
            raise DataError("no such file")
        processes.on_first(fail)
    except UserError as error:
        heard.append(f"{type(error).__name__}: {error}")
    processes.check_same("settings", "alike")
    try:
        processes.check_same("settings", f"of {me}")
    except ConfigError as error:
        heard.append(str(error))
    calls = iter(range(100))
    asked = processes.any_asks(lambda: me == 1 and next(calls) >= 3)
    answers = [asked() for _ in range(6)]
    answers.append(processes.any_asks(lambda: me == 1)())
    began = time.monotonic()
    for _ in range(50):
        asked()
    print(json.dumps([processes.count(), processes.first(), did, heard, answers]))
    print(json.dumps((time.monotonic() - began) / 50))
"""


def test_two_processes_agree():
    words = begin(["-c", AGREEING], 2)
    (status, out, said), (other_status, other_out, other_said) = finish(words)
    assert (status, other_status) == (0, 0), said + other_said
    different = "the processes were given different settings; start all of them alike"
    answers = [False, False, False, True, True, True, True]
    rows = [
        [json.loads(x) for x in text.splitlines() if x.startswith(("[2", "0."))]
        for text in (out, other_out)
    ]
    assert rows[0][0] == [2, True, [0], ["DataError: no such file", different], answers]
    assert rows[1][0] == [
        2,
        False,
        [],
        ["RunFolderError: process 0 cannot go on, and says why", different],
        answers,
    ]
    assert max(rows[0][1], rows[1][1]) < 0.1  # seconds to ask: about one all-reduce
    assert "told by 0" in said
    assert "told by" not in other_said


ALONE_AMONG_TWO = """
from opengrok_jax import processes
with processes.joined(patience=4):
    raise AssertionError
"""


@pytest.mark.parametrize("number", [0, 1])
def test_others_that_do_not_come_are_named(number):
    """Neither the coordinator nor one who looks for it waits for ever, or aborts with a dump."""
    environment = environments(2)[number]
    started = time.monotonic()
    process = begin(["-c", ALONE_AMONG_TWO], 1, **{v: environment[v] for v in VARIABLES})
    ((status, _, said),) = finish(process, 60)
    assert time.monotonic() - started < 40
    assert status == 2
    line = said.splitlines()[-1]
    assert line.startswith(
        f"opengrok: process {number} of 2 waited 4 s for the others at localhost:"
    )


def test_a_port_in_use_is_said():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = f"localhost:{taken.getsockname()[1]}"
        first = dict(zip(VARIABLES, (address, "2", "0"), strict=True))
        ((status, _, said),) = finish(begin(["-c", ALONE_AMONG_TWO], 1, **first), 60)
    assert status != 0
    assert f"process 0 cannot listen at {address}: " in said
    assert "Address already in use; give another port in JAX_COORDINATOR_ADDRESS" in said


ENDED = """
import time
from opengrok_jax import processes
with processes.joined():
    time.sleep(2 * __import__("jax").process_index())
    raise SystemExit(143)
"""


def test_an_end_of_all_is_waited_for():
    """JAX would abort the others if the first process, the coordinator, left them behind."""
    done = finish(begin(["-c", ENDED], 2), 60)
    assert [status for status, _, _ in done] == [143, 143], done


ENDLESS = """
import sys, time
from opengrok_jax import processes
from opengrok_jax.errors import StorageError
with processes.joined():
    asked = processes.any_asks(lambda: False)
    me = __import__("jax").process_index()
    for step in range(10**9):
        asked()
        time.sleep(0.01)
        if step == 20:
            print("ready", flush=True)
            if me == int(sys.argv[1]):
                raise StorageError("the disk is full")
"""


@pytest.mark.parametrize("failing", [0, 1])
def test_when_one_fails_the_others_end_too(failing):
    """It does not wait for them, nor they for it; neither takes the whole heartbeat."""
    started = time.monotonic()
    done = finish(begin(["-c", ENDLESS, str(failing)], 2), 90)
    assert time.monotonic() - started < 60
    assert done[failing][0] == 8
    assert "the disk is full" in done[failing][2]
    status, _, said = done[1 - failing]
    assert status != 0
    # JAX itself aborts a process whose coordinator is gone, and may be faster than we are.
    assert "another process of this run has ended" in said or "another task died" in said


def test_when_one_is_killed_the_other_ends():
    running = begin(["-c", ENDLESS, "9"], 2)
    assert running[1].stdout is not None
    while "ready" not in running[1].stdout.readline():
        assert running[1].poll() is None
    os.kill(running[1].pid, signal.SIGKILL)
    (status, _, said), _ = finish(running, 90)
    assert status == 7
    assert "another process of this run has ended or cannot be reached" in said
