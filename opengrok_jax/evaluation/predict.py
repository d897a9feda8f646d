"""Our checkpoint answers, in ways that measure different things.

likelihood            which label it finds most probable, log P(label <|end|> | prompt): what it
knows,
                      whatever it would have said; there is no unreadable answer
likelihood-per-token  the same divided by the label's tokens, <|end|> included: for labels of
                      unequal length, of which the sum prefers the short ones
generation            what it says, greedily, read by the rules of `answers`: what a user would get
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float32, Int

from opengrok_jax import storage
from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.errors import ConfigError
from opengrok_jax.evaluation.batching import Batch, plan_batches, waste
from opengrok_jax.evaluation.label_tree import label_log_probs, label_tree
from opengrok_jax.evaluation.prompt_masks import PromptMasks
from opengrok_jax.model.attention import Rule
from opengrok_jax.model.generate import generate
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.rows import batches, check_room, pad_rows, row_segments
from opengrok_jax.model.student import CONFIG, DIGESTS, load_student
from opengrok_jax.records import Message
from opengrok_jax.tokenizer import RESPONSE, ChatTokenizer, Encoded

KINDS = ("likelihood", "likelihood-per-token", "generation")
Record = Callable[[Sequence[int], Sequence[Any]], object]
Masks = Sequence[np.ndarray] | None


class Student:
    """A model and its tokenizer, asked question by question.

    Attributes:
      made_of: what its answers depend on, in hashes.
      prompt_masks, rule: which tokens of a prompt it may attend to, and by which rule, where a
        call gives no others; None = all.
      wasted: [tokens of padding, all tokens] of the label scoring so far.
    """

    def __init__(
        self,
        model: Phi3,
        tokenizer: ChatTokenizer,
        *,
        batch_size: int,
        made_of: Any = "",
        prompt_masks: PromptMasks | None = None,
        rule: Rule = "none",
    ) -> None:
        """Raises ConfigError if the tokenizer has more ids than the student has rows."""
        if tokenizer.vocab_size > model.config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {tokenizer.vocab_size} ids and the student "
                f"{model.config.vocab_size} rows; give the tokenizer this student was trained with"
            )
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.made_of, self.prompt_masks = made_of, prompt_masks
        self.rule: Rule = rule
        self.wasted = [0, 0]

    @classmethod
    def open(
        cls,
        folder: Path,
        tokenizer: str,
        *,
        batch_size: int,
        prompt_masks: PromptMasks | None = None,
        rule: Rule = "none",
    ) -> Student:
        """The student that `student.save_student` wrote, with its tokenizer or another one.

        Raises:
          CheckpointError: there is no student in that folder, or a broken one.
          DataError: the tokenizer cannot be read.
        """
        tokenizer = tokenizers.beside(folder, tokenizer)
        opened = tokenizers.load(tokenizer)
        model, _ = load_student(folder)
        made_of = {
            "student": storage.file_sha256(folder / DIGESTS),
            "config": storage.file_sha256(folder / CONFIG),
            "tokenizer": storage.file_sha256(tokenizers.path_of(tokenizer)),
        }
        masked: Any = {}
        if prompt_masks is not None:
            made_of |= {"prompt_masks": prompt_masks.made_of, "rule": rule}
            masked = {"prompt_masks": prompt_masks, "rule": rule}
        return cls(model, opened, batch_size=batch_size, made_of=made_of, **masked)

    def label_tokens(self, labels: Sequence[str]) -> list[int]:
        """Tokens of each label, <|end|> included."""
        return [len(ids) for ids in self._answers(labels)]

    def check(
        self, what: str, prompts: Sequence[str], answers: Sequence[str], new_tokens: int
    ) -> None:
        """Raises ConfigError for a prompt that does not fit with its longest answer."""
        room = max([new_tokens, *self.label_tokens(answers)]) if answers else new_tokens
        for prompt in prompts:
            length = len(self._prompt(prompt))
            shown = prompt if len(prompt) <= 60 else f"{prompt[:30]} ... {prompt[-27:]}"
            check_room(
                f"{what}: the prompt {shown!r}",
                length,
                room,
                self.model.config.max_position_embeddings,
            )

    def log_probs(
        self,
        prompts: Sequence[str],
        labels: Sequence[str],
        record: Record,
        *,
        key_masks: Masks = None,
        rule: Rule = "none",
    ) -> None:
        """log P(label <|end|> | prompt) of every label, in nats; `record(rows, lists)` per batch.

        The labels share the prompt: see `label_tree`. What is so long that LongRoPE's factors
        depend on the label goes a row a label.

        Args:
          key_masks: for each prompt the tokens that may be attended to, read by `rule`.
        """
        ids, answers = [self._prompt(prompt) for prompt in prompts], self._answers(labels)
        key_masks, rule = self._masks(ids, key_masks, rule)
        limit = self.model.config.original_max_position_embeddings
        longest = max(map(len, answers))
        at_the_limit = [
            i for i, row in enumerate(ids) if limit and len(row) < limit < len(row) + longest
        ]
        self._one_row_a_label(at_the_limit, ids, prompts, labels, record, key_masks, rule)
        rows = sorted(set(range(len(ids))) - {*at_the_limit})
        tree = label_tree(answers)
        lengths = [len(ids[i]) for i in rows]
        planned = plan_batches(lengths, self.batch_size, beside=len(tree.tokens))
        self._note(planned, lengths, len(tree.tokens))
        graph, state = nnx.split(self.model)
        for batch in planned:
            here = [rows[i] for i in batch.rows]
            tokens, filled = pad_rows([ids[i] for i in here], batch.count, batch.length)
            mask = None if key_masks is None else _pad_masks([key_masks[i] for i in here], batch)
            logs = label_log_probs(graph, state, tree, tokens, filled, mask, rule)
            record(here, np.asarray(logs)[: len(here)].astype(float).tolist())

    def answers(
        self,
        prompts: Sequence[str],
        max_new_tokens: int,
        record: Record,
        *,
        key_masks: Masks = None,
        rule: Rule = "none",
    ) -> None:
        """The greedy answer to every prompt; `record(rows, texts)` per batch, the longest first."""
        ids = [self._prompt(prompt) for prompt in prompts]
        key_masks, rule = self._masks(ids, key_masks, rule)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            outputs = generate(
                self.model,
                [ids[i] for i in rows],
                stop_ids=(self.tokenizer.end_id, self.tokenizer.eos_id),
                max_new_tokens=max_new_tokens,
                key_masks=None if key_masks is None else [key_masks[i] for i in rows],
                rule=rule,
                batch_size=self.batch_size,
            )
            record(rows, [self.tokenizer.decode(ids).strip() for ids in outputs])

    def _masks(self, ids: Sequence[np.ndarray], key_masks: Masks, rule: Rule) -> tuple[Masks, Rule]:
        """What the call gave, or else what the student was opened with."""
        if key_masks is None and self.prompt_masks is not None:
            return self.prompt_masks.of(ids), self.rule
        return key_masks, rule

    def _prompt(self, prompt: str) -> np.ndarray:
        return self.tokenizer.encode_chat((Message(role="user", content=prompt),)).tokens

    def _answers(self, labels: Sequence[str]) -> list[list[int]]:
        """Ids of each label with its <|end|>: the same after every prompt."""
        before = self.tokenizer.encode_chat(()).tokens.tolist()
        both = [self.tokenizer.encode_chat((), label).tokens.tolist() for label in labels]
        assert all(ids[: len(before)] == before for ids in both), "the answer changes the prompt"
        return [ids[len(before) :] for ids in both]

    def _note(self, planned: Sequence[Batch], lengths: Sequence[int], beside: int) -> None:
        computed = sum(b.count * (b.length + beside) for b in planned)
        self.wasted[0] += round(waste(planned, lengths, beside=beside) * computed)
        self.wasted[1] += computed

    def _one_row_a_label(
        self,
        chosen: Sequence[int],
        ids: Sequence[np.ndarray],
        prompts: Sequence[str],
        labels: Sequence[str],
        record: Record,
        key_masks: Masks,
        rule: Rule,
    ) -> None:
        if not chosen:
            return
        if key_masks is not None:
            raise ConfigError(
                f"a prompt of {len(ids[chosen[0]])} tokens stands at LongRoPE's threshold, where "
                "key masks are not supported; shorten it, or ask without masks"
            )
        rows = [
            self.tokenizer.encode_chat((Message(role="user", content=prompts[i]),), label)
            for i in chosen
            for label in labels
        ]
        table = response_log_probs(self.model, rows, batch_size=self.batch_size)
        record(chosen, table.reshape(len(chosen), len(labels)).astype(float).tolist())


def _pad_masks(masks: Sequence[np.ndarray], batch: Batch) -> Bool[np.ndarray, "B T"]:
    padded = np.ones((batch.count, batch.length), bool)
    for at, mask in enumerate(masks):
        padded[at, : len(mask)] = mask
    return padded


def response_log_probs(
    model: Phi3, rows: Sequence[Encoded], *, batch_size: int
) -> Float32[np.ndarray, " rows"]:
    """log P(response tokens | everything before them) of each row, in nats, each by itself.

    Only the tokens of role RESPONSE count, the closing <|end|> among them; only they go through
    the head. The plain way, and the oracle for `label_tree`.
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
