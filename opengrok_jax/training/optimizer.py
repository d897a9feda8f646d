"""AdamW with warm-up, decay of the rate and clipping; norms are not decayed."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import optax

B1, B2, EPS = 0.9, 0.95, 1e-8  # 0.95: a fine-tuning is shorter than the memory of 0.999
KEPT_IN_BFLOAT16 = 1 - 2**-8  # a moment that keeps more of itself never decays in bfloat16

Schedule = Literal["cosine", "linear", "constant"]


def schedule(
    *,
    learning_rate: float,
    steps: int,
    warmup_share: float,
    shape: Schedule = "cosine",
    final_share: float = 0.0,
) -> optax.Schedule:
    """Rate of update n (from 0): linear up to the peak, then down as `shape` has it.

    No update is wasted on a rate of 0: the first has peak / warm-up steps, and the end of the
    decay lies just after the last.

        learning_rate 1, steps 6, warmup_share 1/3
        cosine      0.5 1.0 | 1.0 0.85 0.5  0.15
        linear      0.5 1.0 | 1.0 0.75 0.5  0.25
        linear      0.5 1.0 | 1.0 0.85 0.7  0.55    final_share 0.4
        constant    0.5 1.0 | 1.0 1.0  1.0  1.0

    Args:
      learning_rate: the peak.
      steps: updates in all.
      warmup_share: part of `steps` that climbs, in [0,1).
      shape: of the decay.
      final_share: of the peak, which the decay ends in, in [0,1); "constant" has none.
    """
    assert shape in get_args(Schedule), shape
    warmup = min(round(warmup_share * steps), steps - 1)
    if shape == "constant":
        decay = optax.constant_schedule(learning_rate)
    elif shape == "linear":
        decay = optax.linear_schedule(learning_rate, final_share * learning_rate, steps - warmup)
    else:
        decay = optax.cosine_decay_schedule(learning_rate, steps - warmup, alpha=final_share)
    if not warmup:
        return decay
    climb = optax.linear_schedule(learning_rate / warmup, learning_rate, max(warmup - 1, 1))
    return optax.join_schedules([climb, decay], [warmup])


def make_optimizer(
    *,
    rate: optax.Schedule,
    weight_decay: float,
    clip_norm: float,
    b1: float = B1,
    b2: float = B2,
    eps: float = EPS,
    moments_dtype: str = "float32",
) -> optax.GradientTransformation:
    """Clips by the global norm, then AdamW (arXiv:1711.05101), decoupled decay scaled by the rate.

    Args:
      rate: the learning rate by update.
      weight_decay: per unit of rate, on everything but norms.
      clip_norm: largest global norm of the gradient.
      b1, b2: what the moments keep of themselves in an update.
      eps: added to the root of the second moment.
      moments_dtype: both moments are stored in it between updates, see `stored_in`.
    """
    adamw = optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decayed)
    if moments_dtype != "float32":
        adamw = stored_in(moments_dtype, adamw)
    return optax.chain(optax.clip_by_global_norm(clip_norm), adamw)


def stored_in(dtype: str, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """`inner`, whose floating-point state is rounded to `dtype` after each update.

    Its arithmetic stays that of float32. (optax's `mu_dtype` stores the first moment alone, and
    rounds what it keeps of it before the gradient is added, too.)

    In bfloat16 a number moves only if it changes by more than about 1/256 of itself. A moment that
    keeps a share b of itself stops short of where it is heading by at most 1/256 / (1 - b) of its
    size: with b2 = 0.95 by 8 %, 4 % of the step; with 0.99 by 40 %; from `KEPT_IN_BFLOAT16` on it
    does not decay any more, and one large gradient would slow its parameter for good.
    """

    def cast(state: Any, to: Any) -> Any:
        floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
        return jax.tree.map(lambda x: x.astype(to) if floating(x) else x, state)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        changes, state = inner.update(updates, cast(state, jnp.float32), params)
        return changes, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(inner.init(params), dtype), update)


def decayed(params: Any) -> Any:
    """True for each array that weight decay pulls on: all but the norms.

    By name and not by rank: stacked norms are matrices (layers x width).
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, _: "norm" not in jax.tree_util.keystr(path), params
    )
