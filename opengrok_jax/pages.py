"""Pages: one self-contained file each, no script, no outside asset, everything escaped.

A page is a template that extends assets/page.html.j2, which holds the policy, the colours for light
and dark, and what all pages share. What models and posts wrote is shown as text, with characters
that could hide or steer spelled out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opengrok_jax.errors import needs_extra
from opengrok_jax.inert import inert
from opengrok_jax.tokenizer import ChatTokenizer

ASSETS = Path(__file__).parent / "assets"


def render(template: Path, **values: Any) -> str:
    """The page of a template; `values` by name, escaped where they are shown.

    Raises:
      MissingExtra: jinja2 is not installed.
    """
    with needs_extra("evaluate"):
        import jinja2
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, ASSETS]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["inert"] = inert
    return environment.get_template(template.name).render(**values)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of text that belongs to one token, or to the several bytes of one character.

    Attributes:
      text: as the post has it.
      first, stop: the tokens.
    """

    text: str
    first: int
    stop: int


def pieces(chat: ChatTokenizer, ids: list[int]) -> list[Piece]:
    """The text of some tokens, cut where tokens begin; the bytes of a character stay together.

    tokens   ▁ok   ▁   <0xF0> <0x9F> <0x98> <0x80>   !
    pieces   " ok" " "              "😀"             "!"
    """
    result, start, held = [], 0, b""
    for n, index in enumerate(ids):
        if chat.is_special(index):
            if held:
                result.append(_piece(held, start, n))
            result.append(Piece(text=chat.token_text(index), first=n, stop=n + 1))
            held, start = b"", n + 1
            continue
        held += chat.token_bytes(index)
        try:
            text = held.decode()
        except UnicodeDecodeError as error:
            if error.reason == "unexpected end of data":
                continue
            text = held.decode(errors="replace")
        result.append(Piece(text=text, first=start, stop=n + 1))
        held, start = b"", n + 1
    if held:
        result.append(_piece(held, start, len(ids)))
    return result


def _piece(held: bytes, start: int, stop: int) -> Piece:
    return Piece(text=held.decode(errors="replace"), first=start, stop=stop)
