"""Memory and time of an update counted by hand, where no compiler is at hand: an estimate.

How many arrays of a block live at once was read off compiled programs of Phi-3-mini (v5e:4x4, rows
of 4096 tokens, remat "full" and "offload"); `tests/training/test_plan_analytic.py` holds the
estimate against them: it is within 5 %. "none" and "dots" were not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from opengrok_jax.model.config import Phi3Config
from opengrok_jax.training.chips import Chip
from opengrok_jax.training.flops import Load, matrix_sizes, train_flops
from opengrok_jax.training.objective import FULL, HARD, Objective

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
      adapters: rank and targets of LoRA; None = everything is trained.
      objective: what is minimised.
      k: slots of the stored distributions.
      teacher, teacher_dtype: the model beside the student, and what it is stored in.
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
    adapters: Mapping[str, Any] | None = None
    objective: Objective = HARD
    k: int = 0
    teacher: Phi3Config | None = None
    teacher_dtype: str = "float32"

    @property
    def tokens(self) -> int:
        """Of a device and microbatch."""
        return self.rows * self.row_tokens

    @property
    def again(self) -> bool:
        """Whether the backward pass computes each block anew."""
        return self.remat in ("full", "offload")

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


def adapter_parameters(work: Work, fsdp: int = 1, tensor: int = 1) -> int:
    """How many numbers the adapters have, or a device of a mesh holds of them."""
    config, (model, inner, qkv) = work.config, _widths(work, tensor=1)
    other = {
        "qkv_proj": qkv,
        "o_proj": config.num_attention_heads * config.head_dim,
        "gate_up_proj": 2 * inner,
        "down_proj": inner,
    }
    given = work.adapters or {"targets": (), "rank": 0}
    widths = sum(model // fsdp + other[name] // tensor for name in given["targets"])
    return config.num_hidden_layers * given["rank"] * widths


def memory(work: Work) -> dict[str, int]:
    """Bytes of a device: parameters, optimizer, gradients, saved, working, head, peak.

    The peak lies in the backward pass of the blocks or in the head's, whichever is higher.
    """
    config, parts, width = work.config, work.parts, BYTES[work.dtype]
    count = parameters(config) // parts.state
    of_adapters = adapter_parameters(work, parts.fsdp, parts.tensor)
    trained = of_adapters if work.adapters else count
    state = {
        "parameters": count * BYTES[work.param_dtype] + 4 * of_adapters,
        "optimizer": 2 * BYTES[work.moments_dtype] * trained,
        # One microbatch's stand beside the sum of those before it.
        "gradients": (4 if work.microbatches == 1 else 8) * trained,
    }
    if work.teacher:
        held = parameters(work.teacher) // parts.state * BYTES[work.teacher_dtype]
        state |= {"teacher": held}
    if work.k:
        state |= {"soft_targets": work.microbatches * work.tokens * work.k * 8}
    saved, working = saved_per_token(work), working_per_token(work)
    layers = config.num_hidden_layers
    positions = min(round(work.tokens * work.loss_share), work.objective.chunk)
    # A layer's matrices, gathered, for this layer and the next, and the gradient of them.
    gathered = matrix_sizes(config)[0] // layers // parts.tensor * width
    result = state | {
        "saved": saved * layers * work.tokens,
        "working": working * work.tokens + (1 if work.adapters else 3) * gathered,
        "head": positions * config.vocab_size // parts.tensor * _per_logit(work),
    }
    held = sum(state.values()) + result["saved"]
    return result | {"peak": held + max(result["working"], result["head"])}


def _per_logit(work: Work) -> int:
    """Bytes: logits and their gradient in float32, and once more in what they are multiplied in.

    A divergence has the teacher's beside them, and logarithms of both.
    """
    more = {"topk": 4} | dict.fromkeys(FULL, 16)
    kept = 4 if work.adapters else 8  # a frozen head needs the logits' gradient once, not twice
    return kept + BYTES[work.dtype] + more.get(work.objective.loss, 0)


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


def _widths(work: Work, tensor: int = 0) -> tuple[int, int, int]:
    config, tensor = work.config, tensor or work.parts.tensor
    qkv = (config.num_attention_heads + 2 * config.num_key_value_heads) * config.head_dim
    return config.hidden_size, config.intermediate_size // tensor, qkv // tensor


def _scores(work: Work) -> int:
    """Bytes of a token's scores with every key of the row: float32, and the product's dtype."""
    heads = work.config.num_attention_heads // work.parts.tensor
    return heads * work.row_tokens * (4 + BYTES[work.dtype])


def model_flops(work: Work) -> int:
    """Of an update on all devices, as `flops.train_flops` counts."""
    adapters = adapter_parameters(work) if work.adapters else None
    return train_flops(work.config, work.load(), adapters)


def executed_flops(work: Work) -> float:
    """Floating-point operations of a device in an update.

    The model's, what remat repeats, and the teacher's forward pass.
    """
    load = work.load()
    flops = (
        model_flops(work)
        + train_flops(work.config, load)
        / 3
        * ({"none": 0.0, "dots": 0.1, "full": 1.0, "offload": 1.0}[work.remat])
    )
    if work.teacher:
        heard = load if work.objective.loss in FULL else load._replace(loss_tokens=0)
        flops += train_flops(work.teacher, heard) / 3
    return flops / (work.parts.rows * work.parts.tensor)


def received(work: Work) -> int:
    """Bytes that a device receives in an update, each ring as in `hlo.Totals`.

    Read off compiled programs (the figures stand in the tests). Under `fsdp` every microbatch
    gathers the blocks' matrices forwards and backwards, those of attention once more where a block
    is computed anew, the embedding once, and the head once, or twice a chunk where there are
    several; it scatters the blocks' gradients, all this in the product's dtype, and those of
    embedding and head (again a chunk each) in float32. `data` sums the gradients of the blocks, at
    the end that of the head, and that of the embedding over all devices before it is cut. Under
    `tensor` each block sums its two outputs forwards and the gradients of its two inputs backwards,
    and attention's output anew, and what the fused projections give is sorted by heads.
    """
    config, parts, width = work.config, work.parts, BYTES[work.dtype]
    blocks, table = matrix_sizes(config)
    model, inner, qkv = _widths(work, tensor=1)
    mixed = config.num_attention_heads * config.head_dim
    attention = config.num_hidden_layers * model * (qkv + mixed)
    ring, of_data = (parts.fsdp - 1) / parts.fsdp, 2 * (parts.data - 1) / parts.data
    chunks = _chunks(work)
    of_embedding = width if parts.tensor == 1 else 4
    gathered = width * (2 * blocks + work.again * attention) + of_embedding * table
    gathered += width * table * (1 if chunks == 1 else 2 * chunks)
    each, once = ring * gathered, 0.0  # a microbatch, and an update
    if not work.adapters:
        each += ring * (width * blocks + 4 * table * chunks) + of_data * width * blocks / parts.fsdp
        once += of_data * 4 * table / parts.fsdp
        if not config.tie_word_embeddings:
            whole = 2 * (parts.rows - 1) / parts.rows if parts.data > 1 else ring
            each += whole * 4 * table
    if work.teacher:
        of_teacher, its_table = matrix_sizes(work.teacher)
        heard = 2 * chunks if work.objective.loss in FULL else 0
        heard = min(heard, 1) if chunks == 1 else heard
        each += ring * (width * (of_teacher + heard * its_table) + of_embedding * its_table)
    if parts.tensor > 1:
        passes = 2 + work.again
        around = 2 * (parts.tensor - 1) / parts.tensor
        sums = (2 + passes) * around * model
        moved = passes * (qkv + 2 * inner) / parts.tensor
        of_blocks = config.num_hidden_layers * work.tokens * (sums + moved) * width
        of_head = around * round(work.tokens * work.loss_share) * model * 4
        each += (of_blocks + of_head) * parts.tensor  # divided below
    return round((work.microbatches * each + once) / parts.tensor)


def _chunks(work: Work) -> int:
    """In how many parts the loss-bearing positions of a microbatch meet the head."""
    return max(-(-round(work.tokens * work.loss_share) // work.objective.chunk), 1)


def memory_traffic(work: Work) -> int:
    """Bytes between a device and its memory: what cannot stay in its caches."""
    config, parts, width = work.config, work.parts, BYTES[work.dtype]
    count = parameters(config)
    trained = adapter_parameters(work, parts.fsdp, parts.tensor) * parts.state
    trained = trained if work.adapters else count
    kept_in = 4 if work.adapters else BYTES[work.param_dtype]
    moments = 2 * BYTES[work.moments_dtype]  # each read and written, as the parameters are
    update = (2 * kept_in + 2 * moments + 4) * trained / parts.state
    passes = work.microbatches * (3 - bool(work.adapters) + (work.remat != "none"))
    weights = passes * count / parts.tensor * width
    if work.teacher:
        weights += work.microbatches * parameters(work.teacher) / parts.tensor * width
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
