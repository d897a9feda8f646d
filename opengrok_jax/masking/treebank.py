"""Treebank sentences: read CoNLL-U, group into texts the size of a post, hand over to spaCy.

A multiword token is split in place where its words join up to the surface form:

    CoNLL-U   1-2 don't   1 do   2 n't   3 go    ->   words    do   n't    go
                                                      spaces    0     1     0
                                                      heads     2     2     2  (own index = root)
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from opengrok_jax.errors import DataError, needs_extra

if TYPE_CHECKING:
    import spacy.tokens
    import spacy.vocab


@dataclass(frozen=True)
class Sentence:
    """One or more trees over the words of a text; the five sequences have the same length N >= 1.

    Attributes:
        words: surface forms, which with `spaces` give the text back.
        spaces: True where a blank follows the word.
        upos: universal part-of-speech tags.
        heads: index of each word's head; a root is its own head, as in spaCy.
        deps: universal relations without subtype (`nsubj`, not `nsubj:pass`); `ROOT` for a root.
        document: the document the text came from; empty when the file names none.
    """

    words: tuple[str, ...]
    spaces: tuple[bool, ...]
    upos: tuple[str, ...]
    heads: tuple[int, ...]
    deps: tuple[str, ...]
    document: str = ""

    @property
    def text(self) -> str:
        """The raw text, without a trailing blank."""
        pairs = zip(self.words, self.spaces, strict=True)
        return "".join(word + " " * space for word, space in pairs).rstrip()


# -- reading ---------------------------------------------------------------------------------


def read_conllu(path: Path) -> list[Sentence]:
    """Reads a CoNLL-U file, plain or gzipped (`.gz`).

    Multiword tokens (`don't` = `do` + `n't`) are split in place where their words join up to the
    surface form; otherwise the surface form stands as one word with the row of its syntactic
    head. Empty nodes (`8.1`) are left out.

    Raises:
        DataError: the file is missing, unreadable, holds no sentence or a malformed one.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    sentences, rows, document = [], [], ""
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate([*lines, "\n"], start=1):
                line = line.rstrip("\r\n")
                if line.startswith("#"):
                    key, _, value = line[1:].partition("=")
                    document = value.strip() if key.strip() == "newdoc id" else document
                elif line:
                    rows.append(line.split("\t"))
                elif rows:
                    try:
                        sentences.append(_sentence(rows, document))
                    except (ValueError, KeyError, IndexError) as error:
                        raise DataError(
                            f"{path}: the sentence that ends at line {number} is not CoNLL-U "
                            f"({error!r}); expected ten tab-separated columns and heads that "
                            "name words of the sentence"
                        ) from error
                    rows = []
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the treebank {path}: {error}") from error
    if not sentences:
        raise DataError(
            f"{path} holds no sentence; expected a CoNLL-U file (.conllu or .conllu.gz)"
        )
    return sentences


def _sentence(rows: list[list[str]], document: str) -> Sentence:
    if any(len(row) != 10 for row in rows):
        raise ValueError("a line without ten columns")
    by_id = {row[0]: row for row in rows}
    place: dict[str, int] = {}  # word id -> index of the surface word that holds it
    kept: list[tuple[str, bool, list[str]]] = []
    last = 0  # words up to this id stand inside a multiword token that is already dealt with
    for row in rows:
        space = "SpaceAfter=No" not in row[9].split("|")
        if "-" in row[0]:
            first, last = map(int, row[0].split("-"))
            inner = [by_id[str(i)] for i in range(first, last + 1)]
            if "".join(word[1] for word in inner) == row[1]:
                for word in inner:
                    place[word[0]] = len(kept)
                    kept.append((word[1], space and word is inner[-1], word))
            else:
                ids = {word[0] for word in inner}
                place |= dict.fromkeys(ids, len(kept))
                kept.append((row[1], space, next(w for w in inner if w[6] not in ids)))
        elif "." not in row[0] and int(row[0]) > last:
            place[row[0]] = len(kept)
            kept.append((row[1], space, row))
    heads = [i if row[6] == "0" else place[row[6]] for i, (_, _, row) in enumerate(kept)]
    deps = [row[7].split(":")[0] for _, _, row in kept]
    return Sentence(
        words=tuple(form.replace("\u00a0", " ") for form, _, _ in kept),
        spaces=tuple(space for _, space, _ in kept),
        upos=tuple(row[3] for _, _, row in kept),
        heads=tuple(heads),
        deps=tuple("ROOT" if i == heads[i] else dep for i, dep in enumerate(deps)),
        document=document,
    )


# -- grouping --------------------------------------------------------------------------------


def group(sentences: Iterable[Sentence], rng: Random, *, longest: int) -> list[Sentence]:
    """Joins 1 to `longest` consecutive sentences of one document into texts the size of a post.

    >>> one = Sentence(("Hi",), (False,), ("INTJ",), (0,), ("ROOT",), "a")
    >>> [text.heads for text in group([one, one, one], Random(4), longest=2)]
    [(0,), (0, 1)]
    """
    texts: list[Sentence] = []
    batch: list[Sentence] = []
    wanted = rng.randint(1, longest)
    for sentence in sentences:
        if batch and (len(batch) == wanted or sentence.document != batch[0].document):
            texts.append(_join(batch))
            batch, wanted = [], rng.randint(1, longest)
        batch.append(sentence)
    return [*texts, _join(batch)] if batch else texts


def _join(batch: Sequence[Sentence]) -> Sentence:
    tokens = [token for sentence in batch for token in loosen(sentence)]
    return tighten(tokens, batch[0].document)


# -- trees whose words come and go ------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Token:
    """A word that knows its head as an object, so that words can come and go around it."""

    word: str
    space: bool
    upos: str
    head: Token | None
    dep: str


def loosen(sentence: Sentence) -> list[Token]:
    """The words of `sentence` as linked objects; the last one is followed by a blank."""
    rows = zip(sentence.words, sentence.spaces, sentence.upos, sentence.deps, strict=True)
    tokens = [Token(word, space, upos, None, dep) for word, space, upos, dep in rows]
    for i, head in enumerate(sentence.heads):
        tokens[i].head = tokens[head] if head != i else None
    tokens[-1].space = True
    return tokens


def tighten(tokens: list[Token], document: str) -> Sentence:
    """The opposite of `loosen`; every head must be among `tokens`."""
    index = {id(token): i for i, token in enumerate(tokens)}
    return Sentence(
        words=tuple(token.word for token in tokens),
        spaces=tuple(token.space for token in tokens),
        upos=tuple(token.upos for token in tokens),
        heads=tuple(i if t.head is None else index[id(t.head)] for i, t in enumerate(tokens)),
        deps=tuple(token.dep for token in tokens),
        document=document,
    )


# -- to spaCy --------------------------------------------------------------------------------


def to_doc(sentence: Sentence, vocab: spacy.vocab.Vocab) -> spacy.tokens.Doc:
    """A spaCy `Doc` with gold words, tags and trees; every tree must be one stretch of words."""
    with needs_extra("mask"):
        from spacy.tokens import Doc

    return Doc(
        vocab,
        words=list(sentence.words),
        spaces=list(sentence.spaces),
        pos=list(sentence.upos),
        heads=list(sentence.heads),
        deps=list(sentence.deps),
    )
