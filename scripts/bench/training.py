"""Our training step beside TRL's, bare transformers' and tunix's: one run, turn by turn.

python scripts/bench/training.py posts      real posts, packed; the first system against the others
python scripts/bench/training.py dense      full rows of 512 tokens, all learnt
python scripts/bench/training.py masks      the three rules of masked attention
python scripts/bench/training.py distill    top-k soft targets from disk, and TRL's GKD

[--systems ours bare-packed ...] [--rounds 7] [--updates 2] [--rows 4] [--row-tokens 512]
[--cores 2] [--data ../shared/data]

Peers are not dependencies: pip install torch transformers==5.23.0 trl==1.16.0 google-tunix==0.1.7.
A system that cannot be imported is left out, and said so. Each has a process of its own that stays
(model, optimizer and compiled step ready) and waits while the others have their turn, in another
order each round. Random weights, float32, AdamW with clipping, the same examples, the same number
of tokens an update. `processor` is the time of all threads of a process: what to trust on a machine
that is shared. `against` is the median of the first system's rate over this one's in the same
round: above 1, the first is faster.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[2] / "shared" / "data"
DEFAULTS = {
    "posts": ["ours", "trl", "trl-free", "trl-packed", "bare", "bare-packed", "tunix"],
    "dense": ["ours-none", "tunix", "bare"],
    "masks": ["ours-none", "ours", "ours-multiply"],
    "distill": ["ours", "ours-topk", "bare", "trl-gkd"],
}
PACKAGES = ("jax", "flax", "optax", "torch", "transformers", "trl", "google-tunix")


def main() -> None:
    """Parses the flags; measures, or is one of the workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=list(DEFAULTS))
    parser.add_argument("--systems", nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=2, help="of a turn")
    parser.add_argument("--warm-up", type=int, default=3, help="updates before the first turn")
    parser.add_argument("--rows", type=int, default=4, help="of an update")
    parser.add_argument("--row-tokens", type=int, default=512)
    parser.add_argument("--cores", type=int, default=0, help="that each may use; 0 = all")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("OPENGROK_SHARED_DATA", DATA)),
        help="folder with tweeteval/ and phi3-tokenizer/",
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.worker:
        work(flags)
        return
    if flags.what != "dense" and not (flags.data / "tweeteval").is_dir():
        print(json.dumps({"skipped": "no tweeteval folder: give --data, or run 'dense'"}))
        return
    print(json.dumps(measure(flags), indent=1))


def work(flags: argparse.Namespace) -> None:
    """One system in this process."""
    if flags.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.cores])
    import _peers
    import _work

    turns = _work.Turns(flags.warm_up, flags.updates)
    if flags.what == "dense":
        examples = _work.full_rows(8 * flags.rows, flags.row_tokens)
    else:
        examples = _work.posts(flags.data, 800)
    _peers.SYSTEMS[flags.worker](examples, flags, turns)


def measure(flags: argparse.Namespace) -> dict[str, Any]:
    """Starts the workers one after another, then lets them take turns."""
    load = [round(x, 1) for x in os.getloadavg()]
    systems, left_out = flags.systems or DEFAULTS[flags.what], {}
    workers, turns = {}, {}
    for name in systems:
        worker = Worker(name)
        if failed := worker.answer().get("failed"):
            left_out[name] = failed
        else:
            workers[name], turns[name] = worker, []
    if not workers:
        raise SystemExit(f"no system runs: {left_out}")
    for number in range(flags.rounds):
        for name in random.Random(number).sample(list(workers), len(workers)):
            turns[name].append(workers[name].turn())
            print(name, turns[name][-1], file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.end()
    first, *_ = turns
    return {
        "what": flags.what,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": {"processor": processor(), "cores": flags.cores or os.cpu_count()},
        "load_before_and_after": [load, [round(x, 1) for x in os.getloadavg()]],
        "versions": versions(),
        "flags": {k: v for k, v in vars(flags).items() if k in ("rounds", "updates", "rows")},
        "left_out": left_out,
        "systems": {name: figures(mine, turns[first]) for name, mine in turns.items()},
    }


def figures(turns: list[dict[str, Any]], first: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of one system's turns, and the first system's rate over its own, round by round."""
    found: dict[str, Any] = {"peak_gib": turns[-1]["peak_gib"]}
    for clock in ("wall", "processor"):
        rates, best = ([t["bearing"] / t[clock] for t in rows] for rows in (turns, first))
        ratios = sorted(b / r for b, r in zip(best, rates, strict=True))
        found[clock] = {
            "bearing_tokens_per_second": round(statistics.median(rates), 1),
            "seconds_per_turn": round(statistics.median(t[clock] for t in turns), 3),
            "against": round(statistics.median(ratios), 3),
            "against_least_and_most": [round(ratios[0], 3), round(ratios[-1], 3)],
        }
    return found


class Worker:
    """A process with one system in it; what it says on stderr is kept in case it fails."""

    def __init__(self, name: str):
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the worker)
        self.process = subprocess.Popen(
            [sys.executable, __file__, *sys.argv[1:], "--worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            # Spinning threads would take the turn of the others, and of whoever else is here.
            env={"OMP_WAIT_POLICY": "PASSIVE", "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
            | os.environ,
        )

    def answer(self) -> dict[str, Any]:
        """What it says next; if it has ended, its last words."""
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return {"failed": lines[-1] if lines else f"status {self.process.returncode}"}

    def turn(self) -> dict[str, Any]:
        """Lets it have its turn."""
        self._say("go")
        return self.answer()

    def end(self) -> None:
        """Tells it to stop."""
        self._say("end")
        self.process.wait()

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()


def processor() -> str:
    """The name of the processor, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "unknown")


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
