"""review: a person looks at the answers that a rule doubts, and at a few by chance."""

from __future__ import annotations

import argparse
import getpass
import shlex
from pathlib import Path
from typing import Any

from opengrok_jax import config as config_module
from opengrok_jax import pipeline
from opengrok_jax.errors import ConfigError, needs_extra
from opengrok_jax.progress import say


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
    about = "look at doubtful answers on a local page, and at a few by chance"
    verb = verbs.add_parser(
        "review",
        help=about,
        description=f"{about.capitalize()}. Reads curation/verdicts.jsonl; writes "
        "review/decisions.jsonl, which `curate` applies. The page is for this machine alone and "
        "its address is a secret; Ctrl-C ends it, and the same command goes on.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument("--config", required=True, metavar="FILE[:variant]", help="the experiment")
    verb.add_argument("--reviewer", metavar="NAME", help="whose decisions (your login name)")
    verb.add_argument("--port", type=int, metavar="N", help="instead of any that is free")
    shares = verb.add_argument_group("the queue, as before where left out; shares from 0 to 1")
    shares.add_argument(
        "--uncertain", type=float, metavar="SHARE", help="of the kept: the most doubtful (0.10)"
    )
    shares.add_argument(
        "--audit", type=float, metavar="SHARE", help="of the kept: hidden, by chance (0.05)"
    )
    shares.add_argument(
        "--repeat", type=float, metavar="SHARE", help="shown twice, and to everybody (0.10)"
    )
    shares.add_argument("--seed", type=int, metavar="N", help="of the draw (0)")
    files = verb.add_mutually_exclusive_group()
    files.add_argument(
        "--export", type=Path, metavar="FILE", help="write .jsonl, .csv or, for Label Studio, .json"
    )
    files.add_argument(
        "--import",
        type=Path,
        metavar="FILE",
        dest="import_",
        help="take decisions in from such a file",
    )
    files.add_argument(
        "--summary", action="store_true", help="decisions, agreement and the bound; no page"
    )


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
    folder, _ = pipeline.parts(config_module.load(flags.config, rest))
    draw = _given(flags, "uncertain", "audit", "repeat", "seed")
    page = _given(flags, "reviewer", "port")
    _check(flags, draw, page)
    with needs_extra("acquire"):
        from opengrok_jax.curation.review import verbs as review
    if flags.export:
        count = review.export(run=folder, file=flags.export, draw=draw)
        say(f"review: {count} rows in {flags.export}")
        return 0
    if flags.import_:
        _tell(review.import_(run=folder, file=flags.import_))
    elif not flags.summary:
        serving: dict[str, Any] = {"reviewer": _user(), **page}
        left = review.serve(run=folder, draw=draw, ready=_ready, **serving)
        say(f"review: everything is saved, {left} answers are open")
    for line in review.summary(folder):
        say(f"review: {line}")
    if not flags.summary:
        say(f"next: opengrok curate --config {shlex.join([flags.config, *rest])}")
    return 0


def _given(flags: argparse.Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(flags, name) for name in names if getattr(flags, name) is not None}


def _check(flags: argparse.Namespace, draw: dict[str, Any], page: dict[str, Any]) -> None:
    """Refuses flags that would do nothing."""
    idle = page if flags.export else {**draw, **page}
    if idle and (flags.export or flags.import_ or flags.summary):
        raise ConfigError(f"--{next(iter(idle))} does nothing here; leave it out")


def _ready(url: str) -> None:
    say("review: open this address in a browser on this machine; Ctrl-C ends it")
    print(url, flush=True)


def _tell(taken: Any) -> None:
    say(
        f"review: {taken.taken} decisions taken in, {taken.known} known, {taken.older} older than "
        f"what stands, {taken.undecided} rows undecided"
    )
    for reason, count in taken.stale.items():
        say(f"review: {count} left out: {reason}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "reviewer"
