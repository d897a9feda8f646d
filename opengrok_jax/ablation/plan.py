"""From a grid to what has to be done, each thing once: data, masks, trainings.

Everything is named by the hash of what it is made of, so that cells share what they can: gold and
distilled answers are acquired once, a mask is drawn once for all rules and seeds that read it.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from opengrok_jax import stages
from opengrok_jax.ablation.grid import Cell, Grid, masking_of
from opengrok_jax.errors import ConfigError
from opengrok_jax.records import canonical_json

ACQUIRED = ("prompts", "teacher", "refinement", "curation")


@dataclass(frozen=True, kw_only=True)
class Data:
    """One kind of training data: sections `ACQUIRED` of a config."""

    set: str
    kind: str
    sections: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Of what it is made of; how fast it is asked for does not count."""
        steering = next(s.steering for s in stages.STAGES if s.section == "teacher")
        plain = {n: dict(self.sections[n]) for n in ACQUIRED}
        plain["teacher"] = {k: v for k, v in plain["teacher"].items() if k not in steering}
        return digest(plain)


@dataclass(frozen=True, kw_only=True)
class Mask:
    """One masked file: data and a masking section.

    Attributes:
      asked: test prompts are masked with it, too.
      probabilities: a training reads keep_prob, and not the mask alone.
    """

    data: Data
    masking: Mapping[str, Any]
    asked: bool
    probabilities: bool

    @property
    def id(self) -> str:
        """Of what it is made of; on how many cores does not count."""
        free = ("workers", "runner", "ray_address", "shard_examples")
        numbers = {k: v for k, v in self.masking.items() if k not in free}
        return digest([self.data.id, numbers])


@dataclass(frozen=True, kw_only=True)
class Training:
    """One student to be: a cell, a set and a seed."""

    cell: Cell
    set: str
    seed: int
    mask: Mask
    settings: Mapping[str, Any]

    @property
    def student(self) -> str:
        """Of what the student is made of: cells that only ask it in another way share it."""
        return digest([self.set, self.mask.id, self.settings, self.cell.data == "none"])

    def row(self) -> dict[str, Any]:
        """What plan.json notes of it; all a worker needs."""
        return {
            "cell": self.cell.id,
            "set": self.set,
            "seed": self.seed,
            "student": self.student,
            "mask": self.mask.id,
            "untrained": self.cell.data == "none",
            "inference_rule": self.cell.rule if self.cell.inference_mask else "none",
            "training": dict(self.settings),
        }


def trainings(base: Mapping[str, Any], grid: Grid) -> list[Training]:
    """All of them, those that share a compiled program one after the other.

    Args:
      base: the sections of the base config.
      grid: as `grid.read` gives it.

    Raises:
      ConfigError: a set or a cell names a section or key that there is not.
    """
    result = []
    for name, changes in grid.sets.items():
        of_set = overlaid(base, changes, f"grid.sets.{name}")
        for cell in grid.cells().values():
            sections = overlaid(of_set, cell.config, "a cell's config")
            mask = Mask(
                data=_data(name, cell, sections),
                masking=masking_of(cell, sections["masking"]),
                asked=cell.inference_mask,
                probabilities=cell.draw == "per_epoch" or cell.loss_weight == "keep_prob",
            )
            for seed in grid.seeds:
                settings = _settings(cell, sections["training"], seed)
                result.append(
                    Training(cell=cell, set=name, seed=seed, mask=mask, settings=settings)
                )
    trained = {t.set: t.mask for t in reversed(result) if t.cell.data != "none"}
    result = [
        # It learns nothing; it needs to know tokens and sizes, and any data do for that.
        replace(t, mask=replace(trained[t.set], asked=False, probabilities=False))
        if t.cell.data == "none" and t.set in trained
        else t
        for t in result
    ]
    order = {name: at for at, name in enumerate(grid.sets)}
    return sorted(
        result,
        key=lambda t: (order[t.set], t.cell.rule, t.cell.data, t.mask.id, t.student, t.cell.id),
    )


def masks(planned: list[Training]) -> list[Mask]:
    """The distinct masks, each with all that any cell wants of it."""
    found: dict[str, Mask] = {}
    for mask in (training.mask for training in planned):
        before = found.get(mask.id, mask)
        found[mask.id] = replace(
            mask,
            asked=mask.asked or before.asked,
            probabilities=mask.probabilities or before.probabilities,
        )
    return list(found.values())


def _data(name: str, cell: Cell, sections: Mapping[str, Any]) -> Data:
    kind = "gold" if cell.data == "gold" else "distilled"
    acquired = {n: dict(sections[n]) for n in ACQUIRED}
    if kind == "gold":
        kept = {k: v for k, v in acquired["teacher"].items() if k == "concurrency"}
        acquired["teacher"] = {**kept, "kind": "labelled"}
        acquired["refinement"] = {"rounds": 0}
    if acquired["teacher"].get("kind") == "labelled":
        kind = "gold"
    return Data(set=name, kind=kind, sections=acquired)


def _settings(cell: Cell, training: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The training section of a cell, whole: every argument of `finetune.run` but the paths."""
    from opengrok_jax.training import finetune

    signature = inspect.signature(finetune.run).parameters
    defaults = {
        name: one.default
        for name, one in signature.items()
        if one.default is not inspect.Parameter.empty
    }
    of_cell = {
        "rule": cell.rule,
        "draw": cell.draw or "fixed",
        "loss_weight": cell.loss_weight,
        "seed": seed,
    }
    return copy.deepcopy({**defaults, **training, **of_cell})


def overlaid(
    base: Mapping[str, Any], changes: Mapping[str, Any], where: str
) -> dict[str, dict[str, Any]]:
    """The sections with some keys changed; nested sections are laid over each other.

    >>> overlaid({"training": {"epochs": 3.0, "rule": "none"}}, {"training": {"epochs": 1.0}}, "x")
    {'training': {'epochs': 1.0, 'rule': 'none'}}

    Raises:
      ConfigError: there is no such section.
    """
    result = copy.deepcopy({name: dict(section) for name, section in base.items()})
    for name, section in changes.items():
        if name not in result:
            raise ConfigError(f"{where}: the config has no section {name!r}; {', '.join(result)}")
        result[name] = _laid(result[name], section)
    return result


def _laid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        # What a set asks and is scored on takes the place of the base's, it does not add to it.
        result[key] = _laid(result[key], value) if both and key != "tasks" else value
    return result


def digest(value: Any) -> str:
    """Twelve hexadecimal digits of the hash of a JSON-able value."""
    return hashlib.sha256(canonical_json(_plain(value)).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
