"""Examples as tokens, a block of them at a time, with the texts that have to be annotated.

Scores are made on the exact string of each message and of the response (the documents), and moved
to the place where that string stands in the rendered chat:

    <|user|>\\nHi there<|end|>\\n<|assistant|>\\nHello<|end|>\\n
               ^ 9                            ^ 39

A document longer than the annotator takes is cut into pieces; most documents are one piece.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import records, rights, storage
from opengrok_jax.errors import DataError
from opengrok_jax.masked_file import SPLITS
from opengrok_jax.masking import arrays, syntax
from opengrok_jax.records import Example, Message
from opengrok_jax.tokenizer import ChatTokenizer

BLOCK = 2048  # examples that are worked on together and kept in one file


@dataclass(frozen=True, kw_only=True)
class Chat:
    """What is encoded: an example, or a prompt that waits for its answer.

    Attributes:
      id, split, label: as in `records.Example`.
      messages: well-formed, see `syntax.well_formed`.
      response: likewise; None = the chat ends where the answer begins.
    """

    id: str
    split: str
    label: str
    messages: tuple[Message, ...]
    response: str | None


@dataclass(frozen=True, kw_only=True)
class Block:
    """N chats as tokens; T tokens, D documents and P pieces in all, each kind one after the other.

    Attributes:
      ids, labels: of each chat.
      splits: int8 [N], index into `masked_file.SPLITS`.
      lengths: int32 [N], tokens of each chat.
      sizes: int32 [N], code points of each rendered chat.
      tokens, roles, special: int32, int8, bool [T], as in `tokenizer.Encoded`.
      spans: int32 [T, 2], code points of the rendered chat.
      document_counts: int32 [N], documents of each chat.
      offsets: int32 [D], where each document stands in its rendered chat.
      documents: the D texts.
      piece_counts: int32 [D], pieces of each document.
      piece_offsets: int32 [P], where each piece stands in its document.
      digests: uint8 [P, 16], BLAKE2b of each piece.
      skipped, skipped_tokens: ids and int32 of the chats that are too long and in none of these.
    """

    ids: list[str]
    labels: list[str]
    splits: np.ndarray
    lengths: np.ndarray
    sizes: np.ndarray
    tokens: np.ndarray
    roles: np.ndarray
    special: np.ndarray
    spans: np.ndarray
    document_counts: np.ndarray
    offsets: np.ndarray
    documents: list[str]
    piece_counts: np.ndarray
    piece_offsets: np.ndarray
    digests: np.ndarray
    skipped: list[str]
    skipped_tokens: np.ndarray

    def pieces(self) -> list[str]:
        """The P texts to annotate."""
        return [piece for text in self.documents for _, piece in syntax.pieces(text)]


def content_offsets(messages: Sequence[Message], response: str | None) -> list[tuple[int, str]]:
    """Where the strings of a chat stand in its rendering, in code points.

    >>> content_offsets([Message(role="user", content="Hi there")], "Hello")
    [(9, 'Hi there'), (39, 'Hello')]
    """
    result, at = [], 0
    for message in messages:
        at += len(f"<|{message.role}|>\n")
        result.append((at, message.content))
        at += len(message.content) + len("<|end|>\n")
    if response is not None:
        result.append((at + len("<|assistant|>\n"), response))
    return result


def parse(path: Path, lines: Iterable[tuple[int, bytes]]) -> list[Chat]:
    """The examples of some lines of a .jsonl file.

    Raises:
      DataError: a line is no `records.Example`, or may not be trained on by what is declared;
        with its number.
    """
    chats = []
    for number, line in lines:
        row = storage.parse_line(path, number, line)
        try:
            example = records.from_json(Example, row)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from None
        if said := rights.objection(rights.source(example)):
            raise DataError(f"{path}, line {number}: no training data is made: {said}")
        chats.append(
            Chat(
                id=example.id,
                split=example.split,
                label=example.label,
                messages=well_formed(example.messages),
                response=syntax.well_formed(example.response),
            )
        )
    return chats


def well_formed(messages: Iterable[Message]) -> tuple[Message, ...]:
    """The messages, with each lone surrogate mended."""
    return tuple(Message(role=m.role, content=syntax.well_formed(m.content)) for m in messages)


def encode(tokenizer: ChatTokenizer, chats: Sequence[Chat], max_tokens: int) -> Block:
    """Some chats as one block; longer ones than max_tokens are left out by name."""
    encodings, kept, documents, skipped = [], [], [], []
    for chat in chats:
        encoded = tokenizer.encode_chat(chat.messages, chat.response)
        if len(encoded.tokens) > max_tokens:
            skipped.append((chat.id, len(encoded.tokens)))
            continue
        here = content_offsets(chat.messages, chat.response)
        for at, text in here:
            assert encoded.text.startswith(text, at), (chat.id, at)
        encodings.append(encoded)
        kept.append(chat)
        documents.append(here)
    flat = [row for here in documents for row in here]
    pieces = [syntax.pieces(text) for _, text in flat]
    digests = [
        hashlib.blake2b(piece.encode(), digest_size=16).digest()
        for parts in pieces
        for _, piece in parts
    ]
    return Block(
        ids=[chat.id for chat in kept],
        labels=[chat.label for chat in kept],
        splits=np.array([SPLITS.index(chat.split) for chat in kept], np.int8),
        lengths=np.array([len(e.tokens) for e in encodings], np.int32),
        sizes=np.array([len(e.text) for e in encodings], np.int32),
        tokens=arrays.joined([e.tokens for e in encodings], np.int32),
        roles=arrays.joined([e.roles for e in encodings], np.int8),
        special=arrays.joined([e.special for e in encodings], bool),
        spans=arrays.joined([e.spans for e in encodings], np.int32).reshape(-1, 2),
        document_counts=np.array([len(here) for here in documents], np.int32),
        offsets=np.array([at for at, _ in flat], np.int32),
        documents=[text for _, text in flat],
        piece_counts=np.array([len(parts) for parts in pieces], np.int32),
        piece_offsets=np.array([at for parts in pieces for at, _ in parts], np.int32),
        digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16),
        skipped=[name for name, _ in skipped],
        skipped_tokens=np.array([count for _, count in skipped], np.int32),
    )


_TEXTS = ("ids", "labels", "documents", "skipped")


def save(path: Path, block: Block) -> None:
    """Writes a block atomically."""
    stored: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(Block):
        value = getattr(block, field.name)
        packed = field.name in _TEXTS
        stored |= arrays.under(field.name, arrays.pack(value)) if packed else {field.name: value}
    arrays.save(path, stored)


def load(path: Path) -> Block:
    """What `save` wrote; DataError if it is missing or damaged."""
    stored = arrays.load(path)
    columns: dict[str, Any] = {name: arrays.unpack(arrays.taken(name, stored)) for name in _TEXTS}
    names = (field.name for field in dataclasses.fields(Block) if field.name not in _TEXTS)
    columns |= {name: stored[name] for name in names}
    return Block(**columns)
