"""Phi3Config: contradictions are refused, and no field is without effect."""

from dataclasses import fields, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from opengrok_jax.errors import ConfigError
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import PUBLISHED, LongRope, Phi3Config, published
from opengrok_jax.model.layers import Embedding, Linear
from opengrok_jax.model.phi3 import Phi3

T = 13
PLAIN = Phi3Config(
    vocab_size=61,
    hidden_size=20,
    intermediate_size=23,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=T,
    sliding_window=5,
    bos_token_id=3,
    eos_token_id=5,
    pad_token_id=7,
)
ROPE = LongRope((1.0, 1.1, 1.2, 1.3, 1.4), (2.0, 3.0, 4.0, 5.0, 6.0))
LONG = replace(
    PLAIN, rope_scaling=ROPE, original_max_position_embeddings=6, max_position_embeddings=31
)

CHANGES: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 24,
    "intermediate_size": 29,
    "num_hidden_layers": 3,
    "num_attention_heads": 10,
    "num_key_value_heads": 1,
    "max_position_embeddings": 12,
    "original_max_position_embeddings": 4,
    "rope_theta": 997.0,
    "rope_scaling": ROPE,
    "partial_rotary_factor": 0.6,
    "rms_norm_eps": 1e-2,
    "sliding_window": 4,
    "tie_word_embeddings": True,
    "hidden_act": "gelu",
    "bos_token_id": 61,
    "eos_token_id": (5, 61),
    "pad_token_id": 61,
}


@cache
def outcome(config: Phi3Config, tokens: int = T) -> np.ndarray:
    """Logits under random parameters that are drawn by NumPy: nothing but the forward compiles."""
    rng = np.random.default_rng(0)
    graph, state = nnx.split(nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0))))
    filled = jax.tree.map(lambda leaf: rng.normal(0, 0.6, leaf.shape).astype(leaf.dtype), state)
    row = jnp.arange(tokens, dtype=jnp.int32)[None] * 4 + 1
    run = jax.jit(lambda state: nnx.merge(graph, state)(row, jnp.ones_like(row)))
    compiled = run.lower(filled).compile({"xla_backend_optimization_level": "0"})
    return np.asarray(compiled(filled))


def differs(before: np.ndarray, config: Phi3Config, changes: dict[str, Any], **size: int) -> bool:
    try:
        after = outcome(replace(config, **changes), **size)
    except ConfigError:
        return True
    return after.shape != before.shape or bool(np.abs(after - before).max() > 1e-4)


def test_initializer_range_is_the_spread_of_the_first_parameters() -> None:
    for spread in (0.1, 0.3):
        config = replace(PLAIN, initializer_range=spread)
        embedding = Embedding(config, nnx.Rngs(0), jnp.float32)
        kinds = {"dtype": jnp.float32, "param_dtype": jnp.float32}
        linear = Linear(20, 61, config, rngs=nnx.Rngs(1), **kinds)
        for part in (embedding, linear):
            assert np.std(part.weight[...]) == pytest.approx(spread, rel=0.1)


@pytest.mark.parametrize(
    "name", [f.name for f in fields(Phi3Config) if f.name not in ("hf_text", "initializer_range")]
)
def test_every_field_changes_the_output_or_is_refused(name: str) -> None:
    assert CHANGES[name] != getattr(PLAIN, name)
    assert differs(outcome(PLAIN), PLAIN, {name: CHANGES[name]}), name


@pytest.mark.parametrize(
    "name", [n for n in CHANGES if "rope" in n or "rotary" in n or "position" in n]
)
def test_every_rope_field_changes_the_output_of_longrope(name: str) -> None:
    changes = {name: CHANGES[name]}
    if name == "max_position_embeddings":
        changes = {name: 29}  # still long enough, but another attention scaling
    if name == "rope_scaling":
        changes = {name: None, "original_max_position_embeddings": None}
    assert differs(outcome(LONG), LONG, changes), name


@pytest.mark.parametrize(
    ("rope", "tokens"),
    [
        (replace(ROPE, short_factor=(3.0, 1.1, 1.2, 1.3, 1.4)), 6),
        (replace(ROPE, long_factor=(9.0, 3.0, 4.0, 5.0, 6.0)), 7),
        (replace(ROPE, factor=9.0), 6),
        (replace(ROPE, attention_factor=2.0), 6),
    ],
)
def test_every_field_of_longrope_changes_the_output(rope: LongRope, tokens: int) -> None:
    assert differs(outcome(LONG, tokens), LONG, {"rope_scaling": rope}, tokens=tokens)


def test_short_factors_hold_up_to_the_original_context_and_long_ones_beyond() -> None:
    other_short = replace(LONG, rope_scaling=replace(ROPE, short_factor=(9.0,) * 5))
    other_long = replace(LONG, rope_scaling=replace(ROPE, long_factor=(9.0,) * 5))
    assert np.array_equal(outcome(LONG, 6), outcome(other_long, 6))
    assert np.array_equal(outcome(LONG, 7), outcome(other_short, 7))


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_token_ids_within_the_vocabulary_travel_to_config_json(name: str) -> None:
    other = replace(PLAIN, **{name: 11})
    assert hf_config.write(other, "float32") != hf_config.write(PLAIN, "float32")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 3}, r"hidden_size=20 does not divide .* num_attention_heads=3"),
        ({"num_attention_heads": 10, "num_key_value_heads": 4}, "does not divide into num_key"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0 must be positive"),
        ({"partial_rotary_factor": 0.5}, "rotates 5 of 10 channels"),
        ({"partial_rotary_factor": 1.5}, "rotates 15 of 10 channels"),
        ({"sliding_window": 0}, "sliding_window=0"),
        ({"hidden_act": "gelu"}, "'gelu' is not implemented"),
        ({"original_max_position_embeddings": 6}, "would be ignored without rope_scaling"),
        ({"rope_scaling": ROPE}, "needs original_max_position_embeddings"),
        ({"eos_token_id": (5, 61)}, "eos_token_id=61 is outside the vocabulary of 61"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLAIN, **changes)


def test_longrope_contradictions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"long_factor needs 5 positive numbers.*got 2"):
        replace(LONG, rope_scaling=LongRope(ROPE.short_factor, (1.0, 2.0)))
    with pytest.raises(ConfigError, match=r"factor=2\.0 would be ignored beside attention_factor"):
        replace(LONG, rope_scaling=replace(ROPE, factor=2.0, attention_factor=1.5))


def test_tiny_is_small_and_takes_changes() -> None:
    config = Phi3Config.tiny(331, num_hidden_layers=2)
    assert (config.vocab_size, config.num_hidden_layers) == (331, 2)
    model = nnx.eval_shape(lambda: Phi3(Phi3Config.tiny(), rngs=nnx.Rngs(0)))
    sizes = [parameter.size for _, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    assert 0.8e6 < sum(sizes) < 0.9e6


def test_published_sizes_by_name():
    assert published("phi-3-mini-4k") == Phi3Config(sliding_window=2047)
    assert published("phi-3-medium-4k").num_key_value_heads == 10
    assert all(isinstance(published(name), Phi3Config) for name in PUBLISHED)
    with pytest.raises(ConfigError, match="there are phi-3-mini-4k, phi-3-medium-4k, phi-4"):
        published("phi-5")
