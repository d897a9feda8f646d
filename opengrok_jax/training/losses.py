"""Losses over the positions that bear them; each returns (weighted sum, total weight)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32

from opengrok_jax.model.sharding import constrain

CHUNK = 2048  # positions per multiplication by the head: 250 MiB of float32 logits at V = 32,064


def cross_entropy(
    logits: Callable[[Float[Array, "G c D"]], Float32[Array, "G c V"]],
    hidden: Float[Array, "B T D"],
    targets: Int32[Array, "B T"],
    loss_weight: Float32[Array, "B T"],
    norm_weight: Float32[Array, "B T"],
    *,
    capacity: int,
    groups: int = 1,
    chunk: int = CHUNK,
) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """Next-token cross-entropy in nats, undivided.

    Only positions of weight above 0 reach the head, at most `chunk` at a time; when there are
    several chunks the backward pass computes their logits again, so that one chunk is all that is
    ever held. Log-softmax in float32. What stands at a position of weight 0 changes nothing.

    Args:
      logits: the model's head.
      hidden: the decoder's output.
      targets: the token to predict at each position.
      loss_weight: factor of each position's loss, fractions allowed.
      norm_weight: what to divide by in the end, spread over the positions.
      capacity: C, at least the number of positions of weight above 0 in each group; positions
        beyond it would be lost (`batches.loss_capacity` prevents that).
      groups: G; B is cut into so many parts that are gathered each on its own. With the number of
        devices that the rows are split over, no row leaves its device.
      chunk: positions of a group per multiplication by the head.

    Returns:
      (sum of loss_weight * cross-entropy, sum of norm_weight): add up over microbatches, then
      divide once.
    """
    total = jnp.sum(norm_weight)
    hidden, targets, loss_weight = gather(
        hidden, targets, loss_weight, capacity=capacity, groups=groups
    )
    capacity = hidden.shape[1]  # no more than there are positions
    chunks = -(-capacity // chunk)
    if chunks == 1:
        return _summed(logits, hidden, targets, loss_weight), total
    width = -(-capacity // chunks)
    spare = chunks * width - capacity  # weight 0, as everything that jnp.pad adds

    def cut(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (0, spare)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(padded.reshape(groups, chunks, width, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def add(so_far: jax.Array, piece: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        return so_far + _summed(logits, *piece), None

    pieces = (cut(hidden), cut(targets), cut(loss_weight))
    result, _ = jax.lax.scan(add, jnp.zeros((), jnp.float32), pieces)
    return result, total


def gather(
    hidden: Float[Array, "B T D"],
    targets: Int32[Array, "B T"],
    loss_weight: Float32[Array, "B T"],
    *,
    capacity: int,
    groups: int,
) -> tuple[Float[Array, "G C D"], Int32[Array, "G C"], Float32[Array, "G C"]]:
    """The loss-bearing positions of each group, in order, then others (weight 0) up to C.

    targets        0 0 8 9 0   0 8 7 0 0      B = 2, T = 5, one group
    loss_weight    0 0 1 1 0   0 1 1 0 0

    targets        8 9 8 7 0 0                C = 6
    loss_weight    1 1 1 1 0 0
    """
    rows, tokens, width = hidden.shape
    flat = (groups, rows // groups * tokens)
    loss_weight, targets = loss_weight.reshape(flat), targets.reshape(flat)
    order = jnp.argsort(loss_weight == 0, axis=1, stable=True)[:, :capacity]

    def take(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, order, axis=1)

    hidden = jnp.take_along_axis(hidden.reshape(*flat, width), order[:, :, None], axis=1)
    return constrain(hidden, "batch", None, None), take(targets), take(loss_weight)


def _summed(
    logits: Callable[[jax.Array], jax.Array],
    hidden: jax.Array,
    targets: jax.Array,
    loss_weight: jax.Array,
) -> jax.Array:
    scores = constrain(logits(hidden), "batch", None, "vocab").astype(jnp.float32)
    chosen = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(scores, axis=-1) - chosen
    # `where` and not only the product: 0 * inf would be NaN.
    return jnp.sum(jnp.where(loss_weight == 0, 0.0, loss_weight * losses))
