"""Words and runs of words: the unit of length, echo, likeness and contamination."""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Sequence

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


def shingles(text: str, size: int = 3) -> frozenset[str]:
    """Every run of `size` words, once; empty where the text has fewer.

    words      a  b  c  a  b  c
    shingles  [a  b  c]
                 [b  c  a]
                    [c  a  b]
                       (a  b  c)  again
    """
    return runs(words(text), size)


def runs(row: Sequence[str], size: int) -> frozenset[str]:
    """`shingles` of words that are at hand."""
    return frozenset(" ".join(row[i : i + size]) for i in range(len(row) - size + 1))


def number(shingle: str) -> int:
    """64 bits that stand for a shingle, the same in every process."""
    return int.from_bytes(hashlib.blake2b(shingle.encode(), digest_size=8).digest(), "big")
