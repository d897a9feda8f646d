"""Markdown from a template; what is put in stays text, whatever a post or a model wrote."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from opengrok_jax.errors import needs_extra
from opengrok_jax.inert import inert

# What Markdown, HTML in Markdown, or GitHub's links and mentions would read as more than text.
_MARKS = re.compile(r"([\\`*_\[\]<>|#~&@$]|(?<=\w)://|(?<=www)\.)")
_AT_START = re.compile(r"^(\s*)([-+=]|\d+[.)])(?=\s|$)")


class Source(str):
    """Markdown that is meant as such, and is not escaped again."""


def text(value: str) -> str:
    """Text that Markdown shows as it is, on one line.

    >>> print(text("*a* <b> | #x https://e.x"))
    \\*a\\* \\<b\\> \\| \\#x https\\://e.x
    """
    line = " ".join(inert(value).split())
    return _AT_START.sub(r"\1\\\2", _MARKS.sub(lambda found: "\\" + found[1], line))


def struck(value: str) -> Source:
    """Hidden text: struck through where Markdown knows how, in brackets everywhere."""
    return Source(f"[~~{text(value)}~~]")


def render(template: Path, **values: Any) -> str:
    """A template filled in; every string is escaped unless it is a `Source`.

    Raises:
      MissingExtra: jinja2 is not installed.
    """
    with needs_extra("evaluate"):
        import jinja2

    def finalize(value: Any) -> Any:
        return text(value) if isinstance(value, str) and not isinstance(value, Source) else value

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        undefined=jinja2.StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return re.sub(r"\n{3,}", "\n\n", environment.get_template(template.name).render(**values))
