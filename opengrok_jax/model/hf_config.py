"""config.json of a HF Phi-3 checkpoint -> Phi3Config -> config.json.

transformers 4 writes `rope_theta`, `rope_scaling` and `partial_rotary_factor`, transformers 5 one
`rope_parameters`; both are read. A field that would change the logits and is not implemented, or
that nobody here knows, is refused: a checkpoint is never loaded as something it is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError
from opengrok_jax.model.config import LongRope, Phi3Config, require

# Other values than these would change the computation in ways that are not implemented.
REQUIRED_VALUES: dict[str, object] = {
    "attention_bias": False,
    "mlp_bias": False,
    "lm_head_bias": False,
    "attention_dropout": 0,
    "resid_pdrop": 0,
    "embd_pdrop": 0,
    "full_attn_mod": 1,
    "interpolate_factor": 1,
    "is_encoder_decoder": False,
    "chunk_size_feed_forward": 0,
    "quantization_config": None,
}
# These say nothing about the logits.
BOOKKEEPING = {
    *("_name_or_path", "architectures", "auto_map", "model_type", "transformers_version"),
    *("dtype", "torch_dtype", "use_cache", "output_attentions", "output_hidden_states"),
    *("id2label", "label2id", "problem_type", "return_dict"),
}
ROPE_TYPES = ("default", "longrope", "su")  # "su" is what the first Phi-3-mini-128k called longrope
ROPE_FIELDS = {
    *("type", "rope_type", "rope_theta", "partial_rotary_factor", "short_factor", "long_factor"),
    *("factor", "attention_factor", "original_max_position_embeddings"),
}
# The default of HF's class, which wins over a value inside the rope fields.
HF_ORIGINAL_CONTEXT = 4096

_FIELDS = {f.name for f in fields(Phi3Config)} - {"hf_text"}


def read(source: str | Path | Mapping[str, Any]) -> Phi3Config:
    """The config in a config.json, in the folder that holds one, or in its parsed contents.

    Raises ConfigError, with the source in the message.
    """
    text = None if isinstance(source, Mapping) else _text(Path(source))
    where = "the given config" if isinstance(source, Mapping) else str(source)
    try:
        raw: Any = source if text is None else json.loads(text)
        require(isinstance(raw, Mapping), "a JSON object was expected")
        return replace(_parse(raw), hf_text=text)
    except (ConfigError, TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


def write(config: Phi3Config, dtype: str) -> str:
    """The text of a config.json for weights stored as `dtype` ("float32", "bfloat16", ..).

    The text the config was read from, unchanged, when it still says the same; otherwise that text
    with the changed fields replaced, in the spelling that transformers 4 and 5 both read.
    """
    raw = {} if config.hf_text is None else json.loads(config.hf_text)
    stated = raw.get("dtype") or raw.get("torch_dtype") or dtype
    if config.hf_text is not None and stated == dtype and _parse(raw) == config:
        return config.hf_text
    raw = {name: raw[name] for name in raw if name not in ("rope_parameters", "dtype", "head_dim")}
    raw |= {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "torch_dtype": dtype}
    raw |= {name: getattr(config, name) for name in _FIELDS}
    if config.rope_scaling is None:
        raw["original_max_position_embeddings"] = config.max_position_embeddings
    else:
        given = {k: v for k, v in asdict(config.rope_scaling).items() if v is not None}
        raw["rope_scaling"] = {"type": "longrope", **given}
    return json.dumps(raw, indent=2, sort_keys=True) + "\n"


def _text(path: Path) -> str:
    path = path / "config.json" if path.is_dir() else path
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the model's config {path}: {error}; give a folder with a HF config.json"
        ) from error


def _parse(raw: Mapping[str, Any]) -> Phi3Config:
    require(
        raw.get("model_type") == "phi3" and raw.get("architectures") in (None, ["Phi3ForCausalLM"]),
        f"model_type={raw.get('model_type')!r}, architectures={raw.get('architectures')!r}: only "
        "'phi3' with Phi3ForCausalLM is implemented (Phi-3-mini and -medium, Phi-3.5-mini, "
        "Phi-4, Phi-4-mini)",
    )
    for name, value in REQUIRED_VALUES.items():
        require(
            raw.get(name, value) == value,
            f"{name}={raw.get(name)!r} is not implemented; {value!r} was expected",
        )
    known = _FIELDS | set(REQUIRED_VALUES) | BOOKKEEPING | {"rope_parameters", "head_dim"}
    unknown = sorted(set(raw) - known)
    require(
        not unknown,
        f"unknown fields {unknown} would be ignored; remove them if they do not change the logits",
    )
    values = {name: raw[name] for name in _FIELDS & set(raw)} | _parse_rope(raw)
    if values.get("num_key_value_heads") is None:
        heads = values.get("num_attention_heads", Phi3Config.num_attention_heads)
        values["num_key_value_heads"] = heads
    if isinstance(values.get("eos_token_id"), list):
        values["eos_token_id"] = tuple(values["eos_token_id"])
    for name in ("rope_theta", "partial_rotary_factor", "rms_norm_eps", "initializer_range"):
        if name in values:
            values[name] = float(values[name])
    config = Phi3Config(**values)
    require(
        raw.get("head_dim") in (None, config.head_dim),
        f"head_dim={raw.get('head_dim')} is not hidden_size / num_attention_heads = "
        f"{config.head_dim}; such a checkpoint is not implemented",
    )
    return config


def _parse_rope(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The four rope fields of Phi3Config, from either spelling."""
    old, new = raw.get("rope_scaling") or {}, raw.get("rope_parameters") or {}
    require(not (old and new), "rope_scaling and rope_parameters are both given; keep one")
    rope = {**old, **new}
    unknown = sorted(set(rope) - ROPE_FIELDS)
    require(not unknown, f"unknown rope fields {unknown} would be ignored")
    values: dict[str, Any] = {"rope_scaling": None, "original_max_position_embeddings": None}
    for name in ("rope_theta", "partial_rotary_factor"):
        given = {d[name] for d in (rope, raw) if d.get(name) is not None}
        require(len(given) <= 1, f"{name} is given twice, as {sorted(given)}; keep one")
        values |= {name: value for value in given}  # noqa: B035 (at most one)
    kind = rope.get("rope_type", rope.get("type", "default"))
    require(
        kind in ROPE_TYPES, f"rope type {kind!r} is not implemented; 'default' and 'longrope' are"
    )
    if kind == "default":
        extra = sorted(set(rope) & {"short_factor", "long_factor", "factor", "attention_factor"})
        require(not extra, f"rope fields {extra} would be ignored with rope type 'default'")
        return values
    original = raw.get("original_max_position_embeddings", HF_ORIGINAL_CONTEXT)
    inside = rope.get("original_max_position_embeddings", original)
    require(
        inside == original,
        f"original_max_position_embeddings is {inside} among the rope fields and {original} "
        "outside (4096 where it is not given); transformers uses the one outside",
    )
    missing = [name for name in ("short_factor", "long_factor") if not rope.get(name)]
    require(not missing, f"rope type {kind!r} needs {missing}")
    single = {
        name: float(rope[name])
        for name in ("factor", "attention_factor")
        if rope.get(name) is not None
    }
    values["rope_scaling"] = LongRope(
        short_factor=tuple(float(x) for x in rope["short_factor"]),
        long_factor=tuple(float(x) for x in rope["long_factor"]),
        **single,
    )
    return values | {"original_max_position_embeddings": original}
