"""Full fine-tuning at true size on one GPU: this package, bare transformers and TRL, one by one.

python scripts/bench/gpu.py [--systems ceiling ours bare trl] [--rows-of dense] [--layers 32]
                            [--row-tokens 2048] [--rows 8] [--microbatches 4] [--updates 5]

Phi-3-mini's sizes, random weights, bfloat16 products, AdamW with clipping. A system may carry
settings of its own: `ours:remat=full,rows=16`, `bare:weights=bfloat16,checkpointing=1`. Each runs
in a process of its own, for only one fits into the memory; `ceiling` measures what the card does at
most (a product of 8192 x 8192 matrices of random numbers, a copy): the others are put beside it.
Prints one JSON object: medians and spread over the updates after `--warm-up`.

Model FLOPs are counted by `training/flops.py` for every system alike: 6 a matrix element and token,
causal attention, the head where loss is borne; what a system computes besides is its own affair.
Peers: pip install torch transformers trl. A system that fails is reported with what it said.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _gpu_systems

SETTINGS: dict[str, Any] = {  # what may follow a system's name
    "attention": "auto", "remat": "dots", "rule": "exclude", "param_dtype": "float32",
    "moments_dtype": "float32", "weights": "float32", "checkpointing": 0, "compile": 0, "trace": "",
    "xla": "", "unroll": 0,
}  # fmt: skip


def main() -> None:
    """Parses the flags; measures, or is one of the workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", default=["ceiling", "ours", "bare", "trl"])
    parser.add_argument("--rows-of", choices=["dense", "posts"], default="dense")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--row-tokens", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=8, help="of a microbatch")
    parser.add_argument("--microbatches", type=int, default=4, help="of an update")
    parser.add_argument("--updates", type=int, default=5, help="that are timed")
    parser.add_argument("--warm-up", type=int, default=2, help="updates before")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a system may take")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="with tweeteval, for posts"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        print("RESULT " + json.dumps(work(flags.worker, flags)), flush=True)
        return
    systems: dict[str, Any] = {}
    for name in flags.systems:
        systems[name] = run(name, flags.limit)
        print(name, json.dumps(systems[name]), file=sys.stderr, flush=True)
    ceiling = systems.get("ceiling", {}).get("matrix_tflops")
    for row in systems.values():
        if ceiling and "model_tflops" in row:
            row["share_of_ceiling"] = round(row["model_tflops"] / ceiling, 3)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    given = {k: str(v) for k, v in vars(flags).items() if k not in ("worker", "systems")}
    print(json.dumps({"date": date, "flags": given, "systems": systems}, indent=1))


def run(name: str, limit: float) -> dict[str, Any]:
    """A worker's figures, or what it said last."""
    started = time.perf_counter()
    environment = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=environment, check=False
        )
    except subprocess.TimeoutExpired as late:
        said = late.stderr if isinstance(late.stderr, str) else (late.stderr or b"").decode()
        return {"failed": f"not done after {limit:.0f} s", "said": said[-1500:]}
    found = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        return {"failed": f"exit status {done.returncode}", "said": done.stderr[-1500:]}
    return json.loads(found[-1]) | {"whole_seconds": round(time.perf_counter() - started, 1)}


def work(name: str, flags: argparse.Namespace) -> dict[str, Any]:
    """One system in this process."""
    system, _, rest = name.partition(":")
    own = argparse.Namespace(**SETTINGS, **vars(flags))
    for pair in filter(None, rest.split(",")):
        key, _, value = pair.partition("=")
        if not hasattr(own, key):
            raise SystemExit(f"no setting {key!r}; there are {', '.join(vars(own))}")
        setattr(own, key, type(getattr(own, key))(value))
    os.environ["XLA_FLAGS"] = own.xla
    return _gpu_systems.SYSTEMS[system](own)


if __name__ == "__main__":
    main()
