"""Masks of each epoch: the same whatever the packing, the mesh, or how often the run was killed."""

import dataclasses
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax import chance
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masked_file import write_masked
from opengrok_jax.training import batches, finetune, packing
from opengrok_jax.training.redraw import Redraw, example_keys, visible
from opengrok_jax.training.settings import mask_seed
from opengrok_jax.training.splits import pack_splits
from tests.together import together
from tests.training.conftest import VOCAB

SEED = 11


@pytest.fixture(scope="module")
def drawn(examples):
    """The examples with chances, and the stored mask that belongs to them."""
    rng = np.random.default_rng(1)
    result = []
    for one in examples:
        keep_prob = rng.uniform(0.2, 0.9, len(one.tokens)).astype(np.float32)
        keep_prob[0] = keep_prob[-1] = 1
        u = chance.of_tokens(SEED, [one.id], "draw", np.array([len(one.tokens)]))
        result.append(dataclasses.replace(one, keep_prob=keep_prob, key_mask=u < keep_prob))
    return result


@pytest.fixture(scope="module")
def drawn_file(drawn, tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "masked.parquet"
    write_masked(path, drawn, {"tokenizer": "", "vocab_size": VOCAB, "seed": SEED})
    return path


def masks(examples, row_tokens, rows_per_batch):
    """(epoch, id) -> the mask that the device draws, for three epochs in some packing."""
    data = batches.packed(
        examples,
        lambda rows: packing.data_order(
            rows, rows_per_batch=rows_per_batch, epochs=3.0, max_steps=0, seed=row_tokens
        ),
        row_tokens=row_tokens,
        normalize="token",
        redraw_seed=SEED,
    )
    on_device = jax.jit(visible)
    found = {}
    for index in range(len(data.order)):
        batch = data.batch(index)
        assert batch.redraw is not None
        mask = np.asarray(on_device(batch.key_mask, batch.positions, batch.redraw))
        assert not mask[batch.segment_ids == 0].any()
        for b, row in enumerate(data.order[index]):
            if row < 0:
                continue
            for segment, at in enumerate(data.rows[row], start=1):
                here = batch.segment_ids[b] == segment
                epoch = int(batch.redraw.epoch[b][here][0])
                assert (epoch, examples[at].id) not in found, "each example once an epoch"
                found[epoch, examples[at].id] = mask[b][here]
    return found


def test_the_masks_are_those_of_the_formula_in_every_epoch(drawn):
    found = masks(drawn, 48, 4)
    assert len(found) == 3 * len(drawn)
    for one in drawn:
        for epoch in range(3):
            key = chance.keys(SEED, [one.id], "draw").repeat(len(one.tokens), axis=0)
            index = np.arange(len(one.tokens), dtype=np.uint32)
            u = chance.uniform(key, index, np.full_like(index, epoch))
            np.testing.assert_array_equal(found[epoch, one.id], u < one.keep_prob)
        np.testing.assert_array_equal(found[0, one.id], one.key_mask)
        assert found[1, one.id][[0, -1]].all()
    changed = [(found[1, e.id] != found[0, e.id]).mean() for e in drawn]
    assert np.mean(changed) > 0.2


def test_another_packing_and_order_draw_the_same_masks(drawn):
    one, other = masks(drawn, 48, 4), masks(drawn, 61, 3)
    assert one.keys() == other.keys()
    for name, mask in one.items():
        np.testing.assert_array_equal(mask, other[name])


def test_the_rate_over_epochs_is_the_chance(drawn):
    one = drawn[0]
    epochs, count = 4000, len(one.tokens)
    redraw = Redraw(
        np.tile(one.keep_prob, (epochs, 1)),
        np.tile(example_keys(SEED, [one]), (epochs, count, 1)),
        np.repeat(np.arange(epochs, dtype=np.uint32)[:, None], count, axis=1),
    )
    positions = np.tile(np.arange(count, dtype=np.int32), (epochs, 1))
    rates = np.asarray(visible(np.zeros((epochs, count), bool), positions, redraw)).mean(axis=0)
    np.testing.assert_allclose(rates, one.keep_prob, atol=4 * 0.5 / epochs**0.5)


def test_nothing_to_draw_from_leaves_the_stored_mask():
    stored = jnp.array([[True, False]])
    assert visible(stored, jnp.array([[0, 1]]), None) is stored


MESH = """
import jax, numpy as np, sys
from opengrok_jax import chance
from opengrok_jax.training.redraw import Redraw, visible
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
assert jax.device_count() == 4
key = np.repeat(chance.keys(1, [f"i{n}" for n in range(8)], "draw"), 16, axis=0).reshape(8, 16, 2)
index = np.tile(np.arange(16, dtype=np.int32), (8, 1))
keep, epoch = np.full((8, 16), 0.5, np.float32), np.full((8, 16), 5, np.uint32)
expected = chance.uniform(key, index.astype(np.uint32), epoch) < keep
for shape in ((4, 1), (2, 2), (1, 4)):
    mesh = Mesh(np.array(jax.devices()).reshape(shape), ("data", "tensor"))
    put = lambda x: jax.device_put(x, NamedSharding(mesh, P("data")))
    batch = jax.tree.map(put, (np.zeros((8, 16), bool), index, Redraw(keep, key, epoch)))
    assert (np.asarray(jax.jit(visible)(*batch)) == expected).all()
"""


def test_the_mesh_does_not_change_a_mask():
    together(MESH, count=1, devices=4)


def test_a_killed_run_sees_the_masks_of_an_uninterrupted_one(
    settings, drawn_file, start, metrics, tmp_path
):
    given = settings | {"masked_file": drawn_file, "draw": "per_epoch", "max_steps": 16}
    given |= {"save_every": 1, "eval_every": 8, "rule": "multiply"}
    whole, fixed, killed = (tmp_path / name for name in ("whole", "fixed", "killed"))
    finetune.run(**given | {"out": whole})
    finetune.run(**given | {"out": fixed, "draw": "fixed"})
    process = start(given | {"out": killed})
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        path = killed / "metrics.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= 9:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "summary.json").exists()
    finetune.run(**given | {"out": killed})
    assert (killed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    rows, stored = metrics(whole), metrics(fixed)
    assert rows[0]["train_loss"] == stored[0]["train_loss"], "the first epoch is the stored mask"
    assert rows[-1]["train_loss"] != stored[-1]["train_loss"]


def test_a_file_that_cannot_be_drawn_again_is_refused(settings, examples, drawn, tmp_path):
    given = settings | {"draw": "per_epoch", "out": tmp_path / "out"}
    with pytest.raises(DataError, match="says seed None; draw 'per_epoch' goes on with the seed"):
        finetune.run(**given)
    sizes = {"row_tokens": 48, "rows_per_batch": 4, "microbatches": 1, "epochs": 1.0}
    sizes |= {"max_steps": 0, "eval_every": 0, "normalize": "token", "seed": 0}
    with pytest.raises(DataError, match="hides its first token"):
        pack_splits(examples, masked_file=tmp_path, vocab_size=64, **sizes, redraw_seed=1)
    with pytest.raises(ConfigError, match="draw is 'per_epoch'; expected 'fixed' with rule 'none'"):
        finetune.run(**given | {"rule": "none"})
    with pytest.raises(ConfigError, match="draw is 'always'; expected one of fixed, per_epoch"):
        finetune.run(**given | {"draw": "always"})


def test_the_seed_is_the_masks(tmp_path):
    assert mask_seed({"seed": 4}, tmp_path) == 4
