"""generate: a student answers one prompt, on standard output as it comes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from opengrok_jax.errors import ConfigError, DataError, needs_extra
from opengrok_jax.inert import inert
from opengrok_jax.progress import say


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    verb = verbs.add_parser(
        "generate",
        help="a student's answer to a prompt, on standard output as it comes",
        description="Prints a student's answer to one user turn, piece by piece as it comes. "
        "Needs no config: the checkpoint's folder says what it is.",
        allow_abbrev=False,
    )
    verb.add_argument(
        "--checkpoint",
        required=True,
        metavar="FOLDER",
        help="RUN/training/student, a Hugging Face folder with config.json and safetensors, or a "
        "name on the hub",
    )
    verb.add_argument(
        "--prompt", required=True, metavar="TEXT", help="what the user says; - = standard input"
    )
    verb.add_argument("--system", default="", metavar="TEXT", help="a system turn before it")
    verb.add_argument(
        "--tokenizer",
        default="",
        metavar="PATH",
        help="tokenizer.json or its folder (default: the one in the checkpoint's folder, or else "
        "the small one that ships with opengrok, if the student is of its size)",
    )
    verb.add_argument(
        "--max-new-tokens", type=int, default=256, metavar="N", help="cut the answer here (256)"
    )
    verb.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="0 takes the most likely token (default); above 0 draws, the higher the wilder",
    )
    verb.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw only among the most likely tokens that make up P of the probability (1)",
    )
    verb.add_argument(
        "--seed", type=int, metavar="S", help="the same seed draws the same answer (0)"
    )
    verb.add_argument(
        "--dtype",
        default="float32",
        choices=("float32", "bfloat16"),
        help="what weights and cache are held and multiplied in (float32)",
    )


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    if rest:
        raise ConfigError(f"{rest[0]}: no such flag; see opengrok generate --help")
    if flags.seed is not None and flags.temperature == 0:
        raise ConfigError("--seed changes nothing at temperature 0; give --temperature, or drop it")
    with needs_extra("train"):
        from opengrok_jax.model import stream
    try:
        pieces = stream.run(
            checkpoint=flags.checkpoint,
            prompt=_standard_input() if flags.prompt == "-" else flags.prompt,
            system=flags.system,
            tokenizer=flags.tokenizer,
            max_new_tokens=flags.max_new_tokens,
            temperature=flags.temperature,
            top_p=flags.top_p,
            seed=flags.seed or 0,
            dtype=flags.dtype,
        )
        encoding = sys.stdout.encoding or "utf-8"
        for piece in pieces:  # what the terminal cannot show (an emoji in Latin-1) becomes "?"
            if sys.stdout.isatty():
                piece = inert(piece, lines=True)
            print(piece.encode(encoding, "replace").decode(encoding), end="", flush=True)
        print(flush=True)
    except KeyboardInterrupt:
        say("opengrok: stopped")
        return 130
    return 0


def _standard_input() -> str:
    """All of it, without the newline that ends the last line."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not UTF-8: {error}; give the prompt as text") from None
