"""Saving from several processes: states and best parameters at once, and a process that is lost."""

import json
import time

from tests.together import begin, finish

SETUP = """
import contextlib, os, signal, sys, threading
from pathlib import Path
import jax, jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from opengrok_jax import processes
from opengrok_jax.training.checkpoints import Checkpoints
from opengrok_jax.training.step import TrainState

threads, meet = set(), multihost_utils.sync_global_devices
def seen(name):
    threads.add(threading.current_thread().name)
    meet(name)
multihost_utils.sync_global_devices = seen  # Orbax meets with it, and so do we

def made(compute, *axes):
    mesh = Mesh(jax.devices(), ("all",))
    return jax.jit(compute, out_shardings=NamedSharding(mesh, PartitionSpec(*axes)))()

def state(step):
    weights = made(lambda: jnp.arange(4096.0) + step, "all")
    return TrainState(made(lambda: jnp.int32(step)), {"w": weights}, ())

def host(step, best):
    return {"step": step, "best_step": best, "best_valid_loss": 0.5, "settings": {}}
"""

SAVING = (
    SETUP
    + """
import json
with processes.joined(), contextlib.closing(Checkpoints(Path(sys.argv[1]))) as checkpoints:
    for step in range(1, 9):  # the best of each step while the state of the one before is written
        now = state(step)
        checkpoints.save_best(step, now.params)
        checkpoints.save(now, host(step, step))
    checkpoints.wait()
    taken, note = checkpoints.restore(state(0), lambda host: None)
    here = [float(shard.data[0]) for shard in taken.params["w"].addressable_shards]
    print(json.dumps([int(taken.step), note["step"], here, sorted(threads)]))
"""
)


def test_a_state_and_the_best_are_written_at_once(tmp_path):
    """Each folder's threads meet their own kind, and devices are asked to meet by one thread only.

    Devices do what they are told in order: two threads would tell each process another order.
    """
    done = finish(begin(["-c", SAVING, str(tmp_path)], 2), 120)
    assert [status for status, _, _ in done] == [0, 0], done
    found = [json.loads(out.splitlines()[-1]) for _, out, _ in done]
    assert found == [[8, 8, [8.0], ["MainThread"]], [8, 8, [2056.0], ["MainThread"]]]
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == ["7", "8"]


LOSING = (
    SETUP
    + """
with processes.joined(), contextlib.closing(Checkpoints(Path(sys.argv[1]))) as checkpoints:
    checkpoints.save(state(1), host(1, 0))
    if jax.process_index() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    processes.meet("here")
"""
)


def test_what_the_others_cannot_finish_is_not_waited_for(tmp_path):
    """The thread that saves would wait for the dead one until its heartbeat is missed."""
    began = time.monotonic()
    done = finish(begin(["-c", LOSING, str(tmp_path)], 2), 150)
    assert [status for status, _, _ in done] == [7, -9], done
    assert "another process of this run has ended" in done[0][2]
    assert time.monotonic() - began < 60
