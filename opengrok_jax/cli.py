"""The `opengrok` command: a verb per stage, `run` for all, `status` to look, tools beside."""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import logging as absl_logging

from opengrok_jax import config as config_module
from opengrok_jax import pipeline, tools
from opengrok_jax import status as status_module
from opengrok_jax.errors import StorageError, UserError
from opengrok_jax.inert import inert
from opengrok_jax.progress import say
from opengrok_jax.stages import STAGES, VERBS

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
    "refine": "prompts/prompts.jsonl, teacher/responses.jsonl, and asks the teacher on",
    "curate": "refinement/responses.jsonl",
    "mask": "curation/kept.jsonl",
    "finetune": "masking/masked.parquet",
    "evaluate": "training/student, the tasks",
    "report": "all of the above",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; exits with the status that `EPILOG` lists."""
    try:
        status = _main(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()  # a reader that has gone is met here, not in the interpreter's farewell
        sys.exit(status)
    except UserError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped; the same command goes on from here", 130)
    except BrokenPipeError:  # the reader (head, say) has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT, errno.EPERM):
            raise
        _fail(f"{error.filename or 'the disk'}: {error.strerror}", StorageError.exit_code)


def _fail(message: str, status: int) -> None:
    if os.environ.get("OPENGROK_TRACEBACK"):
        raise
    print(f"opengrok: {inert(message, lines=True)}", file=sys.stderr, flush=True)
    sys.exit(status)


def _main(arguments: list[str]) -> int:
    flags, rest = _parser().parse_known_args(arguments)
    if not os.environ.get("OPENGROK_TRACEBACK"):
        # Orbax logs the traceback of every failed write; the error itself reaches us all the same.
        absl_logging.set_verbosity(absl_logging.FATAL)
    if tool := tools.TOOLS.get(flags.verb):
        return tool(flags, rest)
    config = config_module.load(flags.config, rest)
    folder, _ = pipeline.parts(config)
    if flags.verb == "status":
        return status_module.show(folder, as_json=flags.json, orphans=flags.orphans)
    only = "" if flags.verb == "run" else flags.verb
    pipeline.run(config, only=only, redo=flags.redo, dry_run=flags.dry_run)
    if not flags.dry_run:
        _what_next(flags.verb, [flags.config, *rest], folder)
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
    for number, stage in enumerate(STAGES, start=1):
        reads, writes = READS[stage.verb], ", ".join(stage.writes)
        details = f"Reads {reads}. Writes {stage.folder}/: {writes}. Settings: {stage.section}.*"
        _verb(verbs, stage.verb, f"{number}. {stage.about}", details)
    status = _verb(verbs, "status", "what is done in the run folder, and what is not")
    status.add_argument("--json", action="store_true", help="for scripts")
    status.add_argument(
        "--orphans",
        action="store_true",
        help="name each sending that ended with its process and may have been paid",
    )
    tools.add(verbs, EPILOG)
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
        stages = f"one of {', '.join(VERBS)}"
        verb.add_argument(
            "--redo",
            default="",
            metavar="STAGE",
            help=f"throw away this stage's results and all later ones first ({stages}); "
            "what was paid for is always kept",
        )
        verb.add_argument("--dry-run", action="store_true", help="say what would be done, stop")
    return verb


def _what_next(verb: str, spec: list[str], folder: Path) -> None:
    """Points to the page, or to the verb that follows, with the same config and overrides."""
    if verb in ("run", "report"):
        say(f"report: {folder / 'report' / 'report.html'}")
    else:
        following = VERBS[VERBS.index(verb) + 1]
        say(f"next: opengrok {following} --config {shlex.join(spec)}")
