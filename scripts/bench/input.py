"""Does training wait for its input? Real `finetune.run`, its own meters, and the input alone.

python scripts/bench/input.py [--steps 20] [--row-tokens 512] [--rows-per-batch 8] [--width 512]

Prints one JSON object: the share of the time of the updates that the loop waited for a batch
(input / (input + step), the first updates left out), and how many tokens a second the input alone
makes and uploads at Phi-3-mini's row length. Examples have random tokens and the lengths of posts
with short answers: what they say plays no part in the time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

VOCAB = 32064
WARM_UP = 3  # updates: compiling, and the queue of ready batches still as full as at the start
SIZES: dict[str, Any] = {
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
}


def main() -> None:
    """Parses the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=20, help="updates, the warm-up included")
    parser.add_argument("--row-tokens", type=int, default=512)
    parser.add_argument("--rows-per-batch", type=int, default=8)
    parser.add_argument("--width", type=int, default=512, help="hidden_size of the model")
    flags = parser.parse_args()
    examples = posts(flags.steps * flags.row_tokens * flags.rows_per_batch)
    result = {
        "training": training(examples, flags),
        "input_alone": input_alone(posts(64 * 4096), row_tokens=4096, rows_per_batch=16),
    }
    print(json.dumps(result, indent=1))


def posts(tokens: int) -> list[Any]:
    """Examples of 30 to 90 tokens, the last 5 to 25 of them the answer; `tokens` in all."""
    import numpy as np

    from opengrok_jax.records import MaskedExample
    from opengrok_jax.tokenizer import PROMPT, RESPONSE

    rng = np.random.default_rng(0)
    made, total = [], 0
    while total < tokens:
        length, answer = int(rng.integers(30, 91)), int(rng.integers(5, 26))
        roles = np.full(length, PROMPT, np.int8)
        roles[length - answer :] = RESPONSE
        key_mask = rng.random(length) < 0.85
        key_mask[0] = True
        factors = dict.fromkeys(
            ("tfidf", "pos", "dep", "random", "keep_prob"), np.zeros(length, np.float32)
        )
        made.append(
            MaskedExample(
                id=f"{len(made):016x}",
                split="train",
                tokens=rng.integers(0, VOCAB, length).astype(np.int32),
                roles=roles,
                key_mask=key_mask,
                **factors,
            )
        )
        total += length
    return made


def training(examples: list[Any], flags: argparse.Namespace) -> dict[str, Any]:
    """Fine-tunes and reads the meters."""
    import jax

    from opengrok_jax.masked_file import write_masked
    from opengrok_jax.training import finetune

    with tempfile.TemporaryDirectory() as folder:
        masked_file, out = Path(folder) / "masked.parquet", Path(folder) / "out"
        write_masked(masked_file, examples, {"tokenizer": "", "vocab_size": VOCAB})
        finetune.run(
            masked_file=masked_file,
            out=out,
            model=SIZES | {"hidden_size": flags.width, "intermediate_size": flags.width * 8 // 3},
            row_tokens=flags.row_tokens,
            rows_per_batch=flags.rows_per_batch,
            max_steps=flags.steps,
            epochs=1000.0,
            learning_rate=1e-4,
            eval_every=0,
            patience=0,
            save_every=0,
            mesh={"data": -1, "fsdp": 1, "tensor": 1},
        )
        rows = [json.loads(line) for line in (out / "meters.jsonl").read_text().splitlines()]
    seconds = [row["seconds"] for row in rows[WARM_UP:]]
    waited = sum(s.get("input", 0.0) for s in seconds)
    worked = sum(s["step"] for s in seconds)
    return {
        "device": jax.devices()[0].device_kind,
        "updates": len(seconds),
        "seconds_per_update": statistics.median(s["step"] for s in seconds),
        "tokens_per_second": statistics.median(r["tokens_per_second"] for r in rows[WARM_UP:]),
        "input_wait_share": waited / (waited + worked),
    }


def input_alone(examples: list[Any], *, row_tokens: int, rows_per_batch: int) -> dict[str, Any]:
    """Makes, counts and uploads batches as the loop's thread does, with nobody to wait for."""
    import jax

    from opengrok_jax.model.sharding import make_mesh
    from opengrok_jax.training import batches, packing, step
    from opengrok_jax.training.flops import load

    data = batches.packed(
        examples,
        lambda rows: packing.in_order(rows, rows_per_batch=rows_per_batch),
        row_tokens=row_tokens,
        normalize="token",
    )
    mesh = make_mesh(data=-1, fsdp=1, tensor=1)
    tokens, began = 0, time.perf_counter()
    for index in range(len(data.order)):
        batch = data.batch(index)
        tokens += load(batch, None).tokens
        jax.block_until_ready(step.place(batch, mesh, microbatches=1))
    rate = tokens / (time.perf_counter() - began)
    return {"row_tokens": row_tokens, "tokens_per_second": round(rate)}


if __name__ == "__main__":
    main()
