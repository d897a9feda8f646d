"""Tokens per second of greedy generation beside transformers: the same random weights, one run.

python scripts/bench/generate.py [--batch 1 8] [--prompt-tokens 64] [--new-tokens 64]

Prints one JSON object. Both sides are float32 on the CPU or on whatever JAX and torch find, both
run once to warm up and are then timed by turns; the figure is the median.
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


def main() -> None:
    """Parses the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="rows run together")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    flags = parser.parse_args()
    print(json.dumps(measure(flags.batch, flags.prompt_tokens, flags.new_tokens, flags.repeats)))


def measure(batches: list[int], prompt_tokens: int, new_tokens: int, repeats: int) -> Any:
    """Builds the model once, and times both sides at each batch size."""
    import jax
    import numpy as np
    import torch
    import transformers

    from opengrok_jax.model.generate import generate
    from opengrok_jax.model.weights import load_hf

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    theirs: Any = transformers.Phi3ForCausalLM(transformers.Phi3Config(**SIZES))
    theirs = theirs.eval().to(device)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_hf(Path(folder))
    rows = []
    for batch in batches:
        drawn = np.random.default_rng(batch).integers(3, 32000, (batch, prompt_tokens))
        prompts, ids = list(drawn.astype(np.int32)), torch.tensor(drawn, device=device)

        def jax_side(prompts: Any = prompts, batch: int = batch) -> Any:
            return generate(ours, prompts, stop_ids=(), max_new_tokens=new_tokens, batch_size=batch)

        def torch_side(ids: Any = ids) -> Any:
            with torch.inference_mode():
                grown = theirs.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    min_new_tokens=new_tokens,
                    max_new_tokens=new_tokens,
                )
            return grown[:, prompt_tokens:].cpu().numpy()

        same = np.mean(np.stack(jax_side()) == torch_side())
        seconds = by_turns(jax_side, torch_side, repeats)
        ours_rate, theirs_rate = (batch * new_tokens / s for s in seconds)
        rows.append(
            {
                "batch": batch,
                "opengrok_tokens_per_s": round(ours_rate, 1),
                "transformers_tokens_per_s": round(theirs_rate, 1),
                "ratio": round(ours_rate / theirs_rate, 2),
                "same_tokens": round(float(same), 4),
            }
        )
    device_kind = jax.devices()[0].device_kind
    versions = {m.__name__: m.__version__ for m in (jax, torch, transformers)}
    sizes = {"parameters": sum(p.numel() for p in theirs.parameters()), **SIZES}
    tokens = {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "repeats": repeats}
    where = {"jax_device": device_kind, "torch_device": device, "cores": os.cpu_count()}
    return {"rows": rows, **tokens, **where, "versions": versions, "model": sizes}


def by_turns(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> list[float]:
    """Median seconds of each, run alternately so that a busy machine slows both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, into in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            call()
            into.append(time.perf_counter() - started)
    return [statistics.median(s) for s in seconds]


if __name__ == "__main__":
    main()
