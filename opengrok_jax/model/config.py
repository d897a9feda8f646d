"""Phi3Config: the numbers of a checkpoint that change what it computes, named as HF names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from opengrok_jax.errors import ConfigError

# HF fields that other values than these would change the computation in ways we do not implement.
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
# HF fields that say nothing about the logits.
BOOKKEEPING = frozenset(
    "_name_or_path architectures auto_map dtype id2label label2id model_type output_attentions "
    "output_hidden_states problem_type return_dict torch_dtype transformers_version use_cache".split()
)
_ROPE_KEYS = frozenset(
    "type rope_type rope_theta partial_rotary_factor short_factor long_factor factor "
    "attention_factor original_max_position_embeddings".split()
)
_HF_ORIGINAL_CONTEXT = 4096  # the default of HF's class, which wins over a value inside the rope dict


@dataclass(frozen=True)
class LongRope:
    """LongRoPE (arXiv:2402.13753): each rotated pair turns `factor` times slower.

    `short_factor` holds up to `original_max_position_embeddings` tokens, `long_factor` beyond;
    both have one entry per rotated pair. Sine and cosine are multiplied by `attention_factor`,
    or, if that is None, by sqrt(1 + ln(factor) / ln(original)), where `factor` defaults to
    max_position_embeddings / original_max_position_embeddings.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    factor: float | None = None
    attention_factor: float | None = None


@dataclass(frozen=True)
class Phi3Config:
    """Sizes and constants of one Phi3ForCausalLM; the defaults are those of HF's class.

    Every field changes the logits, the initial parameters or what is accepted, with one exception:
    the three token ids are carried for the rooms that pad, stop and generate, and for config.json.
    Raises ConfigError when the numbers contradict each other.
    """

    vocab_size: int = 32064
    hidden_size: int = 3072
    intermediate_size: int = 8192
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    max_position_embeddings: int = 4096
    original_max_position_embeddings: int | None = None  # only LongRoPE has another context before
    rope_theta: float = 10000.0
    rope_scaling: LongRope | None = None
    partial_rotary_factor: float = 1.0
    rms_norm_eps: float = 1e-5
    sliding_window: int | None = None  # keys a query sees, itself included
    tie_word_embeddings: bool = False
    hidden_act: str = "silu"
    initializer_range: float = 0.02
    bos_token_id: int | None = 1
    eos_token_id: int | tuple[int, ...] | None = 32000
    pad_token_id: int | None = 32000
    # The config.json this came from, kept so that an unchanged config is exported byte for byte.
    hf_text: str | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in (
            *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
            *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
            *("rope_theta", "rms_norm_eps", "initializer_range"),
        ):
            _require(getattr(self, name) > 0, f"{name}={getattr(self, name)} must be positive")
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            f"hidden_size={self.hidden_size} does not divide into num_attention_heads="
            f"{self.num_attention_heads} heads of equal width",
        )
        _require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            f"num_attention_heads={self.num_attention_heads} does not divide into "
            f"num_key_value_heads={self.num_key_value_heads} groups",
        )
        _require(
            0 < self.partial_rotary_factor <= 1 and 0 < self.rotary_dim and not self.rotary_dim % 2,
            f"partial_rotary_factor={self.partial_rotary_factor} rotates {self.rotary_dim} of "
            f"{self.head_dim} channels; an even number from 2 to {self.head_dim} was expected",
        )
        _require(
            self.sliding_window is None or self.sliding_window > 0,
            f"sliding_window={self.sliding_window} must be None or positive",
        )
        _require(
            self.hidden_act == "silu",
            f"hidden_act={self.hidden_act!r} is not implemented; the Phi-3 family has 'silu'",
        )
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, tuple) else (value,):
                _require(
                    token is None or 0 <= token < self.vocab_size,
                    f"{name}={token} is outside the vocabulary of {self.vocab_size} tokens",
                )
        self._check_long_rope()

    def _check_long_rope(self) -> None:
        rope, original = self.rope_scaling, self.original_max_position_embeddings
        if rope is None:
            _require(
                original is None,
                f"original_max_position_embeddings={original} would be ignored without "
                "rope_scaling; leave it None",
            )
            return
        _require(
            original is not None and original > 1,
            f"rope_scaling needs original_max_position_embeddings above 1, got {original}",
        )
        for name in ("short_factor", "long_factor"):
            factors = getattr(rope, name)
            _require(
                len(factors) == self.rotary_dim // 2 and min(factors) > 0,
                f"rope_scaling.{name} needs {self.rotary_dim // 2} positive numbers, one per "
                f"rotated pair; got {len(factors)}",
            )
        _require(
            rope.factor is None or rope.attention_factor is None,
            f"rope_scaling.factor={rope.factor} would be ignored beside attention_factor="
            f"{rope.attention_factor}; keep one",
        )

    @property
    def head_dim(self) -> int:
        """H, the width of one head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def rotary_dim(self) -> int:
        """2 R, the channels of a head that turn with the position."""
        return int(self.head_dim * self.partial_rotary_factor)

    @classmethod
    def tiny(cls, vocab_size: int = 512, **changes: Any) -> Phi3Config:
        """A Phi-3 of about a million parameters for demos and tests; `changes` override fields."""
        sizes = {
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 1024,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        }
        return cls(vocab_size=vocab_size, **(sizes | changes))

    @classmethod
    def from_hf_json(cls, source: str | Path | Mapping[str, Any]) -> Phi3Config:
        """The config of a HF checkpoint: a config.json, the folder that holds it, or its contents.

        Reads the fields as transformers 4 (`rope_theta`, `rope_scaling`) and 5 (`rope_parameters`)
        write them. Raises ConfigError for another architecture and for every field that this
        model would have to ignore.
        """
        text = None if isinstance(source, Mapping) else _read_config(Path(source))
        raw = dict(source) if isinstance(source, Mapping) else _parse_object(text or "", source)
        where = "the given config" if text is None else str(source)
        try:
            return replace(_from_raw(cls, raw), hf_text=text)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None

    def to_hf_json(self, dtype: str) -> str:
        """The text of a config.json for weights stored as `dtype` ("float32", "bfloat16", ..).

        The text this config was read from, unchanged, when it still says the same; otherwise that
        text with the changed fields replaced, in the spelling that transformers 4 and 5 both read.
        """
        raw = {} if self.hf_text is None else json.loads(self.hf_text)
        stated = raw.get("dtype") or raw.get("torch_dtype") or dtype
        if self.hf_text is not None and stated == dtype and _from_raw(type(self), raw) == self:
            return self.hf_text
        for name in ("rope_parameters", "dtype", "head_dim"):
            raw.pop(name, None)
        raw |= {"architectures": ["Phi3ForCausalLM"], "model_type": "phi3", "torch_dtype": dtype}
        raw |= {f.name: getattr(self, f.name) for f in fields(self) if f.name != "hf_text"}
        if self.rope_scaling is None:
            raw["original_max_position_embeddings"] = self.max_position_embeddings
        else:
            given = {k: v for k, v in asdict(self.rope_scaling).items() if v is not None}
            raw["rope_scaling"] = {"type": "longrope", **given}
        return json.dumps(raw, indent=2, sort_keys=True) + "\n"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _read_config(path: Path) -> str:
    path = path / "config.json" if path.is_dir() else path
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read the model's config: {error}; give a folder with a HF config.json"
        ) from error


def _parse_object(text: str, source: object) -> dict[str, Any]:
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{source}: not valid JSON ({error})") from error
    _require(isinstance(raw, dict), f"{source}: a JSON object was expected")
    return raw


def _from_raw(cls: type[Phi3Config], raw: Mapping[str, Any]) -> Phi3Config:
    _require(
        raw.get("model_type") == "phi3"
        and raw.get("architectures") in (None, ["Phi3ForCausalLM"]),
        f"model_type={raw.get('model_type')!r}, architectures={raw.get('architectures')!r}: only "
        "'phi3' with Phi3ForCausalLM is implemented (Phi-3-mini and -medium, Phi-3.5-mini, "
        "Phi-4, Phi-4-mini)",
    )
    for name, value in REQUIRED_VALUES.items():
        _require(
            raw.get(name, value) == value,
            f"{name}={raw.get(name)!r} is not implemented; {value!r} was expected",
        )
    own = {f.name for f in fields(cls)} - {"hf_text"}
    known = own | set(REQUIRED_VALUES) | BOOKKEEPING | {"rope_parameters", "head_dim"}
    unknown = sorted(set(raw) - known)
    _require(
        not unknown,
        f"unknown fields {unknown} would be ignored; remove them if they do not change the logits",
    )
    values = {name: raw[name] for name in own & set(raw)}
    values |= _rope_fields(raw)
    if values.get("num_key_value_heads") is None:
        values["num_key_value_heads"] = values.get("num_attention_heads", cls.num_attention_heads)
    if isinstance(values.get("eos_token_id"), list):
        values["eos_token_id"] = tuple(values["eos_token_id"])
    for name in ("rope_theta", "partial_rotary_factor", "rms_norm_eps", "initializer_range"):
        if name in values:
            values[name] = float(values[name])
    config = cls(**values)
    _require(
        raw.get("head_dim") in (None, config.head_dim),
        f"head_dim={raw.get('head_dim')} is not hidden_size / num_attention_heads = "
        f"{config.head_dim}; such a checkpoint is not implemented",
    )
    return config


def _rope_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The four rope fields, from the spelling of transformers 4 or 5."""
    old, new = raw.get("rope_scaling") or {}, raw.get("rope_parameters") or {}
    _require(not (old and new), "rope_scaling and rope_parameters are both given; keep one")
    rope = {**old, **new}
    unknown = sorted(set(rope) - _ROPE_KEYS)
    _require(not unknown, f"unknown rope fields {unknown} would be ignored")
    result: dict[str, Any] = {"rope_scaling": None, "original_max_position_embeddings": None}
    for name in ("rope_theta", "partial_rotary_factor"):
        given = [d[name] for d in (rope, raw) if d.get(name) is not None]
        _require(len(set(given)) <= 1, f"{name} is given twice, as {given}; keep one")
        result |= {name: value for value in given}
    kind = rope.get("rope_type", rope.get("type", "default"))
    _require(
        kind in ("default", "longrope", "su"),
        f"rope type {kind!r} is not implemented; 'default' and 'longrope' are",
    )
    if kind == "default":
        extra = sorted(set(rope) & {"short_factor", "long_factor", "factor", "attention_factor"})
        _require(not extra, f"rope fields {extra} would be ignored with rope type 'default'")
        return result
    original = raw.get("original_max_position_embeddings", _HF_ORIGINAL_CONTEXT)
    inside = rope.get("original_max_position_embeddings", original)
    _require(
        inside == original,
        f"original_max_position_embeddings is {inside} among the rope fields and {original} "
        "outside (the default where it is not given); transformers uses the one outside",
    )
    missing = [name for name in ("short_factor", "long_factor") if not rope.get(name)]
    _require(not missing, f"rope type {kind!r} needs {missing}")
    factor, attention = rope.get("factor"), rope.get("attention_factor")
    result["rope_scaling"] = LongRope(
        short_factor=tuple(float(x) for x in rope["short_factor"]),
        long_factor=tuple(float(x) for x in rope["long_factor"]),
        factor=None if factor is None else float(factor),
        attention_factor=None if attention is None else float(attention),
    )
    result["original_max_position_embeddings"] = original
    return result
