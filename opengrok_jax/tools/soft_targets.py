"""soft-targets: a local teacher's top-k log-probabilities, stored once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.progress import say


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    verb = add_pass(
        verbs,
        "soft-targets",
        "a local teacher's top-k log-probabilities at every response token, stored once",
        following="training.distill.loss=topk and training.soft_targets",
        model=("teacher", "a model's folder or its name on the hub, of the same tokenizer"),
        out="folder of the results",
        epilog=epilog,
    )
    verb.add_argument("--k", type=int, default=32, help="numbers kept for each token (32)")


def add_pass(
    verbs: Any,
    name: str,
    about: str,
    *,
    following: str,
    model: tuple[str, str],
    out: str,
    epilog: str,
) -> argparse.ArgumentParser:
    """The parser of a verb that lets a model read a masked file once, as `training.passes` does.

    Args:
      name, about: of the verb.
      following: the settings that read what it writes.
      model: name and help of the flag that says which model.
      out: help of --out.
      epilog: what every help ends with.
    """
    verb = verbs.add_parser(
        name,
        help=about,
        description=f"{about.capitalize()}. Reads --masked and --{model[0]}, writes --out; "
        f"stopped, the same command goes on. Next: {following}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag, kind, what in (
        ("masked", Path, "RUN/masking/masked.parquet"),
        (model[0], str, model[1]),
        ("out", Path, out),
    ):
        verb.add_argument(f"--{flag}", required=True, type=kind, metavar=flag.upper(), help=what)
    verb.add_argument(
        "--rows-per-batch", type=int, default=8, metavar="N", help="rows run together (8)"
    )
    verb.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of its products"
    )
    return verb


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    if rest:
        raise ConfigError(f"{rest[0]!r} is not understood; see `opengrok soft-targets --help`")
    with needs_extra("train"):
        from opengrok_jax.training import soft_targets
    facts = soft_targets.run(
        masked_file=flags.masked,
        teacher=flags.teacher,
        out=flags.out,
        k=flags.k,
        rows_per_batch=flags.rows_per_batch,
        dtype=flags.dtype,
    )
    say(
        f"{facts['response_tokens']:,} response tokens, {facts['k']} numbers each, which hold "
        f"{facts['mean_stored_mass']:.1%} of the teacher's probability: {flags.out}"
    )
    say(f"next: training.distill.loss=topk, training.soft_targets={flags.out}")
    return 0
