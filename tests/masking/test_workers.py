import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opengrok_jax.errors import ConfigError, DataError, UserError
from opengrok_jax.masking import workers


def square(number: int) -> tuple[int, int, str]:
    return number * number, os.getpid(), os.environ.get("OMP_NUM_THREADS", "")


def refuse(number: int) -> int:
    if number == 3:
        raise DataError("line 3 is wrong")
    return number


def die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_one_worker_is_this_process():
    with workers.local(1) as work:
        assert {pid for _, pid, _ in work(square, [(1,), (2,)])} == {os.getpid()}


def test_several_are_spawned_with_one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with workers.local(2) as work:
        results = list(work(square, ((n,) for n in range(20))))
        assert sorted(value for value, _, _ in results) == [n * n for n in range(20)]
        assert os.getpid() not in {pid for _, pid, _ in results}
        assert {threads for *_, threads in results} == {"1"}
        with pytest.raises(DataError, match="line 3 is wrong"):
            list(work(refuse, ((n,) for n in range(20))))
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_jobs_are_taken_as_they_are_needed():
    taken = []

    def jobs():
        for n in range(100):
            taken.append(n)
            yield (n,)

    with workers.local(2) as work:
        results = work(square, jobs())
        next(results)
        assert len(taken) <= workers.JOBS_AHEAD * 2 + 1


def test_a_killed_worker_is_one_line():
    with workers.local(2) as work:
        with pytest.raises(UserError, match="a worker process of the mask was killed"):
            list(work(die, ((n,) for n in range(5))))


@pytest.mark.parametrize("count", [-1, True])
def test_a_count_that_is_none(count):
    with pytest.raises(ConfigError, match=r"workers is .*; expected a whole number"):
        workers.check_count(count)


def test_cores_are_counted():
    assert workers.cores() >= 1


PARENT = """
import sys, time
from opengrok_jax.masking import workers
from tests.masking.test_workers import sleep
if __name__ == "__main__":
    with workers.local(2) as work:
        list(work(sleep, [(sys.argv[1], n) for n in range(2)]))
"""


def sleep(folder: str, number: int) -> None:
    (Path(folder) / f"{number}.pid").write_text(str(os.getpid()))
    time.sleep(600)


def test_workers_end_with_a_killed_parent(tmp_path, repository):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(repository)}
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("*.pid"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
    assert len(pids) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
