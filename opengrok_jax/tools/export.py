"""export: the kept answers as JSONL and Parquet, with a manifest and a data card."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from opengrok_jax import config as config_module
from opengrok_jax import pipeline
from opengrok_jax.errors import needs_extra
from opengrok_jax.progress import say


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    about = "the kept answers as JSONL and Parquet, with a manifest and a data card"
    verb = verbs.add_parser(
        "export",
        help=about,
        description=f"{about.capitalize()}. Reads the run folder, whose curation must be finished, "
        "writes --out. Refused where a source has no declaration of rights, or comes under xAI's "
        "terms and names no agreement (exit 3).",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument("--config", required=True, metavar="FILE[:variant]", help="the experiment")
    verb.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="absent, empty, or an export"
    )
    verb.add_argument("--title", default="", help="of the card; default: the run folder's name")
    verb.add_argument(
        "--licence", default="", metavar="TEXT", help="under which you give the data away"
    )


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    config = config_module.load(flags.config, rest)
    folder = pipeline.finished(config, "curate")
    with needs_extra("acquire"):
        from opengrok_jax.curation import export
    counts = export.run(run_dir=folder, out=flags.out, title=flags.title, licence=flags.licence)
    say(f"{counts['train']} train and {counts['valid']} valid rows: {flags.out}")
    if not flags.licence:
        say("no licence is stated; --licence TEXT puts it on the card")
    say(f'next: datasets.load_dataset("parquet", data_files="{flags.out}/*.parquet")')
    return 0
