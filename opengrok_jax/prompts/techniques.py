"""Techniques: demands that make a prompt harder or give its answer another voice or form.

    adversarial   conflicting claims, several steps, sarcasm, open referents, what is out of date
    persona       who speaks               perspective   from where, and for whom
    register      dialect and wording      format        a form that can be checked
    grounding     stay with what is given  caution       a fair account, no opinion

Each is a sentence or two in `assets/techniques.json`, which the user may replace. Dialect means a
regional standard or the quoted author's own words, never an accent put on; persons are what they
do, not what they are taken to be.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from opengrok_jax.errors import DataError
from opengrok_jax.prompts import lint
from opengrok_jax.prompts.axes import ASSETS
from opengrok_jax.records import from_json
from opengrok_jax.storage import read_json

KINDS = ("adversarial", "persona", "perspective", "register", "format", "grounding", "caution")
# Of these a prompt has one at most: two speakers or two forms cannot both be had.
ALONE = ("persona", "register", "format", "caution")
SLOTS = ("topic", "event")
# What `curation.score` can check: words at most, bullets, sentences, paragraphs, hashtags exactly,
# the last character, emoji or none, one of some labels first, words exactly.
FORM = (
    "max_words", "words", "bullets", "sentences", "paragraphs", "hashtags", "ends_with", "emoji",
    "starts_with",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Technique:
    """One demand.

    Attributes:
      name: unique.
      kind: out of `KINDS`.
      text: the demand; may name {topic} and {event}.
      posts: how many quoted posts it needs.
      labels: whether it also suits prompts that ask for a label and a word on it.
      form: for the kind "format": what can be checked in the answer, see `FORM`.
    """

    name: str
    kind: str
    text: str
    posts: int = 0
    labels: bool = False
    form: dict = field(default_factory=dict)


def load(path: str = "") -> tuple[Technique, ...]:
    """Reads the techniques; "" stands for those that ship with the package.

    Raises:
      DataError: the file is missing or malformed, or a name comes twice.
      ConfigError: a text holds wording meant to get around a safeguard.
    """
    file = Path(path) if path else ASSETS / "techniques.json"
    rows = read_json(file)
    if not isinstance(rows, list):
        raise DataError(f"{file}: expected a list of techniques")
    found: dict[str, Technique] = {}
    for number, row in enumerate(rows, start=1):
        try:
            technique = from_json(Technique, row)
        except DataError as error:
            raise DataError(f"{file}, technique {number}: {error}") from None
        if problem := _problem(technique, found):
            raise DataError(f"{file}, technique {number}: {problem}")
        lint.refuse(technique.text, f"{file}, technique {technique.name},")
        found[technique.name] = technique
    return tuple(found.values())


def _problem(technique: Technique, before: Mapping[str, Technique]) -> str:
    try:
        slots = {name for _, name, _, _ in string.Formatter().parse(technique.text) if name}
    except ValueError as error:
        return f"{technique.text!r}: {error}"
    if technique.name in before:
        return f"the name {technique.name} stands there twice"
    if technique.kind not in KINDS:
        return f"the kind {technique.kind!r} is none of {', '.join(KINDS)}"
    if not technique.text.strip():
        return f"{technique.name} has no text"
    if unknown := sorted(slots - set(SLOTS)):
        return f"{technique.name} has the slot {unknown[0]}; known: {', '.join(SLOTS)}"
    if unknown := sorted(set(technique.form) - set(FORM)):
        return f"{technique.name} has the form {unknown[0]}; known: {', '.join(FORM)}"
    return ""
