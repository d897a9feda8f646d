"""Counted by hand, by brute force, and by XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.model.attention import visible_keys
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.lora import ADAPTERS, adapt
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.training.batches import Batch, fill
from opengrok_jax.training.flops import Load, load, matrix_sizes, train_flops
from opengrok_jax.training.losses import cross_entropy, weighted_sum


def drawn():
    """The drawing in the docstring of `load`."""
    rows = """
        1 1 1 1 2 2 0
        0 1 2 3 0 1 0
        0 0 1 0 1 0 0
    """
    segments, positions, weight = (
        np.array([line.split()], np.int32) for line in rows.strip().splitlines()
    )
    other = np.zeros_like(segments)
    return Batch(
        other, segments, positions, segments > 0, other, weight.astype(np.float32), other * 1.0
    )


def test_the_drawing():
    assert load(drawn(), None) == Load(places=7, tokens=6, loss_tokens=2, pairs=13)
    assert load(drawn(), 2).pairs == 10


@pytest.mark.parametrize("window", [None, 1, 5, 100])
def test_pairs_are_those_that_attention_lets_see(examples, window):
    batch = fill([[0, 1, 2], [3], []], examples, row_tokens=72, normalize="token")
    visible = visible_keys(None, jnp.asarray(batch.segment_ids), "none", window)
    assert load(batch, window).pairs == int(visible.sum())


def test_by_hand():
    config = Phi3Config.tiny(
        10,
        hidden_size=4,
        intermediate_size=3,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    # A layer: qkv 4 x (2 + 2) 2 = 32, out 4 x 4 = 16, gate and up 2 x 4 x 3 = 24, down 12: 84.
    assert matrix_sizes(config) == (168, 40)
    # Attention: 13 pairs x 2 layers x 2 heads x 2 wide x (scores, mixing) = 208.
    assert train_flops(config, load(drawn(), None)) == 6 * (168 * 6 + 40 * 2 + 208)


def test_adapters_by_hand():
    """Beside them no gradient of a matrix is formed: 4 a number and token instead of 6."""
    config = Phi3Config.tiny(
        10,
        hidden_size=4,
        intermediate_size=3,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = nnx.eval_shape(
        lambda: adapt(
            Phi3(config, rngs=nnx.Rngs(0)), rank=2, alpha=4.0, targets=["down_proj"],
            rngs=nnx.Rngs(0),
        )
    )  # fmt: skip
    adapters = sum(p.size for p in jax.tree.leaves(nnx.state(model, ADAPTERS)))
    assert adapters == 2 * 2 * (3 + 4)  # layers, rank, into and out of down_proj
    frozen, learnt, attention = 168 * 6 + 40 * 2, 28 * 6, 208
    expected = 4 * frozen + 6 * learnt + 6 * attention
    assert train_flops(config, load(drawn(), None), adapters) == expected
    assert train_flops(config, load(drawn(), None)) == 6 * (frozen + attention)


def test_phi3_mini_has_the_published_size():
    """3.82 billion parameters are the matrices, an embedding as large as the head, and norms."""
    config = Phi3Config()
    layers, head = matrix_sizes(config)
    norms = (2 * config.num_hidden_layers + 1) * config.hidden_size
    assert layers + 2 * head + norms == 3_821_079_552


def test_xla_counts_the_same_on_one_dense_row():
    """One document fills the row and bears loss everywhere. The dense attention multiplies all
    T x T pairs, so the pairs after the query are added here; within 3 %: XLA also counts norms,
    softmax, rotations and the loss, element by element. One layer: of a loop XLA counts the body once.
    """
    config = Phi3Config.tiny(
        512, hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4
    )
    row = 512
    ones = np.ones((1, row), np.float32)
    positions = np.arange(row, dtype=np.int32)[None]
    tokens = positions % 512
    batch = Batch(tokens, np.ones_like(tokens), positions, ones > 0, tokens, ones, ones)
    graph, params = nnx.split(
        nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0), attention="dense"))
    )

    def loss(params, batch):
        model = nnx.merge(graph, params)
        hidden = model.hidden(batch.tokens, batch.segment_ids, batch.positions)
        return weighted_sum(
            lambda hidden, targets: cross_entropy(model.logits(hidden), targets),
            (hidden, batch.targets),
            batch.loss_weight,
            capacity=row,
        )

    compiled = jax.jit(jax.grad(loss)).lower(params, batch).compile()
    cost = compiled.cost_analysis() or {}
    count = load(batch, None)
    assert count == Load(places=row, tokens=row, loss_tokens=row, pairs=row * (row + 1) // 2)
    dense = count._replace(pairs=row * row)
    assert cost["flops"] == pytest.approx(train_flops(config, dense), rel=0.03)
