"""How long curation takes for many rows, and what it does to real posts that nobody minded.

python scripts/bench/curate.py [--rows 100000] [--workers 0]
python scripts/bench/curate.py --posts FOLDER     with TweetEval's offensive.*.jsonl.gz

The first makes answers of the recorded ones with words exchanged, so that no two are alike, and
prints seconds, rows a second and peak memory. The second has every post judged as if it were an
answer to "write a post", and prints, for posts that TweetEval's annotators called offensive and for
those they did not, how many each check would reject and how many it would show a person; and the
keep rate among the non-offensive ones by the group of people or dialect that they name or show.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.curation import balance, curate
from opengrok_jax.curation.judging import How, one
from opengrok_jax.curation.looks import Settings
from opengrok_jax.records import Cell, Message, Prompt, Response, prompt_id

ASSETS = Path(curate.__file__).parents[1] / "assets"


def main() -> None:
    """Parses the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--posts", type=Path, default=None, metavar="FOLDER")
    flags = parser.parse_args()
    result = real(flags.posts) if flags.posts else speed(flags.rows, flags.workers)
    print(json.dumps(result, indent=1))


def answer(text: str, to: Prompt) -> Response:
    """A whole answer to a prompt."""
    return Response(
        prompt_id=to.id, request_key="", text=text, finish_reason="stop", model_asked="",
        model_served="", source="recorded", endpoint="", rights="ours",
    )  # fmt: skip


def speed(rows: int, workers: int) -> dict[str, Any]:
    """Seconds and memory of `curate.run`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many(folder, rows)
        started = time.perf_counter()
        counts = curate.run(
            prompts_file=folder / "prompts.jsonl",
            responses_file=folder / "responses.jsonl",
            out=folder / "out",
            workers=workers,
        )
        took = time.perf_counter() - started
    own, others = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {
        "rows": rows,
        "seconds": round(took, 1),
        "rows_per_second": round(rows / took),
        "processor_seconds": round(own.ru_utime + own.ru_stime + others.ru_utime, 1),
        "peak_MB": round(own.ru_maxrss / 1024),
        "kept": counts["kept"],
        "reasons": counts["reasons"],
    }


def many(folder: Path, rows: int) -> None:
    """Prompts and answers of the recordings, every fourth word out of another one."""
    chance = random.Random(0)
    recorded = list(storage.read_jsonl(ASSETS / "recorded.jsonl"))
    bank = " ".join(row["response"] for row in recorded).split()
    prompts, answers = [], []
    for number in range(rows):
        row = recorded[number % len(recorded)]
        text = f"{row['messages'][0]['content']}\n\n({number})"
        messages = (Message(role="user", content=text),)
        to = Prompt(
            id=prompt_id(messages), messages=messages, cell=Cell(intent="trend_summary"),
            template="", posts=(text,),
        )  # fmt: skip
        words = [chance.choice(bank) if n % 4 == 0 else w
                 for n, w in enumerate(row["response"].split())]  # fmt: skip
        prompts.append(to)
        answers.append(answer(" ".join(words), to))
    storage.write_jsonl(folder / "prompts.jsonl", prompts)
    storage.write_jsonl(folder / "responses.jsonl", answers)


def real(folder: Path) -> dict[str, Any]:
    """What the checks say of real posts."""
    messages = (Message(role="user", content="Write a post."),)
    to = Prompt(
        id=prompt_id(messages), messages=messages, cell=Cell(intent="platform_post"), template=""
    )
    how = How(settings=Settings(), mask_handles=False, rules="")
    posts: Counter[str] = Counter()
    rejected: Counter[tuple[str, str]] = Counter()
    doubtful: Counter[tuple[str, str]] = Counter()
    marked = []
    for file in sorted(folder.glob("offensive.*.jsonl.gz")):
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            for line in lines:
                post = json.loads(line)
                judged = one(to, answer(post["text"], to), how)
                posts[post["label"]] += 1
                for finding in judged.verdict.findings:
                    counts = rejected if finding.certain else doubtful
                    counts[post["label"], finding.reason] += 1
                rejected[post["label"], "any"] += not judged.verdict.keep
                doubtful[post["label"], "any"] += judged.verdict.uncertain
                if post["label"] == "not_offensive":
                    marked.append(("", judged.verdict.keep, judged.marks))
    return {
        label: {
            "posts": posts[label],
            "rejected": {r: n for (x, r), n in sorted(rejected.items()) if x == label},
            "for_a_person": {r: n for (x, r), n in sorted(doubtful.items()) if x == label},
        }
        for label in sorted(posts)
    } | {"groups": balance.report(marked)["groups"]}


if __name__ == "__main__":
    main()
