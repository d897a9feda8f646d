"""What a decoder layer is made of: projections, norms, attention, MLP, and the embedding beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int

from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.rope import apply_rope
from opengrok_jax.model.sharding import constrain

# (q, k, v) after RoPE -> what the attention gives, and whatever of k and v is to be kept.
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


class Linear(nnx.Module):
    """x -> x W^T with W (outputs, inputs), as the checkpoint stores it; no bias.

    `stack` is the leading shape of W: (L,) for a block's projection, whose layer axis the scan
    takes away before the call, () otherwise.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        config: Phi3Config,
        *,
        stack: tuple[int, ...] = (),
        rngs: nnx.Rngs,
        dtype: DTypeLike,
        param_dtype: DTypeLike,
    ):
        initialise = nnx.initializers.normal(config.initializer_range)
        self.weight = nnx.Param(initialise(rngs.params(), (*stack, outputs, inputs), param_dtype))
        self.dtype = dtype
        self.lora: Callable[[jax.Array], jax.Array] | None = nnx.data(None)  # see lora.py

    def __call__(self, x: Float[Array, "*rows inputs"]) -> Float[Array, "*rows outputs"]:
        """Multiplies in `dtype`."""
        x = x.astype(self.dtype)
        y = jnp.einsum("...i,oi->...o", x, self.weight[...].astype(self.dtype))
        return y if self.lora is None else y + self.lora(x)


class RMSNorm(nnx.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis, in float32, returned in x's dtype."""

    def __init__(self, width: int, eps: float, param_dtype: DTypeLike, stack: tuple[int, ...] = ()):
        self.weight = nnx.Param(jnp.ones((*stack, width), param_dtype))
        self.eps = eps

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Normalises each token."""
        x32 = x.astype(jnp.float32)
        variance = jnp.mean(jnp.square(x32), axis=-1, keepdims=True)
        weight = self.weight[...].astype(jnp.float32)[None, None, :]
        return (x32 * jax.lax.rsqrt(variance + self.eps) * weight).astype(x.dtype)


class SelfAttention(nnx.Module):
    """Fused query-key-value projection, RoPE, masked attention, output projection."""

    def __init__(self, config: Phi3Config, **init: Any):
        self.config = config
        query = config.num_attention_heads * config.head_dim
        key = config.num_key_value_heads * config.head_dim
        self.qkv_proj = Linear(config.hidden_size, query + 2 * key, config, **init)
        self.o_proj = Linear(query, config.hidden_size, config, **init)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        cos: Float32[Array, "B T R"],
        sin: Float32[Array, "B T R"],
        mix: Mix,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """Lets `mix` attend; the second result is what it keeps."""
        config, (batch, tokens, _) = self.config, x.shape
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        qkv = self.qkv_proj(x).reshape(batch, tokens, heads + 2 * groups, config.head_dim)
        q, k, v = jnp.split(qkv, (heads, heads + groups), axis=2)
        q = constrain(apply_rope(q, cos, sin), "batch", None, "heads", None)
        k = constrain(apply_rope(k, cos, sin), "batch", None, "heads", None)
        v = constrain(v, "batch", None, "heads", None)
        mixed, kept = mix(q, k, v)
        return self.o_proj(mixed.reshape(batch, tokens, heads * config.head_dim)), kept


@jax.custom_vjp
def swiglu(gate_up: Float[Array, "*rows GU"]) -> Float[Array, "*rows I"]:
    """silu(gate) * up of the two halves of the last axis (arXiv:2002.05202)."""
    gate, up = jnp.split(gate_up, 2, axis=-1)
    return jax.nn.silu(gate) * up


def _swiglu_forward(gate_up: jax.Array) -> tuple[jax.Array, jax.Array]:
    return swiglu(gate_up), gate_up


def _swiglu_backward(gate_up: jax.Array, d_mixed: jax.Array) -> tuple[jax.Array]:
    gate, up = jnp.split(gate_up, 2, axis=-1)
    chance = jax.nn.sigmoid(gate)
    d_gate = d_mixed * up * chance * (1 + gate * (1 - chance))
    # Two products read this. Without the barrier XLA for GPUs joins the halves once for each.
    joined = jnp.concatenate([d_gate, d_mixed * gate * chance], axis=-1)
    return (jax.lax.optimization_barrier(joined),)


swiglu.defvjp(_swiglu_forward, _swiglu_backward)


class MLP(nnx.Module):
    """down(silu(gate x) * up x), with gate and up in one projection, gate first."""

    def __init__(self, config: Phi3Config, **init: Any):
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = Linear(width, 2 * inner, config, **init)
        self.down_proj = Linear(inner, width, config, **init)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Each token for itself."""
        return self.down_proj(constrain(swiglu(self.gate_up_proj(x)), "batch", None, "mlp"))


class Block(nnx.Module):
    """One decoder layer: attention and MLP, each after a norm and added to what came in."""

    def __init__(self, config: Phi3Config, **init: Any):
        norm = (config.hidden_size, config.rms_norm_eps, init["param_dtype"], init["stack"])
        self.input_layernorm = RMSNorm(*norm)
        self.self_attn = SelfAttention(config, **init)
        self.post_attention_layernorm = RMSNorm(*norm)
        self.mlp = MLP(config, **init)

    def __call__(
        self,
        x: Float[Array, "B T D"],
        cos: Float32[Array, "B T R"],
        sin: Float32[Array, "B T R"],
        mix: Mix,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """The sum, and what `mix` keeps."""
        mixed, kept = self.self_attn(self.input_layernorm(x), cos, sin, mix)
        x = x + mixed
        x = x + self.mlp(self.post_attention_layernorm(x))
        return constrain(x, "batch", None, None), kept


class Embedding(nnx.Module):
    """A table of V rows, one per token id."""

    def __init__(self, config: Phi3Config, rngs: nnx.Rngs, param_dtype: DTypeLike):
        initialise = nnx.initializers.normal(config.initializer_range)
        shape = (config.vocab_size, config.hidden_size)
        self.weight = nnx.Param(initialise(rngs.params(), shape, param_dtype))

    def __call__(self, tokens: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        """Looks the rows up; an id outside the vocabulary gives NaN rather than another token."""
        # Split by width, the rows would be looked up for every device's tokens and sent around; on
        # a mesh of three axes XLA even makes the whole batch on every device.
        table = constrain(self.weight[...], "vocab", None)
        return jnp.take(table, tokens, axis=0, mode="fill", fill_value=jnp.nan)
