"""Words and runs of three words: the unit of length, echo and likeness."""

from __future__ import annotations

import re
import unicodedata

# Han and kana are written without spaces; each character counts as a word.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|(?:(?![\u3040-\u30ff\u3400-\u9fff])[^\W_])+"
    r"(?:['’](?:(?![\u3040-\u30ff\u3400-\u9fff])[^\W_])+)*"
)


def words(text: str) -> list[str]:
    """The words of a text, case and compatibility forms folded away.

    >>> words("Don't panic, it's ＯＫ! 🎉")
    ["don't", 'panic', "it's", 'ok']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold().replace("’", "'"))


def shingles(text: str, size: int = 3) -> frozenset[str]:
    """Every run of `size` words, once; empty where the text has fewer.

    words      a  b  c  a  b  c
    shingles  [a  b  c]
                 [b  c  a]
                    [c  a  b]
                       (a  b  c)  again
    """
    row = words(text)
    return frozenset(" ".join(row[i : i + size]) for i in range(len(row) - size + 1))
