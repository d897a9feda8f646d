"""Several processes, one fine-tuning: how they meet, agree and part.

The same command is started once per process, on one machine or many, over one shared file system.
On Cloud TPU JAX finds the others by itself; elsewhere the environment tells each process of them:

    JAX_COORDINATOR_ADDRESS   host:port of process 0, the same for all; any free port
    JAX_NUM_PROCESSES         how many there are
    JAX_PROCESS_ID            which of them this one is, from 0

All of them compute, read and write checkpoints; process 0 alone holds the run folder, writes the
other files and tells the progress. A process that fails leaves at once; the others notice and end
too, after `HEARTBEAT` seconds at most, and the same commands go on from the last checkpoint.

Devices do what they are told in order, and wait for the others to be told the same. So one rule
holds everywhere: what they do together (updates, evaluations, `meet`, `on_first`, `any_asks`) is
asked for by the main thread alone, in the same order in every process. The thread that uploads
batches asks for nothing of that kind; those that save meet through the coordinator.

JAX is imported where it is used: most verbs ask here only whether they were started alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from opengrok_jax import progress
from opengrok_jax.errors import ConfigError, RunFolderError, TrainingError, UserError

ADDRESS, COUNT, ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
PATIENCE = 300.0  # seconds that a process waits for the others to be started
HEARTBEAT = 100  # seconds without a sign of life after which a process counts as dead
# Who speaks in the error of a collective or a barrier whose other end is gone.
_LOST = ("Gloo", "NCCL", "CoordinationService")


@dataclass(frozen=True)
class Given:
    """What the environment says."""

    address: str
    count: int
    id: int


def given() -> Given | None:
    """The three variables, or None where there is none of them (or one process in all).

    Raises:
      ConfigError: some are missing, or one makes no sense.
    """
    values = {name: os.environ.get(name, "") for name in (ADDRESS, COUNT, ID)}
    if not any(values.values()):
        return None
    if missing := [name for name, value in values.items() if not value]:
        raise ConfigError(f"{missing[0]} is not set; give all of {', '.join(values)}, or none")
    host, _, port = values[ADDRESS].rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{ADDRESS} is {values[ADDRESS]!r}; expected host:port of process 0")
    if not (values[COUNT].isdigit() and values[ID].isdigit()) or (
        int(values[ID]) >= int(values[COUNT])
    ):
        raise ConfigError(
            f"{COUNT} is {values[COUNT]!r} and {ID} {values[ID]!r}; expected a number, and one "
            "below it, from 0"
        )
    found = Given(values[ADDRESS], int(values[COUNT]), int(values[ID]))
    return found if found.count > 1 else None


def refuse(verb: str) -> None:
    """Raises ConfigError if this was started as one of several processes."""
    if found := given():
        raise ConfigError(
            f"{COUNT} is {found.count}, but `opengrok {verb}` works in one process; unset it, and "
            "start only `opengrok finetune` on several"
        )


@contextlib.contextmanager
def joined(patience: float = PATIENCE) -> Iterator[None]:
    """Meets the other processes, if there are any, and parts from them at the end.

    Args:
      patience: seconds to wait for them.

    Raises:
      ConfigError: the environment makes no sense, or the coordinator cannot be begun.
      TrainingError: another process is gone.
    """
    if not _met(patience):
        yield
        return
    try:
        if not first():
            progress.mute()
        yield
        meet("the end")
    except SystemExit:  # of all alike, see `any_asks`: the coordinator must be the last to leave
        raise
    except BaseException as error:
        if lost(error):
            _leave_at_end(TrainingError.exit_code)
            raise TrainingError(
                "another process of this run has ended or cannot be reached; see what it said, and "
                "start all of them again: they go on from the last checkpoint"
            ) from error
        status = 130 if isinstance(error, KeyboardInterrupt) else 1
        _leave_at_end(error.exit_code if isinstance(error, UserError) else status)
        raise


def lost(error: BaseException) -> bool:
    """Whether an error says that another process is gone, rather than what it seems to say."""
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    return count() > 1 and any(name in str(each) for each in causes for name in _LOST)


def count() -> int:
    """How many processes there are; 1 before and without `joined`."""
    jax = sys.modules.get("jax")
    return jax.process_count() if jax and jax.distributed.is_initialized() else 1


def first() -> bool:
    """Whether this is process 0, or the only one."""
    return count() == 1 or sys.modules["jax"].process_index() == 0


def meet(where: str) -> None:
    """Returns when all processes are here; `where` tells the places apart."""
    if count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(where)


def on_first(work: Callable[[], object]) -> None:
    """Lets process 0 do something while the others wait.

    Raises:
      UserError: what `work` raised, in process 0; in the others a word that points to it.
    """
    if count() == 1:
        work()
        return
    import numpy as np
    from jax.experimental import multihost_utils

    failed = None
    if first():
        try:
            work()
        except UserError as error:
            failed = error
    refused = bool(multihost_utils.broadcast_one_to_all(np.array(failed is not None)))
    if failed is not None:
        raise failed
    if refused:
        raise RunFolderError("process 0 cannot go on, and says why")


def any_asks(asks: Callable[[], bool]) -> Callable[[], bool]:
    """A question to which all processes hear the same answer: whether any of them `asks`.

    All put it equally often. An answer is that of the time before (the first, of this call), so
    that nobody waits for it; several processes would end at different steps if each looked at
    itself alone.
    """
    if count() == 1:
        return asks
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()), ("all",))
    apart = NamedSharding(mesh, PartitionSpec("all"))
    most = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
    here = jax.local_device_count()

    def put() -> jax.Array:
        mine = np.full(here, asks(), np.int32)
        return most(jax.make_array_from_process_local_data(apart, mine))

    before = put()

    def ask() -> bool:
        nonlocal before
        answer, before = before, put()
        return bool(answer)

    return ask


def check_same(what: str, text: str) -> None:
    """Raises ConfigError in every process unless all of them have the same `text`."""
    if count() == 1:
        return
    import hashlib

    import numpy as np
    from jax.experimental import multihost_utils

    mine = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
    if not (multihost_utils.process_allgather(mine) == mine).all():
        raise ConfigError(f"the processes were given different {what}; start all of them alike")


def _met(patience: float) -> bool:
    """Connects to the others; False where there are none."""
    found = given()
    if found is None and not _on_tpu():
        return False
    import jax

    if found and found.id == 0:
        _check_port(found.address)
    # JAX's own client does not raise when its time is up: it aborts the process.
    give_up = threading.Timer(patience, _give_up, [found, patience])
    give_up.daemon = True
    give_up.start()
    join = partial(
        jax.distributed.initialize,
        initialization_timeout=int(patience) + 60,
        heartbeat_timeout_seconds=HEARTBEAT,
    )
    try:
        if found:
            join(found.address, found.count, found.id, cluster_detection_method="deactivate")
        else:
            try:
                join()
            except ValueError:  # TPU chips, and nobody who knows of a pod
                return False
    except RuntimeError as error:
        first_line = (str(error).splitlines() or [""])[0][:200]
        raise ConfigError(
            f"the processes cannot meet at {found.address if found else 'the coordinator'}: "
            f"{first_line}; start all of them again"
        ) from error
    finally:
        give_up.cancel()
    if threading.current_thread() is threading.main_thread():
        # JAX has begun to catch it, for a protocol of its own; `any_asks` is ours.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return jax.process_count() > 1


def _check_port(address: str) -> None:
    """Raises ConfigError if the port of the coordinator is taken; some JAX dies of it."""
    try:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("", int(address.rpartition(":")[2])))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"process 0 cannot listen at {address}: {error}; give another port in {ADDRESS}, the "
            "same to all processes"
        ) from error


def _on_tpu(devices: Path = Path("/dev")) -> bool:
    """Whether there are TPU chips, and JAX may use them."""
    allowed = os.environ.get("JAX_PLATFORMS", "") or "tpu"
    chips = any(devices.glob("accel*")) or any(devices.glob("vfio/[0-9]*"))
    return chips and "tpu" in allowed.split(",") and find_spec("libtpu") is not None


def _give_up(found: Given | None, patience: float) -> None:
    who = f"process {found.id} of {found.count}" if found else "this process"
    where = f" at {found.address}" if found else ""
    print(
        f"opengrok: {who} waited {patience:.0f} s for the others{where}; start all of them, and "
        f"see that {ADDRESS} is the machine of process 0, with a port that no firewall closes",
        file=sys.stderr,
        flush=True,
    )
    os._exit(ConfigError.exit_code)


def _leave_at_end(status: int) -> None:
    """Makes the end of this process one that waits for no other.

    JAX's farewell does, and so does a thread that is saving. The others may be waiting for this
    process in the middle of a step; gone, it is noticed.
    """

    def leave() -> None:
        threading.main_thread().join()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    threading.Thread(target=leave, daemon=True).start()
