r"""How far the student's next-token distribution, and its states, are from the teacher's.

Each function gives one float32 number (nats, or a squared distance) per position and sums nothing:
weights, microbatches and the one division are the business of losses.py and step.py.

    forward_kl      KL(teacher || student)      arXiv:1503.02531; the student covers the teacher
    reverse_kl      KL(student || teacher)      arXiv:2306.08543; the student keeps to its modes
    jensen_shannon  between the two             arXiv:2306.13649, equation 1
    topk_kl         forward, from k stored log-probabilities and one bucket for all others
    feature         of hidden states of one width, after normalising each     arXiv:1412.6550
    relation        of the angles among a window of positions, any widths     arXiv:1904.05068
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

_NOTHING = 1e-6  # what float32 may leave of 1 - sum(p) when every token with mass was stored


def forward_kl(
    student: Float[Array, "*rows V"], teacher: Float[Array, "*rows V"], temperature: float = 1.0
) -> Float32[Array, "*rows"]:
    """T^2 * sum_v p_v (log p_v - log q_v), p the teacher's, q the student's softmax(logits / T).

    T^2 keeps the size of the gradient about the same whatever the temperature.
    """
    p, q = _log_softmax(teacher, temperature), _log_softmax(student, temperature)
    return temperature**2 * _kl(p, q)


def reverse_kl(
    student: Float[Array, "*rows V"], teacher: Float[Array, "*rows V"], temperature: float = 1.0
) -> Float32[Array, "*rows"]:
    """`forward_kl` with the two changed over; the gradient still flows to the student."""
    return forward_kl(teacher, student, temperature)


def jensen_shannon(
    student: Float[Array, "*rows V"],
    teacher: Float[Array, "*rows V"],
    temperature: float = 1.0,
    teacher_share: float = 0.5,
) -> Float32[Array, "*rows"]:
    """T^2 * (b KL(p || m) + (1 - b) KL(q || m)) with m = b p + (1 - b) q and b = teacher_share."""
    p, q = _log_softmax(teacher, temperature), _log_softmax(student, temperature)
    b = teacher_share
    m = jnp.logaddexp(p + math.log(b), q + math.log(1 - b))
    return temperature**2 * (b * _kl(p, m) + (1 - b) * _kl(q, m))


def topk_kl(
    student: Float[Array, "*rows V"],
    ids: Int[Array, "*rows k"],
    logprobs: Float[Array, "*rows k"],
) -> Float32[Array, "*rows"]:
    """Forward KL over k + 1 buckets: the stored tokens one by one, and all others together.

        V = 5   teacher  ids 3 1   probabilities 0.5 0.2   others 0.3
                student  0.1 0.4 0.1 0.2 0.2
                buckets  0.5 log(0.5 / 0.2) + 0.2 log(0.2 / 0.4) + 0.3 log(0.3 / 0.4) = 0.2332

    The mass that was not stored keeps its size and may lie on the others as the student likes;
    scaling the stored ones up to 1 instead would teach it to be surer than the teacher. It is a
    lower bound of the KL over the whole vocabulary.

    Args:
      student: logits.
      ids: of the student's vocabulary, no two alike; `soft_file.ABSENT` fills a row up.
      logprobs: the teacher's, at temperature 1; read only where there is an id.
    """
    there = ids >= 0
    p = jnp.where(there, logprobs.astype(jnp.float32), -jnp.inf)
    logits = student.astype(jnp.float32)
    everything = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    at = jnp.where(there, ids, 0)
    q = jnp.where(there, jnp.take_along_axis(logits, at, axis=-1) - everything, 0.0)
    # The student's tail is summed over the others, not taken as 1 - sum(q), which would leave no
    # digit of it once the student is sure.
    others = _without(logits, jnp.where(there, ids, logits.shape[-1]))
    q_tail = jax.nn.logsumexp(others, axis=-1) - everything[..., 0]
    mass = jnp.where(there, jnp.exp(p), 0.0)
    tail = 1.0 - jnp.sum(mass, axis=-1)
    tail = jnp.where(tail > _NOTHING, tail, 0.0)
    stored = jnp.sum(mass * (jnp.where(there, p, 0.0) - q), axis=-1)
    # A tail of nothing costs nothing, and must not meet log 0 on its way to the gradient either.
    safe_tail, safe_q = (jnp.where(tail > 0, x, y) for x, y in ((tail, 1.0), (q_tail, 0.0)))
    return stored + tail * (jnp.log(safe_tail) - safe_q)


def feature(
    student: Float[Array, "*rows D"], teacher: Float[Array, "*rows D"]
) -> Float32[Array, "*rows"]:
    """Mean over D of the squared difference of the states, each scaled to a mean square of 1."""
    return jnp.mean(jnp.square(_scaled(student) - _scaled(teacher)), axis=-1)


def relation(
    student: Float[Array, "B T D"],
    teacher: Float[Array, "B T E"],
    bearing: Float[Array, "B T"],
    segment_ids: Int[Array, "B T"],
    window: int = 8,
) -> Float32[Array, "B T"]:
    """Squared difference of the cosines between each position and those up to `window` before it.

        segment_ids   1 1 1 1 2 2       window 2
        bearing       0 1 1 1 0 1
        pairs         - - 1 2 - -       position t with t-1 and t-2, of one segment, both bearing

    summed over the pairs and divided by `window`: a position's number depends on nothing but its
    own example, so packing and microbatches change nothing.

    Args:
      bearing: above 0 at the positions that take part.
      window: how many positions each is compared with, at least 1.
    """
    student, teacher = (_scaled(x) / math.sqrt(x.shape[-1]) for x in (student, teacher))
    takes_part = bearing > 0
    total = jnp.zeros(segment_ids.shape, jnp.float32)
    for distance in range(1, min(window, segment_ids.shape[1] - 1) + 1):
        here, before = (..., slice(distance, None)), (..., slice(None, -distance))
        of_student, of_teacher = (
            jnp.einsum("btd,btd->bt", x[:, distance:], x[:, :-distance]) for x in (student, teacher)
        )
        pair = takes_part[here] & takes_part[before] & (segment_ids[here] == segment_ids[before])
        difference = jnp.where(pair, of_student - of_teacher, 0.0)
        total += jnp.pad(jnp.square(difference), ((0, 0), (distance, 0)))
    return total / window


def _log_softmax(logits: jax.Array, temperature: float) -> jax.Array:
    return jax.nn.log_softmax(logits.astype(jnp.float32) / temperature, axis=-1)


def _kl(p: jax.Array, q: jax.Array) -> jax.Array:
    """sum p (log p - log q), from logarithms; 0 log 0 = 0."""
    mass = jnp.exp(p)
    return jnp.sum(jnp.where(mass > 0, mass * (p - q), 0.0), axis=-1)


def _without(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """The logits with those at `ids` at minus infinity; an id of V changes nothing."""
    flat, places = logits.reshape(-1, logits.shape[-1]), ids.reshape(-1, ids.shape[-1])
    rows = jnp.arange(flat.shape[0])[:, None]
    return flat.at[rows, places].set(-jnp.inf, mode="drop").reshape(logits.shape)


def _scaled(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
