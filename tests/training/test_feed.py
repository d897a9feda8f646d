"""The background thread: order, bounds, faults, and an end that leaves nothing behind."""

import os
import signal
import threading
import time

import pytest

from opengrok_jax.training.feed import feed
from tests.together import together


def feeders():
    return [t for t in threading.enumerate() if t.name == "feed"]


def test_items_come_in_order_and_then_none():
    with feed(lambda n: n * n, range(3, 9)) as take:
        assert [take() for _ in range(6)] == [9, 16, 25, 36, 49, 64]
        for _ in range(2):
            with pytest.raises(StopIteration):
                take()
    assert not feeders()


def test_it_runs_ahead_so_far_and_no_further():
    made = []

    def make(n):
        made.append(n)
        return n

    with feed(make, range(100), ahead=2) as take:
        for taken in range(1, 4):
            assert take() == taken - 1
            deadline = time.monotonic() + 10
            while len(made) < taken + 3 and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.05)  # time to make too many
            assert len(made) == taken + 3  # two wait, one stands before the full queue
    assert len(made) < 8
    assert not feeders()


def test_an_error_comes_where_its_item_would_have_come():
    def make(n):
        if n == 2:
            raise OSError("bad sector")
        return n

    with feed(make, range(5)) as take:
        assert [take(), take()] == [0, 1]
        for _ in range(2):
            with pytest.raises(OSError, match="bad sector"):
                take()
    assert not feeders()


def test_an_error_of_the_consumer_ends_the_thread():
    with pytest.raises(ZeroDivisionError), feed(lambda n: n, range(10**9)) as take:
        take()
        raise ZeroDivisionError
    assert not feeders()


def test_nothing_to_make():
    with feed(lambda n: 1 / 0, range(0)) as take, pytest.raises(StopIteration):
        take()
    assert not feeders()


def test_a_signal_is_seen_while_the_consumer_waits():
    """SIGTERM comes while `take` waits for a slow item: its handler runs, the item comes."""
    seen = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: seen.set())

    def make(n):
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen.wait(timeout=10)  # the main thread is inside of take()
        return n

    try:
        with feed(make, range(1)) as take:
            assert take() == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not feeders()


AHEAD_ALONE = """
import jax, numpy as np
from opengrok_jax import processes
from opengrok_jax.model.sharding import make_mesh
from opengrok_jax.training.batches import Batch
from opengrok_jax.training.feed import feed
from opengrok_jax.training.step import place
with processes.joined():
    devices = make_mesh(fsdp=2)
    rows = np.arange(24, dtype=np.int32).reshape(4, 6)
    batch = Batch(*[rows] * len(Batch._fields))
    alone = range(3 if jax.process_index() == 0 else 0)
    with feed(lambda _: place(batch, devices, microbatches=2), alone) as take:
        for _ in alone:
            print(take().tokens.addressable_data(0).tolist())
    processes.meet("the end of it")
"""


def test_a_process_may_be_ahead_of_the_others():
    """One uploads three batches, the other none: nobody waits."""
    uploaded, _ = together(AHEAD_ALONE)
    here = [[[0, 1, 2, 3, 4, 5]], [[12, 13, 14, 15, 16, 17]]]  # (M, b, T): the first of each two
    assert uploaded.splitlines().count(str(here)) == 3
