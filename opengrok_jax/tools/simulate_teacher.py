"""`opengrok simulate-teacher`: an endpoint on this machine that answers and fails on purpose."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.errors import ConfigError
from opengrok_jax.progress import say


def add(verbs: Any, epilog: str) -> None:
    """Its flags."""
    verb = verbs.add_parser(
        "simulate-teacher",
        help="an OpenAI-compatible endpoint on 127.0.0.1 with faults, limits and prices",
        description="Serves chat completions and responses until Ctrl-C; its books are at "
        "/simulator/ledger. For trying a collection, and for tests: the answers are made up.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verb.add_argument("--port", type=int, default=8899, help="0 takes a free one (8899)")
    verb.add_argument("--model", action="append", help="a model it serves; may be repeated")
    verb.add_argument("--seed", type=int, default=0, help="of answers and faults (0)")
    verb.add_argument("--latency", type=float, default=0.1, help="seconds before a reply (0.1)")
    verb.add_argument("--text", default="", help="what every answer says, instead of made-up words")
    verb.add_argument("--xai", action="store_true", help="tell prices and cost as xAI does")
    verb.add_argument("--price-input", default="", help="USD for a million tokens, a decimal")
    verb.add_argument("--price-output", default="", help="the same, for tokens of the answer")
    verb.add_argument("--credit", default="", help="USD after which it answers: no money left")
    verb.add_argument("--requests-per-minute", type=int, default=0, help="beyond it: 429")
    verb.add_argument("--tokens-per-minute", type=int, default=0, help="beyond it: 429")
    verb.add_argument("--at-once", type=int, default=0, help="requests at once; beyond it: 429")
    verb.add_argument("--no-logprobs", action="store_true", help="ignore the wish for them")
    verb.add_argument("--refuse", action="append", help="a parameter that it answers with 400")
    verb.add_argument(
        "--key-env", default="", help="environment variable with the API key that it wants"
    )
    verb.add_argument(
        "--faults",
        default="",
        metavar="FILE",
        help='a JSON plan: {"script": [...], "share": {"rate_429": 0.05}}',
    )
    verb.add_argument("--list-faults", action="store_true", help="name all faults and stop")
    verb.add_argument("--ledger", default="", metavar="FILE", help="where the books go at the end")


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Serves until SIGINT or SIGTERM."""
    from opengrok_jax.teacher import money
    from opengrok_jax.teacher.simulator.acts import ACTS
    from opengrok_jax.teacher.simulator.endpoint import Settings, Teacher
    from opengrok_jax.teacher.simulator.server import serve

    if rest:
        raise ConfigError(f"{rest[0]!r} is not understood; see opengrok simulate-teacher --help")
    if flags.list_faults:
        print("\n".join(ACTS))
        return 0
    key = os.environ.get(flags.key_env, "") if flags.key_env else ""
    if flags.key_env and not key:
        raise ConfigError(f"the environment variable {flags.key_env} is not set")
    settings = Settings(
        models=tuple(flags.model or ("tiny-teacher",)),
        seed=flags.seed,
        latency_sec=flags.latency,
        key=key,
        xai=flags.xai,
        prices=money.prices(input=flags.price_input, output=flags.price_output),
        logprobs=not flags.no_logprobs,
        refuses=tuple(flags.refuse or ()),
        requests_per_minute=flags.requests_per_minute,
        tokens_per_minute=flags.tokens_per_minute,
        at_once=flags.at_once,
        credit_ticks=money.ticks(flags.credit, "--credit") if flags.credit else -1,
        text=flags.text,
        plan=storage.read_json(Path(flags.faults)) if flags.faults else {},
    )
    teacher = Teacher(settings)
    try:
        asyncio.run(_serve(serve, teacher, flags.port))
    except OSError as error:
        raise ConfigError(
            f"port {flags.port} of 127.0.0.1 cannot be had: {error.strerror}; give another --port"
        ) from error
    report = teacher.ledger.report()
    if flags.ledger:
        storage.write_json(Path(flags.ledger), report)
    del report["keys"]
    print(json.dumps(report))
    return 0


async def _serve(serve: Any, teacher: Any, port: int) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    names = ", ".join(teacher.settings.models)

    def ready() -> None:
        say(f"simulated teacher ({names}): {teacher.base_url}, until Ctrl-C")

    await serve(teacher, port, ready, stop)
