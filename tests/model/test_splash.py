"""Splash in interpret mode beside the dense oracle; with libtpu, compiled for a real TPU."""

import os
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from opengrok_jax.model.segments import ids_of_keys
from opengrok_jax.model.splash import splash
from tests.model.attention_rows import (
    assert_same,
    first_tokens,
    oracle,
    random_qkv,
    segment_rows,
    value_and_gradients,
)

TOKENS = 140  # filled up to 256, in two blocks


@pytest.mark.parametrize("window", [None, 30])
def test_equals_the_dense_oracle(window: int | None) -> None:
    kernel = value_and_gradients(partial(splash, sliding_window=window, interpret=True))
    dense = value_and_gradients(oracle(window))
    segments = segment_rows(TOKENS)
    for seed, share in enumerate((0.0, 0.1, 0.6, 1.0)):
        mask = np.random.default_rng(seed).random(segments.shape) < share
        mask |= first_tokens(segments) & (share == 0.0)
        arrays = random_qkv(seed, segments.shape, heads=4, groups=2, width=12)
        ids = jnp.asarray(segments)
        key_ids = ids_of_keys(ids, jnp.asarray(mask))
        assert_same(kernel(*arrays, ids, key_ids), dense(*arrays, ids, key_ids), 1e-5)


# A step that trains, lowered for chips that are not there: libtpu changes what JAX finds, so that
# it gets a process of its own.
COMPILE_FOR_A_TPU = """
import math, re
import jax, jax.numpy as jnp
from flax import nnx
from jax.experimental import topologies
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.sharding import make_mesh
from opengrok_jax.training import optimizer, step

T = 1024
topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
mesh = make_mesh(data=1, fsdp=2, tensor=2, devices=topology.devices)
config = Phi3Config.tiny(512, hidden_size=384, intermediate_size=256, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=T)
batch = step.abstract_batch(mesh, microbatches=1, rows=2, row_tokens=T)

def lowered(attention):
    model = nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16,
                                        remat="dots", attention=attention))
    rate = optimizer.schedule(learning_rate=1e-3, steps=10, warmup_share=0.1)
    adamw = optimizer.make_optimizer(rate=rate, weight_decay=0.1, clip_norm=1.0)
    like = step.abstract_state(model, adamw, mesh)
    update = step.make_train_step(nnx.graphdef(model), adamw, rate, like, rule="exclude",
                                  capacity=256, groups=2)
    with jax.set_mesh(mesh):  # only here: nothing can be computed on chips that are not there
        return update.lower(like, batch)

assert f"{T}x{T}" in lowered("dense").as_text(), "what is looked for can be found"
program = lowered("auto")
assert f"{T}x{T}" not in program.as_text()
text = program.compile().as_text()
buffers = re.findall(r"\\b(?:pred|[a-z]+\\d+)\\[([\\d,]+)\\]", text)
largest = max(math.prod(map(int, shape.split(","))) for shape in buffers)
assert largest < T * T, largest
# One forward, and two backward: to the queries, to the keys and values. What "dots" keeps of the
# forward pass spares a second one.
kernels = len(re.findall(r'custom_call_target="tpu_custom_call"', text))
assert kernels == 3, kernels
"""


@pytest.mark.libtpu
@pytest.mark.timeout(600)
def test_a_step_compiled_for_tpus_has_no_buffer_of_t_times_t(repository: Path) -> None:
    if find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed; it comes with opengrok-jax[plan]")
    places = [str(repository), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", COMPILE_FOR_A_TPU],
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
            "PYTHONPATH": os.pathsep.join(places),
        },
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
