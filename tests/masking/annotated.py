"""The words of texts: as an oracle reads them off spaCy's tokens, and as the package stores them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from spacy.language import Language

from opengrok_jax.masking import factors, syntax, words


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of one text, in order, without overlap; white space is no word.

    Attributes:
      starts, ends: int32 [W], code points of the text.
      pos, dep: float32 [W], 0 or 1.
      upos: the part of speech of each word, as in `UPOS`.
      relations: the relation of each word to its head, as `relation_name` spells it.
      lower: the word itself in lower case, for counting.
    """

    starts: np.ndarray
    ends: np.ndarray
    pos: np.ndarray
    dep: np.ndarray
    upos: tuple[str, ...]
    relations: tuple[str, ...]
    lower: tuple[str, ...]


def annotate(
    nlp: Language,
    texts: Iterable[str],
    *,
    pos_tags: Iterable[str] = syntax.POS_TAGS,
    relations: Iterable[str] = syntax.RELATIONS,
) -> dict[str, Words]:
    """The oracle: every piece of every text by itself, token by token."""
    tags = frozenset(pos_tags)
    chosen = frozenset(map(syntax.relation_name, relations))
    return {
        text: join((at, _words(nlp(piece), tags, chosen)) for at, piece in syntax.pieces(text))
        for text in texts
    }


def join(parts: Iterable[tuple[int, Words]]) -> Words:
    """Several runs of words as one, each moved right by its offset in code points."""
    offsets, runs = zip(*parts, strict=True) if (parts := list(parts)) else ((), ())
    empty = np.zeros(0, np.int32)
    return Words(
        starts=np.concatenate([empty, *(w.starts + o for o, w in zip(offsets, runs, strict=True))]),
        ends=np.concatenate([empty, *(w.ends + o for o, w in zip(offsets, runs, strict=True))]),
        pos=np.concatenate([empty.astype(np.float32), *(w.pos for w in runs)]),
        dep=np.concatenate([empty.astype(np.float32), *(w.dep for w in runs)]),
        upos=tuple(tag for w in runs for tag in w.upos),
        relations=tuple(name for w in runs for name in w.relations),
        lower=tuple(word for w in runs for word in w.lower),
    )


def _words(doc, pos_tags: frozenset[str], wanted: frozenset[str]) -> Words:
    """Copies what we need out of a Doc, which is gone after its memory zone."""
    names = [syntax.relation_name(token.dep_) for token in doc]
    dep = syntax.relation_scores(names, [token.head.i for token in doc], wanted)
    kept = [token for token in doc if not token.is_space]
    upos = tuple(syntax.part_of_speech(t.pos_, t.tag_, names[t.i]) for t in kept)
    return Words(
        starts=np.array([t.idx for t in kept], np.int32),
        ends=np.array([t.idx + len(t) for t in kept], np.int32),
        pos=np.array([tag in pos_tags for tag in upos], np.float32),
        dep=dep[[t.i for t in kept]],
        upos=upos,
        relations=tuple(names[t.i] for t in kept),
        lower=tuple(t.lower_ for t in kept),
    )


def stored(
    nlp: Language,
    text: str,
    *,
    pos_tags: Iterable[str] = syntax.POS_TAGS,
    relations: Iterable[str] = syntax.RELATIONS,
) -> Words:
    """What the package makes of a text: `words.annotate` on its pieces, `factors.syntax_scores`."""
    offsets, pieces = zip(*syntax.pieces(text), strict=True)
    table = words.annotate(nlp, pieces)
    pos, dep = factors.syntax_scores(table, tuple(pos_tags), tuple(relations))
    shift = np.repeat(np.array(offsets), table.counts)
    starts, ends = table.starts + shift, table.ends + shift
    return Words(
        starts=starts.astype(np.int32),
        ends=ends.astype(np.int32),
        pos=pos.astype(np.float32),
        dep=dep.astype(np.float32),
        upos=tuple(syntax.UPOS[tag] for tag in table.upos),
        relations=tuple(table.names[name] for name in table.relation),
        lower=tuple(text[a:b].lower() for a, b in zip(starts, ends, strict=True)),
    )
