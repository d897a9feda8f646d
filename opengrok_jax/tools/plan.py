"""plan: does a fine-tuning fit on such chips, how long, how much money."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from opengrok_jax import config as config_module
from opengrok_jax import pipeline
from opengrok_jax.errors import needs_extra


def add(verbs: Any, epilog: str) -> None:
    """Adds the verb's parser; `epilog` is what every help ends with."""
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
        "--teacher", default="", metavar="NAME", help="the same, in place of training.teacher"
    )
    verb.add_argument(
        "--analytic", action="store_true", help="count by hand, in a second; do not compile"
    )
    verb.add_argument(
        "--no-search", action="store_true", help="do not look for the largest microbatch"
    )
    verb.add_argument("--json", action="store_true", help="for scripts")


def run(flags: argparse.Namespace, rest: list[str]) -> int:
    """Does what the flags say; answers the exit status."""
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
        teacher=flags.teacher,
        k=sections["teacher"].get("top_logprobs", 0),
        analytic=flags.analytic,
        search=not flags.no_search,
    )
    if flags.json:
        print(json.dumps(done, indent=1))
    else:
        plan_table.show(done)
    return 0
