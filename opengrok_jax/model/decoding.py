"""A batch on its way through generation: its state, and the two functions that are compiled.

    prefill   the prompts through the decoder at once; the first new token of each row
    decode    up to `steps` more tokens of each row, one at a time, in one compiled loop

The number of steps, the lengths of the rows, their stop ids and how they draw are arguments of
the compiled code, so that it serves every batch of the same padded shape and number of stop ids.

On the mesh of the model's parameters the cache, which is the large part, is split over rows and
key-value heads; tokens and lengths are whole everywhere.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float32, Int, Key

from opengrok_jax.model.attention import Rule
from opengrok_jax.model.phi3 import Cache
from opengrok_jax.model.rows import row_segments
from opengrok_jax.model.sampling import sample
from opengrok_jax.model.sharding import constrain, on_mesh_of


class Ask(NamedTuple):
    """What is asked of a batch and stays as it is: limits are total lengths, 0 for no row."""

    limits: Int[Array, " B"]
    stops: Int[Array, " stops"]
    key_mask: Bool[Array, "B S"] | None
    keys: Key[Array, " B"]
    temperature: Float32[Array, ""]
    top_p: Float32[Array, ""]


class Progress(NamedTuple):
    """A batch on its way. The last token of each row is in `tokens` and not yet in the cache."""

    tokens: Int[Array, "B S"]
    lengths: Int[Array, " B"]
    done: Bool[Array, " B"]
    cache: Cache


class Run(NamedTuple):
    """The model, and what decides which code is compiled."""

    graph: Any
    state: Any
    rule: Rule
    sampled: bool

    def prefill(self, ask: Ask, tokens: Any, lengths: Any, length: int) -> Progress:
        """Reads the padded prompts and appends the first new token; makes room for `length`."""
        with on_mesh_of(self.state):
            return _prefill(
                self.graph, self.state, ask, tokens, lengths,
                length=length, rule=self.rule, sampled=self.sampled,
            )  # fmt: skip

    def decode(self, ask: Ask, progress: Progress, steps: int) -> Progress:
        """Up to `steps` more tokens of each row that is not done; takes `progress` away."""
        with on_mesh_of(self.state):
            return _decode(
                self.graph, self.state, ask, progress, steps, rule=self.rule, sampled=self.sampled
            )


@functools.partial(jax.jit, static_argnames=("graph", "length", "rule", "sampled"))
def _prefill(
    graph: Any,
    state: Any,
    ask: Ask,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    *,
    length: int,
    rule: Rule,
    sampled: bool,
) -> Progress:
    """Reads the prompts and appends the first new token; everything gets room for `length`."""
    model, width = nnx.merge(graph, state), tokens.shape[1]
    mask = None if ask.key_mask is None else ask.key_mask[:, :width]
    hidden, cache = model.prefill(tokens, row_segments(lengths, width), mask, rule)
    last = jnp.maximum(lengths - 1, 0)[:, None, None]
    more = (0, length - width)
    progress = Progress(
        tokens=jnp.pad(tokens, [(0, 0), more]),
        lengths=lengths,
        done=lengths >= ask.limits,
        cache=Cache(*(jnp.pad(part, [(0, 0)] * 3 + [more, (0, 0)]) for part in cache)),
    )
    logits = model.logits(jnp.take_along_axis(hidden, last, axis=1)[:, 0])
    return _append(progress, logits, ask, sampled)


@functools.partial(
    jax.jit, static_argnames=("graph", "rule", "sampled"), donate_argnames=("progress",)
)
def _decode(
    graph: Any,
    state: Any,
    ask: Ask,
    progress: Progress,
    steps: Int[Array, ""] | int,
    *,
    rule: Rule,
    sampled: bool,
) -> Progress:
    """Up to `steps` more tokens of each row that is not done."""
    model = nnx.merge(graph, state)
    original = model.config.original_max_position_embeddings  # None without LongRoPE

    def unfinished(carry: tuple[Array, Progress]) -> Array:
        return (carry[0] < steps) & jnp.any(~carry[1].done)

    def renewed(progress: Progress, crossing: Bool[Array, " B"]) -> Cache:
        tokens, lengths, _, cache = progress
        segments = row_segments(lengths, tokens.shape[1])
        _, fresh = model.prefill(tokens, segments, ask.key_mask, rule)
        here = crossing[None, :, None, None, None]
        return Cache(*(jnp.where(here, a, b) for a, b in zip(fresh, cache, strict=True)))

    def step(carry: tuple[Array, Progress]) -> tuple[Array, Progress]:
        count, progress = carry
        tokens, lengths, done, cache = progress
        if original is not None and tokens.shape[1] > original:
            crossing = (lengths == original + 1) & ~done
            cache = jax.lax.cond(
                jnp.any(crossing), renewed, lambda progress, _: progress.cache, progress, crossing
            )
        # A row that is done goes through its last token again, which changes nothing.
        at = jnp.maximum(lengths - 1, 0)
        newest = jnp.take_along_axis(tokens, at[:, None], axis=1)[:, 0]
        hidden, cache = model.step(newest, at, cache, ask.key_mask, rule)
        grown = _append(progress._replace(cache=cache), model.logits(hidden), ask, sampled)
        return count + 1, grown

    return jax.lax.while_loop(unfinished, step, (jnp.int32(0), progress))[1]


def _append(progress: Progress, logits: Float32[Array, "B V"], ask: Ask, sampled: bool) -> Progress:
    """Chooses the next token of each row that is not done."""
    tokens, lengths, done, cache = progress
    if sampled:
        keys = jax.vmap(jax.random.fold_in)(ask.keys, lengths)
        chosen = sample(logits, keys, ask.temperature, ask.top_p)
    else:
        chosen = jnp.argmax(logits, axis=-1)
    chosen = chosen.astype(tokens.dtype)[:, None]
    index = jax.lax.broadcasted_iota(jnp.int32, tokens.shape, 1)
    tokens = jnp.where((index == lengths[:, None]) & ~done[:, None], chosen, tokens)
    lengths = lengths + jnp.where(done, 0, 1)
    stopped = jnp.any(chosen == ask.stops[None, :], axis=1)
    done = done | stopped | (lengths >= ask.limits)
    return Progress(constrain(tokens, None, None), lengths, done, cache)
