"""Phi3Config: the numbers of a checkpoint that change what it computes, named as HF names them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from opengrok_jax.errors import ConfigError


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
        """Checks the numbers against each other."""
        for name in (
            *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
            *("num_attention_heads", "num_key_value_heads", "max_position_embeddings"),
            *("rope_theta", "rms_norm_eps", "initializer_range"),
        ):
            require(getattr(self, name) > 0, f"{name}={getattr(self, name)} must be positive")
        require(
            self.hidden_size % self.num_attention_heads == 0,
            f"hidden_size={self.hidden_size} does not divide into num_attention_heads="
            f"{self.num_attention_heads} heads of equal width",
        )
        require(
            self.num_attention_heads % self.num_key_value_heads == 0,
            f"num_attention_heads={self.num_attention_heads} does not divide into "
            f"num_key_value_heads={self.num_key_value_heads} groups",
        )
        require(
            0 < self.partial_rotary_factor <= 1 and self.rotary_dim > 0 and not self.rotary_dim % 2,
            f"partial_rotary_factor={self.partial_rotary_factor} rotates {self.rotary_dim} of "
            f"{self.head_dim} channels; an even number from 2 to {self.head_dim} was expected",
        )
        require(
            self.sliding_window is None or self.sliding_window > 0,
            f"sliding_window={self.sliding_window} must be None or positive",
        )
        require(
            self.hidden_act == "silu",
            f"hidden_act={self.hidden_act!r} is not implemented; the Phi-3 family has 'silu'",
        )
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, tuple) else (value,):
                require(
                    token is None or 0 <= token < self.vocab_size,
                    f"{name}={token} is outside the vocabulary of {self.vocab_size} tokens",
                )
        self._check_long_rope()

    def _check_long_rope(self) -> None:
        rope, original = self.rope_scaling, self.original_max_position_embeddings
        if rope is None:
            require(
                original is None,
                f"original_max_position_embeddings={original} would be ignored without "
                "rope_scaling; leave it None",
            )
            return
        require(
            original is not None and original > 1,
            f"rope_scaling needs original_max_position_embeddings above 1, got {original}",
        )
        for name in ("short_factor", "long_factor"):
            factors = getattr(rope, name)
            require(
                len(factors) == self.rotary_dim // 2 and min(factors) > 0,
                f"rope_scaling.{name} needs {self.rotary_dim // 2} positive numbers, one per "
                f"rotated pair; got {len(factors)}",
            )
        require(
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
        """About 0.8 million parameters, for demos and tests; `changes` override fields."""
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


# Sizes of published checkpoints, from their config.json; what only the weights' folder says
# (token ids, say) is left at its default.
PUBLISHED: dict[str, dict[str, Any]] = {
    "phi-3-mini-4k": {"sliding_window": 2047},
    "phi-3-medium-4k": {
        "hidden_size": 5120,
        "intermediate_size": 17920,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 10,
        "sliding_window": 2047,
    },
    "phi-4": {
        "vocab_size": 100352,
        "hidden_size": 5120,
        "intermediate_size": 17920,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 10,
        "max_position_embeddings": 16384,
        "rope_theta": 250000.0,
    },
}


def published(name: str) -> Phi3Config:
    """The config of a published checkpoint, without its folder; ConfigError lists the names."""
    require(name in PUBLISHED, f"no published sizes of {name!r}; there are {', '.join(PUBLISHED)}")
    return Phi3Config(**PUBLISHED[name])


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)
