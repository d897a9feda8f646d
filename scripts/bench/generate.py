"""Tokens per second of greedy generation beside transformers: the same random weights, one run.

python scripts/bench/generate.py [--batch 1 8] [--prompt-tokens 64] [--new-tokens 64] [--threads 1]

Prints one JSON object. Both sides are float32 on the CPU, greedy, with a cache, and give all tokens
at once. Each runs once to warm up and is then timed by turns; figures are medians. Prefill is what
a run for one new token takes, decode is what the others take on top of it.

The process is tied to as many cores as `--threads` says, and beside the wall time stands its
processor time, because wall time on a busy machine can mislead: with two threads on two cores that
others used too, torch was once 5.6 times slower than we at batch 8 and gave no more tokens a second
than at batch 1; with one thread, on the same machine and busier, 1.3 to 1.4 times by either clock.
Presumably its threads waited for each other at every matrix product.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 32064,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "eos_token_id": 32000,
}

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "processor": time.process_time}


def main() -> None:
    """Parses the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="rows run together")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="cores that the process may use")
    parser.add_argument("--attention", default="sdpa", choices=("sdpa", "eager"), help="of torch")
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= flags.threads <= len(cores):
        parser.error(f"--threads {flags.threads}: there are {len(cores)} cores")
    if flags.new_tokens < 2:
        parser.error("--new-tokens: at least 2, the first comes from the prefill")
    os.sched_setaffinity(0, cores[-flags.threads :])  # before the libraries make their threads
    print(json.dumps(measure(**vars(flags))))


def measure(
    *,
    batch: list[int],
    prompt_tokens: int,
    new_tokens: int,
    threads: int,
    attention: str,
    repeats: int,
) -> Any:
    """Builds the model once, and times both sides at each batch size."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import numpy as np
    import torch
    import transformers

    from opengrok_jax.model.generate import generate
    from opengrok_jax.model.weights import load_hf

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    config = transformers.Phi3Config(**SIZES)
    config._attn_implementation = attention
    theirs: Any = transformers.Phi3ForCausalLM(config).eval()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_hf(Path(folder))
    rows = []
    for size in batch:
        drawn = np.random.default_rng(size).integers(3, 32000, (size, prompt_tokens))
        prompts, ids = list(drawn.astype(np.int32)), torch.tensor(drawn)

        def jax_side(new: int, prompts: Any = prompts, size: int = size) -> Any:
            return generate(ours, prompts, stop_ids=(), max_new_tokens=new, batch_size=size)

        def torch_side(new: int, ids: Any = ids) -> Any:
            with torch.inference_mode():
                grown = theirs.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    use_cache=True,
                    min_new_tokens=new,
                    max_new_tokens=new,
                )
            return grown[:, prompt_tokens:].numpy()

        same = np.mean(np.stack(jax_side(new_tokens)) == torch_side(new_tokens))
        row: dict[str, Any] = {"batch": size, "same_tokens": round(float(same), 4)}
        first = by_turns(lambda: jax_side(1), lambda: torch_side(1), repeats)
        whole = by_turns(lambda: jax_side(new_tokens), lambda: torch_side(new_tokens), repeats)
        for name in CLOCKS:
            row[name] = rates(size, prompt_tokens, new_tokens, first[name], whole[name])
        rows.append(row)
    versions = {m.__name__: m.__version__ for m in (jax, torch, transformers)}
    sizes = {"parameters": sum(p.numel() for p in theirs.parameters()), **SIZES}
    tokens = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "repeats": repeats}
    where = {"machine": machine(), "cores": os.cpu_count(), "threads": threads}
    how = {"dtype": "float32", "torch_attention": attention}
    return {"rows": rows, **tokens, **where, **how, "versions": versions, "model": sizes}


def rates(
    size: int, prompt_tokens: int, new_tokens: int, first: list[float], whole: list[float]
) -> dict[str, Any]:
    """Tokens per second of a prefill and of decoding, ours and theirs, and their ratio."""
    decode = [w - f for w, f in zip(whole, first, strict=True)]
    row: dict[str, Any] = {}
    for name, count, seconds in (
        ("prefill", size * prompt_tokens, first),
        ("decode", size * (new_tokens - 1), decode),
        ("whole", size * new_tokens, whole),
    ):
        ours, theirs = (count / s for s in seconds)
        row[name] = {
            "opengrok_tokens_per_s": round(ours, 1),
            "transformers_tokens_per_s": round(theirs, 1),
            "ratio": round(ours / theirs, 2),
        }
    return row


def machine() -> str:
    """What the processor calls itself."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "unknown")


def by_turns(
    first: Callable[[], Any], second: Callable[[], Any], repeats: int
) -> dict[str, list[float]]:
    """By each clock the median seconds of both, run alternately: a busy machine slows both."""
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in CLOCKS}
    for call in (first, second):
        call()  # compiles, allocates
    for _ in range(repeats):
        for side, call in enumerate((first, second)):
            started = {name: clock() for name, clock in CLOCKS.items()}
            call()
            for name, clock in CLOCKS.items():
                seconds[name][side].append(clock() - started[name])
    return {name: [statistics.median(side) for side in both] for name, both in seconds.items()}


if __name__ == "__main__":
    main()
