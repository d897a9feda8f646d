"""Time by purpose, figures against arithmetic, event files against two readers."""

import contextlib
import json
import math
import struct
import sys
import threading

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opengrok_jax.errors import MissingExtra, StorageError
from opengrok_jax.training.flops import Load, train_flops
from opengrok_jax.training.loop import rewind
from opengrok_jax.training.meters import (
    COMPILED,
    PHASES,
    Clock,
    Events,
    Meters,
    check_tensorboard,
    goodput,
)

LOAD = Load(places=64, tokens=48, loss_tokens=12, pairs=200)


class Watch:
    """Stands still unless told."""

    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


@pytest.fixture
def watch():
    return Watch()


@pytest.fixture
def meters(tiny, watch, tmp_path):
    """Two TPU v4 devices; `meters(tensorboard=...)` opens them, `watch.at` is their time."""

    @contextlib.contextmanager
    def opened(**changes):
        given = {"config": tiny, "device_kind": "TPU v4", "devices": 2} | changes
        given = {"path": tmp_path / "meters.jsonl", "clock": Clock("start", watch)} | given
        made = Meters(**given)
        with contextlib.closing(made):
            yield made

    return opened


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def spend(watch, clock, phase, seconds):
    with clock.phase(phase):
        watch.at += seconds


def test_figures_of_a_row(meters, tiny, watch, tmp_path):
    with meters() as m:
        watch.at += 7.0
        m.begin(0, undone=[])
        spend(watch, m.clock, "compile", 5.0)
        spend(watch, m.clock, "input", 0.5)
        watch.at += 1.5
        m.row(1, LOAD, {})
        spend(watch, m.clock, "eval", 3.0)
        watch.at += 1.0
        m.row(2, LOAD, {})
        assert m.pace() == "32 tokens/s"
    flops = train_flops(tiny, LOAD)
    assert rows_of(tmp_path / "meters.jsonl") == [
        {
            "step": 1,
            "seconds": {"start": 7.0, "compile": 5.0, "input": 0.5, "step": 1.5},
            "tokens_per_second": 24.0,
            "loss_tokens_per_second": 6.0,
            "packing_efficiency": 0.75,
            "model_flops": flops,
            "mfu": pytest.approx(flops / 2.0 / (2 * 275e12)),
        },
        {
            "step": 2,
            "seconds": {"step": 1.0, "eval": 3.0},
            "tokens_per_second": 48.0,
            "loss_tokens_per_second": 12.0,
            "packing_efficiency": 0.75,
            "model_flops": flops,
            "mfu": pytest.approx(flops / (2 * 275e12)),
        },
    ]


def test_beside_adapters_fewer_flops_are_the_models(meters, watch, tiny, tmp_path):
    with meters(adapters=100) as m:
        m.begin(0, undone=[])
        watch.at += 1.0
        m.row(1, LOAD, {})
    (row,) = rows_of(tmp_path / "meters.jsonl")
    assert row["model_flops"] == train_flops(tiny, LOAD, 100) < 0.8 * train_flops(tiny, LOAD)
    assert row["mfu"] == pytest.approx(row["model_flops"] / (2 * 275e12))


def test_utilisation_of_an_unknown_device_is_not_guessed(meters, watch, tmp_path):
    with meters(device_kind="cpu") as m:
        m.begin(0, undone=[])
        watch.at += 1.0
        m.row(1, LOAD, {})
    (row,) = rows_of(tmp_path / "meters.jsonl")
    assert "mfu" not in row


def test_only_one_of_several_processes_writes(meters, watch, tmp_path):
    with meters(path=None, tensorboard=tmp_path / "tensorboard") as m:
        m.begin(0, undone=[])
        watch.at += 2.0
        m.row(1, LOAD, {})
        m.sync()
        assert m.pace() == "24 tokens/s"
    assert not list(tmp_path.iterdir())


def test_taken_up_again_what_was_undone_is_lost(meters, watch, tmp_path):
    """A process reaches step 3 and dies; the state of step 1 is the newest that was kept."""
    path = tmp_path / "meters.jsonl"
    with meters() as m:
        m.begin(0, undone=[])
        for step in (1, 2, 3):
            watch.at += step
            m.row(step, LOAD, {})
    path.write_bytes(path.read_bytes() + b'{"step": 4, "sec')  # it died while it wrote
    with meters() as m:
        watch.at += 10.0
        m.begin(1, undone=rewind(path, 1))
        for step in (2, 3):
            watch.at += step
            m.row(step, LOAD, {})
    rows = rows_of(path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[1]["seconds"] == {"start": 10.0, "lost": 5.0, "step": 2.0}
    assert goodput(rows) == {
        "start": pytest.approx(10 / 21),
        "step": pytest.approx(6 / 21),
        "lost": pytest.approx(5 / 21),
    }


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["enter", "leave", "wait", "take", "move"]),
            st.sampled_from(PHASES),
            st.integers(0, 8),
        )
    )
)
def test_every_second_goes_into_one_phase(events):
    watch = Watch()
    clock, stack, total = Clock("start", watch), [], 0.0
    began = watch.at
    for kind, phase, seconds in events:
        if kind == "wait":
            watch.at += seconds
        elif kind == "enter":
            stack.append(clock.switch(phase))
        elif kind == "leave" and stack:
            clock.switch(stack.pop())
        elif kind == "move":  # part of what has just passed
            watch.at += seconds
            clock.move(phase, seconds / 2)
        elif kind == "take":
            total += math.fsum(clock.take().values())
    total += math.fsum(clock.take().values())
    assert total == pytest.approx(watch.at - began)


def test_a_phase_ends_with_its_block(watch):
    clock = Clock("step", watch)
    with pytest.raises(ZeroDivisionError), clock.phase("eval"):
        watch.at += 2.0
        raise ZeroDivisionError
    watch.at += 1.0
    assert clock.take() == {"step": 1.0, "eval": 2.0}
    assert clock.take() == {}


def test_compiling_is_found_wherever_it_happens(meters, watch, tmp_path):
    """XLA compiles during an evaluation: it counts as compiling; another thread's does not."""
    with meters() as m:
        m.begin(0, undone=[])
        watch.at += 1.0
        with m.clock.phase("eval"):
            watch.at += 6.0
            jax.monitoring.record_event_duration_secs(COMPILED, 4.0)
            other = threading.Thread(
                target=jax.monitoring.record_event_duration_secs, args=(COMPILED, 50.0)
            )
            other.start()
            other.join()
        m.row(1, LOAD, {})
    jax.monitoring.record_event_duration_secs(COMPILED, 9.0)  # closed: nobody listens
    (row,) = rows_of(tmp_path / "meters.jsonl")
    assert row["seconds"] == {"compile": 4.0, "step": 1.0, "eval": 2.0}


def test_jax_reports_compiling_under_this_name():
    heard = []

    def listen(event, duration_secs, **_):
        heard.append((event, duration_secs))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x * 3 - 1)(jnp.arange(11))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert any(event == COMPILED and seconds > 0 for event, seconds in heard)


def test_a_full_disk_is_an_error(meters, watch, tmp_path):
    (tmp_path / "meters.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="cannot write"), meters() as m:  # and once more at close
        m.begin(0, undone=[])
        watch.at += 1.0
        with pytest.raises(StorageError, match="cannot write"):
            m.row(1, LOAD, {})


# ---- TensorBoard ------------------------------------------------------------------------------


def records(path):
    """The records of an event file: length, checksum, bytes, checksum (TFRecord)."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += 12 + length + 4


def written(meters, watch, folder):
    with meters(tensorboard=folder) as m:
        m.begin(4, undone=[])
        watch.at += 2.0
        m.row(5, LOAD, {"train_loss": 1.5, "valid_loss": None})
    (path,) = folder.iterdir()
    return path


EXPECTED = {
    "train_loss": 1.5,
    "tokens_per_second": 24.0,
    "loss_tokens_per_second": 6.0,
    "packing_efficiency": 0.75,
    "seconds/step": 2.0,
}


def check_events(events):
    events = list(events)
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].step, events[1].session_log.status) == (5, 1)  # START: 5 and later is void
    scalars = {}
    for event in events[2:]:
        (value,) = event.summary.value
        assert event.step == 5
        plain = value.WhichOneof("value") == "simple_value"
        scalars[value.tag] = value.simple_value if plain else value.tensor.float_val[0]
    assert EXPECTED.items() <= scalars.items()
    assert set(scalars) - set(EXPECTED) == {"mfu", "model_flops"}


def test_event_files_hold_all_figures(meters, watch, tmp_path):
    protocol = pytest.importorskip("tensorboardX.proto.event_pb2")
    path = written(meters, watch, tmp_path / "tensorboard")
    check_events(protocol.Event.FromString(record) for record in records(path))


def test_tensorboard_reads_them(meters, watch, tmp_path):
    pytest.importorskip("tensorboardX")
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")

    path = written(meters, watch, tmp_path / "tensorboard")
    check_events(loader.EventFileLoader(str(path)).Load())


def test_a_full_disk_is_an_error_of_event_files_too(tmp_path):
    pytest.importorskip("tensorboardX")
    events = Events(tmp_path / "tensorboard", 0)
    events._writer.close()
    with open("/dev/full", "wb", buffering=0) as full:
        events._writer._py_recordio_writer._writer = full
        with pytest.raises(StorageError, match="cannot write"):
            events.write(1, {"loss": 1.0})


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.delitem(sys.modules, "tensorboardX.event_file_writer", raising=False)
    with pytest.raises(MissingExtra, match=r"pip install 'opengrok-jax\[tensorboard\]'"):
        check_tensorboard()
