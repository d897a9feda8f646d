"""Weighted sums over the positions that bear loss; nothing is divided here."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int32, Shaped

from opengrok_jax.model.sharding import constrain

CHUNK = 2048  # positions per multiplication by the head: 250 MiB of float32 logits at V = 32,064


def cross_entropy(
    logits: Float[Array, "*rows V"], targets: Int32[Array, "*rows"]
) -> Float32[Array, "*rows"]:
    """-log softmax(logits)[target], in nats, in float32."""
    scores = logits.astype(jnp.float32)
    chosen = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(scores, axis=-1) - chosen


def weighted_sum(
    per_position: Callable[..., Float32[Array, "G c"]],
    arrays: tuple[Shaped[Array, "B T ..."], ...],
    loss_weight: Float32[Array, "B T"],
    *,
    capacity: int,
    groups: int = 1,
    chunk: int = CHUNK,
) -> Float32[Array, ""]:
    """sum of loss_weight * per_position(*arrays), undivided.

    Only positions of weight above 0 reach `per_position` (and in it the head), at most `chunk` at a
    time; when there are several chunks the backward pass runs it again, so that the logits of one
    chunk are all that is ever held. What stands at a position of weight 0 changes nothing.

    Args:
      per_position: (G, c, ...) rows of each array -> a loss each.
      arrays: what it reads, such as the decoder's output and the targets.
      loss_weight: factor of each position's loss, fractions allowed.
      capacity: C, at least the number of positions of weight above 0 in each group; positions
        beyond it would be lost (`packing.loss_capacity` prevents that).
      groups: G; B is cut into so many parts that are gathered each on its own. With the number of
        devices that the rows are split over, no row leaves its device.
      chunk: positions of a group at a time.
    """
    *arrays_, loss_weight = gather((*arrays, loss_weight), loss_weight, capacity, groups)
    capacity = loss_weight.shape[1]  # no more than there are positions

    def summed(*pieces: jax.Array) -> jax.Array:
        *rows, weight = pieces
        return jnp.sum(weight * per_position(*rows))

    chunks = -(-capacity // chunk)
    if chunks == 1:
        return summed(*arrays_, loss_weight)
    width = -(-capacity // chunks)
    spare = chunks * width - capacity  # weight 0, as everything that jnp.pad adds

    def cut(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (0, spare)) + ((0, 0),) * (x.ndim - 2))
        return jnp.moveaxis(padded.reshape(groups, chunks, width, *x.shape[2:]), 1, 0)

    @jax.checkpoint
    def add(so_far: jax.Array, pieces: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        return so_far + summed(*pieces), None

    pieces = tuple(map(cut, (*arrays_, loss_weight)))
    return jax.lax.scan(add, jnp.zeros((), jnp.float32), pieces)[0]


def gather(
    arrays: tuple[Shaped[Array, "B T ..."], ...],
    loss_weight: Float32[Array, "B T"],
    capacity: int,
    groups: int,
) -> tuple[Shaped[Array, "G C ..."], ...]:
    """The loss-bearing positions of each group, in order, then zeros up to C.

    targets        0 0 8 9 0   0 8 7 0 0      B = 2, T = 5, one group
    loss_weight    0 0 1 1 0   0 1 1 0 0

    targets        8 9 8 7 0 0                C = 6
    loss_weight    1 1 1 1 0 0
    """
    rows, tokens = loss_weight.shape
    flat = (groups, rows // groups * tokens)
    idle = loss_weight.reshape(flat) == 0
    order = jnp.argsort(idle, axis=1, stable=True)[:, :capacity]
    bearing = ~jnp.take_along_axis(idle, order, axis=1)

    def take(x: jax.Array) -> jax.Array:
        index = order.reshape(*order.shape, *(1 for _ in x.shape[2:]))
        taken = jnp.take_along_axis(x.reshape(*flat, *x.shape[2:]), index, axis=1)
        # 0 * inf would be NaN, in the sum or on the way back.
        taken = jnp.where(bearing.reshape(index.shape), taken, jnp.zeros((), x.dtype))
        return constrain(taken, "batch", *(None for _ in taken.shape[1:]))

    return tuple(map(take, arrays))
