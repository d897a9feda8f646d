"""A random Phi-3 of transformers, the oracle of this room; its tests skip where torch is absent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3

# Prime or uneven sizes and unusual constants: a swapped axis or an ignored default shows.
SMALL: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 42,
    "intermediate_size": 23,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "max_position_embeddings": 53,
    "rms_norm_eps": 3e-4,
    "initializer_range": 0.3,
    "bos_token_id": 3,
    "eos_token_id": 5,
    "pad_token_id": 7,
}


def long_rope(pairs: int = 7, **more: Any) -> dict[str, Any]:
    """HF fields of a LongRoPE with `pairs` rotated pairs and an original context of 11 tokens."""
    return {
        "original_max_position_embeddings": 11,
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [1.0 + 0.1 * i for i in range(pairs)],
            "long_factor": [1.3 + 0.7 * i for i in range(pairs)],
            **more,
        },
    }


@pytest.fixture(scope="session")
def small() -> dict[str, Any]:
    return SMALL


@pytest.fixture(scope="session")
def make_long_rope() -> Callable[..., dict[str, Any]]:
    return long_rope


@pytest.fixture(scope="session")
def random_model() -> Callable[..., Phi3]:
    """A Phi3 whose parameters NumPy draws: nothing compiles (the initialisers take seconds)."""

    def make(config: Phi3Config, **options: Any) -> Phi3:
        rng = np.random.default_rng(0)
        create = lambda: Phi3(config, rngs=nnx.Rngs(0), **options)  # noqa: E731
        graph, state = nnx.split(nnx.eval_shape(create))

        def draw(path: Any, leaf: Any) -> jax.Array:
            mean = float("norm" in jax.tree_util.keystr(path))
            return jnp.asarray(rng.normal(mean, 0.3, leaf.shape), leaf.dtype)

        return nnx.merge(graph, jax.tree.map_with_path(draw, state))

    return make


@pytest.fixture(scope="session")
def hf_model() -> Callable[..., Any]:
    """Random Phi3ForCausalLM in float32 with eager attention, from SMALL and changed fields."""
    torch = pytest.importorskip("torch", reason="parity needs torch")
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")

    def make(seed: int = 0, spread: float = 0.3, **changes: Any) -> Any:
        torch.manual_seed(seed)
        config = transformers.Phi3Config(**{**SMALL, **changes}, attn_implementation="eager")
        model = transformers.Phi3ForCausalLM(config).eval()
        for parameter in model.parameters():  # norms start at 1, which would hide a lost weight
            torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, spread)
        return model

    return make


@pytest.fixture(scope="session")
def hf_logits() -> Callable[..., Any]:
    """Logits of a HF model as a NumPy array, for NumPy tokens (B, T) and an optional mask."""
    torch = pytest.importorskip("torch", reason="parity needs torch")

    def run(model: Any, tokens: Any, attention_mask: Any = None) -> Any:
        mask = None if attention_mask is None else torch.tensor(attention_mask)
        with torch.no_grad():
            return model(torch.tensor(tokens), attention_mask=mask, use_cache=False).logits.numpy()

    return run


@pytest.fixture
def hf_folder(hf_model: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """A folder as `save_pretrained` leaves it."""

    def save(model: Any = None, max_shard_size: str | int = "5GB", **changes: Any) -> Path:
        folder = tmp_path / f"hf{len(list(tmp_path.iterdir()))}"
        model = hf_model(**changes) if model is None else model
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        return folder

    return save
