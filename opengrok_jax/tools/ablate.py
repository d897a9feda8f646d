"""ablate: which part of the recipe does the work? One base config, a grid of changes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from opengrok_jax import config as config_module
from opengrok_jax.errors import ConfigError
from opengrok_jax.progress import say

PREFIX = "--grid."
PARTS = ("sets", "questions", "cells")


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    about = "which part of the recipe does the work: a grid of changes to one config, with verdicts"
    verb = verbs.add_parser(
        "ablate",
        help=about,
        description=f"{about.capitalize()}. Reads --config and --grid (--grid.key=value changes a "
        "value), writes --workdir: ablation.json, ablation.md, figures/. Data are acquired "
        "and annotated once, cells that come to the same are trained once. Killed, the same "
        "command goes on.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    spec = "FILE[:variant]"
    verb.add_argument("--config", required=True, metavar=spec, help="the base experiment")
    verb.add_argument("--grid", required=True, metavar=spec, help="configs/ablation.py is one")
    verb.add_argument("--workdir", required=True, type=Path, metavar="D", help="folder of it all")
    verb.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="trainings at the same time (1)"
    )
    verb.add_argument("--seeds", default="", metavar="0,1,2", help="in place of the grid's")
    for name in PARTS:
        verb.add_argument(
            f"--{name}", default="", metavar="A,B", help=f"these {name} of the grid alone"
        )
    verb.add_argument(
        "--prepare",
        action="store_true",
        help="stop when data, masks and questions stand; the rest needs no spaCy and no "
        "scikit-learn, and may run elsewhere on a copy of D",
    )
    verb.add_argument("--dry-run", action="store_true", help="say what would be trained, stop")


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    of_grid = [one for one in rest if one.startswith(PREFIX)]
    config = config_module.load(flags.config, [one for one in rest if one not in of_grid])
    changes = [config_module.PREFIX + one.removeprefix(PREFIX) for one in of_grid]
    grid_config = config_module.load(flags.grid, changes)
    from opengrok_jax.ablation import ablate
    from opengrok_jax.ablation.part import part

    parts = {name: _names(getattr(flags, name)) for name in PARTS}
    if any(parts.values()):
        grid_config = _ordered(part(grid_config.to_dict(), **parts))
    said = [f" --{name} '{getattr(flags, name)}'" for name in PARTS if parts[name]]
    ablate.run(
        config=config,
        grid_config=grid_config,
        workdir=flags.workdir,
        jobs=flags.jobs,
        seeds=_seeds(flags.seeds),
        only_prepare=flags.prepare,
        dry_run=flags.dry_run,
        called=(flags.config, flags.grid + "".join(said)),
    )
    if not (flags.prepare or flags.dry_run):
        say(f"tables: {flags.workdir / ablate.PAGE}")
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _ordered(values: dict[str, Any]) -> ConfigDict:
    """A section that keeps the order of its keys: tables and pictures show them so."""
    nested = {k: _ordered(v) if isinstance(v, dict) else v for k, v in values.items()}
    return ConfigDict(nested, sort_keys=False)


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"--seeds is {text!r}; expected whole numbers, as 0,1,2")
    return tuple(int(part) for part in parts)
