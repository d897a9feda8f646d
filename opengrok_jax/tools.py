"""The verbs of `opengrok` that are no stage: generate, convert, soft-targets, plan."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from opengrok_jax import config as config_module
from opengrok_jax import pipeline
from opengrok_jax.errors import ConfigError, DataError, needs_extra
from opengrok_jax.progress import say


def add(verbs: Any, epilog: str) -> None:
    """Adds their parsers; `epilog` is what every help ends with."""
    for verb in (_generate_verb, _convert_verb, _soft_targets_verb, _plan_verb):
        verb(verbs, epilog)


def _generate_verb(verbs: Any, epilog: str) -> None:
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


def _generate(flags: argparse.Namespace, rest: list[str]) -> int:
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
            print(piece.encode(encoding, "replace").decode(encoding), end="", flush=True)
        print(flush=True)
    except BrokenPipeError:  # the reader (head, say) has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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


def _convert_verb(verbs: Any, epilog: str) -> None:
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


def _convert(flags: argparse.Namespace, rest: list[str]) -> int:
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


def _soft_targets_verb(verbs: Any, epilog: str) -> None:
    about = "a local teacher's top-k log-probabilities at every response token, stored once"
    verb = verbs.add_parser(
        "soft-targets",
        help=about,
        description=f"{about.capitalize()}. Reads --masked and --teacher, writes --out; stopped, "
        "the same command goes on. Next: training.distill.loss=topk and training.soft_targets.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, kind, what in (
        ("masked", Path, "RUN/masking/masked.parquet"),
        ("teacher", str, "a model's folder or its name on the hub, of the same tokenizer"),
        ("out", Path, "folder of the results"),
    ):
        verb.add_argument(f"--{name}", required=True, type=kind, metavar=name.upper(), help=what)
    verb.add_argument("--k", type=int, default=32, help="numbers kept for each token (32)")
    verb.add_argument(
        "--rows-per-batch", type=int, default=8, metavar="N", help="rows run together (8)"
    )
    verb.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of its products"
    )


def _soft_targets(flags: argparse.Namespace, rest: list[str]) -> int:
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


def _plan_verb(verbs: Any, epilog: str) -> None:
    about = "does the fine-tuning fit on such chips, how large a batch, how long, how much money"
    verb = verbs.add_parser(
        "plan",
        help=about,
        description=f"{about.capitalize()}. Reads the config's training section and, for TPUs, "
        "compiles the very step that would train, without one at hand (extra 'plan'); a GPU's plan "
        "is counted by hand. Writes nothing.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument("--config", required=True, metavar="FILE[:variant]", help="the experiment")
    chips = verb.add_mutually_exclusive_group(required=True)
    chips.add_argument(
        "--tpu", metavar="KIND:SHAPE", help="v4, v5e, v5p, v6e or tpu7x: v5e:4x4, v5p:2x2x2, .."
    )
    chips.add_argument("--gpu", metavar="KIND:NUMBER", help="a100, h100 or h200: h200:1, ..")
    verb.add_argument("--price", type=float, default=0.0, metavar="P", help="of a chip for an hour")
    data = verb.add_mutually_exclusive_group()
    data.add_argument("--masked", type=Path, metavar="FILE", help="what `opengrok mask` wrote")
    data.add_argument("--rows", type=int, default=0, metavar="N", help="the data fills N rows")
    data.add_argument("--tokens", type=int, default=0, metavar="N", help="the data has N tokens")
    verb.add_argument(
        "--model",
        default="",
        metavar="NAME",
        help="phi-3-mini-4k, phi-3-medium-4k or phi-4: their sizes, in place of training.init",
    )
    verb.add_argument(
        "--analytic", action="store_true", help="count by hand, in a second; do not compile"
    )
    verb.add_argument(
        "--no-search", action="store_true", help="do not look for the largest microbatch"
    )
    verb.add_argument("--json", action="store_true", help="for scripts")


def _plan(flags: argparse.Namespace, rest: list[str]) -> int:
    config = config_module.load(flags.config, rest)
    folder, sections = pipeline.parts(config)
    masked = folder / "masking" / "masked.parquet"
    told = flags.masked or flags.rows or flags.tokens
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # with libtpu JAX would look for a TPU here
    with needs_extra("train"):
        from opengrok_jax.training import plan, plan_table
    done = plan.run(
        training=sections["training"],
        chips=flags.tpu or flags.gpu,
        price=flags.price,
        tokens=flags.tokens,
        rows=flags.rows,
        masked_file=flags.masked or (masked if masked.exists() and not told else None),
        model=flags.model,
        analytic=flags.analytic,
        search=not flags.no_search,
    )
    if flags.json:
        print(json.dumps(done, indent=1))
    else:
        plan_table.show(done)
    return 0


# Verb -> what it does with its flags and the arguments that are left; answers the exit status.
TOOLS: dict[str, Callable[[argparse.Namespace, list[str]], int]] = {
    "generate": _generate,
    "convert": _convert,
    "soft-targets": _soft_targets,
    "plan": _plan,
}
