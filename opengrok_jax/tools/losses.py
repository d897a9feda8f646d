"""losses: how well a student knows each answer already, for the refinement to go by."""

from __future__ import annotations

import argparse
from typing import Any

from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.progress import say
from opengrok_jax.tools.soft_targets import add_pass

RULES = ("none", "multiply", "exclude")  # of the masked attention; its module needs JAX


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    verb = add_pass(
        verbs,
        "losses",
        "a student's mean loss on each answer, for the refinement to go by",
        following="refinement.losses_file",
        model=("student", "RUN/training/student, or another model of the same tokenizer"),
        out="the .jsonl file to write",
        epilog=epilog,
    )
    verb.add_argument(
        "--rule", default="none", choices=RULES, help="how it reads the prompt (none: all of it)"
    )


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    if rest:
        raise ConfigError(f"{rest[0]!r} is not understood; see `opengrok losses --help`")
    with needs_extra("train"):
        from opengrok_jax.training import example_losses
    told = example_losses.run(
        masked_file=flags.masked,
        student=flags.student,
        out=flags.out,
        rule=flags.rule,
        rows_per_batch=flags.rows_per_batch,
        dtype=flags.dtype,
    )
    say(
        f"{told['examples']:,} answers, {told['tokens']:,} tokens, {told['mean_loss']:.3f} nats a "
        f"token: {flags.out}"
    )
    say(f"next: refinement.losses_file={flags.out}")
    return 0
