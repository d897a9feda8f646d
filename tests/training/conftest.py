"""A tiny student, data that can be learnt, and a run that takes seconds."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from opengrok_jax.masked_file import write_masked
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.records import MaskedExample
from opengrok_jax.tokenizer import PROMPT, RESPONSE, TEMPLATE

VOCAB = 61


def make_example(
    number: int, *, length: int, response: int, split: str = "train", seed: int = 0
) -> MaskedExample:
    """Counts up from a random start: template, prompt and an answer of `response` tokens."""
    rng = np.random.default_rng([seed, number])
    tokens = ((rng.integers(0, VOCAB) + np.arange(length)) % VOCAB).astype(np.int32)
    roles = np.full(length, PROMPT, np.int8)
    roles[0], roles[length - response :] = TEMPLATE, RESPONSE
    key_mask = rng.random(length) < 0.8
    key_mask[0] = True
    factor = np.zeros(length, np.float32)
    return MaskedExample(
        id=f"{number:016x}",
        split=split,  # type: ignore[arg-type]
        tokens=tokens,
        roles=roles,
        tfidf=factor,
        pos=factor,
        dep=factor,
        random=factor,
        keep_prob=factor,
        key_mask=key_mask,
    )


@pytest.fixture(scope="session")
def example() -> Callable[..., MaskedExample]:
    return make_example


@pytest.fixture(scope="session")
def examples() -> list[MaskedExample]:
    """Thirty-five of 6 to 24 tokens with answers of 2 to 5; every seventh for validation."""
    rng = np.random.default_rng(7)
    return [
        make_example(
            i,
            length=int(rng.integers(6, 25)),
            response=int(rng.integers(2, 6)),
            split="valid" if i % 7 == 0 else "train",
        )
        for i in range(35)
    ]


@pytest.fixture(scope="session")
def tiny() -> Phi3Config:
    """Two layers, grouped keys, a vocabulary of 64."""
    return Phi3Config.tiny(
        64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )


@pytest.fixture(scope="session")
def masked_file(examples: list[MaskedExample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masked") / "masked.parquet"
    write_masked(path, examples, {"tokenizer": "", "vocab_size": VOCAB})
    return path


@pytest.fixture(scope="session")
def noisy(tiny: Phi3Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model's folder and the model: weights that make its answers differ, and no two alike."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from opengrok_jax.model.phi3 import Phi3
    from opengrok_jax.model.student import save_student

    graph, state = nnx.split(nnx.eval_shape(lambda: Phi3(tiny, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(4)
    state = jax.tree.map(lambda x: jnp.asarray(rng.normal(0.2, 0.3, x.shape), x.dtype), state)
    model = nnx.merge(graph, state)
    folder = tmp_path_factory.mktemp("noisy") / "s"
    save_student(folder, model, tiny)
    return folder, model


@pytest.fixture(scope="session")
def settings(masked_file: Path) -> dict[str, Any]:
    """Arguments of `finetune.run`, without `out`: 30 steps, 8 evaluations, one checkpoint."""
    return {
        "masked_file": masked_file,
        "model": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
        },
        "row_tokens": 48,
        "rows_per_batch": 4,
        "microbatches": 2,
        "epochs": 50.0,
        "max_steps": 30,
        "learning_rate": 1e-2,
        "eval_every": 4,
        "patience": 0,
        "save_every": 0,
        "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
        "seed": 3,
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system of a given size can be mounted here: {error}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


CHILD = """
import json, sys
from pathlib import Path
from opengrok_jax import processes
from opengrok_jax.training import finetune
given = json.loads(sys.argv[1])
given["masked_file"], given["out"] = Path(given["masked_file"]), Path(given["out"])
with processes.joined():
    print(json.dumps(finetune.run(**given)))
"""


@pytest.fixture(scope="session")
def start() -> Callable[..., subprocess.Popen[str]]:
    """Starts `finetune.run(**given)` in a process of its own."""

    def begin(given: dict[str, Any], **environment: str) -> subprocess.Popen[str]:
        body = json.dumps({k: str(v) if isinstance(v, Path) else v for k, v in given.items()})
        return subprocess.Popen(
            [sys.executable, "-c", CHILD, body],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    return begin


@pytest.fixture(scope="session")
def metrics() -> Callable[[Path], list[dict[str, Any]]]:
    """The rows of out/metrics.jsonl."""
    return lambda out: list(map(json.loads, (out / "metrics.jsonl").read_text().splitlines()))
