"""The verbs of `opengrok` that are no stage: a file each, with its `add` (flags) and its `run`.

`run` gets its flags and the arguments that were left, and answers the exit status. Nothing heavy
is imported before it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from opengrok_jax.tools import (
    ablate,
    convert,
    export,
    generate,
    gold,
    inspect,
    losses,
    mask_prompts,
    plan,
    review,
    simulate_teacher,
    soft_targets,
)

_MODULES = {
    "ablate": ablate,
    "inspect": inspect,
    "generate": generate,
    "convert": convert,
    "soft-targets": soft_targets,
    "losses": losses,
    "mask-prompts": mask_prompts,
    "gold": gold,
    "plan": plan,
    "simulate-teacher": simulate_teacher,
    "review": review,
    "export": export,
}
TOOLS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    verb: module.run for verb, module in _MODULES.items()
}


def add(verbs: Any, epilog: str) -> None:
    """Adds their parsers; `epilog` is what every help ends with."""
    for module in _MODULES.values():
        module.add(verbs, epilog)
