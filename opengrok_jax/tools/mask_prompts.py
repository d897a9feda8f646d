"""mask-prompts: new prompts masked as the corpus was, for an evaluation with masked attention."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError
from opengrok_jax.progress import say


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    about = "new prompts, masked with the factors, word counts and bias of a finished mask"
    verb = verbs.add_parser(
        "mask-prompts",
        help=about,
        description=f"{about.capitalize()}. Reads --masking and --prompts (.jsonl rows with id and "
        "messages), writes --out: tokens, factors, keep_prob and key_mask as masked.parquet.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, what in (
        ("masking", "RUN/masking, finished"),
        ("prompts", "a .jsonl file; RUN/prompts/prompts.jsonl is one"),
        ("out", "the folder to write, say prompts.parquet"),
    ):
        verb.add_argument(f"--{name}", required=True, type=Path, metavar=name.upper(), help=what)


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    if rest:
        raise ConfigError(f"{rest[0]!r} is not understood; see `opengrok mask-prompts --help`")
    from opengrok_jax.masking import prompts

    told = prompts.run(masking=flags.masking, prompts_file=flags.prompts, out=flags.out)
    say(
        f"{told['prompts']:,} prompts, {told['tokens']:,} tokens, "
        f"{told['visible'] / told['tokens']:.1%} visible: {flags.out}"
    )
    return 0
