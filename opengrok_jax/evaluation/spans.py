"""BIO tags and what they mark, as the scorers of CoNLL, WNUT 2017 and seqeval read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from opengrok_jax.evaluation.tasks import Entity


class Span(NamedTuple):
    """Tokens `start` to before `stop`, of one entity."""

    start: int
    stop: int
    kind: str


def spans_of(tags: Sequence[str]) -> tuple[Span, ...]:
    """The entities that tags mark; an I that continues nothing of its type begins one.

    tags    O I-per I-per B-per I-loc O B-loc I-loc
    spans      per........ per   loc     loc........
    """
    found: list[Span] = []
    for at, tag in enumerate(tags):
        if tag == "O":
            continue
        prefix, _, kind = tag.partition("-")
        if prefix == "I" and found and found[-1].stop == at and found[-1].kind == kind:
            found[-1] = found[-1]._replace(stop=at + 1)
        else:
            found.append(Span(at, at + 1, kind))
    return tuple(found)


def tagged_names(tokens: Sequence[str], tags: Sequence[str]) -> tuple[Entity, ...]:
    """The distinct (type, name) pairs that tags mark, in order: what `tag_names` tags again.

    tokens    Ada  met  Ada  Lovelace  's  cat
    tags       B    O    B      I       O    O      (person, Ada) (person, Ada Lovelace)
    """
    names = ((s.kind, " ".join(tokens[s.start : s.stop])) for s in spans_of(tags))
    return tuple(dict.fromkeys(names))


def tag_names(
    tokens: Sequence[str], entities: Sequence[Entity]
) -> tuple[tuple[str, ...], tuple[Entity, ...]]:
    """The tags of named entities, every place where they stand, and those that stand nowhere.

    A name is looked for as it is spelled, across tokens, beginning and ending with one; white space
    in it plays no part, because token joints are no spaces of the post's. The longest name first,
    so that "New York Times" is not tagged as "New York"; what is tagged stays.

        tokens    Ada  met  Ada  Lovelace  's  cat        (person, Ada) (person, Ada Lovelace)
        tags       B    O    B      I       O    O
    """
    tags = ["O"] * len(tokens)
    packed = ["".join(token.split()) for token in tokens]
    missing: list[Entity] = []
    for kind, name in sorted(entities, key=lambda e: (-len("".join(e[1].split())), e[1])):
        wanted, places = "".join(name.split()), []
        for start in range(len(tokens)):
            stop = _match(packed, start, wanted)
            if stop is not None:
                places.append((start, stop))
        if not places or not kind:
            missing.append((kind, name))
        for start, stop in places:
            if kind and all(tag == "O" for tag in tags[start:stop]):
                tags[start:stop] = [f"B-{kind}", *[f"I-{kind}"] * (stop - start - 1)]
    return tuple(tags), tuple(missing)


def _match(packed: Sequence[str], start: int, wanted: str) -> int | None:
    """Where the tokens from `start` on spell `wanted`: the index after the last of them."""
    rest = wanted
    for at in range(start, len(packed)):
        if not packed[at] or not rest.startswith(packed[at]):
            return None
        rest = rest[len(packed[at]) :]
        if not rest:
            return at + 1
    return None
