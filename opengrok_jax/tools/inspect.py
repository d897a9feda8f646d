"""inspect: an example and why its tokens were kept, a training row, or what the whole mask does."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from opengrok_jax import config as config_module
from opengrok_jax import pipeline
from opengrok_jax.errors import needs_extra
from opengrok_jax.progress import say

SAMPLE = 20_000


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    about = "look at an example and why each token was kept, at a training row, at the whole mask"
    verb = verbs.add_parser(
        "inspect",
        help=about,
        description=f"{about.capitalize()}. Reads masking/masked.parquet of the run folder, of a "
        "large one only what is shown; writes nothing but --page. Colours on a terminal, plain "
        "text in a pipe.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument("--config", required=True, metavar="FILE[:variant]", help="the experiment")
    what = verb.add_mutually_exclusive_group()
    what.add_argument("--id", metavar="ID", help="the example with this id, or its beginning")
    what.add_argument("--number", type=int, metavar="N", help="the example at this place (0)")
    what.add_argument("--row", type=int, metavar="N", help="the training row at this place")
    what.add_argument(
        "--stats", action="store_true", help="distributions, and the keep rate against each factor"
    )
    verb.add_argument(
        "--sample",
        type=int,
        default=SAMPLE,
        metavar="N",
        help=f"with --stats, examples to read at most; 0 = all ({SAMPLE})",
    )
    verb.add_argument(
        "--epoch", type=int, default=0, metavar="N", help="with --row, whose mask to show (0)"
    )
    form = verb.add_mutually_exclusive_group()
    form.add_argument("--page", type=Path, metavar="FILE.html", help="write it as a page instead")
    form.add_argument("--json", action="store_true", help="for scripts")


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    config = config_module.load(flags.config, rest)
    folder, sections = pipeline.parts(config)
    path = folder / "masking" / "masked.parquet"
    with needs_extra("mask"):
        from opengrok_jax.tools.inspection import reading, row, stats, terminal, tokens
    chat = reading.tokenizer(path)
    if flags.stats:
        shown = stats.count(path, reading.provenance(path), flags.sample)
    elif flags.row is not None:
        shown = row.packed_row(path, flags.row, sections["training"], chat, flags.epoch)
    else:
        number = reading.number_of(path, flags.id) if flags.id else flags.number or 0
        shown = tokens.explain(
            reading.at(path, [number])[0], number, reading.provenance(path), chat
        )
    if flags.json:
        print(json.dumps(dataclasses.asdict(shown)))
        return 0
    if flags.page:
        from opengrok_jax.tools.inspection import page

        text = (
            page.stats_page(shown, reading.provenance(path))
            if isinstance(shown, stats.Stats)
            else page.row_page(shown, chat)
            if isinstance(shown, row.Row)
            else page.tokens_page(shown, chat)
        )
        page.write(flags.page, text)
        say(f"page: {flags.page}")
        return 0
    out = terminal.console()
    if isinstance(shown, stats.Stats):
        terminal.show_stats(out, shown)
    elif isinstance(shown, row.Row):
        terminal.show_row(out, shown, chat)
    else:
        terminal.show_tokens(out, shown, chat)
    return 0
