"""Rights: whether training data may be made of what a source gave.

Every source needs a declaration. xAI's terms (Enterprise terms of service and acceptable use
policy, August 2026) bar training on its output unless a written order form allows it, so a
declaration for such a source must name that agreement: "agreement: NAME". The tool cannot read
the agreement; naming it makes the user's claim explicit, and it stays with every row. Without it
no training data is made of an answer: not by `curate`, nor by what reads rows that were made
elsewhere (`mask`, `export`); and `collect` pays for none.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from opengrok_jax.records import Example, Response

_AGREEMENT = re.compile(r"agreement:\s*\S.+", re.I)
_GROK = re.compile(r"(?:^|[/:\s])grok", re.I)
# What evaluation declares of the answers it pays for.
EVALUATION_ONLY = "evaluation only: nothing is trained on these answers"
TERMS = (
    "xAI's terms (Enterprise terms of service and acceptable use policy, August 2026) bar training "
    "on its output without a written order form"
)


@dataclass(frozen=True, order=True)
class Source:
    """Who gave an answer, and what allows training on it.

    Attributes:
      kind: "recorded", "labelled" or "api".
      endpoint: without credentials and query.
    """

    kind: str
    endpoint: str
    model_asked: str
    model_served: str
    rights: str

    @property
    def xai(self) -> bool:
        """Whether xAI's terms apply: by the address, or by the name of a model."""
        host = urlsplit(self.endpoint).hostname or ""
        names = (self.model_asked, self.model_served)
        return host == "x.ai" or host.endswith(".x.ai") or any(map(_GROK.search, names))


def source(example: Example) -> Source:
    """The source of an example."""
    return Source(
        kind=example.source,
        endpoint=bare(example.provenance.endpoint),
        model_asked=example.provenance.model_asked,
        model_served=example.model_served,
        rights=example.rights,
    )


def of_response(response: Response) -> Source:
    """The source of an answer."""
    return Source(
        kind=response.source,
        endpoint=bare(response.endpoint),
        model_asked=response.model_asked,
        model_served=response.model_served,
        rights=response.rights,
    )


def bare(endpoint: str) -> str:
    """An address without user, password, query and fragment, whoever wrote it down.

    >>> bare("https://me:secret@h.example:8000/v1?key=abc")
    'https://h.example:8000/v1'
    """
    parts = urlsplit(endpoint)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@functools.lru_cache(maxsize=256)
def objection(source: Source) -> str:
    """Why no training data may be made of a source; "" where it may."""
    who = f"{source.model_served or source.model_asked or source.kind} at {source.endpoint}"
    if not source.rights.strip():
        return (
            f"the answers of {who} come without a declaration of rights: collect them with "
            "teacher.rights saying what allows training on them"
        )
    if source.rights == EVALUATION_ONLY:
        return f"the answers of {who} were given for evaluation only"
    if source.xai and not _AGREEMENT.fullmatch(source.rights.strip()):
        return (
            f"the answers of {who} come under xAI's terms. {TERMS}: if you have one, collect with "
            f"teacher.rights='agreement: NAME OF IT'; declared is {source.rights!r}"
        )
    return ""
