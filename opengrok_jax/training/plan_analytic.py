"""Memory and time of an update counted by hand, where no compiler is at hand: an estimate.

How many arrays of a block live at once was read off compiled programs of Phi-3-mini (v5e:4x4, rows
of 4096 tokens, remat "full" and "offload"); `tests/training/test_plan_analytic.py` holds the
estimate against them: it is within 5 %. "none" and "dots" were not compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from opengrok_jax.model.config import Phi3Config
from opengrok_jax.training.chips import Chip
from opengrok_jax.training.flops import Load, matrix_sizes, train_flops
from opengrok_jax.training.losses import CHUNK

BYTES = {"float32": 4, "bfloat16": 2}


class Parts(NamedTuple):
    """Over how many devices things are split."""

    data: int
    fsdp: int
    tensor: int

    @property
    def rows(self) -> int:
        """Groups of rows."""
        return self.data * self.fsdp

    @property
    def state(self) -> int:
        """Pieces of a parameter."""
        return self.fsdp * self.tensor


@dataclass(frozen=True, kw_only=True)
class Work:
    """One update, as far as memory and time depend on it.

    Attributes:
      config: of the model.
      parts: of the mesh.
      rows: b, of a device and microbatch.
      row_tokens: T.
      microbatches: M.
      loss_share: part of the positions that bears loss.
      remat: policy of the blocks.
      dtype, param_dtype, moments_dtype: of products, of stored parameters and moments.
      dense: does attention form its scores, (T, T) a head?
    """

    config: Phi3Config
    parts: Parts
    rows: int
    row_tokens: int
    microbatches: int
    loss_share: float
    remat: str
    dtype: str
    param_dtype: str
    moments_dtype: str = "float32"
    dense: bool = False

    @property
    def tokens(self) -> int:
        """Of a device and microbatch."""
        return self.rows * self.row_tokens

    def load(self) -> Load:
        """Of the whole update: full rows of one segment, the most that they can cost."""
        places = self.tokens * self.microbatches * self.parts.rows
        window = self.config.sliding_window or self.row_tokens
        seen = sum(min(i + 1, window) for i in range(self.row_tokens))
        return Load(
            places=places,
            tokens=places,
            loss_tokens=round(places * self.loss_share),
            pairs=places // self.row_tokens * seen,
        )


def parameters(config: Phi3Config) -> int:
    """How many there are."""
    layers, head = matrix_sizes(config)
    norms = (2 * config.num_hidden_layers + 1) * config.hidden_size
    return layers + head + norms + (0 if config.tie_word_embeddings else head)


def memory(work: Work) -> dict[str, int]:
    """Bytes of a device: parameters, optimizer, gradients, saved, working, head, peak.

    The peak lies in the backward pass of the blocks or in the head's, whichever is higher.
    """
    config, parts, width = work.config, work.parts, BYTES[work.dtype]
    count = parameters(config) // parts.state
    state = {
        "parameters": count * BYTES[work.param_dtype],
        "optimizer": 2 * BYTES[work.moments_dtype] * count,
        "gradients": 4 * count,
    }
    saved, working = saved_per_token(work), working_per_token(work)
    layers = config.num_hidden_layers
    positions = min(round(work.tokens * work.loss_share), CHUNK)
    # Logits and their gradient in float32, and once more in what they are multiplied in.
    head = positions * config.vocab_size // parts.tensor * (4 + 4 + width)
    weights = 3 * matrix_sizes(config)[0] // layers // parts.tensor * width  # a layer, gathered
    result = state | {
        "saved": saved * layers * work.tokens,
        "working": working * work.tokens + weights,
        "head": head,
    }
    held = sum(state.values()) + result["saved"]
    return result | {"peak": held + max(result["working"], head)}


def saved_per_token(work: Work) -> int:
    """Bytes that a block keeps of a token for its backward pass."""
    config, width = work.config, BYTES[work.dtype]
    model, inner, qkv = _widths(work)
    full = config.hidden_size
    if work.remat == "offload":
        return 0
    if work.remat == "full":
        return full * width
    if work.remat == "dots":
        return (2 * full + qkv + 2 * inner + model) * width
    kept = (8 * full + 3 * qkv + 6 * inner) * width
    return kept + (_scores(work) if work.dense else 0)


def working_per_token(work: Work) -> int:
    """Bytes of a token while its block goes backwards: activations and their gradients at once."""
    model, inner, qkv = _widths(work)
    width = BYTES[work.dtype]
    live = (6 * model + 2 * qkv + 6 * inner) * width
    return live + (_scores(work) if work.dense else 0)


def _widths(work: Work) -> tuple[int, int, int]:
    config, tensor = work.config, work.parts.tensor
    qkv = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    return config.hidden_size, config.intermediate_size // tensor, qkv // tensor


def _scores(work: Work) -> int:
    """Bytes of a token's scores with every key of the row: float32, and the product's dtype."""
    heads = work.config.num_attention_heads // work.parts.tensor
    return heads * work.row_tokens * (4 + BYTES[work.dtype])


def executed_flops(work: Work) -> float:
    """Floating-point operations of a device in an update: the model's, and what remat repeats."""
    devices = work.parts.rows * work.parts.tensor
    flops = train_flops(work.config, work.load())
    forward = flops / 3
    again = {"none": 0.0, "dots": 0.1, "full": 1.0, "offload": 1.0}[work.remat]
    return (flops + again * forward) / devices


def received(work: Work) -> int:
    """Bytes that a device receives in an update, each ring as in `hlo.Totals`.

    Under `fsdp` every microbatch gathers the matrices forwards and backwards (and once more for
    remat) in the product's dtype, and scatters the gradient in it; under `data` the gradient is
    summed; under `tensor` each block sums its two outputs forwards and backwards.
    """
    config, parts, width = work.config, work.parts, BYTES[work.dtype]
    count = parameters(config)
    passes = 2 + (work.remat != "none") + 1
    ring = (parts.fsdp - 1) / parts.fsdp
    total = passes * work.microbatches * ring * count / parts.tensor * width
    total += work.microbatches * 2 * (parts.data - 1) / parts.data * 4 * count / parts.state
    sums = 2 * config.num_hidden_layers * (2 + (work.remat in ("full", "offload")))
    ring = 2 * (parts.tensor - 1) / parts.tensor
    total += work.microbatches * sums * ring * work.tokens * config.hidden_size * width
    return round(total)


def memory_traffic(work: Work) -> int:
    """Bytes between a device and its memory: what cannot stay in its caches."""
    config, parts, width = work.config, work.parts, BYTES[work.dtype]
    count = parameters(config)
    moments = 2 * BYTES[work.moments_dtype]  # each read and written, as the parameters are
    update = (2 * BYTES[work.param_dtype] + 2 * moments + 4) * count / parts.state
    passes = work.microbatches * (3 + (work.remat != "none"))
    weights = passes * count / parts.tensor * width
    kept = 2 * saved_per_token(work) * config.num_hidden_layers
    touched = 3 * working_per_token(work) * config.num_hidden_layers
    return round(update + weights + work.microbatches * work.tokens * (kept + touched))


def times(flops: float, traffic: int, links: int, chip: Chip) -> dict[str, float]:
    """Seconds of an update at the published peaks: arithmetic, memory and links each alone."""
    share = chip.devices
    return {
        "compute": flops / (chip.peak_flops / share),
        "memory": traffic / (chip.hbm_bandwidth / share),
        "links": links / (chip.link_bandwidth / share),
    }
