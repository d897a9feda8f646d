"""gold: labelled posts of one or several tasks, as rows to learn from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.progress import say


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    about = "labelled posts of one or several tasks, as rows to learn from"
    verb = verbs.add_parser(
        "gold",
        help=about,
        description=f"{about.capitalize()}: question and answer are worded as the evaluation asks "
        "and reads them. Reads each FILE, writes --out. Next: prompts.source=posts, "
        "prompts.posts_file=OUT, no prompts.task, and teacher.kind=labelled.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument(
        "--task",
        required=True,
        action="append",
        metavar="NAME=FILE",
        help="a task's name and a file of its training posts; several times for several tasks",
    )
    verb.add_argument("--out", required=True, type=Path, metavar="OUT", help="the .jsonl to write")
    verb.add_argument("--count", type=int, default=0, help="posts of each task at most; 0 = all")


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    if rest:
        raise ConfigError(f"{rest[0]!r} is not understood; see `opengrok gold --help`")
    files: dict[str, str] = {}
    for given in flags.task:
        name, equals, file = given.partition("=")
        if not (name and equals and file) or name in files:
            raise ConfigError(f"--task {given!r}: expected NAME=FILE, each name once")
        files[name] = file
    if flags.count < 0:
        raise ConfigError(f"--count is {flags.count}; expected 0 or more")
    with needs_extra("evaluate"):
        from opengrok_jax.evaluation import gold
    told = gold.run(files=files, out=flags.out, count=flags.count)
    counts = ", ".join(f"{rows:,} of {name}" for name, rows in told["rows"].items())
    left = told["left_out"]
    said = f"; {left} left out, empty or with several answers" if left else ""
    say(f"{counts}{said}: {flags.out}")
    return 0
