"""The loop alone: updates and evaluations are played from lists, checkpoints are real."""

import contextlib
import json
import math
import os
import shutil
import signal
import threading
import time
from operator import itemgetter

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from opengrok_jax.errors import StorageError, TrainingError
from opengrok_jax.training import batches, sigterm
from opengrok_jax.training.checkpoints import Checkpoints
from opengrok_jax.training.loop import Standing, rewind, train
from opengrok_jax.training.meters import Clock, Meters
from opengrok_jax.training.step import StepReport, TrainState


@pytest.fixture
def data(examples):
    """Ten steps of one row with one example."""
    order = np.arange(10, dtype=np.int32)[:, None]
    rows = [[i] for i in range(10)]
    return batches.Packed(
        examples=examples, rows=rows, order=order, row_tokens=32, normalize="token"
    )


@pytest.fixture
def play(data, tiny, tmp_path):
    """Runs the loop in `out` from its newest checkpoint; `losses` and `valid` by step."""

    def run(
        losses=(1.0,) * 10,
        valid=None,
        norms=(1.0,) * 10,
        asked_to_end=lambda: False,
        evaluated=lambda: None,
        place=lambda batch: batch,
        sent=None,
        out=tmp_path,
        **changes,
    ):
        out.mkdir(exist_ok=True)

        def rows():
            return len((out / "metrics.jsonl").read_bytes().splitlines())

        def update(state, batch):
            index = int(state.step)
            if sent is not None:  # rows that are there when an update is sent off
                sent.append(rows())
            np.testing.assert_array_equal(batch.tokens, data.batch(index).tokens)
            report = StepReport(*map(jnp.asarray, (losses[index], norms[index], 0.5)))
            return TrainState(state.step + 1, {"w": state.params["w"] + 1}, state.opt_state), report

        def evaluate(params):
            loss = (valid or {})[rows() + 1]
            evaluated()
            return loss, [] if math.isfinite(loss) else ["an example"]

        given = {"eval_every": 2, "patience": 0, "min_improvement": 0.0, "save_every": 3} | changes
        zero = TrainState(jnp.int32(0), {"w": jnp.zeros(3)}, {"m": jnp.zeros(3)})
        with (
            contextlib.closing(Checkpoints(out / "checkpoints")) as checkpoints,
            contextlib.closing(
                Meters(
                    out / "meters.jsonl",
                    Clock("start"),
                    config=tiny,
                    device_kind="TPU v4",
                    devices=2,
                )
            ) as meters,
        ):
            found = checkpoints.restore(zero, lambda host: None)
            state, standing = zero, Standing()
            if found:
                state, host = found
                standing = Standing(**{k: v for k, v in host.items() if k != "settings"})
            return train(
                state,
                standing,
                data=data,
                place=place,
                update=update,
                evaluate=evaluate if valid else None,
                checkpoints=checkpoints,
                metrics=out / "metrics.jsonl",
                meters=meters,
                settings={"seed": 1},
                asked_to_end=asked_to_end,
                **given,
            )

    return run


def test_rows_of_the_metrics(play, tmp_path, metrics):
    standing = play(losses=np.arange(10.0), valid={2: 5.0, 4: 4.0, 6: 4.5, 8: 4.25, 10: 4.0})
    assert standing == Standing(step=10, best_step=4, best_valid_loss=4.0, misses=3)
    assert metrics(tmp_path) == [
        {
            "step": n,
            "train_loss": n - 1.0,
            "learning_rate": 0.5,
            "grad_norm": 1.0,
            "valid_loss": {2: 5.0, 4: 4.0, 6: 4.5, 8: 4.25, 10: 4.0}.get(n),
        }
        for n in range(1, 11)
    ]
    assert sorted(p.name for p in (tmp_path / "checkpoints" / "last").iterdir()) == ["10", "9"]


def kept(out):
    """What lies in checkpoints/: by kind and step, the value of the parameters."""
    return {
        kind: {
            int(p.name): float(of_params(ocp.StandardCheckpointer().restore(p / "arrays"))["w"][0])
            for p in (out / "checkpoints" / kind).iterdir()
        }
        for kind, of_params in [("last", itemgetter("params")), ("best", lambda params: params)]
    }


def test_patience_counts_evaluations_without_enough_improvement(play, tmp_path, metrics):
    valid = {2: 5.0, 4: 4.0, 6: 3.95, 8: 4.5, 10: 1.0}
    standing = play(valid=valid, patience=2, min_improvement=0.1)
    assert standing == Standing(step=8, best_step=4, best_valid_loss=4.0, misses=2)
    assert len(metrics(tmp_path)) == 8
    again = play(valid=valid, patience=2, min_improvement=0.1)  # nothing is left to do
    assert again == standing
    assert len(metrics(tmp_path)) == 8


def test_without_evaluations_the_last_state_is_the_best(play, tmp_path):
    assert play(eval_every=0) == Standing(step=10, best_step=10)
    assert [p.name for p in (tmp_path / "checkpoints" / "best").iterdir()] == ["10"]


def test_an_update_is_sent_before_the_one_before_it_is_noted(play):
    """But for those after which the state is evaluated or kept: 4 and 8 (evaluated), 6 (kept)."""
    sent = []
    valid = {4: 5.0, 8: 4.0, 10: 3.0}
    play(valid=valid, eval_every=4, save_every=6, sent=sent)
    #               update 1  2  3  4  5  6  7  8  9 10
    assert sent == [0, 0, 1, 2, 4, 4, 6, 6, 8, 8]


def test_a_batch_that_cannot_be_made_ends_it(play, data, tmp_path, metrics):
    def place(batch):
        if (batch.tokens == data.batch(5).tokens).all():
            raise OSError("bad sector")
        return batch

    with pytest.raises(OSError, match="bad sector"):
        play(place=place)
    assert not [t for t in threading.enumerate() if t.name == "feed"]
    assert len(metrics(tmp_path)) == 4  # step 5 was under way
    assert play().step == 10


def test_meters_of_an_interrupted_run(play, tmp_path):
    """States are kept at 3, 6, 9; step 8 fails, so the first process's step 7 is lost."""
    losses = [1.0] * 7 + [float("nan")] * 3
    with pytest.raises(TrainingError):
        play(losses=losses)
    path = tmp_path / "meters.jsonl"
    first = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["step"] for row in first] == list(range(1, 8))
    assert "start" in first[0]["seconds"]
    assert "compile" in first[0]["seconds"]
    assert [row["step"] for row in first if "save" in row["seconds"]] == [3, 6]
    play()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[:6] == first[:6]
    assert [row["step"] for row in rows] == list(range(1, 11))
    undone = math.fsum(first[6]["seconds"].values())
    assert rows[6]["seconds"]["lost"] == pytest.approx(undone, abs=1e-6)
    assert all(row["tokens_per_second"] > 0 and row["mfu"] > 0 for row in rows)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["losses", "norms"])
def test_a_number_that_is_not_finite_ends_it(play, data, tmp_path, metrics, bad, where):
    numbers = [1.0] * 10
    numbers[7] = bad
    with pytest.raises(TrainingError, match=f"step 8: .*{data.examples[7].id}"):
        play(**{where: numbers})
    assert len(metrics(tmp_path)) == 7  # no row that is not JSON
    assert play().step == 10  # from the kept checkpoint, step 6, with numbers that are finite


def test_a_validation_loss_that_is_not_finite_ends_it(play, tmp_path):
    with pytest.raises(TrainingError, match=r"step 4: validation loss nan.*an example"):
        play(valid={2: 5.0, 4: float("nan")}, save_every=2)
    assert kept(tmp_path) == {"last": {2: 2.0}, "best": {2: 2.0}}  # not that of the bad one


def test_sigterm_keeps_the_state(play, tmp_path, metrics):
    losses = np.arange(10.0)

    asked = 0
    before = signal.getsignal(signal.SIGTERM)
    with sigterm.noted() as came:

        def at_the_fifth():
            nonlocal asked
            asked += 1
            if asked == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            return came()

        with pytest.raises(SystemExit) as caught:
            play(losses=losses, asked_to_end=at_the_fifth)
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(metrics(tmp_path)) == 5
    assert (tmp_path / "checkpoints" / "last" / "5").is_dir()
    assert play(losses=losses).step == 10
    assert [row["train_loss"] for row in metrics(tmp_path)] == losses.tolist()


class DiedError(Exception):
    """The process ends here, as far as the loop can see."""


@pytest.mark.parametrize("save_every", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_died_at_any_moment_it_stops_where_it_would_have(play, tmp_path, metrics, save_every):
    """Early stopping after step 8: whatever of an evaluation was done is done again alike.

    It dies when an update was sent off, when a loss was evaluated, and when that is not yet noted.
    """
    given = {"valid": {2: 5.0, 4: 4.0, 6: 4.5, 8: 4.25, 10: 1.0}, "patience": 2}
    given |= {"save_every": save_every, "losses": np.arange(10.0)}
    expected = play(out=tmp_path / "whole", **given)
    assert expected == Standing(step=8, best_step=4, best_valid_loss=4.0, misses=2)
    assert kept(tmp_path / "whole")["best"] == {4: 4.0}
    moments = 0

    def die_at(moment):
        nonlocal moments
        moments = 0

        def pass_or_die():
            nonlocal moments
            moments += 1
            if moments == moment:
                raise DiedError
            return False

        return {"asked_to_end": pass_or_die, "evaluated": pass_or_die}

    play(out=tmp_path / "counted", **given, **die_at(0))
    assert moments == 8 + 4 + 4
    for moment in range(1, moments + 1):
        out = tmp_path / str(moment)
        with pytest.raises(DiedError):
            play(out=out, **given, **die_at(moment))
        assert play(out=out, **given) == expected
        assert metrics(out) == metrics(tmp_path / "whole")
        found = kept(out)
        assert found["best"] == {4: 4.0}
        assert found["last"][8] == 8.0


def test_sigterm_in_an_evaluation_keeps_the_state_after_it(play, tmp_path, metrics):
    valid = {2: 5.0, 4: 4.0, 6: 4.5, 8: 4.25, 10: 1.0}
    with sigterm.noted() as came:

        def at_the_second():
            if len(metrics(tmp_path)) == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(SystemExit) as caught:
            play(valid=valid, evaluated=at_the_second, asked_to_end=came, save_every=0)
    assert caught.value.code == 143
    assert [row["valid_loss"] for row in metrics(tmp_path)] == [None, 5.0, None, 4.0]
    assert kept(tmp_path) == {"last": {4: 4.0}, "best": {4: 4.0}}
    assert play(valid=valid) == Standing(step=10, best_step=10, best_valid_loss=1.0)


def test_a_disk_that_fills_up_ends_it_and_it_goes_on_with_room_again(
    play, small_disk, tmp_path, metrics
):
    losses = np.arange(10.0)
    play(losses=losses, out=tmp_path / "whole")
    out, filler, asked = small_disk / "out", small_disk / "filler", 0

    def fill_up_at_the_fifth():
        nonlocal asked
        asked += 1
        if asked == 5:
            while not (out / "checkpoints" / "last" / "3").exists():  # written in the background
                time.sleep(0.01)
            with contextlib.suppress(OSError):  # to the last page
                filler.write_bytes(bytes(shutil.disk_usage(small_disk).free))
        return False

    with pytest.raises(StorageError, match="No space left on device; free some space") as caught:
        play(losses=losses, out=out, asked_to_end=fill_up_at_the_fifth)
    assert "\n" not in str(caught.value)
    with pytest.raises(StorageError, match="No space left on device; free some space"):
        play(losses=losses, out=out)  # still full
    filler.unlink()
    assert kept(out)["last"] == {3: 3.0}
    assert play(losses=losses, out=out).step == 10
    assert metrics(out) == metrics(tmp_path / "whole")
    assert kept(out) == kept(tmp_path / "whole")


@pytest.mark.parametrize(
    "torn", ["", '{"step": 3, "tr', '{"step": 3}', "\0\0\0\n", '{"stEp": 3}\n', "3\n"]
)
def test_rewind(tmp_path, torn):
    path = tmp_path / "metrics.jsonl"
    assert rewind(path, 0) == []
    assert path.read_text() == ""
    lines = [json.dumps({"step": n}) + "\n" for n in (1, 2)]
    path.write_text("".join(lines) + torn)
    assert rewind(path, 4) == []
    assert path.read_text() == "".join(lines)
    path.write_text("".join(lines) + torn)
    assert rewind(path, 1) == [{"step": 2}]
    assert path.read_text() == lines[0]


@pytest.mark.parametrize(("saved", "left"), [(10, 4), (10, 0), (6, 3)])
def test_rows_lost_from_outside_are_told_of(play, tmp_path, capsys, metrics, saved, left):
    """Of a finished run, and of one that was interrupted after its sixth step."""
    done = lambda: saved < 10 and len(metrics(tmp_path)) >= saved - 1  # noqa: E731
    with pytest.raises(SystemExit) if saved < 10 else contextlib.nullcontext():
        play(asked_to_end=done)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    assert len(whole) == saved
    assert "lost" not in capsys.readouterr().err
    path.write_bytes(b"".join([*whole[:left], whole[left][:9]]))
    assert play().step == 10
    assert f"holds {left} of the rows of {saved} steps" in capsys.readouterr().err
    assert [row["step"] for row in metrics(tmp_path)] == [
        *range(1, left + 1),
        *range(saved + 1, 11),
    ]
