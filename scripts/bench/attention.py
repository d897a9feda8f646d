"""What attention costs forward and backward: each rule, dense and by blocks, in one run.

python scripts/bench/attention.py [--tokens 512 2048] [--batch-tokens 2048] [--repeats 7]

Prints one JSON object. Milliseconds are medians over repeats in which all take turns, in another
order each time, on whatever JAX finds; `against` is the median of the ratios to the unmasked step
of the same turn. Rows hold one document each ("full") or posts of 30 to 90 tokens ("posts"). Masks
hide 15 % of the keys. On a CPU shared with others take --clock processor: the time of all threads
of this process, whoever else runs. On a GPU: --dtype bfloat16 --heads 32 --groups 32 --width 96
--implementations cudnn blockwise --floors cudnn-causal triton mosaic.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Parses the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 2048], help="of a row")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="of all rows together")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--groups", type=int, default=8, help="key-value heads")
    parser.add_argument("--width", type=int, default=64, help="of a head")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument(
        "--floors",
        nargs="*",
        default=[],
        choices=list(FLOORS),
        help="kernels that know less than the rules, on a GPU",
    )
    parser.add_argument("--implementations", nargs="+", default=["dense", "blockwise"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--clock", choices=["wall", "processor"], default="wall")
    flags = parser.parse_args()
    rows = [measure(tokens, kind, flags) for tokens in flags.tokens for kind in ("full", "posts")]
    print(json.dumps({"machine": machine(), "flags": vars(flags), "rows": rows}))


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    import jax

    device = jax.devices()[0].device_kind
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "device": device,
        "cores": os.cpu_count(),
        "load": load,
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def measure(tokens: int, kind: str, flags: argparse.Namespace) -> dict[str, Any]:
    """One length of rows: a step, forward and backward, for each implementation and rule."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from opengrok_jax.model.attention import attention

    rng = np.random.default_rng(0)
    rows = max(1, flags.batch_tokens // tokens)
    segments = np.ones((rows, tokens), np.int32)
    if kind == "posts":
        lengths = rng.integers(30, 90, (rows, tokens // 30 + 1))
        segments = np.stack([1 + np.repeat(np.arange(len(n)), n)[:tokens] for n in lengths])
    mask = jnp.asarray((rng.random(segments.shape) < 0.85) | (np.diff(segments, prepend=-1) != 0))
    ids = jnp.asarray(segments, jnp.int32)
    arrays = tuple(
        jnp.asarray(rng.normal(size=(rows, tokens, n, flags.width)), flags.dtype)
        for n in (flags.heads, flags.groups, flags.groups)
    )

    def step(implementation: str, rule: str) -> Callable[[], Any]:
        def loss(q: Any, k: Any, v: Any) -> Any:
            if implementation in FLOORS:
                mixed = FLOORS[implementation](q, k, v, ids)
            else:
                given: Any = {"rule": rule, "implementation": implementation}
                mixed = attention(q, k, v, mask, ids, **given)
            return jnp.sum(jnp.square(mixed.astype(jnp.float32)))

        run = jax.jit(jax.grad(loss, (0, 1, 2)))
        return lambda: jax.block_until_ready(run(*arrays))

    rules = ("none", "multiply", "exclude")
    steps = {
        (implementation, rule): step(implementation, rule)
        for implementation in flags.implementations
        for rule in rules
    } | {(floor, "none"): step(floor, "none") for floor in flags.floors}
    failed = {}
    for key, run in list(steps.items()):
        try:
            run()  # compiles
        except Exception as error:
            failed[" ".join(key)] = f"{type(error).__name__}: {str(error)[:300]}"
            del steps[key]
    times: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    clock = time.perf_counter if flags.clock == "wall" else time.process_time
    for _ in range(flags.repeats):
        for at in rng.permutation(len(steps)):
            key, run = list(steps.items())[at]
            started = clock()
            run()
            times[key].append((clock() - started) * 1e3)

    def against(implementation: str, rule: str) -> float:
        pairs = zip(times[implementation, rule], times[implementation, "none"], strict=True)
        return statistics.median(mine / unmasked for mine, unmasked in pairs)

    return {
        "tokens": tokens,
        "rows": rows,
        "kind": kind,
        "milliseconds": {
            f"{implementation} {rule}": round(statistics.median(taken), 3)
            for (implementation, rule), taken in times.items()
        },
        "against": {
            f"{implementation} {rule}": round(against(implementation, rule), 3)
            for implementation, rule in times
            if rule != "none" and (implementation, "none") in times
        },
        "failed": failed,
    }


def _causal(q: Any, k: Any, v: Any, ids: Any) -> Any:
    """cuDNN without masks and segments: what they cost is what lies above it."""
    import jax

    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")


def _triton(q: Any, k: Any, v: Any, ids: Any) -> Any:
    """JAX's Pallas kernel through Triton: it knows segments, and could be told of hidden keys."""
    from jax.experimental.pallas.ops.gpu import attention as pallas

    return pallas.mha(q, k, v, segment_ids=ids, sm_scale=q.shape[-1] ** -0.5, causal=True)


def _mosaic(q: Any, k: Any, v: Any, ids: Any) -> Any:
    """JAX's Pallas kernel for Hopper, of 128-wide heads; it knows neither segments nor masks."""
    import jax.numpy as jnp
    from jax.experimental.pallas.ops.gpu import attention_mgpu as pallas

    widths = [(0, 0)] * 3 + [(0, 128 - q.shape[-1])]
    q, k, v = (jnp.pad(x, widths) for x in (q * q.shape[-1] ** -0.5, k, v))
    config = pallas.TuningConfig(
        block_q=64, block_kv=64, max_concurrent_steps=2, causal=True, block_q_dkv=64,
        block_kv_dkv=64, block_q_dq=64, block_kv_dq=64,
    )  # fmt: skip
    return pallas.attention(q, k, v, config)


FLOORS: dict[str, Callable[..., Any]] = {
    "cudnn-causal": _causal,
    "triton": _triton,
    "mosaic": _mosaic,
}


if __name__ == "__main__":
    main()
