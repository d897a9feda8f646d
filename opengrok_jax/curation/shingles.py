"""Words and runs of three words: the unit of length, echo and likeness."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata

# Han and kana are written without spaces; each character counts as a word.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])[^\W_])+"
    r"(?:['’](?:(?![\u3040-\u30ff\u3400-\u9fff])[^\W_])+)*"
)
_ASCII_WORD = re.compile(r"[a-z0-9]+(?:'[a-z0-9]+)*")


@functools.lru_cache(maxsize=256)  # every check asks for the words of the row at hand
def words(text: str) -> tuple[str, ...]:
    """The words of a text, case and compatibility forms folded away.

    >>> words("Don't panic, it's ＯＫ! 🎉")
    ("don't", 'panic', "it's", 'ok')
    """
    if text.isascii():
        return tuple(_ASCII_WORD.findall(text.lower()))
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'")))


Triple = tuple[str, str, str]


def triples(text: str) -> frozenset[Triple]:
    """Every run of three words, once; empty where the text has fewer.

    words     a  b  c  a  b  c
    triples  (a  b  c)
                (b  c  a)
                   (c  a  b)
                      (a  b  c)  again
    """
    row = words(text)
    return frozenset(zip(row, row[1:], row[2:], strict=False))


@functools.lru_cache(maxsize=65536)
def number(word: str) -> int:
    """64 bits that stand for a word, the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
