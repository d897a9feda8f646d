"""Another mask in every epoch, drawn on the devices from the stored keep_prob.

The mask of token t of an example in epoch e is u < keep_prob, with u of `chance.uniform` keyed by
(the mask's seed, the example's id) and counted by (t, e). Nothing else enters: not the row it is
packed into, not the mesh, not the step. So a run that goes on after an interruption, on other
devices even, sees the same masks, and no state of a generator is kept. Epoch 0 is the stored mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt32

from opengrok_jax import chance
from opengrok_jax.records import MaskedExample


class Redraw(NamedTuple):
    """What a mask is drawn from, (B, T) as in `Batch`; NumPy or JAX arrays.

    Attributes:
      keep_prob: P(token stays visible); 0 where there is padding.
      key: of the token's example.
      epoch: in which its row is.
    """

    keep_prob: Float32[Any, "... T"]
    key: UInt32[Any, "... T 2"]
    epoch: UInt32[Any, "... T"]

    @classmethod
    def empty(cls, shape: tuple[int, int]) -> Redraw:
        """NumPy arrays to fill."""
        words = np.uint32
        return cls(
            np.zeros(shape, np.float32), np.zeros((*shape, 2), words), np.zeros(shape, words)
        )


def example_keys(seed: int, examples: Sequence[MaskedExample]) -> UInt32[np.ndarray, "N 2"]:
    """The keys of some examples' masks.

    Args:
      seed: that the stored masks were drawn with.
      examples: in the order of the keys.
    """
    return chance.keys(seed, (example.id for example in examples), "draw")


def visible(
    key_mask: Bool[Any, "... T"], positions: Int[Any, "... T"], redraw: Redraw | None
) -> Bool[Any, "... T"]:
    """The mask of this epoch; `key_mask` itself where there is nothing to draw from.

        keep_prob    1.0  .7  .7  1.0
        epoch 0      1    0   1   1      the stored mask
        epoch 1      1    1   1   1

    Args:
      key_mask: the stored mask.
      positions: index of each token in its example.
      redraw: of the batch.
    """
    if redraw is None:
        return key_mask
    u = chance.uniform(redraw.key, positions.astype(np.uint32), redraw.epoch)
    return u < redraw.keep_prob
