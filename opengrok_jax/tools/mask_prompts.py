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
        "messages) or the prompts of the tasks of --config, writes --out: tokens, factors, "
        "keep_prob and key_mask as masked.parquet. Then: opengrok evaluate "
        "--config.evaluation.prompt_masks=OUT --config.evaluation.rule=exclude",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, what in (
        ("masking", "RUN/masking, finished"),
        ("out", "the folder to write, say prompts.parquet"),
    ):
        verb.add_argument(f"--{name}", required=True, type=Path, metavar=name.upper(), help=what)
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--prompts",
        type=Path,
        metavar="PROMPTS",
        help="a .jsonl file; RUN/prompts/prompts.jsonl is one",
    )
    which.add_argument(
        "--config",
        metavar="FILE[:variant]",
        help="the test prompts of this config's evaluation; they are left beside OUT as .jsonl",
    )


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    if rest and not flags.config:
        raise ConfigError(f"{rest[0]!r} is not understood; see `opengrok mask-prompts --help`")
    from opengrok_jax.masking import prompts

    file = flags.prompts
    if flags.config:
        file = flags.out.with_suffix(".jsonl")
        _write_prompts(flags.config, rest, file)
    told = prompts.run(masking=flags.masking, prompts_file=file, out=flags.out)
    say(
        f"{told['prompts']:,} prompts, {told['tokens']:,} tokens, "
        f"{told['visible'] / told['tokens']:.1%} visible: {flags.out}"
    )
    return 0


def _write_prompts(spec: str, overrides: list[str], file: Path) -> None:
    from opengrok_jax import config as config_module
    from opengrok_jax import pipeline
    from opengrok_jax.evaluation import prompt_masks, tasks

    _, sections = pipeline.parts(config_module.load(spec, overrides))
    given = sections["evaluation"]
    made = [
        tasks.make_task(name, settings, given.get("data", ""))
        for name, settings in given["tasks"].items()
    ]
    limit = given.get("limit", 0)
    prompt_masks.write_prompts(file, ((task, tasks.load_items(task, limit)) for task in made))
