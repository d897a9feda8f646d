"""AdamW with warm-up, cosine decay and clipping; norms are not decayed."""

from __future__ import annotations

from typing import Any

import jax
import optax

B1, B2, EPS = 0.9, 0.95, 1e-8  # 0.95: a fine-tuning is shorter than the memory of 0.999


def schedule(*, learning_rate: float, steps: int, warmup_share: float) -> optax.Schedule:
    """Rate of update n (from 0): linear up to the peak, then half a cosine towards 0.

    No update is wasted on a rate of 0: the first has peak / warm-up steps, and the zero of the
    cosine lies just after the last.

        learning_rate 1, steps 6, warmup_share 1/3      0.5 1.0 | 1.0 0.85 0.5 0.15

    Args:
      learning_rate: the peak.
      steps: updates in all.
      warmup_share: part of `steps` that climbs, in [0,1).
    """
    warmup = min(round(warmup_share * steps), steps - 1)
    decay = optax.cosine_decay_schedule(learning_rate, steps - warmup)
    if not warmup:
        return decay
    climb = optax.linear_schedule(learning_rate / warmup, learning_rate, max(warmup - 1, 1))
    return optax.join_schedules([climb, decay], [warmup])


def make_optimizer(
    *, rate: optax.Schedule, weight_decay: float, clip_norm: float
) -> optax.GradientTransformation:
    """Clips by the global norm, then AdamW (arXiv:1711.05101), decoupled decay scaled by the rate.

    Args:
      rate: the learning rate by update.
      weight_decay: per unit of rate, on everything but norms.
      clip_norm: largest global norm of the gradient.
    """
    return optax.chain(
        optax.clip_by_global_norm(clip_norm),
        optax.adamw(rate, b1=B1, b2=B2, eps=EPS, weight_decay=weight_decay, mask=decayed),
    )


def decayed(params: Any) -> Any:
    """True for each array that weight decay pulls on: all but the norms.

    By name and not by rank: stacked norms are matrices (layers x width).
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "norm" not in jax.tree_util.keystr(path), params
    )
