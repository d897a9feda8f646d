"""Where every array of an update lies, held against files: tests/training/golden/*.json.

A file has one line per array: its shape, the mesh axes over which each dimension is split, and the
bytes that a device holds of it. After a change of layout that was meant, write the files anew and
look at what changed:

    RENEW_GOLDEN=1 python -m pytest tests/training/test_step_layout.py && git diff tests
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import jax
import optax
import pytest
from flax import nnx
from jax.sharding import AbstractMesh
from optax.tree_utils import tree_get

from opengrok_jax.model.config import Phi3Config, published
from opengrok_jax.model.lora import ADAPTERS, adapt
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import MESH_AXES
from opengrok_jax.training import optimizer, step

GOLDEN = Path(__file__).parent / "golden"
TINY = Phi3Config.tiny(
    64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
)
# name of the file: model, data x fsdp x tensor, rank of the adapters (0 = none), moments
CASES = {
    "phi-3-mini-4k.1x16x1": (published("phi-3-mini-4k"), (1, 16, 1), 0, "float32"),
    "phi-3-mini-4k.2x4x2": (published("phi-3-mini-4k"), (2, 4, 2), 0, "bfloat16"),
    "phi-3-medium-4k.1x8x2": (published("phi-3-medium-4k"), (1, 8, 2), 0, "float32"),
    "tiny.2x2x2": (TINY, (2, 2, 2), 0, "float32"),
    "tiny.2x2x2.adapters": (TINY, (2, 2, 2), 4, "float32"),
}


def layout(config: Phi3Config, sizes: tuple[int, ...], rank: int, moments_dtype: str) -> dict:
    """Everything that an update takes and gives, by kind and name."""
    mesh: Any = AbstractMesh(sizes, MESH_AXES)

    def make() -> Phi3:
        model = Phi3(config, rngs=nnx.Rngs(0))
        return adapt(model, rank=rank, alpha=8.0, rngs=nnx.Rngs(0)) if rank else model

    adamw = optimizer.make_optimizer(
        rate=optax.constant_schedule(0.1),
        weight_decay=0.1,
        clip_norm=1.0,
        moments_dtype=moments_dtype,
    )
    trainable = ADAPTERS if rank else nnx.Param
    like = step.abstract_state(nnx.eval_shape(make), adamw, mesh, trainable)
    batch = step.abstract_batch(mesh, microbatches=2, rows=32, row_tokens=4096)
    kinds = {
        "parameters": by_name(like.params),
        "first moments": by_name(tree_get(like.opt_state, "mu")),
        "second moments": by_name(tree_get(like.opt_state, "nu")),
        "batch": {name: x for name, x in batch._asdict().items() if x is not None},
    }
    found = {
        kind: {name: described(x) for name, x in arrays.items()} for kind, arrays in kinds.items()
    }
    whole = {kind: sum(held for *_, held in arrays.values()) for kind, arrays in found.items()}
    return found | {"bytes of a device": whole}


def by_name(state: nnx.State) -> dict[str, jax.ShapeDtypeStruct]:
    return {".".join(map(str, path)): x.get_value() for path, x in nnx.to_flat_state(state)}


def described(x: Any) -> list[Any]:
    over = [[axes] if isinstance(axes, str) else list(axes or ()) for axes in x.sharding.spec]
    held = math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    return [list(x.shape), over + [[]] * (len(x.shape) - len(over)), held]


def text(found: dict) -> str:
    """JSON with a line for each array, so that a changed one is one changed line."""
    kinds = []
    for kind, arrays in found.items():
        lines = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in arrays.items())
        kinds.append(f"{json.dumps(kind)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n " + ",\n ".join(kinds) + "\n}\n"


@pytest.mark.parametrize("name", CASES)
def test_the_layout_is_the_golden_one(name: str) -> None:
    found, path = layout(*CASES[name]), GOLDEN / f"{name}.json"
    if os.environ.get("RENEW_GOLDEN"):
        path.write_text(text(found))
    assert json.loads(text(found)) == found
    assert found == json.loads(path.read_text()), f"see {Path(__file__).name} for how to renew"


def test_every_golden_file_belongs_to_a_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


def test_a_device_holds_its_share_and_no_more() -> None:
    """By hand: 3.82 billion parameters over 16 devices, the norms and `data` kept whole."""
    config = published("phi-3-mini-4k")
    norms = (2 * 32 + 1) * 3072
    of_matrices = 3_821_079_552 - norms
    for mesh, moment, parts in (("1x16x1", 4, 16), ("2x4x2", 2, 8)):
        held = layout(*CASES[f"phi-3-mini-4k.{mesh}"])["bytes of a device"]
        count = of_matrices // parts + norms
        assert held["parameters"] == 4 * count
        assert held["first moments"] == held["second moments"] == moment * count
    # 32 rows in two microbatches, over 16 groups of devices: a row each, six numbers and a flag.
    one = layout(config, (1, 16, 1), 0, "float32")["bytes of a device"]
    assert one["batch"] == 2 * 1 * 4096 * (6 * 4 + 1)
