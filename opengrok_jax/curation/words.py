"""Harmful words and phrases in tiers, seen through the common disguises.

    as typed        folded            why
    "K1LL"          kill              case, digits for letters
    "ｉｄｉｏｔ"      idiot             compatibility forms (NFKC)
    "idіot"         idiot             the Cyrillic letter that looks like i
    "i​d​i​o​t"         idiot             zero-width characters
    "ídïot"         idiot             accents
    "idiooooot"     idiot             drawn-out letters

Whole words only, so that a harmless word that holds a listed one does not count; phrases of the
list's [allowed] part take out the entries in them. What an entry's tier means for the answer is
decided in `harm`.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from opengrok_jax.errors import DataError

Tier = Literal["severe", "slur", "contested", "mild"]
LIST = Path(__file__).parent.parent / "assets" / "curation" / "harmful.txt"
GAP = 4  # words that "..." may stand for
Section = Tier | Literal["allowed"]
_SECTIONS: tuple[Section, ...] = (*get_args(Tier), "allowed")

_LEET: Mapping[str, str] = {
    "0": "o", "1": "il", "3": "e", "4": "a", "5": "s", "7": "t", "8": "b",
    "@": "a", "$": "s", "!": "i", "|": "il", "+": "t",
}  # fmt: skip
_AMBIGUOUS = 6  # at most so many letters of a word are tried both ways
# Letters of other scripts that look like a Latin one; Unicode does not fold them.
_LOOK_ALIKE = str.maketrans(
    "авеікмнорстухѕјԁɡαεικνορτυχ",
    "abeikmhopctyxsjdgaeikvoptux",
)
_EDGE = "!|+"  # at the edge of a word these are usually what they are
_TOKEN = re.compile(r"(?:[^\W_]|[@$!|+])+")  # the underscore separates


@dataclass(frozen=True)
class Hit:
    """A listed phrase in a text; `found` is its place there, accents and case folded away."""

    tier: Tier
    phrase: str
    found: str


def find(text: str) -> list[Hit]:
    """The listed phrases of a text, in order, those inside an allowed phrase left out."""
    plain = _plain(text)
    spans = list(_spans(_TOKEN.findall(plain)))
    if not spans:
        return []
    tokens = [match.span() for match in _TOKEN.finditer(plain)]
    allowed = [(a, b) for tier, _, a, b in spans if tier == "allowed"]
    hits = []
    for tier, phrase, first, last in spans:
        if tier == "allowed" or any(a <= first and last <= b for a, b in allowed):
            continue
        hits.append(Hit(tier, phrase, plain[tokens[first][0] : tokens[last][1]]))
    return hits


@functools.lru_cache(maxsize=65536)
def fold(word: str) -> frozenset[str]:
    """Every undisguised spelling that a word may stand for; the word is `_plain` already.

    >>> sorted(fold("k1ll"))
    ['kill', 'kl', 'kll', 'klll']
    """
    spellings: set[str] = set()
    for bare in {word, word.rstrip(_EDGE), word.strip(_EDGE)}:
        spellings.update(_unleet(bare))
    drawn_out = re.compile(r"(.)\1{2,}")
    return frozenset(
        form
        for spelling in spellings
        for form in (spelling, drawn_out.sub(r"\1\1", spelling), drawn_out.sub(r"\1", spelling))
        if form
    )


def _unleet(word: str) -> Iterable[str]:
    if not any(letter.isalpha() for letter in word):
        return [word]  # 455 is a number
    choices, free = [], _AMBIGUOUS
    for letter in word:
        choice = _LEET.get(letter, letter)
        if len(choice) > 1:
            choice, free = (choice, free - 1) if free else (choice[0], 0)
        choices.append(choice)
    return ("".join(row) for row in itertools.product(*choices))


class _Folded(dict[int, str]):
    """Each character as its plain spelling, worked out when it is first met."""

    def __missing__(self, code: int) -> str:
        spelled = unicodedata.normalize("NFKC", chr(code)).casefold()
        spelled = unicodedata.normalize("NFKD", spelled)
        visible = (
            c for c in spelled if unicodedata.category(c) not in ("Mn", "Cf") and c not in "'’`"
        )
        self[code] = "".join(visible).translate(_LOOK_ALIKE)
        return self[code]


_FOLDED = _Folded()


def _plain(text: str) -> str:
    """Case, compatibility forms, accents, invisible characters and apostrophes folded away."""
    if text.isascii():
        return text.lower().replace("'", "").replace("`", "")
    return text.translate(_FOLDED)


Entry = tuple[Section, tuple[str, ...]]  # section, words of the phrase


def _spans(words: Sequence[str]) -> Iterable[tuple[Section, str, int, int]]:
    """(section, phrase, first token, last token) of each entry found."""
    for start, word in enumerate(words):
        for section, phrase in _begun_by(word):
            last = _match(words, start, phrase[1:])
            if last is not None:
                yield section, " ".join(phrase), start, last


@functools.lru_cache(maxsize=65536)
def _begun_by(word: str) -> tuple[Entry, ...]:
    """The entries whose first word a word may stand for."""
    entries = _entries(LIST)
    return tuple(entry for form in sorted(fold(word)) for entry in entries.get(form, ()))


def _match(words: Sequence[str], at: int, rest: tuple[str, ...]) -> int | None:
    """Index of the token where a phrase ends whose word before `rest` is at `at`; or None."""
    if not rest:
        return at
    if rest[0] != "...":
        fits = at + 1 < len(words) and rest[0] in fold(words[at + 1])
        return _match(words, at + 1, rest[1:]) if fits else None
    for gap in range(GAP + 1):
        last = _match(words, at + gap, rest[1:])
        if last is not None:
            return last
    return None


@functools.cache
def _entries(path: Path) -> dict[str, list[Entry]]:
    """The word list by first word of each phrase."""
    result: dict[str, list[Entry]] = {}
    section: Section | None = None
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.split("#")[0].strip()
        if line.startswith("["):
            section = next((s for s in _SECTIONS if line == f"[{s}]"), None)
            if section is None:
                raise DataError(f"{path}, line {number}: {line} is none of {_SECTIONS}")
        elif line:
            phrase = tuple(line.split())
            if section is None or "..." in (phrase[0], phrase[-1]) or _plain(line) != line:
                raise DataError(
                    f"{path}, line {number}: expected plain lower-case words under a [section], "
                    f"with ... only in between; got {line!r}"
                )
            result.setdefault(phrase[0], []).append((section, phrase))
    return result
