"""The Phi-3 decoder in Flax NNX: embedding, scanned blocks, final norm, and a head apart.

Parameter paths are the names of the HF checkpoint without "model." and without the layer number:
the parameters of all blocks are stacked along a leading axis L, and `jax.lax.scan` walks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32, Int

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.attention import Rule, attend, attention, check_rule, visible_in_cache
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.rope import apply_rope, rope_angles, segment_lengths, segment_positions
from opengrok_jax.model.sharding import constrain

Remat = Literal["none", "full", "dots"]
# (q, k, v) after RoPE -> what the attention gives, and whatever of k and v is to be kept.
Mix = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]


class Cache(NamedTuple):
    """Keys (after RoPE) and values of all layers and of the K heads, in the decoder's dtype."""

    keys: Float[Array, "L B S K H"]
    values: Float[Array, "L B S K H"]


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

    def __call__(self, x: Float[Array, "*rows inputs"]) -> Float[Array, "*rows outputs"]:
        """Multiplies in `dtype`."""
        return jnp.einsum(
            "...i,oi->...o", x.astype(self.dtype), self.weight[...].astype(self.dtype)
        )


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


class MLP(nnx.Module):
    """down(silu(gate x) * up x), with gate and up in one projection, gate first."""

    def __init__(self, config: Phi3Config, **init: Any):
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_up_proj = Linear(width, 2 * inner, config, **init)
        self.down_proj = Linear(inner, width, config, **init)

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Each token for itself."""
        gate, up = jnp.split(self.gate_up_proj(x), 2, axis=-1)
        return self.down_proj(constrain(jax.nn.silu(gate) * up, "batch", None, "mlp"))


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
        return jnp.take(self.weight[...], tokens, axis=0, mode="fill", fill_value=jnp.nan)


class Phi3(nnx.Module):
    """A Phi3ForCausalLM. `hidden` runs the decoder, `logits` the head, apart from it so that
    training multiplies only the rows that bear loss by the V x D matrix.

    dtype        what the matrices are multiplied in; norms, softmax and rotations are float32
    param_dtype  what the parameters are stored in
    remat        what the backward pass keeps of each block: "none" = everything is kept,
                 "full" = only the block's input, "dots" = also the results of the projections
    """

    def __init__(
        self,
        config: Phi3Config,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: Remat = "none",
    ):
        if remat not in get_args(Remat):
            raise ConfigError(f"remat={remat!r} is unknown; choose one of {list(get_args(Remat))}")
        self.config, self.dtype, self.remat = config, dtype, remat
        init: dict[str, Any] = {"rngs": rngs, "dtype": dtype, "param_dtype": param_dtype}
        self.embed_tokens = Embedding(config, rngs, param_dtype)
        self.layers = Block(config, stack=(config.num_hidden_layers,), **init)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps, param_dtype)
        tied = config.tie_word_embeddings
        self.lm_head = (
            None if tied else Linear(config.hidden_size, config.vocab_size, config, **init)
        )

    def hidden(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        key_mask: Bool[Array, "B T"] | None = None,
        rule: Rule = "none",
    ) -> Float[Array, "B T D"]:
        """The decoder's output after the final norm, in `dtype`.

        segment_ids tell packed examples apart, 0 = padding; positions count within each segment
        (computed if None); key_mask True = may be attended to, read by the rules "multiply" and
        "exclude" (see `attention`). Raises ConfigError for a row longer than
        `max_position_embeddings`, an unknown rule or a missing key mask.
        """
        return self._decoder(tokens, segment_ids, positions, key_mask, rule, keep=False)[0]

    def prefill(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        key_mask: Bool[Array, "B T"] | None = None,
        rule: Rule = "none",
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """`hidden` of one example a row, flush left, and the keys and values for `step`."""
        hidden, kept = self._decoder(tokens, segment_ids, None, key_mask, rule, keep=True)
        return hidden, Cache(*kept)

    def step(
        self,
        tokens: Int[Array, " B"],
        at: Int[Array, " B"],
        cache: Cache,
        key_mask: Bool[Array, "B S"] | None = None,
        rule: Rule = "none",
    ) -> tuple[Float[Array, "B D"], Cache]:
        """One more token of each row, at index `at`: its `hidden`, and the cache with its keys.

        The cache holds the indices before `at`; what it holds from `at` on plays no part.

        With LongRoPE the token turns by the factors of a row of at + 1 tokens. The cached keys
        must have been made by the same ones: the caller prefills anew when a row grows beyond
        `original_max_position_embeddings`. Raises ConfigError for an unknown rule or a missing
        key mask.
        """
        positions, rows = at[:, None], jnp.arange(at.shape[0])
        cos, sin = rope_angles(self.config, positions, positions + 1)
        window, slots = self.config.sliding_window, cache.keys.shape[2]
        visible = visible_in_cache(at, slots, key_mask, rule, window)
        multiplier = key_mask if rule == "multiply" else None
        x = self.embed_tokens(tokens[:, None]).astype(self.dtype)
        graph, stacked = nnx.split(self.layers)

        # The cache is carried, not scanned over: so one token is written where it lies, and the
        # rest is not copied at every step.
        def step(
            carry: tuple[jax.Array, Cache], layer: Any
        ) -> tuple[tuple[jax.Array, Cache], None]:
            (x, cache), (number, parameters) = carry, layer

            def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Cache]:
                grown = Cache(
                    cache.keys.at[number, rows, at].set(k[:, 0]),
                    cache.values.at[number, rows, at].set(v[:, 0]),
                )
                keys, values = (
                    jax.lax.dynamic_index_in_dim(part, number, keepdims=False) for part in grown
                )
                return attend(q, keys, values, visible, multiplier), grown

            return nnx.merge(graph, parameters)(x, cos, sin, mix), None

        layers = (jnp.arange(self.config.num_hidden_layers), stacked)
        (x, cache), _ = jax.lax.scan(step, (x, cache), layers)
        return self.norm(x)[:, 0], cache

    def _decoder(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None,
        key_mask: Bool[Array, "B T"] | None,
        rule: Rule,
        *,
        keep: bool,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """`hidden`, and with `keep` the keys and values of every layer, (L, B, T, K, H) each."""
        check_rule(rule, key_mask)
        limit = self.config.max_position_embeddings
        if tokens.shape[1] > limit:
            raise ConfigError(
                f"a row of {tokens.shape[1]} tokens is more than max_position_embeddings={limit}; "
                "use shorter rows or a long-context checkpoint"
            )
        if positions is None:
            positions = segment_positions(segment_ids)
        lengths = segment_lengths(segment_ids, positions)
        cos, sin = rope_angles(self.config, positions, lengths)
        x = constrain(self.embed_tokens(tokens).astype(self.dtype), "batch", None, None)
        graph, stacked = nnx.split(self.layers)

        def mix(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
            window = self.config.sliding_window
            mixed = attention(q, k, v, key_mask, segment_ids, rule, positions, window)
            return mixed, (k, v) if keep else None

        def step(x: jax.Array, layer: Any) -> tuple[jax.Array, Any]:
            return nnx.merge(graph, layer)(x, cos, sin, mix)

        if self.remat != "none":
            dots = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            # Inside a scan nothing can be merged across the loop, so the guard against it is cost.
            step = jax.checkpoint(
                step, prevent_cse=False, policy=dots if self.remat == "dots" else None
            )
        x, kept = jax.lax.scan(step, x, stacked)
        return self.norm(x), kept

    def logits(self, hidden: Float[Array, "*rows D"]) -> Float32[Array, "*rows V"]:
        """The head on any rows of `hidden`, multiplied in `dtype`, summed and given in float32."""
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        return jnp.einsum(
            "...d,vd->...v",
            hidden.astype(self.dtype),
            head.weight[...].astype(self.dtype),
            preferred_element_type=jnp.float32,
        )

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        key_mask: Bool[Array, "B T"] | None = None,
        rule: Rule = "none",
    ) -> Float32[Array, "B T V"]:
        """All logits: for tests and short rows; training goes through `hidden` and `logits`."""
        return self.logits(self.hidden(tokens, segment_ids, positions, key_mask, rule))
