"""config.json in both spellings, what is refused, and what is written back."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from opengrok_jax.errors import ConfigError
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import LongRope, Phi3Config

# The fields that the published Phi-3-mini-4k-instruct states, in transformers 4 spelling.
MINI: dict[str, Any] = {
    "_name_or_path": "Phi-3-mini-4k-instruct",
    "architectures": ["Phi3ForCausalLM"],
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "max_position_embeddings": 4096,
    "model_type": "phi3",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.2",
    "use_cache": True,
    "attention_bias": False,
    "vocab_size": 32064,
}
FACTORS = {
    "short_factor": [1 + i / 10 for i in range(36)],
    "long_factor": [1 + i for i in range(36)],
}
PHI4_MINI: dict[str, Any] = MINI | {
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "vocab_size": 200064,
    "tie_word_embeddings": True,
    "partial_rotary_factor": 0.5625,
    "max_position_embeddings": 131072,
    "rope_scaling": {"type": "longrope", **FACTORS},
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
    "eos_token_id": [200020, 199999],
}


def test_phi_3_mini() -> None:
    config = hf_config.read(MINI)
    assert config == Phi3Config(sliding_window=2047)
    assert (config.head_dim, config.rotary_dim) == (96, 96)


def test_phi_4_mini_shape_and_both_spellings_of_rope() -> None:
    old = hf_config.read(PHI4_MINI)
    assert (old.head_dim, old.rotary_dim) == (128, 72)
    assert old.eos_token_id == (200020, 199999)
    assert old.rope_scaling == LongRope(
        tuple(map(float, FACTORS["short_factor"])), tuple(map(float, FACTORS["long_factor"]))
    )
    moved = ("rope_theta", "rope_scaling", "partial_rotary_factor")
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.5625, **FACTORS}
    rope["original_max_position_embeddings"] = 4096
    new = {k: v for k, v in PHI4_MINI.items() if k not in moved} | {"rope_parameters": rope}
    assert hf_config.read(new) == old


def test_absent_fields_take_the_defaults_of_hf() -> None:
    config = hf_config.read({"model_type": "phi3", "num_attention_heads": 16})
    assert config == Phi3Config(num_attention_heads=16, num_key_value_heads=16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "phi3_v"}, "model_type='phi3_v'.*Phi-4-mini"),
        ({"model_type": None}, "model_type=None"),
        ({"architectures": ["Phi3ForSequenceClassification"]}, "ForSequenceClassification"),
        ({"attention_bias": True}, "attention_bias=True is not implemented; False was expected"),
        ({"attention_dropout": 0.1}, "attention_dropout=0.1"),
        ({"resid_pdrop": 0.1}, "resid_pdrop"),
        ({"embd_pdrop": 0.1}, "embd_pdrop"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"full_attn_mod": 2}, "full_attn_mod=2"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"head_dim": 128}, "head_dim=128 is not"),
        ({"layer_types": []}, "unknown fields .*layer_types.* would be ignored"),
        ({"vocab_size": "many"}, "the given config"),
        ({"rope_scaling": {"type": "yarn"}}, "rope type 'yarn' is not implemented"),
        ({"rope_scaling": {"type": "longrope"}}, "needs .*short_factor.*long_factor"),
        ({"rope_scaling": {"type": "longrope", "short_mscale": 1.2}}, "short_mscale"),
        ({"rope_scaling": {"rope_type": "default", "factor": 2.0}}, "factor.* would be ignored"),
        ({"rope_parameters": {"rope_theta": 5.0}}, "rope_theta is given twice"),
        (
            {"rope_scaling": {"type": "longrope"}, "rope_parameters": {"rope_type": "longrope"}},
            "both given",
        ),
        (
            {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 7}},
            "is 7 among the rope fields and 4096 outside",
        ),
    ],
)
def test_what_would_be_ignored_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hf_config.read(MINI | changes)


@pytest.mark.parametrize("text", ["{", "[1]", '{"model_type": "llama"}'])
def test_a_bad_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=str(tmp_path)):
        hf_config.read(tmp_path)
    with pytest.raises(ConfigError, match="give a folder with a HF config"):
        hf_config.read(tmp_path / "absent")


def test_an_unchanged_config_is_written_byte_for_byte(tmp_path: Path) -> None:
    text = json.dumps(PHI4_MINI, indent=3) + "\n\n"
    (tmp_path / "config.json").write_text(text)
    config = hf_config.read(tmp_path)
    assert hf_config.write(config, "bfloat16") == text
    assert json.loads(hf_config.write(config, "float32"))["torch_dtype"] == "float32"
    # A config built by hand says the same without a text of its own.
    assert replace(config, hf_text=None) == config


@pytest.mark.parametrize("raw", [MINI, PHI4_MINI], ids=["mini", "phi4-mini"])
def test_a_changed_config_is_written_with_its_changes(raw: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(raw))
    config = replace(hf_config.read(tmp_path), num_hidden_layers=5, rope_theta=5e5)
    written = json.loads(hf_config.write(config, "float32"))
    assert hf_config.read(written) == config
    assert written["torch_dtype"] == "float32"
    assert written["_name_or_path"] == "Phi-3-mini-4k-instruct"


@pytest.mark.parametrize("pairs", [0, 7], ids=["plain", "longrope"])
def test_transformers_reads_what_we_write(
    pairs: int, small: dict[str, Any], make_long_rope: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    rope = make_long_rope(pairs, factor=3.0) if pairs else {}
    config = hf_config.read({**small, **rope, "model_type": "phi3", "rope_theta": 77.0})
    (tmp_path / "config.json").write_text(hf_config.write(config, "float32"))
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert hf_config.read(theirs.to_dict()) == config
    assert theirs.rope_parameters["rope_theta"] == 77.0
