"""The pieces of a decoder layer, each against NumPy."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.layers import MLP, Block, Embedding, Linear, RMSNorm, swiglu

CONFIG = Phi3Config.tiny(
    61, hidden_size=12, intermediate_size=7, num_attention_heads=3, num_key_value_heads=1
)
INIT = {"rngs": nnx.Rngs(0), "dtype": jnp.float32, "param_dtype": jnp.float32}
X = np.random.default_rng(0).normal(size=(2, 5, 12)).astype(np.float32)


def close(got: object, want: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(got), want, rtol=1e-5, atol=1e-6)


def test_linear_has_the_checkpoints_orientation() -> None:
    linear = Linear(12, 5, CONFIG, **INIT)
    assert linear.weight.shape == (5, 12)
    close(linear(jnp.asarray(X)), X @ np.asarray(linear.weight[...]).T)


def test_rms_norm() -> None:
    norm = RMSNorm(12, 1e-2, jnp.float32)
    weight = np.linspace(0.5, 2.0, 12, dtype=np.float32)
    norm.weight[...] = jnp.asarray(weight)
    want = X / np.sqrt((X**2).mean(-1, keepdims=True) + 1e-2) * weight
    close(norm(jnp.asarray(X)), want)
    half = norm(jnp.asarray(X, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(half, np.float32), want, atol=0.05)


def test_mlp_takes_the_gate_first() -> None:
    mlp = MLP(CONFIG, **INIT)
    both = np.asarray(mlp.gate_up_proj.weight[...])
    gate, up = X @ both[:7].T, X @ both[7:].T
    want = (gate / (1 + np.exp(-gate)) * up) @ np.asarray(mlp.down_proj.weight[...]).T
    close(mlp(jnp.asarray(X)), want)


def test_the_written_gradient_of_swiglu_is_that_of_its_formula() -> None:
    def formula(gate_up: jax.Array) -> jax.Array:
        gate, up = jnp.split(gate_up, 2, axis=-1)
        return gate * jax.nn.sigmoid(gate) * up

    def gradient(function: Callable[[jax.Array], jax.Array]) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(jnp.sin(function(x))))(3 * jnp.asarray(X))

    close(swiglu(jnp.asarray(X)), np.asarray(formula(jnp.asarray(X))))
    close(gradient(swiglu), np.asarray(gradient(formula)))


def test_block_adds_attention_and_mlp_to_what_came_in() -> None:
    block = Block(CONFIG, stack=(), **INIT)
    angles = jnp.zeros((2, 5, 2))

    def read_own_value(q, k, v):  # each token takes the value of itself: no mixing over tokens
        return jnp.repeat(v, q.shape[2] // v.shape[2], axis=2), "kept"

    out, kept = block(jnp.asarray(X), jnp.ones_like(angles), angles, read_own_value)
    assert kept == "kept"
    weights = {"qkv": block.self_attn.qkv_proj, "o": block.self_attn.o_proj}
    qkv, o = (np.asarray(layer.weight[...]) for layer in weights.values())
    value = np.asarray(block.input_layernorm(jnp.asarray(X))) @ qkv[-4:].T
    after = X + np.tile(value, 3) @ o.T
    want = after + np.asarray(block.mlp(block.post_attention_layernorm(jnp.asarray(after))))
    close(out, want)


def test_an_id_outside_the_table_gives_nan() -> None:
    table = Embedding(CONFIG, nnx.Rngs(0), jnp.float32)
    got = np.asarray(table(jnp.array([[0, 60, 61]])))
    close(got[0, :2], np.asarray(table.weight[...])[[0, 60]])
    assert np.isnan(got[0, 2]).all()
