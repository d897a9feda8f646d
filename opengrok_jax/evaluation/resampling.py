"""How far a number would move with other posts and other seeds: the bootstrap.

Efron & Tibshirani, An Introduction to the Bootstrap, chapters 13 and 16. Every system of a task is
resampled with the same draws, so that differences are paired: what a hard post costs both cancels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from opengrok_jax.errors import needs_extra
from opengrok_jax.evaluation.metrics import Scorer, Weights

_CELLS = 4_000_000  # weights held at once


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A metric of one system, all of whose seeds answered the same posts.

    Attributes:
      values: of each seed, over all posts.
      draws: the mean over the seeds, on each resample of the posts.
    """

    values: tuple[float, ...]
    draws: Float64[np.ndarray, " resamples"]

    @property
    def value(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.values))


def draws(rows: int, resamples: int, seed: int) -> Iterator[Weights]:
    """How often each post was drawn in each resample, a few resamples at a time."""
    random = np.random.default_rng(seed)
    chunk = max(1, _CELLS // rows)
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn = [np.bincount(random.integers(0, rows, rows), minlength=rows) for _ in range(count)]
        yield np.stack(drawn).astype(np.float64)


def resample(
    systems: Sequence[Sequence[Scorer]],
    rows: int,
    *,
    resamples: int,
    seed: int,
    weights: Float64[np.ndarray, " rows"] | None = None,
) -> list[Resampled]:
    """The metric of each system, a scorer a seed, over all posts and on the same resamples of them.

    Args:
      weights: 0 leaves a post out; None = all count once.
    """
    base = np.ones(rows) if weights is None else weights
    values = [tuple(float(score(base[None])[0]) for score in seeds) for seeds in systems]
    parts: list[list[np.ndarray]] = [[] for _ in systems]
    for drawn in draws(rows, resamples, seed):
        for part, seeds in zip(parts, systems, strict=True):
            part.append(np.mean([score(drawn * base) for score in seeds], axis=0))
    return [
        Resampled(values=v, draws=np.concatenate(part))
        for v, part in zip(values, parts, strict=True)
    ]


def interval(one: Resampled) -> tuple[float, float]:
    """95 % for one system, cut to [0, 1].

    One seed: the 2.5th and 97.5th percentile over the resampled posts. It says nothing about
    another seed. Several: see `_over_seeds`.
    """
    if len(one.values) == 1:
        low, high = np.percentile(one.draws, [2.5, 97.5])
        return float(low), float(high)
    _, half = _over_seeds([one], one.draws)
    return max(0.0, one.value - half), min(1.0, one.value + half)


def difference(a: Resampled, b: Resampled) -> tuple[float, float, float]:
    """(low, high, p): the 95 % interval of a - b on the same posts, and how likely chance is.

    One seed each: percentiles of the paired differences; p is twice the share of resamples on the
    other side of 0, the sample itself counted once. Several seeds: see `_over_seeds`, p by t.
    """
    between = a.draws - b.draws
    if len(a.values) == len(b.values) == 1:
        low, high = np.percentile(between, [2.5, 97.5])
        other_side = min((between <= 0).sum(), (between >= 0).sum())
        return float(low), float(high), float(min(1.0, 2 * (other_side + 1) / (len(between) + 1)))
    p, half = _over_seeds([a, b], between)
    centre = a.value - b.value
    return centre - half, centre + half, p


def _over_seeds(systems: Sequence[Resampled], resampled: np.ndarray) -> tuple[float, float]:
    """(p, half of the 95 % interval) of a mean over seeds, or of the difference of two.

    Both the seeds and the posts are samples. The variance is that of the mean over the seeds, s^2
    / S for each system, plus that over the resampled posts; the degrees of freedom are
    Satterthwaite's. With three seeds a bootstrap over seeds would be far too narrow, which is why
    t is used. How seeds and posts interact is in both parts, so that the interval errs on the wide
    side.
    """
    with needs_extra("evaluate"):
        from scipy import stats  # comes with scikit-learn
    centre = systems[0].value - (systems[1].value if len(systems) > 1 else 0.0)
    parts = [
        (float(np.var(s.values, ddof=1)) / len(s.values), len(s.values) - 1)
        for s in systems
        if len(s.values) > 1
    ]
    parts.append((float(np.var(resampled, ddof=1)), 10**6))
    variance = math.fsum(v for v, _ in parts)
    if variance == 0:
        return (1.0 if centre == 0 else 0.0), 0.0
    freedom = variance**2 / math.fsum(v**2 / n for v, n in parts)
    error = math.sqrt(variance)
    p = float(2 * stats.t.sf(abs(centre) / error, freedom))
    return p, float(stats.t.ppf(0.975, freedom)) * error
