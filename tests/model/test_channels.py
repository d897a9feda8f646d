import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.channels import channels, codes, takes
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3
from opengrok_jax.model.segments import ids_of_keys
from tests.model.attention_rows import (
    assert_same,
    oracle,
    random_qkv,
    segment_rows,
    value_and_gradients,
)


@pytest.mark.parametrize("window", [None, 11])
def test_equals_the_dense_oracle(window: int | None) -> None:
    """To 1e-4: the offsets of the codes cost float32 scores two digits."""
    kernel = value_and_gradients(partial(channels, sliding_window=window, kernel="xla"))
    dense = value_and_gradients(oracle(window))
    segments = jnp.asarray(segment_rows(70))
    for seed, share in enumerate((0.1, 0.6, 1.0)):
        mask = jnp.asarray(np.random.default_rng(seed).random(segments.shape) < share)
        arrays = (*random_qkv(seed, segments.shape, heads=6, groups=2, width=16), segments)
        key_ids = ids_of_keys(segments, mask)
        assert_same(kernel(*arrays, key_ids), dense(*arrays, key_ids), 1e-4)


def test_the_drawing_of_codes() -> None:
    text = codes.__doc__ or ""
    signs = {"+": 1, "-": -1}
    ids: dict[str, list[int]] = {"query": [], "key": []}
    drawn: dict[str, list[list[int]]] = {"query": [], "key": []}
    products = []
    rows = re.findall(
        r"(-?\d) +([+-]) ([+-]) +(?:key ids)? +(-?\d) +([+-]) ([+-]) +(?:products)? +((?:-?\d +)+-?\d)$",
        text,
        re.MULTILINE,
    )
    assert len(rows) == 3
    for query, *query_code, key, first, second, product in rows:
        ids["query"].append(int(query))
        drawn["query"].append([signs[c] for c in query_code])
        ids["key"].append(int(key))
        drawn["key"].append([signs[c] for c in (first, second)])
        products.append([int(x) for x in product.split()])
    queries, keys = codes(jnp.array([ids["query"]]), jnp.array([ids["key"]]), 96)
    np.testing.assert_array_equal(np.sign(queries[0]), drawn["query"])
    np.testing.assert_array_equal(np.sign(keys[0]), drawn["key"])
    offset = float(jnp.abs(queries[0, 0, 0] * keys[0, 0, 0]))
    np.testing.assert_array_equal(queries[0] @ keys[0].T / offset, products)
    assert 2 * offset / np.sqrt(96) > 104, "exp(-104) is 0 in float32"


def test_codes_are_exact_in_bfloat16_and_fit_beside_phi3() -> None:
    ids = jnp.arange(4096)[None]
    for code in codes(ids, ids, 96):
        np.testing.assert_array_equal(code.astype(jnp.bfloat16).astype(jnp.float32), code)
        assert code.shape[-1] + 96 <= 112


@pytest.mark.parametrize(("dtype", "width"), [(jnp.float32, 96), (jnp.bfloat16, 128)])
def test_what_cudnn_does_not_take_is_refused(dtype: type, width: int) -> None:
    x, ids = jnp.ones((1, 8, 1, width), dtype), jnp.ones((1, 8), jnp.int32)
    with pytest.raises(ConfigError, match=r"attention 'cudnn' got .* Choose attention 'blockwise'"):
        channels(x, x, x, ids, ids)


@pytest.mark.parametrize(
    ("dtype", "tokens", "width", "taken"),
    [
        (jnp.bfloat16, 4096, 96, True),
        (jnp.float32, 4096, 96, False),
        (jnp.bfloat16, 65535, 112, True),
        (jnp.bfloat16, 65536, 112, False),  # 17 bits
        (jnp.bfloat16, 512, 128, False),
    ],
)
def test_which_heads_cudnn_takes(dtype: type, tokens: int, width: int, taken: bool) -> None:
    assert takes(jax.ShapeDtypeStruct((1, tokens, 2, width), dtype)) is taken


def test_remat_dots_runs_the_kernel_once_and_full_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowered for CUDA without a GPU; JAX is told which cuDNN it would find."""
    internals = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    for name, answer in (
        ("check_cudnn_version", lambda: 91900),
        ("check_compute_capability", lambda _: True),
        ("is_cuda_compute_capability_equal", lambda _: False),
    ):
        if not hasattr(internals, name):
            pytest.skip(f"this JAX has no {name}")
        monkeypatch.setattr(internals, name, answer)
    config = Phi3Config.tiny(61, hidden_size=384, num_attention_heads=4, num_key_value_heads=4)
    tokens = jnp.ones((1, 512), jnp.int32)
    for remat, forward in (("dots", 1), ("full", 2)):
        options: Any = {"dtype": "bfloat16", "remat": remat, "attention": "cudnn"}
        model = nnx.eval_shape(lambda how=options: Phi3(config, rngs=nnx.Rngs(0), **how))
        graph, state = nnx.split(model)

        def loss(state: Any, graph: Any = graph) -> jax.Array:
            return jnp.sum(nnx.merge(graph, state).hidden(tokens, tokens).astype(jnp.float32))

        text = jax.jit(jax.grad(loss)).trace(state).lower(lowering_platforms=("cuda",)).as_text()
        assert len(re.findall(r"@__cudnn\$fmhaSoftmax\(", text)) == forward
        assert len(re.findall(r"@__cudnn\$fmhaSoftmaxBackward\(", text)) == 1
