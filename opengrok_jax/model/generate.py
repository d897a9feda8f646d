"""Generation: prompts of unequal length in a batch, or one prompt whose answer is streamed.

A row sees only itself: the rows beside it change how far it is padded, and nothing else. With
LongRoPE a row that grows beyond `original_max_position_embeddings` is read anew with the long
factors, once, as `transformers` does: the keys in the cache were made by the short ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Int32

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.attention import Rule, check_rule
from opengrok_jax.model.decoding import Ask, Run
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.rows import batches, check_room, pad_rows, padded_length
from opengrok_jax.model.sampling import GREEDY, Sampling


def generate(
    model: Phi3,
    prompts: Sequence[Int32[np.ndarray, " _"]],
    *,
    stop_ids: tuple[int, ...],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    key_masks: Sequence[Bool[np.ndarray, " _"]] | None = None,
    rule: Rule = "none",
    batch_size: int = 32,
    advance: Callable[[int], object] = lambda _: None,
) -> list[Int32[np.ndarray, " _"]]:
    """The next token, again and again, until a stop id or `max_new_tokens`.

    Args:
      prompts: ids of each prompt, none empty.
      stop_ids: ids that end an answer.
      key_masks: for each prompt the tokens that may be attended to, read by the rules "multiply"
        and "exclude" (see `attention`); the new tokens always may.
      batch_size: rows run together; the last batch is filled up with empty rows.
      advance: called after each batch with the number of prompts it held.

    Returns:
      The new ids of each prompt, in order; the stop id, if one came, is the last of them.

    Raises:
      ConfigError: prompt and answer may not fit into the model's context together; a key mask is
        missing, of another length, or given to the rule "none".
    """
    context = model.config.max_position_embeddings
    _check(prompts, key_masks, rule, max_new_tokens, context)
    graph, state = nnx.split(model)
    answers: list[np.ndarray] = [np.zeros(0, np.int32)] * len(prompts)
    totals = [len(p) + max_new_tokens for p in prompts]
    for rows, length in batches(totals, batch_size, context):
        run = Run(graph, state, rule, sampling.temperature > 0)
        masks = None if key_masks is None else [key_masks[i] for i in rows]
        ask, tokens, lengths = _ask(
            [prompts[i] for i in rows], rows, masks, stop_ids, max_new_tokens, sampling,
            batch_size, length, context,
        )  # fmt: skip
        grown = run.decode(ask, run.prefill(ask, tokens, lengths, length), max_new_tokens)
        filled, ends = jax.device_get((grown.tokens, grown.lengths))
        for at, i in enumerate(rows):
            answers[i] = filled[at, lengths[at] : ends[at]]
        advance(len(rows))
    return answers


def stream(
    model: Phi3,
    prompt: Int32[np.ndarray, " _"],
    *,
    stop_ids: tuple[int, ...],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    key_mask: Bool[np.ndarray, " _"] | None = None,
    rule: Rule = "none",
) -> Iterator[int]:
    """The ids that `generate` gives for this prompt alone, each as soon as it is there.

    Raises:
      ConfigError: as `generate`, before the first id.
    """
    context = model.config.max_position_embeddings
    masks = None if key_mask is None else [key_mask]
    _check([prompt], masks, rule, max_new_tokens, context)
    length = padded_length(len(prompt) + max_new_tokens, context)
    ask, tokens, lengths = _ask(
        [prompt], [0], masks, stop_ids, max_new_tokens, sampling, 1, length, context
    )
    run = Run(*nnx.split(model), rule, sampling.temperature > 0)

    def ids() -> Iterator[int]:
        progress = run.prefill(ask, tokens, lengths, length)
        for at in range(len(prompt), len(prompt) + max_new_tokens):
            row, done = jax.device_get((progress.tokens, progress.done))
            yield int(row[0, at])
            if done[0]:
                return
            progress = run.decode(ask, progress, 1)

    return ids()


def _ask(
    prompts: Sequence[np.ndarray],
    numbers: Sequence[int],
    key_masks: Sequence[np.ndarray] | None,
    stop_ids: tuple[int, ...],
    max_new_tokens: int,
    sampling: Sampling,
    count: int,
    length: int,
    context: int,
) -> tuple[Ask, Int32[np.ndarray, "count T"], Int32[np.ndarray, " count"]]:
    """A batch of `count` rows: what is asked, the padded prompts, their lengths.

    The mask is True wherever there is no prompt. Rows draw by their number among all prompts, not
    in the batch.
    """
    tokens, lengths = pad_rows(prompts, count, padded_length(max(map(len, prompts)), context))
    mask = None
    if key_masks is not None:
        mask = np.ones((count, length), bool)
        for at, row in enumerate(key_masks):
            mask[at, : len(row)] = row
    padded = np.zeros(count, np.uint32)
    padded[: len(numbers)] = numbers
    ask = Ask(
        limits=jnp.asarray(np.where(lengths > 0, lengths + max_new_tokens, 0)),
        stops=jnp.asarray(stop_ids, jnp.int32),
        key_mask=None if mask is None else jnp.asarray(mask),
        keys=jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(sampling.seed), padded),
        temperature=jnp.float32(sampling.temperature),
        top_p=jnp.float32(sampling.top_p),
    )
    return ask, tokens, lengths


def _check(
    prompts: Sequence[np.ndarray],
    key_masks: Sequence[np.ndarray] | None,
    rule: Rule,
    max_new_tokens: int,
    context: int,
) -> None:
    """Raises ConfigError for what `generate` says."""
    check_rule(rule, key_masks)
    if rule == "none" and key_masks is not None:
        raise ConfigError("the rule 'none' reads no key mask; drop it, or choose another rule")
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens={max_new_tokens}: expected at least 1")
    for number, prompt in enumerate(prompts):
        what = f"prompt {number}" if len(prompts) > 1 else "the prompt"
        check_room(what, len(prompt), max_new_tokens, context)
    if key_masks is not None and [*map(len, key_masks)] != [*map(len, prompts)]:
        raise ConfigError(
            f"{len(key_masks)} key masks of lengths {[*map(len, key_masks)][:5]} were given for "
            f"{len(prompts)} prompts of lengths {[*map(len, prompts)][:5]}; one truth value per "
            "token was expected"
        )
