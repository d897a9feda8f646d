"""The same Python code in several processes at once, which find each other as users' do."""

import os
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def environments(count: int, *, devices: int = 1, **more: str) -> list[dict[str, str]]:
    """The environment of each process; one alone is told of no others.

    Devices that XLA only pretends to have meet in collectives: each waits in a thread of its own, and
    what the last ones still compute needs threads beside. XLA's pool has one for each core, or `NPROC`
    of them; on two cores eight devices would wait for each other until a collective gives up.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    shared = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(REPOSITORY),
        "XLA_FLAGS": f"{flags} --xla_force_host_platform_device_count={devices}",
        **({"NPROC": "128"} if devices > 1 else {}),
        **more,
    }
    if count == 1:
        return [shared]
    shared |= {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": str(count),
    }
    return [shared | {"JAX_PROCESS_ID": str(number)} for number in range(count)]


def begin(words: list[str], count: int, **options: object) -> list[subprocess.Popen[str]]:
    """Starts `python words` in so many processes; `options` as `environments` has them."""
    return [
        subprocess.Popen(
            [sys.executable, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for environment in environments(count, **options)  # type: ignore[arg-type]
    ]


def finish(
    processes: list[subprocess.Popen[str]], seconds: float = 250
) -> list[tuple[int, str, str]]:
    """Exit status, standard output and standard error of each; none outlives this call."""
    try:
        ended = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *said) for p, said in zip(processes, ended, strict=True)]


def together(
    code: str, *arguments: str, count: int = 2, seconds: float = 250, **options: object
) -> list[str]:
    """Runs code to its end in every process; what each wrote to standard output."""
    done = finish(begin(["-c", code, *arguments], count, **options), seconds)
    for status, _, said in done:
        assert status == 0, said[-4000:]
    return [out for _, out, _ in done]
