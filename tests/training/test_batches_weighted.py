"""Loss weighed by keep_prob: the arrays of the drawing, and sums against NumPy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.tokenizer import RESPONSE
from opengrok_jax.training import batches, finetune, losses, packing
from tests.training.test_batches import drawn


def weighed(example):
    first, second = drawn(example)
    return [
        dataclasses.replace(first, keep_prob=np.array([1, 0.9, 0.8, 0.25, 1], np.float32)),
        dataclasses.replace(second, keep_prob=np.array([1, 0.5, 0.4, 1], np.float32)),
    ]


@pytest.mark.parametrize(
    ("normalize", "norm_weight"),
    [
        ("token", [0, 0, 0.25, 1, 0, 0, 0.4, 1, 0]),
        ("example", [0, 0, 1, 0, 0, 0, 1, 0, 0]),
    ],
)
def test_a_token_counts_as_much_as_it_is_likely_to_be_seen(example, normalize, norm_weight):
    form = {"row_tokens": 9, "normalize": normalize, "loss_by": "keep_prob"}
    batch = batches.fill([[0, 1]], weighed(example), **form)
    np.testing.assert_allclose(batch.loss_weight[0], [0, 0, 0.25, 1, 0, 0, 0.4, 1, 0])
    np.testing.assert_allclose(batch.norm_weight[0], norm_weight)
    plain = batches.fill([[0, 1]], weighed(example), row_tokens=9, normalize=normalize)
    for name in ("tokens", "segment_ids", "positions", "key_mask", "targets"):
        np.testing.assert_array_equal(getattr(batch, name), getattr(plain, name))


@pytest.mark.parametrize("normalize", ["token", "example"])
def test_sums_and_weights_are_numpys_whatever_the_packing(examples, normalize):
    rng = np.random.default_rng(2)
    data = [
        dataclasses.replace(
            e, keep_prob=np.append(1, rng.uniform(0, 1, len(e.tokens) - 1)).astype(np.float32)
        )
        for e in examples
    ]
    nll = rng.uniform(0, 4, 64)  # of each id

    expected = divisor = 0.0
    for e in data:
        of_answer = np.flatnonzero(e.roles == RESPONSE)
        kept = e.keep_prob[of_answer].astype(np.float64)
        expected += float((kept * nll[e.tokens[of_answer]]).sum())
        divisor += float(kept.sum()) if normalize == "token" else 1.0

    for rows in (
        [[i] for i in range(len(data))],
        packing.pack([len(e.tokens) for e in data], 48),
        [*packing.pack([len(e.tokens) for e in data], 64), []],
    ):
        batch = batches.fill(rows, data, row_tokens=64, normalize=normalize, loss_by="keep_prob")
        total = losses.weighted_sum(
            lambda targets: jnp.asarray(nll, jnp.float32)[targets],
            (jnp.asarray(batch.targets),),
            jnp.asarray(batch.loss_weight),
            capacity=batch.loss_weight.size,
        )
        np.testing.assert_allclose(float(total), expected, rtol=1e-5)
        np.testing.assert_allclose(batch.norm_weight.sum(dtype=np.float64), divisor, rtol=1e-5)


def test_an_unknown_weight_is_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match="loss_weight is 'half'; expected one of uniform, keep_"):
        finetune.run(**settings, out=tmp_path, loss_weight="half")
