"""The factors of every token of a block: words, moved to tokens by spans of code points.

All chats of a block lie one behind the other on one line of code points, with a gap of one between
them, so that one call of `align` serves thousands of tokens:

    chat      <|user|>\\nHi<|end|> ... | <|user|>\\nBye ...
    begins    0                       n + 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from opengrok_jax import chance
from opengrok_jax.masking import align, arrays, syntax, tfidf, words
from opengrok_jax.masking.encode import Block
from opengrok_jax.masking.words import WordTable
from opengrok_jax.tokenizer import TEMPLATE

NO_WORD = len(syntax.UPOS)  # the part of speech of a token without a word
UPOS_NAMES = (*syntax.UPOS, "(no word)")


@dataclass(frozen=True, kw_only=True)
class FactorBlock:
    """N examples with what their masks are drawn from; T tokens in all.

    Attributes:
      ids, labels, splits, lengths: as in `encode.Block`.
      tokens, roles: int32, int8 [T].
      tfidf: float32 [T] in [0,1].
      pos, dep: uint8 [T], 0 or 1.
      upos: uint8 [T], index into `UPOS_NAMES` of the first word under each token.
    """

    ids: list[str]
    labels: list[str]
    splits: np.ndarray
    lengths: np.ndarray
    tokens: np.ndarray
    roles: np.ndarray
    tfidf: np.ndarray
    pos: np.ndarray
    dep: np.ndarray
    upos: np.ndarray


@lru_cache(maxsize=64)
def _chunk(folder: Path, key: str) -> tuple[WordTable, np.ndarray]:
    table = words.load(words.file_of(folder, key))
    return table, np.cumsum(table.counts, dtype=np.int64) - table.counts


def gather(places: np.ndarray, keys: Sequence[str], folder: Path) -> WordTable:
    """The words of some texts out of the chunks that they were annotated in.

    Args:
      places: int64 [P], of each text among the distinct ones.
      keys: of all chunks, `words.CHUNK` texts each.
      folder: where chunks are kept.

    Returns:
      The words of the P texts, in this order.
    """
    chunk_of, row_of = places // words.CHUNK, places % words.CHUNK
    counts = np.zeros(len(places), np.int32)
    chunks = np.unique(chunk_of).tolist()
    for chunk in chunks:
        here = chunk_of == chunk
        counts[here] = _chunk(folder, keys[chunk])[0].counts[row_of[here]]
    total = int(counts.sum(dtype=np.int64))
    begins = np.cumsum(counts, dtype=np.int64) - counts
    names: dict[str, int] = {}
    filled = {
        "starts": np.empty(total, np.uint16),
        "ends": np.empty(total, np.uint16),
        "upos": np.empty(total, np.uint8),
        "relation": np.empty(total, np.uint8),
        "heads": np.empty(total, np.uint16),
    }
    for chunk in chunks:
        table, offsets = _chunk(folder, keys[chunk])
        here = np.flatnonzero(chunk_of == chunk)
        into = align.ranges(begins[here], begins[here] + counts[here])
        out_of = offsets[row_of[here]]
        source = align.ranges(out_of, out_of + counts[here])
        renamed = np.array([names.setdefault(n, len(names)) for n in table.names], np.uint8)
        for name, values in filled.items():
            found = getattr(table, name)[source]
            values[into] = renamed[found] if name == "relation" else found
    return WordTable(counts=counts, names=tuple(names), **filled)


def picked(table: WordTable, texts: Sequence[int]) -> WordTable:
    """The words of some texts of a table, by their indices and in this order."""
    at = np.asarray(texts, np.int64)
    begins = np.cumsum(table.counts, dtype=np.int64) - table.counts
    counts = table.counts[at]
    source = align.ranges(begins[at], begins[at] + counts)
    columns = ("starts", "ends", "upos", "relation", "heads")
    return WordTable(
        counts=counts,
        names=table.names,
        **{name: getattr(table, name)[source] for name in columns},
    )


def word_texts(block: Block, table: WordTable) -> list[list[str]]:
    """The words of each document, in lower case; `table` holds the words of the block's pieces."""
    piece_of = np.repeat(np.arange(len(block.piece_counts)), block.piece_counts)
    words_in = np.bincount(
        piece_of, weights=table.counts, minlength=len(block.piece_counts)
    ).astype(np.int64)
    shift = np.repeat(block.piece_offsets.astype(np.int64), table.counts)
    starts, ends = (table.starts + shift).tolist(), (table.ends + shift).tolist()
    result, at = [], 0
    for text, number in zip(block.documents, words_in.tolist(), strict=True):
        low = at + number
        result.append(
            [text[a:b].lower() for a, b in zip(starts[at:low], ends[at:low], strict=True)]
        )
        at = low
    return result


def syntax_scores(
    table: WordTable, pos_tags: Sequence[str], relations: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """pos and dep of every word; uint8 [W] each, 0 or 1. See `syntax` for what they mean."""
    tags = [syntax.UPOS.index(tag) for tag in pos_tags]
    pos = np.isin(table.upos, tags).astype(np.uint8)
    chosen = {syntax.relation_name(name) for name in relations}
    codes = [at for at, name in enumerate(table.names) if name in chosen]
    found = np.flatnonzero(np.isin(table.relation, codes))
    begins = np.cumsum(table.counts, dtype=np.int64) - table.counts
    heads = np.repeat(begins, table.counts) + table.heads
    dep = np.zeros(len(pos), np.uint8)
    dep[found] = 1
    dep[heads[found]] = 1
    return pos, dep


def factors(
    block: Block,
    table: WordTable,
    telling: np.ndarray,
    *,
    pos_tags: Sequence[str],
    relations: Sequence[str],
) -> FactorBlock:
    """The factors of all tokens of a block; template and special tokens have none.

    Args:
      block: the chats.
      table: the words of its pieces, in order.
      telling: float32 [W], the tfidf of each word.
      pos_tags, relations: what scores 1.
    """
    pos, dep = syntax_scores(table, pos_tags, relations)
    begins = np.cumsum(block.sizes + 1, dtype=np.int64) - block.sizes - 1
    at = np.repeat(begins, block.document_counts) + block.offsets
    at = np.repeat(at, block.piece_counts) + block.piece_offsets
    at = np.repeat(at, table.counts)
    starts, ends = at + table.starts, at + table.ends
    spans = block.spans + np.repeat(begins, block.lengths)[:, None]
    by_word = np.stack([telling, pos, dep], axis=1).astype(np.float32)
    scores = align.token_scores(spans, starts, ends, by_word)
    scores[(block.roles == TEMPLATE) | block.special] = 0.0
    first = align.first_word(spans, starts, ends)
    return FactorBlock(
        ids=block.ids,
        labels=block.labels,
        splits=block.splits,
        lengths=block.lengths,
        tokens=block.tokens,
        roles=block.roles,
        tfidf=np.ascontiguousarray(scores[:, 0]),
        pos=scores[:, 1].astype(np.uint8),
        dep=scores[:, 2].astype(np.uint8),
        upos=np.append(table.upos, np.uint8(NO_WORD))[first],
    )


def score(
    block: Block,
    table: WordTable,
    frequencies: tfidf.Frequencies,
    *,
    pos_tags: Sequence[str],
    relations: Sequence[str],
) -> FactorBlock:
    """`factors` with the tfidf of a corpus whose frequencies are known."""
    documents = word_texts(block, table)
    counted = tfidf.count(documents)
    found_in = frequencies.of(counted[0])
    telling = tfidf.scores(documents, found_in, frequencies.total, counted)
    return factors(block, table, telling, pos_tags=pos_tags, relations=relations)


def random_factor(seed: int, block: FactorBlock) -> np.ndarray:
    """The formula's uniform variable of every token; float32 [T]."""
    return chance.of_tokens(seed, block.ids, "random", block.lengths)


_COLUMNS = ("splits", "lengths", "tokens", "roles", "tfidf", "pos", "dep", "upos")


def save(path: Path, block: FactorBlock) -> None:
    """Writes a block atomically."""
    texts = arrays.under("ids", arrays.pack(block.ids))
    texts |= arrays.under("labels", arrays.pack(block.labels))
    arrays.save(path, texts | {name: getattr(block, name) for name in _COLUMNS})


def load(path: Path) -> FactorBlock:
    """What `save` wrote; DataError if it is missing or damaged."""
    stored = arrays.load(path)
    ids, labels = (arrays.unpack(arrays.taken(name, stored)) for name in ("ids", "labels"))
    return FactorBlock(ids=ids, labels=labels, **{name: stored[name] for name in _COLUMNS})
