"""Model FLOPs: what an update has to multiply, whatever the hardware does besides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from opengrok_jax.model.config import Phi3Config
from opengrok_jax.training.batches import Batch

# Per number of a matrix and token: multiplying by it; backwards the same for the gradient of the
# input and once more for that of the matrix (Kaplan et al., arXiv:2001.08361, section 2.1).
FORWARD, OF_INPUT, OF_MATRIX = 2, 2, 2


class Load(NamedTuple):
    """What a batch holds.

    Attributes:
      places: tokens with the padding, B T.
      tokens: without it.
      loss_tokens: those whose position bears loss; only they meet the head.
      pairs: of a query and a key it may see, in causal attention inside of the segments.
    """

    places: int
    tokens: int
    loss_tokens: int
    pairs: int


def load(batch: Batch, sliding_window: int | None) -> Load:
    """Counts a host batch.

        segment_ids   1 1 1 1 2 2 0     places 7, tokens 6
        positions     0 1 2 3 0 1 0
        loss_weight   0 0 1 0 1 0 0     loss_tokens 2
        keys seen     1 2 3 4 1 2 0     pairs 13
        keys seen     1 2 2 2 1 2 0     pairs 10, sliding_window 2

    A key that the mask hides counts like any other: kernels visit it, and the figure stays
    comparable between mask rules.

    Args:
      batch: NumPy arrays.
      sliding_window: of the model.
    """
    real = np.asarray(batch.segment_ids) > 0
    seen = np.asarray(batch.positions, np.int64)[real] + 1
    if sliding_window is not None:
        seen = np.minimum(seen, sliding_window)
    return Load(
        places=real.size,
        tokens=int(real.sum()),
        loss_tokens=int((np.asarray(batch.loss_weight) > 0).sum()),
        pairs=int(seen.sum()),
    )


def matrix_sizes(config: Phi3Config) -> tuple[int, int]:
    """Numbers in the matrices that every token meets (all layers), and in the head.

    The embedding is looked up and the norms are no matrices: neither counts.
    """
    width, heads = config.hidden_size, config.num_attention_heads
    qkv = width * (heads + 2 * config.num_key_value_heads) * config.head_dim
    out = heads * config.head_dim * width
    mlp = 3 * width * config.intermediate_size  # gate, up and down
    return config.num_hidden_layers * (qkv + out + mlp), config.vocab_size * width


def train_flops(config: Phi3Config, load: Load, adapters: int | None = None) -> int:
    """Model FLOPs of a forward and a backward pass.

    A matrix that is trained costs 6 a number and token. With adapters the model's own matrices
    cost 4, for no gradient of them is formed, and those of the adapters 6.

    Padding, the head on positions without loss, what remat computes twice and keys after their
    query cost a device time and are not counted: so utilisation falls with each of them.

    Args:
      config: sizes of the model.
      load: of all the rows of the update.
      adapters: numbers in the adapters of all layers, which alone are trained; None = there are
        none and everything is trained.
    """
    layers, head = matrix_sizes(config)
    # Scores and mixing: each pair multiplies H numbers of each of the N heads, twice.
    per_pair = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    trained = FORWARD + OF_INPUT + OF_MATRIX
    frozen_or_trained = trained if adapters is None else FORWARD + OF_INPUT
    matrices = frozen_or_trained * (layers * load.tokens + head * load.loss_tokens)
    # Both factors of a score and of a mixing depend on the input: each gets a gradient.
    return matrices + trained * ((adapters or 0) * load.tokens + per_pair * load.pairs)
