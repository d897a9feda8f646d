"""Greedy generation: batches of prompts of unequal length, one compiled loop, a fixed buffer.

Each step runs the whole buffer through the decoder (there is no key-value cache), and only the
last token of each row through the head.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Int, Int32

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.phi3 import Phi3


def generate(
    model: Phi3,
    prompts: Sequence[Int32[np.ndarray, " _"]],
    *,
    stop_ids: tuple[int, ...],
    max_new_tokens: int,
    batch_size: int = 32,
    advance: Callable[[int], object] = lambda _: None,
) -> list[Int32[np.ndarray, " _"]]:
    """The most likely next token, again and again, until a stop id or `max_new_tokens`.

    A row sees only itself: the rows beside it change how far it is padded, and nothing else.

    Args:
      prompts: ids of each prompt, none empty.
      stop_ids: ids that end an answer.
      batch_size: rows run together; the last batch is filled up with empty rows.
      advance: called after each batch with the number of prompts it held.

    Returns:
      The new ids of each prompt, in order; the stop id, if one came, is the last of them.

    Raises:
      ConfigError: prompt and answer may not fit into the model's context together.
    """
    context = model.config.max_position_embeddings
    for number, prompt in enumerate(prompts):
        check_room(f"prompt {number}", len(prompt), max_new_tokens, context)
    graph, state = nnx.split(model)
    stops = jnp.asarray(stop_ids, jnp.int32)
    answers: list[np.ndarray] = [np.zeros(0, np.int32)] * len(prompts)
    totals = [len(p) + max_new_tokens for p in prompts]
    for rows, length in batches(totals, batch_size, context):
        tokens, lengths = pad_rows([prompts[i] for i in rows], batch_size, length)
        limits = np.where(lengths > 0, lengths + max_new_tokens, 0)
        filled, ends = jax.device_get(_decode(graph, state, tokens, lengths, limits, stops))
        for at, i in enumerate(rows):
            answers[i] = filled[at, lengths[at] : ends[at]]
        advance(len(rows))
    return answers


def check_room(what: str, length: int, new_tokens: int, context: int) -> None:
    """Refuses a row that does not fit; nothing is ever cut silently.

    Args:
      what: names the row in the error.
      length: its tokens, without the answer that is yet to be generated.
      new_tokens: room that the answer needs.

    Raises:
      ConfigError: the row is empty, or longer than the context less `new_tokens`.
    """
    if length == 0:
        raise ConfigError(f"{what} is empty; a prompt needs at least one token")
    if length + new_tokens > context:
        raise ConfigError(
            f"{what} has {length} tokens; with {new_tokens} for the answer that is more than the "
            f"student's context of {context}; shorten or drop the post, allow fewer new tokens, or "
            "take a student of longer context"
        )


def padded_length(length: int, context: int) -> int:
    """The next of 32, 48, 64, 96, 128, 192, ... and at most the context.

    Few distinct lengths mean few compilations; at most a third of a row is padding.

    >>> [padded_length(n, 100) for n in (1, 32, 33, 49, 65, 97)]
    [32, 32, 48, 64, 96, 100]
    """
    size = 32
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return min(size, context)


def batches(
    lengths: Sequence[int], batch_size: int, context: int
) -> Iterator[tuple[list[int], int]]:
    """(indices, padded length) of each batch: rows of like length, the longest first.

        lengths     40 9 12 70 9     batch_size 2
        batches     [3 0] 96,  [2 1] 32,  [4] 32

    So what does not fit into memory shows at once, and only the cheapest batch is not full.
    """
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for start in range(0, len(lengths), batch_size):
        rows = longest_first[start : start + batch_size]
        yield rows, padded_length(lengths[rows[0]], context)


def pad_rows(
    rows: Sequence[Int32[np.ndarray, " _"]], count: int, length: int
) -> tuple[Int32[np.ndarray, "count length"], Int32[np.ndarray, " count"]]:
    """The rows flush left in a (count, length) array of zeros, and their lengths, 0 for no row.

    rows  [7 8 9] [5]     tokens   7 8 9 0     lengths  3
                                   5 0 0 0              1
                                   0 0 0 0              0
    """
    tokens, lengths = np.zeros((count, length), np.int32), np.zeros(count, np.int32)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = row
        lengths[at] = len(row)
    return tokens, lengths


def row_segments(lengths: Int[Array, " B"], length: int) -> Int32[Array, "B {length}"]:
    """Segment 1 up to each row's length, 0 = padding after it.

    lengths 3 1     segments  1 1 1 0
                              1 0 0 0
    """
    index = jax.lax.broadcasted_iota(jnp.int32, (lengths.shape[0], length), 1)
    return (index < lengths[:, None]).astype(jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def _decode(
    graph: Any,
    state: Any,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    limits: Int[Array, " B"],
    stops: Int[Array, " S"],
) -> tuple[Int[Array, "B T"], Int[Array, " B"]]:
    """Fills `tokens` from `lengths` on, up to `limits` or a stop id; answers both, grown."""
    model = nnx.merge(graph, state)
    index = jax.lax.broadcasted_iota(jnp.int32, tokens.shape, 1)

    def unfinished(carry: tuple[Array, Array, Bool[Array, " B"]]) -> Array:
        return jnp.any(~carry[2])

    def step(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        tokens, lengths, done = carry
        hidden = model.hidden(tokens, row_segments(lengths, tokens.shape[1]), index)
        last = jnp.maximum(lengths - 1, 0)[:, None, None]
        logits = model.logits(jnp.take_along_axis(hidden, last, axis=1)[:, 0])
        best = jnp.argmax(logits, axis=-1).astype(tokens.dtype)
        here = (index == lengths[:, None]) & ~done[:, None]
        tokens = jnp.where(here, best[:, None], tokens)
        lengths = lengths + jnp.where(done, 0, 1)
        stopped = jnp.any(best[:, None] == stops[None, :], axis=1)
        return tokens, lengths, done | stopped | (lengths >= limits)

    tokens, lengths, _ = jax.lax.while_loop(unfinished, step, (tokens, lengths, lengths >= limits))
    return tokens, lengths
