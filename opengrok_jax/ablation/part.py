"""A part of a grid: what is run first, or shown while the rest still trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opengrok_jax.errors import ConfigError


def part(
    given: Mapping[str, Any],
    *,
    sets: Sequence[str] = (),
    questions: Sequence[str] = (),
    cells: Sequence[str] = (),
) -> dict[str, Any]:
    """The grid with some of its sets, questions and cells alone; () = all.

    A cell is what it is in the whole grid, so its results count there, too. Baselines stay whatever
    `cells` says; a question of which nothing else is left goes.

    >>> whole = {"questions": {"q": {"baseline": "a", "cells": {"a": {}, "b": {}, "c": {}}}}}
    >>> part(whole, cells=["b"])["questions"]["q"]["cells"]
    {'a': {}, 'b': {}}

    Raises:
      ConfigError: a name that the grid does not have, or nothing left.
    """
    asked = given.get("questions") or {}
    every = {name for question in asked.values() for name in question.get("cells") or {}}
    _known("--sets", sets, given.get("sets") or {})
    _known("--questions", questions, asked)
    _known("--cells", cells, every)
    found = {}
    for name, question in asked.items():
        kept = {
            cell: said
            for cell, said in (question.get("cells") or {}).items()
            if not cells or cell in cells or cell == question.get("baseline")
        }
        if (not questions or name in questions) and (not cells or len(kept) > 1):
            found[name] = {**question, "cells": kept}
    if not found:
        raise ConfigError("of the grid no question is left that compares two cells")
    result = {**given, "questions": found}
    if sets:
        result["sets"] = {n: v for n, v in given["sets"].items() if n in sets}
    return result


def _known(flag: str, names: Sequence[str], there: Any) -> None:
    for name in names:
        if name not in there:
            raise ConfigError(f"{flag}: the grid has no {name!r}; it has {', '.join(there)}")
