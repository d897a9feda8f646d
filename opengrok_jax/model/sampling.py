"""How the next token is chosen: the most likely one, or one drawn by temperature and top-p."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Key

from opengrok_jax.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
      temperature: 0 = the most likely one; above, logits are divided by it and one is drawn.
      top_p: drawn among the fewest most likely tokens whose probabilities reach it, in (0, 1].
      seed: the same seed draws the same tokens, whatever the batch.

    Raises:
      ConfigError: a number out of range, or a top_p that a temperature of 0 would ignore.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        if not 0 <= self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature}: expected 0 or a positive number")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p={self.top_p}: expected a number above 0 and up to 1")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed}: expected a whole number from 0 to 2^32 - 1")
        if self.temperature == 0 and self.top_p < 1:
            raise ConfigError(
                f"top_p={self.top_p} changes nothing at temperature 0, where the most likely token "
                "is taken; give a temperature above 0, or leave top_p at 1"
            )


GREEDY = Sampling()


def sample(
    logits: Float32[Array, "B V"],
    keys: Key[Array, " B"],
    temperature: Float[Array, ""] | float,
    top_p: Float[Array, ""] | float,
) -> Int32[Array, " B"]:
    """Draws one token of each row, with the row's own key, from the nucleus (arXiv:1904.09751).

    A token stays while the more likely ones together have less than `top_p`:

        probability   0.1  0.5  0.15  0.25      top_p 0.7
        before it     0.9  0.0  0.75  0.5
        stays          0    1    0     1
    """
    order = jnp.argsort(-logits, axis=-1)
    scaled = jnp.take_along_axis(logits, order, axis=-1) / temperature
    probability = jax.nn.softmax(scaled, axis=-1)
    before = jnp.cumsum(probability, axis=-1) - probability
    scaled = jnp.where(before < top_p, scaled, -jnp.inf)
    drawn = jax.vmap(jax.random.categorical)(keys, scaled)
    return jnp.take_along_axis(order, drawn[:, None], axis=1)[:, 0].astype(jnp.int32)
