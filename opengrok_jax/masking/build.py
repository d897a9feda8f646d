"""Examples to masked examples: encode, annotate, weigh, draw.

examples.jsonl -> masked.parquet   one row per example, factors and mask per token
                  corpus.json      the bias found, what is kept of which kind, what was skipped
                  soft/            where the teacher told log-probabilities; see soft_targets.py
                  tokenizer/       the tokenizer that made the ids, for the student

Scores are made on the exact string of each message and of the response, and moved to the place
where that string stands in the rendered chat:

    <|user|>\\nHi there<|end|>\\n<|assistant|>\\nHello<|end|>\\n
               ^ 9                            ^ 39
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import masked_file, progress, storage, tokenizer_files
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masking import align, keep, soft_targets, syntax, tfidf
from opengrok_jax.records import Example, MaskedExample, Message
from opengrok_jax.tokenizer import ROLES, TEMPLATE, ChatTokenizer, Encoded
from opengrok_jax.tokenizer import load as load_tokenizer

NO_WORD = "(no word)"


@dataclass(frozen=True, kw_only=True)
class Encodable:
    """An example whose tokens fit.

    Attributes:
      example: as it was read, surrogates mended.
      encoded: its tokens.
      documents: the offset in `encoded.text` and the string of each message and the response.
    """

    example: Example
    encoded: Encoded
    documents: tuple[tuple[int, str], ...]


def run(
    *,
    examples_file: Path,
    out: Path,
    logprobs_file: Path | None = None,
    tokenizer: str = "",
    pipeline: str = "",
    preset: str = "",
    alpha: float = 2.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    delta: float = 1.0,
    bias: float = 0.0,
    target_keep_rate: float | None = 0.85,
    scope: str = "prompt+response",
    pos_tags: Sequence[str] = syntax.POS_TAGS,
    relations: Sequence[str] = syntax.RELATIONS,
    max_tokens: int = 512,
    seed: int = 0,
) -> dict[str, Any]:
    """Masks every example of a file; the same arguments give the same bytes.

    Args:
      examples_file: .jsonl of `records.Example`.
      out: folder for masked.parquet, corpus.json, tokenizer/ and soft/.
      logprobs_file: .jsonl of `records.Logprobs`; None or an empty file: no soft/ is made.
      tokenizer: folder, tokenizer.json or name on the hub of a Phi-3 tokenizer; "" is the small
        one we ship.
      pipeline: name or folder of a spaCy pipeline; "" is the small one we ship.
      preset: a key of `keep.PRESETS`. It sets all six numbers that follow, whatever they say;
        "" leaves them as given.
      alpha, beta, gamma, delta: weights of tfidf, pos, dep and random.
      bias: added to the weighted sum; must be 0 with a target, which finds the bias itself.
      target_keep_rate: mean keep_prob of the tokens that may be hidden, over all examples; None
        uses `bias` as it is.
      scope: "prompt+response", or "prompt", which leaves every response token visible.
      pos_tags: universal parts of speech that score 1.
      relations: dependency relations (Universal Dependencies) whose two ends score 1.
      max_tokens: longer examples are skipped, not cut; their ids are in corpus.json.
      seed: of the factor `random` and of the draw.

    Returns:
      What corpus.json holds: `summary`, `skipped` as in `encode`, `soft_targets` as
      `soft_targets.build` tells if there are any, and the provenance that is also in the schema of
      masked.parquet (the arguments; `bias` as calibrated).

    Raises:
      ConfigError: a wrong value, before any work; a pipeline that cannot be used.
      DataError: no example, or none that fits into max_tokens; a file that cannot be read.
    """
    given = keep.Weights(
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        delta=delta,
        bias=bias,
        target_keep_rate=target_keep_rate,
    )
    weights = keep.choose(preset, given)
    keep.check_scope(scope)
    syntax.check_pos_tags(pos_tags)
    if max_tokens < 1:
        raise ConfigError(f"max_tokens must be at least 1, got {max_tokens}")

    chat = load_tokenizer(tokenizer)
    nlp = syntax.load_pipeline(pipeline)
    syntax.check_relations(nlp, relations)
    examples = storage.read_records(examples_file, Example)
    if not examples:
        raise DataError(f"{examples_file} holds no example; `opengrok curate` writes them")
    if preset:
        progress.say(f"mask: preset {preset!r} sets {_shown(weights)}")

    fitting, skipped = encode(chat, examples, max_tokens)
    if not fitting:
        raise DataError(
            f"{examples_file}: all {len(examples)} examples are longer than max_tokens = "
            f"{max_tokens}; the shortest has {min(s['tokens'] for s in skipped)} tokens"
        )
    annotated = syntax.annotate(
        nlp,
        (text for item in fitting for _, text in item.documents),
        pos_tags=pos_tags,
        relations=relations,
    )
    masked, upos = factors(fitting, annotated, seed)
    masked, weights = keep.draw(masked, weights, scope=scope, seed=seed)
    provenance = {
        "tokenizer": tokenizer,
        "tokenizer_sha256": tokenizer_files.hand_over(tokenizer, out / tokenizer_files.FOLDER),
        "vocab_size": chat.vocab_size,
        "pipeline": syntax.pipeline_label(nlp),
        "preset": preset,
        **dataclasses.asdict(weights),
        "scope": scope,
        "pos_tags": list(pos_tags),
        "relations": list(relations),
        "max_tokens": max_tokens,
        "seed": seed,
    }
    corpus = {**summary(masked, upos, scope), "skipped": skipped, **provenance}
    masked_file.write_masked(out / "masked.parquet", masked, provenance)
    if logprobs_file and logprobs_file.stat().st_size:
        responses = {item.example.id: item.example.response for item in fitting}
        soft = soft_targets.build(logprobs_file, out / "soft", chat, masked, responses)
        progress.say(
            f"mask: {soft['aligned_share']:.1%} of the response tokens have a distribution of the "
            f"teacher's, holding {soft['mean_stored_mass']:.1%} of its mass"
        )
        corpus["soft_targets"] = soft
    storage.write_json(out / "corpus.json", corpus)
    return corpus


def content_offsets(messages: Sequence[Message], response: str) -> list[tuple[int, str]]:
    """Where the strings of a chat stand in its rendering, in code points.

    >>> content_offsets([Message(role="user", content="Hi there")], "Hello")
    [(9, 'Hi there'), (39, 'Hello')]
    """
    result, at = [], 0
    for message in messages:
        at += len(f"<|{message.role}|>\n")
        result.append((at, message.content))
        at += len(message.content) + len("<|end|>\n")
    return [*result, (at + len("<|assistant|>\n"), response)]


def encode(
    chat: ChatTokenizer, examples: Sequence[Example], max_tokens: int
) -> tuple[list[Encodable], list[dict[str, Any]]]:
    """The examples as tokens, and {"id", "tokens"} of those that have more than max_tokens."""
    fitting, skipped = [], []
    for raw in examples:
        example = dataclasses.replace(
            raw,
            messages=tuple(
                Message(role=m.role, content=syntax.well_formed(m.content)) for m in raw.messages
            ),
            response=syntax.well_formed(raw.response),
        )
        encoded = chat.encode_chat(example.messages, example.response)
        if len(encoded.tokens) > max_tokens:
            skipped.append({"id": example.id, "tokens": len(encoded.tokens)})
            continue
        documents = tuple(content_offsets(example.messages, example.response))
        for at, text in documents:
            assert encoded.text.startswith(text, at), (example.id, at)
        fitting.append(Encodable(example=example, encoded=encoded, documents=documents))
    return fitting, skipped


def factors(
    items: Sequence[Encodable], annotated: dict[str, syntax.Words], seed: int
) -> tuple[list[MaskedExample], list[list[str]]]:
    """The four factors of every token; nothing is hidden yet.

    Template and special tokens have tfidf = pos = dep = 0. `random` is drawn for every token: it
    has no effect where a token is always visible.

    Returns:
      The examples with keep_prob = 1 and key_mask = True, and for each the part of speech of the
      first word under each token (`NO_WORD` where there is none).
    """
    weights = iter(
        tfidf.scores([annotated[text].lower for item in items for _, text in item.documents])
    )
    masked, upos = [], []
    for item in items:
        encoded, example = item.encoded, item.example
        words = syntax.join((at, annotated[text]) for at, text in item.documents)
        telling = np.concatenate([next(weights) for _ in item.documents])
        by_word = np.stack([telling, words.pos, words.dep], axis=1)
        scores = align.token_scores(encoded.spans, words.starts, words.ends, by_word)
        scores[(encoded.roles == TEMPLATE) | encoded.special] = 0.0
        count = len(encoded.tokens)
        masked.append(
            MaskedExample(
                id=example.id,
                split=example.split,
                tokens=encoded.tokens,
                roles=encoded.roles,
                tfidf=scores[:, 0],
                pos=scores[:, 1],
                dep=scores[:, 2],
                random=keep.uniform(seed, example.id, "random", count),
                keep_prob=np.ones(count, np.float32),
                key_mask=np.ones(count, bool),
            )
        )
        first = align.first_word(encoded.spans, words.starts, words.ends)
        names = (*words.upos, NO_WORD)  # index -1 is the last
        upos.append([names[word] for word in first])
    return masked, upos


def summary(
    masked: Sequence[MaskedExample], upos: Sequence[Sequence[str]], scope: str
) -> dict[str, Any]:
    """What the mask keeps, for the reader.

    Returns:
      examples, tokens: how many; mean_tokens per example.
      maskable_tokens: how many tokens may be hidden in this scope.
      keep_prob: its mean over those; None where there is none.
      keep_rate: the share of them that is visible; None where there is none.
      keep_rate_of_all: the share of all tokens that is visible.
      by_role, by_upos: {"tokens", "keep_rate"} of each role over all tokens, and of each part of
        speech over the tokens that may be hidden.
    """
    tokens, visible, by_role = 0, 0, {name: Counter() for name in ROLES}
    hidable, kept, expected, by_upos = 0, 0, [], {}
    for example, tags in zip(masked, upos, strict=True):
        free = keep.maskable(example.roles, scope)
        tokens += len(example.tokens)
        visible += int(example.key_mask.sum())
        hidable += int(free.sum())
        kept += int(example.key_mask[free].sum())
        expected.append(float(example.keep_prob[free].sum(dtype=np.float64)))
        for role, name in enumerate(ROLES):
            seen = example.key_mask[example.roles == role]
            by_role[name].update(tokens=len(seen), visible=int(seen.sum()))
        for tag, can_go, shown in zip(tags, free, example.key_mask, strict=True):
            if can_go:
                by_upos.setdefault(tag, Counter()).update(tokens=1, visible=int(shown))
    return {
        "examples": len(masked),
        "tokens": tokens,
        "mean_tokens": tokens / len(masked),
        "maskable_tokens": hidable,
        "keep_prob": math.fsum(expected) / hidable if hidable else None,
        "keep_rate": kept / hidable if hidable else None,
        "keep_rate_of_all": visible / tokens,
        "by_role": {name: _rate(count) for name, count in by_role.items()},
        "by_upos": {name: _rate(by_upos[name]) for name in sorted(by_upos)},
    }


def _rate(count: Counter[str]) -> dict[str, Any]:
    total = count["tokens"]
    return {"tokens": total, "keep_rate": count["visible"] / total if total else None}


def _shown(weights: keep.Weights) -> str:
    return ", ".join(f"{name}={value}" for name, value in dataclasses.asdict(weights).items())
