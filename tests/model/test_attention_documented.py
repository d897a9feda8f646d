"""The numbers of docs/masking.md: what each rule does to the attention weights of four tokens."""

import math
import re

import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax.model.attention import attention


@pytest.fixture(scope="module")
def page(repository) -> str:
    return (repository / "docs" / "masking.md").read_text()


def weights(scores: list[float], mask: list[int], rule) -> np.ndarray:
    """The weights of the last token's query, from the model's own attention.

    The key of each token is its wanted score along one axis, the values are unit vectors, so that
    the output is the weights.
    """
    count = len(scores)
    width = count + 1
    q = np.zeros((1, count, 1, width), np.float32)
    q[..., 0] = math.sqrt(width)  # undoes the division by the root of the width
    k = np.zeros((1, count, 1, width), np.float32)
    k[0, :, 0, 0] = scores
    v = np.zeros((1, count, 1, width), np.float32)
    v[0, np.arange(count), 0, np.arange(count)] = 1
    out = attention(
        jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), jnp.asarray([mask], bool),
        jnp.ones((1, count), jnp.int32), rule=rule, implementation="dense",
    )  # fmt: skip
    return np.asarray(out)[0, -1, 0, :count]


def test_the_table_of_weights_is_what_attention_gives(page):
    rows = {
        cells[0]: cells[1:]
        for line in re.findall(r"^\| (.*) \|$", page, re.M)
        if len(cells := [cell.strip() for cell in line.split("|")]) == 5
    }
    scores = [float(cell) for cell in rows["score q.k"]]
    mask = [int(cell) for cell in rows["key_mask"]]
    assert mask.count(0) == 1
    hidden = mask.index(0)
    found = {}
    for rule in ("none", "multiply", "exclude"):
        said = [float(cell.strip("*")) for cell in rows[f"`{rule}`"]]
        found[rule] = weights(scores, mask, rule)
        assert said == pytest.approx(found[rule], abs=5e-4), rule
        assert sum(said) == pytest.approx(1, abs=2e-3)
    assert found["multiply"][hidden] > found["none"][hidden] > 0
    assert found["exclude"][hidden] == 0
    factor = re.search(r"([\d.]+) times as much", page)
    assert factor is not None
    assert float(factor[1]) == pytest.approx(
        found["multiply"][hidden] / found["none"][hidden], abs=0.05
    )


def test_a_masked_key_weighs_one_before_the_sum():
    """exp(0) = 1: whatever the score was, `multiply` gives a masked key the same weight."""
    for score in (-6.0, -1.0, 0.0, 3.0):
        got = weights([2.0, 1.0, score, 0.5], [1, 1, 0, 1], "multiply")
        total = math.exp(2) + math.exp(1) + 1 + math.exp(0.5)
        assert got[2] == pytest.approx(1 / total, rel=1e-5)
