"""The student answers, in two ways that measure two things.

likelihood   which label it finds most probable, log P(label <|end|> | prompt): what it knows,
             whatever it would have said; there is no unreadable answer
generation   what it says, greedily, read by the rules of `answers`: what a user would get
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float32, Int

from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.answers import Prediction, parse_entities, parse_label, predicting
from opengrok_jax.evaluation.tasks import Item, Task
from opengrok_jax.model.generate import generate
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.rows import batches, check_room, pad_rows, row_segments
from opengrok_jax.records import Message
from opengrok_jax.tokenizer import RESPONSE, ChatTokenizer, Encoded

PREDICTORS = ("likelihood", "generation")
Advance = Callable[[int], object]


def by_likelihood(
    model: Phi3,
    tokenizer: ChatTokenizer,
    task: Task,
    items: Sequence[Item],
    *,
    batch_size: int,
    advance: Advance = lambda _: None,
) -> list[Prediction]:
    """The label of the highest log P(label <|end|> | prompt), summed over its tokens.

    Ties go to the label that comes first in the task's order.

    Raises:
      ConfigError: as `encode`.
    """
    rows = encode(model, tokenizer, task, items, answers=task.labels)
    table = response_log_probs(model, rows, batch_size=batch_size, advance=advance)
    predictions = []
    for item, logs in zip(items, table.reshape(len(items), len(task.labels)), strict=True):
        scores = {label: float(log) for label, log in zip(task.labels, logs, strict=True)}
        predictions.append(predicting(item, max(scores, key=scores.__getitem__), scores=scores))
    return predictions


def by_generation(
    model: Phi3,
    tokenizer: ChatTokenizer,
    task: Task,
    items: Sequence[Item],
    *,
    batch_size: int,
    max_new_tokens: int,
    advance: Advance = lambda _: None,
) -> list[Prediction]:
    """The label or the entities read from the greedy answer; None where it cannot be read.

    Raises:
      ConfigError: as `encode`.
    """
    prompts = encode(model, tokenizer, task, items, answers=(None,), new_tokens=max_new_tokens)
    outputs = generate(
        model,
        [prompt.tokens for prompt in prompts],
        stop_ids=(tokenizer.end_id, tokenizer.eos_id),
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        advance=advance,
    )
    predictions = []
    for item, ids in zip(items, outputs, strict=True):
        answer = tokenizer.decode(ids).strip()
        if task.types:
            predicted = parse_entities(answer, task.types)
        else:
            predicted = parse_label(answer, task.labels)
        predictions.append(predicting(item, predicted, answer=answer))
    return predictions


def encode(
    model: Phi3,
    tokenizer: ChatTokenizer,
    task: Task,
    items: Sequence[Item],
    *,
    answers: tuple[str | None, ...],
    new_tokens: int = 0,
) -> list[Encoded]:
    """Each item's question with each answer; the answer None leaves room for `new_tokens`.

    Raises:
      ConfigError: a row is too long for the student's context, or the tokenizer has more ids than
        the student has rows.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokenizer.vocab_size} ids and the student "
            f"{model.config.vocab_size} rows; give the tokenizer this student was trained with"
        )
    rows = []
    for item in items:
        what = f"task {task.name!r}: the prompt with post {item.id!r}"
        messages = (Message(role="user", content=task.ask(item.text)),)
        for answer in answers:
            row = tokenizer.encode_chat(messages, answer)
            check_room(what, len(row.tokens), new_tokens, model.config.max_position_embeddings)
            rows.append(row)
    return rows


def response_log_probs(
    model: Phi3, rows: Sequence[Encoded], *, batch_size: int, advance: Advance = lambda _: None
) -> Float32[np.ndarray, " rows"]:
    """log P(response tokens | everything before them) of each row, in nats.

    Only the tokens of role RESPONSE count, the closing <|end|> among them; only they go through
    the head. A row sees only itself: the rows beside it change how far it is padded.
    """
    graph, state = nnx.split(model)
    places = [np.flatnonzero(row.roles == RESPONSE) for row in rows]
    longest = max((len(p) for p in places), default=0)
    result = np.zeros(len(rows), np.float32)
    lengths = [len(row.tokens) for row in rows]
    for chosen, length in batches(lengths, batch_size, model.config.max_position_embeddings):
        tokens, filled = pad_rows([rows[i].tokens for i in chosen], batch_size, length)
        at, counts = pad_rows([places[i].astype(np.int32) for i in chosen], batch_size, longest)
        is_response = np.arange(longest)[None, :] < counts[:, None]
        logs = _log_probs(graph, state, tokens, filled, at, is_response)
        result[chosen] = np.asarray(logs)[: len(chosen)]
        advance(len(chosen))
    return result


@functools.partial(jax.jit, static_argnums=0)
def _log_probs(
    graph: Any,
    state: Any,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, " B"],
    at: Int[Array, "B R"],
    is_response: Bool[Array, "B R"],
) -> Float32[Array, " B"]:
    """Sum of log P of the tokens at `at`, each predicted from the token before it.

    tokens       5 6 7 8 9 0      lengths 5
    at           3 4              predicted from the hidden states 2 3
    """
    model = nnx.merge(graph, state)
    hidden = model.hidden(tokens, row_segments(lengths, tokens.shape[1]))
    before = jnp.maximum(at - 1, 0)
    logits = model.logits(jnp.take_along_axis(hidden, before[:, :, None], axis=1))
    logs = jax.nn.log_softmax(logits, axis=-1)
    targets = jnp.take_along_axis(tokens, at, axis=1)
    picked = jnp.take_along_axis(logs, targets[:, :, None], axis=2)[:, :, 0]
    return jnp.sum(jnp.where(is_response, picked, 0.0), axis=1)
