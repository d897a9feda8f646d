"""Words of others on our terminal and pages: shown, never obeyed."""

from __future__ import annotations

import unicodedata

# What emoji are joined with; everything else of these categories could steer a terminal or hide.
_HARMLESS = frozenset("\u200d\ufe0e\ufe0f")


def inert(text: str, lines: bool = False) -> str:
    """Text that cannot steer a terminal: control, format and private characters are spelled out.

    >>> inert("a\\x1b[31mb\\u202e")
    'a\\\\x1b[31mb\\\\u202e'

    Args:
      text: anything.
      lines: leave line breaks as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char
        if char in _HARMLESS or (lines and char == "\n") or unicodedata.category(char)[0] != "C"
        else char.encode("unicode_escape").decode()
        for char in text
    )
