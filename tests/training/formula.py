"""The objective of one batch in float64 NumPy, position by position, with a gradient of its own.

It begins at the decoder's output: logits are that times the head. Central differences at each
logit, and at each number of the output for the terms that read it, give the gradient of the head,
and of the last norm's weight, which is a factor of the output.
"""

from typing import NamedTuple

import numpy as np

from opengrok_jax.training.batches import Batch
from opengrok_jax.training.objective import Objective

STEP = 1e-5  # of the differences: their error is some 1e-10 of a second derivative


class Forward(NamedTuple):
    """What both models say, float64.

    Attributes:
      hidden, states: (B, T, D) outputs of the student's and the teacher's decoder.
      head: (V, D) of the student.
      theirs: (B, T, V) logits of the teacher.
    """

    hidden: np.ndarray
    head: np.ndarray
    states: np.ndarray
    theirs: np.ndarray


def value(asked: Objective, batch: Batch, said: Forward) -> float:
    """The summed loss."""
    total = 0.0
    for b, t in np.argwhere(batch.loss_weight > 0):
        here = of_logits(asked, said.head @ said.hidden[b, t], batch, said, b, t)
        here += asked.feature_weight * feature(said.hidden[b, t], said.states[b, t])
        total += float(batch.loss_weight[b, t]) * float(here)
    rows = range(len(batch.tokens)) if asked.relation_weight else ()
    return total + sum(float(relation(asked, said.hidden[b], batch, said, b)) for b in rows)


def gradient(
    asked: Objective, batch: Batch, said: Forward, norm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of `value`: by the head (V, D), and by the weight of the last norm (D)."""
    of_head, of_norm = np.zeros_like(said.head), np.zeros_like(norm)
    numbers = said.hidden.shape[-1]
    for b, t in np.argwhere(batch.loss_weight > 0):
        weight, hidden = float(batch.loss_weight[b, t]), said.hidden[b, t]
        logits = said.head @ hidden
        by_logit = weight * differences(
            lambda nudge, z=logits, b=b, t=t: of_logits(asked, z + nudge, batch, said, b, t),
            len(logits),
        )
        of_head += np.outer(by_logit, hidden)
        by_hidden = by_logit @ said.head
        if asked.feature_weight:
            by_hidden += weight * asked.feature_weight * differences(
                lambda nudge, h=hidden, s=said.states[b, t]: feature(h + nudge, s), numbers
            )  # fmt: skip
        if asked.relation_weight:

            def nudged(nudge: np.ndarray, b: int = b, t: int = t) -> np.ndarray:
                rows = np.repeat(said.hidden[b][None], len(nudge), axis=0)
                rows[:, t] += nudge
                return relation(asked, rows, batch, said, b)

            by_hidden += differences(nudged, numbers)
        of_norm += by_hidden * hidden / norm
    return of_head, of_norm


def differences(function, numbers: int) -> np.ndarray:
    """The derivative by each number that a (numbers, numbers) nudge moves one of."""
    nudge = STEP * np.eye(numbers)
    return (function(nudge) - function(-nudge)) / (2 * STEP)


def of_logits(
    asked: Objective, z: np.ndarray, batch: Batch, said: Forward, b: int, t: int
) -> np.ndarray:
    """Cross-entropy and divergence of logits (.., V) at a position."""
    q1 = softmax(z)
    hard = -np.log(q1[..., batch.targets[b, t]])
    if asked.loss == "hard":
        return hard
    if asked.loss == "topk":
        assert batch.soft is not None
        ids = batch.soft.ids[b, t]
        if not (ids >= 0).any():
            return hard
        p = np.exp(batch.soft.logprobs[b, t].astype(np.float64))
        p, stored = np.append(p, 1 - p.sum()), q1[..., ids]
        q = np.concatenate([stored, 1 - stored.sum(axis=-1, keepdims=True)], axis=-1)
        return (1 - asked.weight) * hard + asked.weight * kl(p, q)
    p, q = softmax(said.theirs[b, t] / asked.temperature), softmax(z / asked.temperature)
    m = (p + q) / 2
    soft = {
        "forward_kl": lambda: kl(p, q),
        "reverse_kl": lambda: kl(q, p),
        "jensen_shannon": lambda: (kl(p, m) + kl(q, m)) / 2,
    }[asked.loss]()
    return (1 - asked.weight) * hard + asked.weight * asked.temperature**2 * soft


def feature(hidden: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Mean squared difference of (.., D) and (D), each at a mean square of 1."""
    a, c = (x / np.sqrt((x**2).mean(axis=-1, keepdims=True)) for x in (hidden, state))
    return ((a - c) ** 2).mean(axis=-1)


def relation(
    asked: Objective, hidden: np.ndarray, batch: Batch, said: Forward, b: int
) -> np.ndarray:
    """The weighted sum of a whole row (.., T, D), its factor included."""
    total = np.zeros(hidden.shape[:-2])
    weight, segments, window = batch.loss_weight[b], batch.segment_ids[b], asked.relation_window
    for t in map(int, np.flatnonzero(weight > 0)):
        for s in range(max(0, t - window), t):
            if segments[s] == segments[t] and weight[s] > 0:
                apart = cosine(hidden, s, t) - cosine(said.states[b], s, t)
                total = total + float(weight[t]) * asked.relation_weight * apart**2 / window
    return total


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.sum(p * np.log(p / q), axis=-1)


def cosine(x: np.ndarray, i: int, j: int) -> np.ndarray:
    a, c = x[..., i, :], x[..., j, :]
    return (a * c).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(c, axis=-1)
