"""What the matrix products of training.py's update take, each alone: no step can be faster.

python scripts/bench/products.py [--tokens 2048] [--learnt 1088] [--repeats 8]

The model of `training.py`, float32, as XLA multiplies here: for each projection of a block and for
the head the product forwards, the gradient of its input and that of its weight. `--learnt` is how
many positions meet the head. Second-best time of the repeats. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from _work import SIZES

FORMS = {
    "forwards": ("ti,oi->to", ("x", "weight")),
    "of the input": ("to,oi->ti", ("gradient", "weight")),
    "of the weight": ("to,ti->oi", ("gradient", "x")),
}


def main() -> None:
    """Parses the flags, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--learnt", type=int, default=1088)
    parser.add_argument("--repeats", type=int, default=8)
    flags = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    width, inner, layers = (
        SIZES[n] for n in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    products = {  # name: inputs, outputs, positions, times in an update
        "query, key, value": (width, 3 * width, flags.tokens, layers),
        "attention's output": (width, width, flags.tokens, layers),
        "gate, up": (width, 2 * inner, flags.tokens, layers),
        "down": (inner, width, flags.tokens, layers),
        "head": (width, SIZES["vocab_size"], flags.learnt, 1),
    }
    rows = {name: measured(sizes, flags.repeats) for name, sizes in products.items()}
    print(
        json.dumps(
            {
                "cores": os.cpu_count(),
                "load": os.getloadavg()[0],
                "gflop": round(sum(row["gflop"] for row in rows.values()), 1),
                "seconds_of_an_update": round(sum(row["seconds"] for row in rows.values()), 3),
                "products": rows,
            },
            indent=1,
        )
    )


def measured(sizes: tuple[int, int, int, int], repeats: int) -> dict[str, Any]:
    """Seconds of the three products, all `times` of them, and the rate of each."""
    inputs, outputs, positions, times = sizes
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    shapes = {
        "x": (positions, inputs),
        "weight": (outputs, inputs),
        "gradient": (positions, outputs),
    }
    arrays = {n: jnp.asarray(rng.random(shape, np.float32)) for n, shape in shapes.items()}
    flop, seconds, rates = 2 * positions * inputs * outputs, 0.0, {}
    for name, (form, operands) in FORMS.items():
        multiply = jax.jit(lambda a, b, form=form: jnp.einsum(form, a, b))
        given, taken = [arrays[operand] for operand in operands], []
        for _ in range(repeats + 1):  # the first compiles
            start = time.perf_counter()
            jax.block_until_ready(multiply(*given))
            taken.append(time.perf_counter() - start)
        best = sorted(taken[1:])[min(1, repeats - 1)]
        seconds += times * best
        rates[f"gflop_per_second_{name.replace(' ', '_')}"] = round(flop / best / 1e9)
    return {"gflop": 3 * times * flop / 1e9, "seconds": round(seconds, 3), **rates}


if __name__ == "__main__":
    main()
