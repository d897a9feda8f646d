"""config.json in both spellings, what is refused, and what is written back."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from flax import nnx

from opengrok_jax.errors import ConfigError
from opengrok_jax.model import hf_config
from opengrok_jax.model.config import Phi3Config
from opengrok_jax.model.phi3 import Phi3


def factors(pairs: int) -> dict[str, list[float]]:
    """In place of the published ones, which nobody remembers: as many, and as uneven."""
    return {
        "short_factor": [1 + i / 10 for i in range(pairs)],
        "long_factor": [1 + 0.75 * i for i in range(pairs)],
    }


# What the published config.json of each member states; the first in the spelling of its day.
MINI: dict[str, Any] = {
    "_name_or_path": "Phi-3-mini-4k-instruct",
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
    },
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
    "vocab_size": 32064,
}
MINI_128K = MINI | {
    "_name_or_path": "Phi-3-mini-128k-instruct",
    "max_position_embeddings": 131072,
    "rope_scaling": {"type": "su", **factors(48)},
    "sliding_window": 262144,
}
MINI_3_5 = MINI_128K | {
    "_name_or_path": "Phi-3.5-mini-instruct",
    "rope_scaling": {"type": "longrope", **factors(48)},
    "transformers_version": "4.43.3",
}
MEDIUM = MINI | {
    "_name_or_path": "Phi-3-medium-4k-instruct",
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "num_key_value_heads": 10,
}
MEDIUM_128K = MEDIUM | {
    "_name_or_path": "Phi-3-medium-128k-instruct",
    "max_position_embeddings": 131072,
    "rope_scaling": {"type": "longrope", **factors(64)},
    "sliding_window": 131072,
}
PHI4 = {name: value for name, value in MEDIUM.items() if name != "auto_map"} | {
    "_name_or_path": "phi-4",
    "bos_token_id": 100257,
    "eos_token_id": 100265,
    "max_position_embeddings": 16384,
    "original_max_position_embeddings": 16384,
    "pad_token_id": 100349,
    "rope_theta": 250000,
    "sliding_window": None,
    "transformers_version": "4.47.0",
    "vocab_size": 100352,
}
PHI4_MINI = MINI_3_5 | {
    "_name_or_path": "Phi-4-mini-instruct",
    "bos_token_id": 199999,
    "eos_token_id": [200020, 199999],
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "lm_head_bias": False,
    "mlp_bias": False,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "pad_token_id": 199999,
    "partial_rotary_factor": 0.75,
    "tie_word_embeddings": True,
    "transformers_version": "4.45.0",
    "vocab_size": 200064,
}
# What each is read as, the width of a head and of its turning part, and parameters in billions.
FAMILY: dict[str, tuple[dict[str, Any], tuple[int, int], float]] = {
    "Phi-3-mini-4k": (MINI, (96, 96), 3.82),
    "Phi-3-mini-128k": (MINI_128K, (96, 96), 3.82),
    "Phi-3.5-mini": (MINI_3_5, (96, 96), 3.82),
    "Phi-3-medium-4k": (MEDIUM, (128, 128), 13.96),
    "Phi-3-medium-128k": (MEDIUM_128K, (128, 128), 13.96),
    "Phi-4": (PHI4, (128, 128), 14.66),
    "Phi-4-mini": (PHI4_MINI, (128, 96), 3.84),
}


@pytest.mark.parametrize("name", FAMILY)
def test_every_member_of_the_family(name: str, tmp_path: Path) -> None:
    raw, widths, billions = FAMILY[name]
    (tmp_path / "config.json").write_text(json.dumps(raw, indent=2) + "\n")
    config = hf_config.read(tmp_path)
    assert (config.head_dim, config.rotary_dim) == widths
    model = nnx.eval_shape(lambda: Phi3(config, rngs=nnx.Rngs(0)))
    sizes = [parameter.size for _, parameter in nnx.to_flat_state(nnx.state(model, nnx.Param))]
    assert round(sum(sizes) / 1e9, 2) == billions
    # Field by field: all that it states and that bears on the model is there.
    rope = raw["rope_scaling"]
    stated = {field: getattr(config, field) for field in raw if hasattr(config, field)}
    if rope is None:
        assert (config.rope_scaling, config.original_max_position_embeddings) == (None, None)
        stated |= {"original_max_position_embeddings": raw["original_max_position_embeddings"]}
    else:
        assert config.rope_scaling is not None
        stated["rope_scaling"] = {
            "type": rope["type"],
            "short_factor": list(config.rope_scaling.short_factor),
            "long_factor": list(config.rope_scaling.long_factor),
        }
    if isinstance(config.eos_token_id, tuple):
        stated["eos_token_id"] = list(config.eos_token_id)
    assert stated.items() <= raw.items()
    assert {f.name for f in fields(Phi3Config)} - {"hf_text", "partial_rotary_factor"} <= set(
        stated
    )


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_as_transformers_5_writes_it(name: str) -> None:
    """`rope_parameters` in place of three fields; and "su" by the name it has today."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    raw = FAMILY[name][0]
    known = raw
    if raw["rope_scaling"]:  # transformers 5 stumbles over "su"
        known = raw | {"rope_scaling": raw["rope_scaling"] | {"type": "longrope"}}
    written = transformers.Phi3Config(**known).to_dict()
    assert "rope_parameters" in written
    assert "rope_scaling" not in written
    assert hf_config.read(written) == hf_config.read(raw)


def test_rope_parameters_replace_three_fields() -> None:
    """The new spelling by hand, with no word outside `rope_parameters`."""
    moved = ("rope_theta", "rope_scaling", "partial_rotary_factor")
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "partial_rotary_factor": 0.75}
    rope |= {"original_max_position_embeddings": 4096, **factors(48)}
    new = {k: v for k, v in PHI4_MINI.items() if k not in moved} | {"rope_parameters": rope}
    assert hf_config.read(new) == hf_config.read(PHI4_MINI)


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
    assert written["_name_or_path"] == raw["_name_or_path"]


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
