"""The Phi-3 decoder in Flax NNX: embedding, scanned blocks, final norm, and a head apart.

Parameter paths are the names of the HF checkpoint without "model." and without the layer number:
the parameters of all blocks are stacked along a leading axis L, and `jax.lax.scan` walks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32, Int

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.attention import (
    Implementation,
    Rule,
    attend,
    attention,
    check_rule,
    visible_in_cache,
)
from opengrok_jax.model.blockwise import SAVED
from opengrok_jax.model.channels import kernel_saveable
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.layers import Block, Embedding, Linear, RMSNorm
from opengrok_jax.model.rope import rope_angles, segment_lengths, segment_positions
from opengrok_jax.model.sharding import constrain

Remat = Literal["none", "full", "dots", "offload"]

BLOCK_INPUT = "block_input"


class Cache(NamedTuple):
    """Keys (after RoPE) and values of all layers, in the decoder's dtype.

    A head's S slots lie together: a step reads all of them and so walks through memory in order.
    """

    keys: Float[Array, "L B K S H"]
    values: Float[Array, "L B K S H"]

    def constrain(self) -> Cache:
        """Laid out over the mesh by rows and by heads, see `sharding`."""
        return Cache(*(constrain(part, None, "batch", "heads", None, None) for part in self))


class Phi3(nnx.Module):
    """A Phi3ForCausalLM. `hidden` runs the decoder, `logits` the head, apart from it so that
    training multiplies only the rows that bear loss by the V x D matrix.

    dtype        what the matrices are multiplied in; norms, softmax and rotations are float32
    param_dtype  what the parameters are stored in
    remat        what the backward pass keeps of each block: "none" = everything is kept,
                 "full" = only the block's input, "dots" = also the results of the projections
                 and of attention, "offload" = the block's input, in the memory of the host
    attention    how attention is computed, see `attention`
    unroll       writes the blocks one after another instead of a loop: nothing is copied into and
                 out of the loop's stacks, and compiling takes longer with every block
    """

    def __init__(
        self,
        config: Phi3Config,
        *,
        rngs: nnx.Rngs,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        remat: Remat = "none",
        attention: Implementation = "auto",
        unroll: bool = False,
    ):
        for name, value, known in (
            ("remat", remat, Remat),
            ("attention", attention, Implementation),
        ):
            if value not in get_args(known):
                choices = list(get_args(known))
                raise ConfigError(f"{name}={value!r} is unknown; choose one of {choices}")
        self.config, self.dtype, self.remat = config, dtype, remat
        self.attention: Implementation = attention
        self.unroll = unroll
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
        return self._decoder(tokens, segment_ids, positions, key_mask, rule)[0]

    def hidden_states(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        positions: Int[Array, "B T"] | None = None,
        key_mask: Bool[Array, "B T"] | None = None,
        rule: Rule = "none",
        layers: Sequence[int] | None = None,
    ) -> Float[Array, "states B T D"]:
        """The states between the blocks, (L + 1, B, T, D): the `output_hidden_states` of HF.

        [0] is the embedding, [l] what block l gives to block l + 1 (counted from 1), and [L] is
        `hidden`: the last block's output after the final norm. Arguments, dtype and errors are
        those of `hidden`; so is the cost, but for the arrays that are given out.

        With `layers`, numbers from 1 to L, only those are given out, in that order, and only those
        are kept while the blocks run.
        """
        given = (tokens, segment_ids, positions, key_mask, rule)
        if layers is None:
            last, before = self._decoder(*given, keep="block inputs")
            return jnp.concatenate([before, last[None]])
        depth = self.config.num_hidden_layers
        inner = tuple(sorted({layer for layer in layers if layer != depth}))
        last, states = self._decoder(*given, keep=inner)
        return jnp.stack([last if i == depth else states[inner.index(i)] for i in layers])

    def prefill(
        self,
        tokens: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"],
        key_mask: Bool[Array, "B T"] | None = None,
        rule: Rule = "none",
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """`hidden` of one example a row, flush left, and the keys and values for `step`."""
        hidden, kept = self._decoder(tokens, segment_ids, None, key_mask, rule, keep="cache")
        return hidden, Cache(*(part.swapaxes(2, 3) for part in kept)).constrain()

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
        window, slots = self.config.sliding_window, cache.keys.shape[3]
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
                    cache.keys.at[number, rows, :, at].set(k[:, 0]),
                    cache.values.at[number, rows, :, at].set(v[:, 0]),
                ).constrain()
                keys, values = (
                    jax.lax.dynamic_index_in_dim(part, number, keepdims=False).swapaxes(1, 2)
                    for part in grown
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
        keep: Literal["cache", "block inputs"] | tuple[int, ...] | None = None,
    ) -> tuple[Float[Array, "B T D"], Any]:
        """`hidden`, and what is to be kept of every layer.

        keep  "cache" = keys and values, (L, B, T, K, H) each; "block inputs" = (L, B, T, D);
              numbers = what these blocks give, (numbers, B, T, D)
        """
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
            mixed = attention(q, k, v, key_mask, segment_ids, rule, window, self.attention)
            return mixed, (k, v) if keep == "cache" else None

        def step(x: jax.Array, layer: Any) -> tuple[jax.Array, Any]:
            x = checkpoint_name(x, BLOCK_INPUT)
            after, cached = nnx.merge(graph, layer)(x, cos, sin, mix)
            return after, x if keep == "block inputs" else cached

        if self.remat != "none":
            # Inside a loop nothing can be merged across it, so that the guard would only cost.
            step = jax.checkpoint(step, prevent_cse=self.unroll, policy=_kept(self.remat))
        if not isinstance(keep, tuple):
            x, kept = jax.lax.scan(step, x, stacked, unroll=self.unroll)
            return self.norm(x), kept

        # The states are carried and written outside of `step`: so the backward pass needs nothing
        # of them, and neither it nor remat keeps a copy for every layer. What the other blocks give
        # goes into one place more.
        def write(
            carry: tuple[jax.Array, jax.Array], layer: Any
        ) -> tuple[tuple[jax.Array, jax.Array], None]:
            (x, states), (place, parameters) = carry, layer
            x, _ = step(x, parameters)
            states = jax.lax.dynamic_update_index_in_dim(states, x, place, 0)
            return (x, constrain(states, None, "batch", None, None)), None

        numbers = range(1, self.config.num_hidden_layers + 1)
        places = [keep.index(i) if i in keep else len(keep) for i in numbers]
        none = jnp.zeros((len(keep) + 1, *x.shape), x.dtype)
        layers = (jnp.array(places, jnp.int32), stacked)
        (x, states), _ = jax.lax.scan(write, (x, none), layers, unroll=self.unroll)
        return self.norm(x), states

    def logits(self, hidden: Float[Array, "*rows D"]) -> Float32[Array, "*rows V"]:
        """The head on any rows of `hidden`, multiplied in `dtype`, summed and given in float32.

        So are the products of the backward pass: the gradient of the logits is rounded to `dtype`.
        """
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        return _head(hidden.astype(self.dtype), head.weight[...].astype(self.dtype))

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


@jax.custom_vjp
def _head(x: Float[Array, "*rows D"], weight: Float[Array, "V D"]) -> Float32[Array, "*rows V"]:
    return jnp.einsum("...d,vd->...v", x, weight, preferred_element_type=jnp.float32)


def _head_forward(x: Any, weight: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _head(x, weight), (x, weight)


def _head_backward(saved: Any, d_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Left to itself, JAX multiplies the float32 gradient, at half the rate or less on a GPU."""
    x, weight = saved
    d_logits = d_logits.astype(x.dtype)
    return (
        jnp.einsum("...v,vd->...d", d_logits, weight).astype(x.dtype),
        jnp.einsum("...v,...d->vd", d_logits, x).astype(weight.dtype),
    )


_head.defvjp(_head_forward, _head_backward)


def _kept(remat: str) -> Any:
    """The policy of `jax.checkpoint`: None = nothing but the inputs."""
    policies = jax.checkpoint_policies
    if remat == "dots":
        attended = policies.save_from_both_policies(
            policies.save_only_these_names(SAVED), kernel_saveable
        )
        return policies.save_from_both_policies(policies.dots_with_no_batch_dims_saveable, attended)
    if remat == "offload":
        return policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[BLOCK_INPUT],
            offload_src="device",
            offload_dst="pinned_host",
        )
    return None
