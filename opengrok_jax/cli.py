"""The `opengrok` command: a verb per stage, `run` for all, `status` to look, `convert` beside."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging as absl_logging

from opengrok_jax import config as config_module
from opengrok_jax import pipeline
from opengrok_jax.errors import ConfigError, DataError, StorageError, UserError, needs_extra
from opengrok_jax.progress import duration, say

EPILOG = """\
configs:
  --config FILE[:variant]       e.g. configs/demo.py, configs/tweeteval.py:smoke
  --config.section.key=value    changes one value, e.g. --config.training.epochs=2.0

exit status:
  0 done   1 other   2 config   3 data   4 run folder   5 teacher   6 weights or checkpoint
  7 training   8 disk   9 missing extra   130 stopped by Ctrl-C   143 by SIGTERM
  Stopped or failed, the same command goes on where it was; nothing obtained is lost.
  OPENGROK_TRACEBACK=1 shows where in the code an error arose.
"""

READS = {
    "plan-prompts": "the axes and templates, or your posts",
    "collect": "prompts/prompts.jsonl",
    "curate": "teacher/responses.jsonl",
    "mask": "curation/kept.jsonl",
    "finetune": "masking/masked.parquet",
    "evaluate": "training/student, the tasks",
    "report": "all of the above",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with the status that `EPILOG` lists."""
    try:
        sys.exit(_main(sys.argv[1:] if arguments is None else list(arguments)))
    except UserError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on from here", 130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM):
            raise
        _fail(f"{error.filename or 'the disk'}: {error.strerror}", StorageError.exit_code)


def _fail(message: str, status: int) -> None:
    if os.environ.get("OPENGROK_TRACEBACK"):
        raise
    print(f"opengrok: {message}", file=sys.stderr, flush=True)
    sys.exit(status)


def _main(arguments: list[str]) -> int:
    flags, rest = _parser().parse_known_args(arguments)
    if not os.environ.get("OPENGROK_TRACEBACK"):
        # Orbax logs the traceback of every failed write; the error itself reaches us all the same.
        absl_logging.set_verbosity(absl_logging.FATAL)
    if flags.verb == "generate":
        return _generate(flags, rest)
    if flags.verb == "convert":
        return _convert(flags, rest)
    if flags.verb == "plan":
        return _plan(flags, rest)
    if flags.verb == "soft-targets":
        return _soft_targets(flags, rest)
    config = config_module.load(flags.config, rest)
    folder, _ = pipeline.parts(config)
    if flags.verb == "status":
        return _status(folder, flags.json)
    only = "" if flags.verb == "run" else flags.verb
    pipeline.run(config, only=only, redo=flags.redo, dry_run=flags.dry_run)
    if not flags.dry_run:
        _what_next(flags.verb, flags.config, folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="opengrok",
        description="Distil a large teacher's answers about social-media posts into a small Phi-3 "
        "of your own.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")
    _verb(verbs, "run", "all stages below, in order; what is done is not done again")
    for number, stage in enumerate(pipeline.STAGES, start=1):
        reads, writes = READS[stage.verb], ", ".join(stage.writes)
        details = f"Reads {reads}. Writes {stage.folder}/: {writes}. Settings: {stage.section}.*"
        _verb(verbs, stage.verb, f"{number}. {stage.about}", details)
    status = _verb(verbs, "status", "what is done in the run folder, and what is not")
    status.add_argument("--json", action="store_true", help="for scripts")
    _generate_verb(verbs)
    _convert_verb(verbs)
    _soft_targets_verb(verbs)
    _plan_verb(verbs)
    return parser


def _verb(verbs: Any, name: str, about: str, details: str = "") -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=about,
        description=f"{about.lstrip('1234567. ').capitalize()}. {details}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument("--config", required=True, metavar="FILE[:variant]", help="the experiment")
    if name != "status":
        stages = f"one of {', '.join(pipeline.VERBS)}"
        verb.add_argument(
            "--redo",
            default="",
            metavar="STAGE",
            help=f"throw away this stage's results and all later ones first ({stages}); "
            "the teacher's journal is always kept",
        )
        verb.add_argument("--dry-run", action="store_true", help="say what would be done, stop")
    return verb


def _generate_verb(verbs: Any) -> None:
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
        _fail("stopped", 130)
    return 0


def _standard_input() -> str:
    """All of it, without the newline that ends the last line."""
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"standard input is not UTF-8: {error}; give the prompt as text") from None


def _convert_verb(verbs: Any) -> None:
    about = "weights from Hugging Face safetensors to a student's folder (Orbax), or back"
    verb = verbs.add_parser(
        "convert",
        help=about,
        description=f"{about.capitalize()}. Reads --source, writes --out, whole or not at all; "
        "files of tokenizer and generation go along. Needs little memory, whatever the model's "
        "size. No --config.",
        epilog=EPILOG,
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


def _soft_targets_verb(verbs: Any) -> None:
    about = "a local teacher's top-k log-probabilities at every response token, stored once"
    verb = verbs.add_parser(
        "soft-targets",
        help=about,
        description=f"{about.capitalize()}. Reads --masked and --teacher, writes --out; stopped, "
        "the same command goes on. Next: training.distill.loss=topk and training.soft_targets.",
        epilog=EPILOG,
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


def _plan_verb(verbs: Any) -> None:
    about = "does the fine-tuning fit on such chips, how large a batch, how long, how much money"
    verb = verbs.add_parser(
        "plan",
        help=about,
        description=f"{about.capitalize()}. Reads the config's training section and, for TPUs, "
        "compiles the very step that would train, without one at hand (extra 'plan'); a GPU's plan "
        "is counted by hand. Writes nothing.",
        epilog=EPILOG,
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


def _status(folder: Path, as_json: bool) -> int:
    rows = pipeline.status(folder)
    if as_json:
        print(json.dumps({"run_dir": str(folder), "stages": rows}, indent=1))
        return 0
    print(f"{folder}")
    for row in rows:
        state = "done" if row["done"] else "begun" if row["begun"] else "to do"
        took = duration(row["seconds"]) if row["done"] and row["seconds"] is not None else ""
        counts = ", ".join(
            f"{key} {value}"
            for key, value in row["counts"].items()
            if isinstance(value, (int, float, str)) and not isinstance(value, bool)
        )
        print(f"  {row['stage']:<13} {state:<6} {took:>11}  {counts[:90]}".rstrip())
    return 0


def _what_next(verb: str, spec: str, folder: Path) -> None:
    """Points to the page, or to the verb that follows."""
    if verb in ("run", "report"):
        say(f"report: {folder / 'report' / 'report.html'}")
    else:
        following = pipeline.VERBS[pipeline.VERBS.index(verb) + 1]
        say(f"next: opengrok {following} --config {spec}")
