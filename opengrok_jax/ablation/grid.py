"""The grid: questions, and for each the cells that are compared with its baseline.

    common      what every cell has unless it says otherwise
    questions   {name: {"ask": "in words?", "baseline": CELL, "cells": {CELL: {...}, ...}}}

A cell says what it changes in the base config:

    data            "distilled" (the teacher of the config), "gold" (the posts' own labels), "none"
                    (no training at all: the floor of a random student)
    rule            "none", "multiply", "exclude"
    factors         "config" (the numbers of the config), "tfidf", "pos", "dep" or "random" alone,
                    "without tfidf", "without pos", "without dep", "without random"; all at the
                    same keep rate, so that they hide as many tokens
    keep_rate       of the tokens that may be hidden; None = the config's target_keep_rate
    scope           "prompt+response", "prompt"
    draw            "fixed", "per_epoch"
    inference_mask  whether the student reads test prompts through the mask, too
    loss_weight     "uniform", "keep_prob" (weighs the loss of response tokens)
    config          anything else: {"training": {"epochs": 2.0}}, laid over the base config

What a cell does not say is as in the base config. Cells that come to the same are one cell, in how
many questions they may stand: without a mask, for example, its factors do not matter.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from opengrok_jax.errors import ConfigError
from opengrok_jax.records import canonical_json

DATA = ("distilled", "gold", "none")
ENGINES = ("finetune", "resident")
ALONE = ("tfidf", "pos", "dep", "random")
FACTORS = ("config", *ALONE, *(f"without {name}" for name in ALONE))
WEIGHT_OF = {"tfidf": "alpha", "pos": "beta", "dep": "gamma", "random": "delta"}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "data": DATA,
    "rule": ("none", "multiply", "exclude"),
    "factors": FACTORS,
    "scope": ("prompt+response", "prompt"),
    "draw": ("fixed", "per_epoch"),
    "inference_mask": (True, False),
    "loss_weight": ("uniform", "keep_prob"),
}
CELL_KEYS = (*_CHOICES, "keep_rate", "config")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one student is made of; None where it makes no difference to it.

    The attributes are as in the docstring of the module; `config` is JSON-able.
    """

    data: str
    rule: str
    factors: str | None
    keep_rate: float | None
    scope: str | None
    draw: str | None
    inference_mask: bool
    loss_weight: str
    config: Mapping[str, Any]

    @property
    def masked(self) -> bool:
        """Whether anything of it reads the mask or its probabilities."""
        return self.factors is not None

    @property
    def id(self) -> str:
        """Ten hexadecimal digits of the hash of all that it is."""
        return hashlib.sha256(canonical_json(asdict(self)).encode()).hexdigest()[:10]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question: which cells answer it, by name, and which of them the others are held against."""

    name: str
    ask: str
    baseline: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid that was understood; attributes as in `read`."""

    questions: tuple[Question, ...]
    sets: Mapping[str, Mapping[str, Any]]
    seeds: tuple[int, ...]
    engine: str
    predictor: str
    bootstrap: int
    price_per_hour: float
    currency: str

    def cells(self) -> dict[str, Cell]:
        """All distinct cells by their id, in the order of the questions."""
        return {cell.id: cell for q in self.questions for cell in q.cells.values()}


def read(
    base: Mapping[str, Any],
    *,
    questions: Mapping[str, Any],
    common: Mapping[str, Any] | None = None,
    sets: Mapping[str, Any] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    engine: str = "finetune",
    predictor: str = "likelihood",
    bootstrap: int = 1000,
    price_per_hour: float = 0.0,
    currency: str = "USD",
) -> Grid:
    """The grid that a config says; the keyword arguments are its keys.

    Args:
      base: sections of the base config.
      questions, common: as in the docstring of the module.
      sets: name -> what is laid over the base config; one student is trained for each. None or {}:
        one set "base" of nothing.
      seeds: of the trainings, at least one.
      engine: "finetune" = `training.finetune`, with everything it can do; "resident" = many small
        students from scratch in one process, see `training.resident`.
      predictor: how the students are asked, one of `evaluation.predict.KINDS`.
      bootstrap: resamples behind each interval.
      price_per_hour: of the machine, for the cost; 0 = not counted.
      currency: of the price.

    Raises:
      ConfigError: an unknown key or value; a question whose baseline is no cell of it.
    """
    if not questions:
        raise ConfigError("the grid has no questions; see configs/ablation.py")
    whole = [isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds]
    if not seeds or not all(whole) or len(set(seeds)) != len(seeds):
        raise ConfigError(f"grid.seeds is {list(seeds)}; expected different whole numbers from 0")
    if engine not in ENGINES:
        raise ConfigError(f"grid.engine is {engine!r}; expected one of {', '.join(ENGINES)}")
    if bootstrap < 1:
        raise ConfigError(f"grid.bootstrap is {bootstrap}; expected at least 1")
    if price_per_hour < 0:
        raise ConfigError(f"grid.price_per_hour is {price_per_hour}; expected 0 or more")
    found = []
    for name, given in questions.items():
        if unknown := sorted(set(given) - {"ask", "baseline", "cells"}):
            raise ConfigError(
                f"grid.questions.{name} has no {unknown[0]}; it has ask, baseline and cells"
            )
        cells = {
            of: cell(base, f"grid.questions.{name}.cells.{of}", {**(common or {}), **said})
            for of, said in (given.get("cells") or {}).items()
        }
        baseline = given.get("baseline", "")
        if baseline not in cells:
            raise ConfigError(
                f"grid.questions.{name}.baseline is {baseline!r}; expected one of its cells: "
                f"{', '.join(cells) or 'it has none'}"
            )
        if len({one.id for one in cells.values()}) != len(cells):
            same = [n for n, one in cells.items() if one.id == cells[baseline].id]
            raise ConfigError(
                f"grid.questions.{name}: two of its cells come to the same"
                + (f" ({', '.join(same)})" if len(same) > 1 else "")
            )
        cells = {baseline: cells[baseline], **cells}
        found.append(
            Question(name=name, ask=given.get("ask", name), baseline=baseline, cells=cells)
        )
    return Grid(
        questions=tuple(found),
        sets=dict(sets or {"base": {}}),
        seeds=tuple(seeds),
        engine=engine,
        predictor=predictor,
        bootstrap=bootstrap,
        price_per_hour=float(price_per_hour),
        currency=currency,
    )


def check_keys(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for a key of a grid that there is none of."""
    known = [n for n in inspect.signature(read).parameters if n != "base"]
    if unknown := sorted(set(values) - set(known)):
        raise ConfigError(f"the grid has no {unknown[0]}; it has {', '.join(known)}")
    if "questions" not in values:
        raise ConfigError("the grid has no questions; see configs/ablation.py")


def cell(base: Mapping[str, Any], where: str, given: Mapping[str, Any]) -> Cell:
    """A cell, completed from the base config and freed from what makes no difference to it.

    Raises:
      ConfigError: an unknown key or value, or values that contradict each other.
    """
    if unknown := sorted(set(given) - set(CELL_KEYS)):
        raise ConfigError(f"{where} has no {unknown[0]}; a cell has {', '.join(CELL_KEYS)}")
    for key, choices in _CHOICES.items():
        if key in given and given[key] not in choices:
            said = ", ".join(map(str, choices))
            raise ConfigError(f"{where}.{key} is {given[key]!r}; expected one of {said}")
    changes = dict(given.get("config") or {})
    training = {**base["training"], **changes.get("training", {})}
    masking = {**base["masking"], **changes.get("masking", {})}
    full = {
        "data": "distilled",
        "rule": training.get("rule", "exclude"),
        "factors": "config",
        "scope": masking.get("scope", "prompt+response"),
        "draw": training.get("draw", "fixed"),
        "inference_mask": False,
        "loss_weight": training.get("loss_weight", "uniform"),
        "keep_rate": None,
    } | {k: v for k, v in given.items() if k != "config"}
    if full["data"] == "none":
        full |= {"rule": "none", "loss_weight": "uniform", "inference_mask": False}
    if full["inference_mask"] and full["rule"] == "none":
        raise ConfigError(f"{where}: inference_mask needs a rule that reads it, not 'none'")
    if full["rule"] == "none":
        full["draw"] = None
    rate = full["keep_rate"]
    if rate is not None and not (isinstance(rate, float) and 0 < rate < 1):
        raise ConfigError(f"{where}.keep_rate is {rate!r}; expected a number between 0 and 1")
    if full["rule"] == "none" and full["loss_weight"] == "uniform":
        full |= {"factors": None, "scope": None, "keep_rate": None}
    elif rate is None:
        full["keep_rate"] = _target(masking)
        if full["keep_rate"] is None and full["factors"] != "config":
            raise ConfigError(
                f"{where}: the config calibrates no keep rate, so that factors "
                f"{full['factors']!r} would hide another share of the tokens; give the cell a "
                "keep_rate, or the config masking.target_keep_rate"
            )
    return Cell(**full, config=changes)


def masking_of(cell: Cell, masking: Mapping[str, Any]) -> dict[str, Any]:
    """The masking section of a cell; of one that reads no mask, what the config says."""
    section = {**masking, **cell.config.get("masking", {})}
    numbers = _numbers(section)
    if cell.factors in ALONE:
        numbers = dict.fromkeys(WEIGHT_OF.values(), 0.0) | {WEIGHT_OF[str(cell.factors)]: 4.0}
    elif cell.factors and cell.factors.startswith("without "):
        numbers[WEIGHT_OF[cell.factors.removeprefix("without ")]] = 0.0
    rate = cell.keep_rate if cell.masked else _target(section)
    return {
        **section,
        **numbers,
        "preset": "",
        "bias": section.get("bias", 0.0) if rate is None else 0.0,
        "target_keep_rate": rate,
        "scope": cell.scope or section.get("scope", "prompt+response"),
    }


def _numbers(masking: Mapping[str, Any]) -> dict[str, float]:
    """alpha, beta, gamma and delta of a masking section, its preset looked up."""
    from opengrok_jax.masking import build, keep

    if preset := masking.get("preset", ""):
        if preset not in keep.PRESETS:
            raise ConfigError(f"masking.preset {preset!r} is unknown")
        return {name: getattr(keep.PRESETS[preset], name) for name in WEIGHT_OF.values()}
    defaults = inspect.signature(build.run).parameters
    return {name: masking.get(name, defaults[name].default) for name in WEIGHT_OF.values()}


def _target(masking: Mapping[str, Any]) -> float | None:
    """The keep rate that a masking section calibrates; None = it does not."""
    from opengrok_jax.masking import build, keep

    if preset := masking.get("preset", ""):
        return keep.PRESETS[preset].target_keep_rate if preset in keep.PRESETS else None
    default = inspect.signature(build.run).parameters["target_keep_rate"].default
    return masking.get("target_keep_rate", default)
