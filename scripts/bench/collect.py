"""Collecting from a server with a latency: our rate over the ideal one, beside two peers.

    python scripts/bench/collect.py                       10,000 requests, 100 ms, 256 at once
    python scripts/bench/collect.py --journal 1000000     and how long a journal of so many rows
                                                          takes to go on

The server is `opengrok simulate-teacher` in a process of its own; every client is a process of its
own too, and they take turns. The ideal is that of a client which keeps `concurrency` requests in
flight without a pause: ceil(requests / concurrency) latencies. Peers that are not installed are
left out. `bare` is our client without `collect` around it, `ours_httpx` is `collect` with httpx's
own transport, a connection each, in the place of `transport.Local`. Prints one JSON object. What
the peers and `bare` do not do: none keeps a journal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _collect_systems as systems


def main() -> None:
    """Runs the systems in turn; with --system, is one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--journal", type=int, default=0, help="rows of the journal to resume")
    parser.add_argument("--systems", default="ours,bare,ours_httpx,openai,distilabel")
    parser.add_argument("--system", default="", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.system:
        print(json.dumps(SYSTEMS[flags.system](flags)))
        return
    result: dict[str, Any] = {
        "requests": flags.requests,
        "latency_sec": flags.latency,
        "concurrency": flags.concurrency,
        "ideal_sec": math.ceil(flags.requests / flags.concurrency) * flags.latency,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    for name in filter(None, flags.systems.split(",")):
        runs = [run for _ in range(flags.repeats) if (run := one(name, flags)) is not None]
        if runs:
            best = min(runs, key=lambda run: run["seconds"])
            result[name] = best | {
                "all_seconds": [round(run["seconds"], 3) for run in runs],
                "of_ideal": result["ideal_sec"] / best["seconds"],
                "requests_per_sec": flags.requests / best["seconds"],
            }
    if flags.journal:
        with tempfile.TemporaryDirectory() as folder:
            made = write_journal(Path(folder), flags.journal)
            resumed = child("journal", flags, folder=folder)
            result["journal"] = (resumed or {}) | {"made_in_sec": made}
    print(json.dumps(result, indent=1))


def one(name: str, flags: argparse.Namespace) -> dict[str, Any] | None:
    """One run of a system against a server of its own."""
    command = [sys.executable, "-m", "opengrok_jax", "simulate-teacher", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--latency", str(flags.latency), "--text", "So it goes. " * 12],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        found = re.search(r"http\S+/v1", server.stderr.readline())
        assert found is not None
        with tempfile.TemporaryDirectory() as folder:
            return child(name, flags, url=found.group(), folder=folder)
    finally:
        server.terminate()
        server.communicate()


def child(name: str, flags: argparse.Namespace, **given: str) -> dict[str, Any] | None:
    """A system in a process of its own; None where it is not installed."""
    command = [sys.executable, __file__, "--system", name]
    for key in ("requests", "latency", "concurrency", "journal"):
        command += [f"--{key}", str(getattr(flags, key))]
    for key, value in given.items():
        command += [f"--{key}", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["?"])[-1]
        print(f"{name}: {last}", file=sys.stderr)
        return None
    print(f"{name}: {done.stdout.splitlines()[-1]}", file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def write_journal(folder: Path, rows: int) -> float:
    """A journal in which all but ten of `rows` planned requests are answered; seconds it took.

    Planned as `collect` plans; the answers are put in at once and not one by one.
    """
    from opengrok_jax.teacher import collect, journal, journal_file, settings, wire

    start = time.perf_counter()
    systems.write_prompts(folder / "prompts.jsonl", rows)
    teacher = bench_teacher(folder)
    told = {"choices": [{"message": {"content": "so it goes"}, "finish_reason": "stop"}]}
    body = json.dumps(told | {"model": systems.MODEL}).encode()
    requests = (
        wire.request(p, teacher.asking) for p in settings.prompts_in(folder / "prompts.jsonl")
    )
    with journal.opened(folder / journal_file.NAME) as book:
        book.plan(
            collect.fingerprint(folder / "prompts.jsonl", teacher), teacher.endpoint, requests
        )
    with contextlib.closing(sqlite3.connect(folder / journal_file.NAME)) as database, database:
        database.execute(
            "INSERT INTO attempt (request, state, sent_at, received_at, status, reserved,"
            " reserved_tokens, tokens, model, reason, detail)"
            " SELECT request, 'ok', 1.0, 2.0, 200, 0, 0, 12, ?, '', '' FROM planned"
            " ORDER BY position LIMIT ?",
            (systems.MODEL, rows - 10),
        )
        database.execute("INSERT INTO reply SELECT id, '{}', ?, '' FROM attempt", (body,))
    return time.perf_counter() - start


def bench_teacher(folder: Path) -> Any:
    """The teacher of the large journal; nobody is asked."""
    from opengrok_jax.teacher import settings

    return settings.teacher(
        prompts_file=folder / "prompts.jsonl",
        kind="api",
        recorded_file="",
        base_url="http://127.0.0.1:9/v1",
        model=systems.MODEL,
        api="chat",
        api_key_env="",
        temperature=0.7,
        max_tokens=512,
        top_logprobs=0,
        extra_body="",
        timeout_sec=9.0,
        served_as=(),
        rights="made up",
    )


def resume(flags: argparse.Namespace) -> dict[str, Any]:
    """From nothing to the first request that would go out: what `collect` does before it."""
    from opengrok_jax.teacher import collect, journal, journal_file

    folder = Path(flags.folder)
    teacher = bench_teacher(folder)
    before = systems.peak_mb()
    start, processor = time.perf_counter(), time.process_time()
    print_ = collect.fingerprint(folder / "prompts.jsonl", teacher)
    with journal.opened(folder / journal_file.NAME) as book:
        plan = book.plan(print_, teacher.endpoint, ())
        book.spent()
        plan.served()
        plan.reread(lambda reply: (_ for _ in ()).throw(AssertionError))
        settled = plan.settled()
        first = next(plan.todo())
        told = systems.spent(start, processor)
    assert plan.requests == flags.journal
    assert settled == flags.journal - 10
    size = (folder / journal_file.NAME).stat().st_size / 2**20
    return told | {"memory_before_mb": before, "file_mb": size, "first_row": first.row}


SYSTEMS = {
    "ours": systems.ours,
    "bare": systems.bare,
    "ours_httpx": systems.ours_httpx,
    "openai": systems.openai,
    "distilabel": systems.distilabel,
    "journal": resume,
}

if __name__ == "__main__":
    main()
