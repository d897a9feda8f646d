"""convert: weights from Hugging Face safetensors to a student, or back."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.progress import say


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    about = "weights from Hugging Face safetensors to a student's folder (Orbax), or back"
    verb = verbs.add_parser(
        "convert",
        help=about,
        description=f"{about.capitalize()}. Reads --source, writes --out, whole or not at all; "
        "files of tokenizer and generation go along. Needs little memory, whatever the model's "
        "size. No --config.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument(
        "--source",
        required=True,
        metavar="FOLDER",
        help="config.json with safetensors (one file or shards), a student's folder, or "
        "OWNER/MODEL[@REVISION] on the Hugging Face hub (HF_TOKEN is read from the environment)",
    )
    verb.add_argument(
        "--out", required=True, type=Path, metavar="FOLDER", help="to make; absent or empty"
    )
    verb.add_argument(
        "--to",
        default="orbax",
        choices=("orbax", "hf"),
        help="orbax: a student's folder (default); hf: safetensors for transformers, vLLM, ..",
    )
    verb.add_argument(
        "--dtype",
        default="",
        choices=("float32", "bfloat16"),
        help="store every tensor so; default: each as it is",
    )


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    if rest:
        raise ConfigError(f"{rest[0]!r} is not understood; see `opengrok convert --help`")
    with needs_extra("train"):
        from opengrok_jax.model import convert

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the half is cleared away
    done = convert.run(source=flags.source, out=flags.out, to=flags.to, dtype=flags.dtype)
    if done["left"]:
        say(f"not carried along: {', '.join(done['left'])}")
    say(f"{done['tensors']} tensors, {done['bytes']:,} bytes: {done['out']}")
    return 0
