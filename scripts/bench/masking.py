"""What the mask costs on top of its annotator, and what it takes at which size. Prints JSON.

python scripts/bench/masking.py overhead [--posts 8192] [--repeats 3]
python scripts/bench/masking.py scale [--sizes 10000,100000] [--repeated 0.1] [--workers 0]
python scripts/bench/masking.py rebuild [--posts 100000] [--workers 0]

overhead  processor and wall time over the same posts, in turns of 1024 posts, each by a process of
          its own with one thread: `bare` is `nlp.pipe` of the pipeline that ships over the distinct
          posts (batches of 256, no memory zone, the Docs thrown away); `bare in a worker` the same
          in the environment that the build gives its workers; `annotating` everything that
          annotating is in a build (duplicates found, chunks keyed, words copied out, written and
          read again). Medians over the turns, and the ratio of the sums.
scale     whole builds of growing corpora: seconds, posts a second, and resident memory, sampled
          every half second from /proc: the peak of the process and its workers together, of the
          process, of its largest worker, and of all together in each tenth of the time.
rebuild   seconds of a build after alpha changed, the factors being there.

Posts are TweetEval's (--data FOLDER, by default ../shared/data), beyond their number recombined
from halves of two and a made-up @name, so that new words never end; every tenth repeats an earlier
one, as in a crawl by keywords, or as many as --repeated says.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ANSWERS = ("positive", "negative", "neutral", "It is about sports, mostly.", "A complaint.")
CHILD = """
import json, sys, time
from pathlib import Path
from opengrok_jax.masking import build
if __name__ == "__main__":
    given = json.loads(sys.argv[3])
    started = time.perf_counter()
    told = build.run(examples_file=Path(sys.argv[1]), out=Path(sys.argv[2]), **given)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "examples": told["examples"], "texts": told["texts"]}))
"""


def main() -> None:
    """Parses the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("overhead", "scale", "rebuild"))
    parser.add_argument("--posts", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", default="10000,100000")
    parser.add_argument("--repeated", type=float, default=0.1, help="share of posts seen before")
    parser.add_argument("--workers", type=int, default=0, help="0 = all cores")
    parser.add_argument("--keep", type=Path, help="folder for the corpora, which stay there")
    parser.add_argument("--data", type=Path, default=Path("..") / "shared" / "data")
    flags = parser.parse_args()
    source = real_posts(flags.data)
    if flags.what == "overhead":
        result = overhead(source, flags.posts or 8192, flags.repeats)
    elif flags.what == "scale":
        sizes = [int(size) for size in flags.sizes.split(",")]
        result = {"builds": [scale(source, size, flags) for size in sizes]}
    else:
        result = rebuild(source, flags.posts or 100_000, flags)
    print(json.dumps(result, indent=1))


def real_posts(folder: Path) -> list[str]:
    """The distinct posts of TweetEval's sentiment task."""
    with gzip.open(folder / "tweeteval" / "sentiment.train-rebuilt.jsonl.gz", "rt") as file:
        return list(dict.fromkeys(json.loads(line)["text"] for line in file))


def posts(source: list[str], count: int, repeated: float = 0.1) -> Iterator[str]:
    """So many posts, a share of them repeated."""
    chance = random.Random(0)
    halves = [post.split() for post in source]
    new = 0
    for number in range(count):
        if number - new < int(repeated * (number + 1)):
            yield source[chance.randrange(min(new, len(source)))]
            continue
        new += 1
        if new <= len(source):
            yield source[new - 1]
        else:
            one, other = chance.choice(halves), chance.choice(halves)
            name = f"@{chance.randrange(1 << 40):x}"
            yield " ".join([*one[: len(one) // 2], name, *other[len(other) // 2 :]])


def write_examples(source: list[str], count: int, repeated: float, path: Path) -> None:
    """An examples file as `opengrok curate` writes it."""
    with open(path, "w", encoding="utf-8") as file:
        for number, post in enumerate(posts(source, count, repeated)):
            row = {
                "id": f"{number:016x}",
                "messages": [{"role": "user", "content": post}],
                "response": ANSWERS[number % len(ANSWERS)],
                "split": "valid" if number % 50 == 0 else "train",
                "cell": {"intent": "bench"},
                "label": ANSWERS[number % 3],
                "source": "bench",
                "model_served": "bench",
                "rights": "bench",
            }
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


# ---- overhead -----------------------------------------------------------------------------------


def overhead(source: list[str], count: int, repeats: int) -> dict[str, Any]:
    """Seconds of the bare pipeline and of annotating as in a build, in turns."""
    from opengrok_jax.masking import words, workers

    texts = list(posts(source, count))
    shares = [texts[at : at + words.CHUNK] for at in range(0, len(texts), words.CHUNK)]
    one_thread = {k: v for k, v in workers.ENVIRONMENT.items() if "MALLOC" not in k}
    kinds = {
        "bare": (bare, one_thread),
        "bare in a worker": (bare, workers.ENVIRONMENT),
        "annotating": (annotating, workers.ENVIRONMENT),
    }
    rows = []
    for repeat in range(repeats):
        with contextlib.ExitStack() as stack:
            turns = {k: stack.enter_context(begun(*how)) for k, how in kinds.items()}
            for number, share in enumerate(shares):
                names = list(turns)[:: 1 if (number + repeat) % 2 == 0 else -1]
                rows.append({name: turns[name](share) for name in names})
    return {
        "posts": len(texts),
        "distinct": len(set(texts)),
        "turns": len(rows),
        "overhead": {name: against(rows, name) for name in kinds if name != "bare"},
        "seconds": {
            name: {kind: sum(row[name][kind] for row in rows) for kind in ("cpu", "wall")}
            for name in kinds
        },
    }


def against(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """What a kind takes more than the bare pipeline for the same posts."""
    told = {}
    for kind in ("cpu", "wall"):
        ratios = [row[name][kind] / row["bare"][kind] for row in rows]
        told[f"{kind}_median"] = statistics.median(ratios) - 1
        told[f"{kind}_of_sums"] = (
            sum(row[name][kind] for row in rows) / sum(row["bare"][kind] for row in rows) - 1
        )
    return told


@contextlib.contextmanager
def begun(
    task: Callable[[Any], None], environment: dict[str, str]
) -> Iterator[Callable[[list[str]], dict[str, float]]]:
    """A process that does the task for the posts it is given; answers its seconds for them."""
    before = dict(os.environ)
    os.environ.update(environment)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=task, args=(theirs,))
    process.start()
    os.environ.clear()
    os.environ.update(before)
    ours.recv()  # it is ready

    def turn(share: list[str]) -> dict[str, float]:
        ours.send(share)
        return ours.recv()

    try:
        yield turn
    finally:
        ours.send(None)
        process.join()


def turns_of(pipe: Any, work: Callable[[list[str]], None]) -> None:
    """In a process of `begun`: does the work until there is no more."""
    pipe.send(None)
    while (share := pipe.recv()) is not None:
        cpu, wall = time.process_time(), time.perf_counter()
        work(share)
        pipe.send({"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall})


def bare(pipe: Any) -> None:
    """The pipeline and nothing else; each text once."""
    from opengrok_jax.masking import syntax

    nlp: Any = syntax.load_pipeline()
    nlp.tokenizer.max_cache_size = 10_000  # as spaCy makes it
    seen: set[str] = set()

    def work(share: list[str]) -> None:
        new = [text for text in dict.fromkeys(share) if text not in seen]
        for _ in nlp.pipe(new, batch_size=256):
            pass
        seen.update(new)

    turns_of(pipe, work)


def annotating(pipe: Any) -> None:
    """What a build does: distinct texts, chunks, their words on disk and back."""
    import hashlib

    import numpy as np

    from opengrok_jax.masking import distinct, factors, words

    annotator, keys = words.Annotator(""), []
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "words"
        with distinct.opened(Path(folder) / "distinct.sqlite") as index:

            def work(share: list[str]) -> None:
                digests = [hashlib.blake2b(t.encode(), digest_size=16).digest() for t in share]
                _, new = index.of(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16))
                texts = [share[n] for n in new]
                keys.append(words.chunk_key("bench", texts))
                words.save(words.file_of(kept, keys[-1]), annotator(texts))
                chunk = (len(keys) - 1) * words.CHUNK
                factors.gather(chunk + np.arange(len(texts)), keys, kept)

            turns_of(pipe, work)


# ---- whole builds -------------------------------------------------------------------------------


def scale(source: list[str], count: int, flags: argparse.Namespace) -> dict[str, Any]:
    """A build in a process of its own, its memory watched."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = flags.keep / str(count) if flags.keep else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        examples = folder / "examples.jsonl"
        write_examples(source, count, flags.repeated, examples)
        told = build(examples, folder / "out", {"workers": flags.workers})
        size = sum(p.stat().st_size for p in (folder / "out").rglob("*") if p.is_file())
    return {"posts": count, **told, "bytes": size}


def rebuild(source: list[str], count: int, flags: argparse.Namespace) -> dict[str, Any]:
    """A build, and another one with a new alpha."""
    with tempfile.TemporaryDirectory() as folder:
        examples = Path(folder) / "examples.jsonl"
        write_examples(source, count, flags.repeated, examples)
        given = {"workers": flags.workers}
        first = build(examples, Path(folder) / "out", given)
        second = build(examples, Path(folder) / "out", {**given, "alpha": 3.0})
    return {"posts": count, "build": first, "rebuild": second}


def build(examples: Path, out: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Runs `build.run` in a new process; seconds, posts a second, memory of all processes."""
    command = [sys.executable, "-c", CHILD, str(examples), str(out), json.dumps(given)]
    script = out.parent / "child.py"  # spawned workers import the main module: it has to be a file
    script.write_text(CHILD)
    command[1:3] = [str(script)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    samples = [[0]]
    while process.poll() is None:
        samples.append([resident(pid) for pid in family(process.pid)])
        time.sleep(0.5)
    assert process.stdout is not None
    body = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"the build failed with status {process.returncode}")
    told = json.loads(body)
    together = [sum(sample) for sample in samples]
    tenth = -(-len(samples) // 10)
    mib = {
        "peak": max(together),
        "process": max(sample[0] for sample in samples),
        "largest_worker": max(max(sample[1:], default=0) for sample in samples),
    }
    return {
        **told,
        "posts_per_second": told["examples"] / told["seconds"],
        "mib": {name: round(value / 2**20, 1) for name, value in mib.items()},
        "mib_by_tenths": [
            round(max(together[at : at + tenth]) / 2**20) for at in range(0, len(samples), tenth)
        ],
        "processes": max(map(len, samples)),
    }


def family(root: int) -> list[int]:
    """A process, which comes first, and all below it."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            body = path.read_text()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(body.rpartition(")")[2].split()[1])
    found, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found, grown = found | more, bool(more)
    return [root, *sorted(found - {root})]


def resident(pid: int) -> int:
    """Bytes of memory that a process holds, what it shares with others counted in each."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    main()
