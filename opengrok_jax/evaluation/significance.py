"""Is one system better than another? Tests, a correction for making many of them, and the words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from opengrok_jax.evaluation.answers import Prediction

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two systems on the same posts by the same metric.

    Attributes:
      a, b: predictors.
      difference, low, high: value of a less that of b, with its 95 % interval, not corrected.
      p: by the paired bootstrap (or t, over several seeds); p_corrected: after Holm.
      mcnemar: p by McNemar's exact test on which posts are right; None where an answer is not
        right or wrong as a whole, or where there are several seeds.
      verdict: the outcome in words.
    """

    task: str
    metric: str
    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_corrected: float
    mcnemar: float | None
    verdict: str


def mcnemar(a: Sequence[Prediction], b: Sequence[Prediction]) -> float:
    """McNemar's exact test, two-sided: how likely so uneven a split of the disagreements is.

    Of the posts that exactly one of the two has right, each is either's by a fair coin.

        a right, b wrong   b right, a wrong      p
               1                  5           2 (1 + 6) / 64 = 0.21875
    """
    rights = [[p.predicted == p.gold for p in side] for side in (a, b)]
    only_a = sum(x and not y for x, y in zip(*rights, strict=True))
    only_b = sum(y and not x for x, y in zip(*rights, strict=True))
    return sign_test(only_a, only_b)


def sign_test(one: int, other: int) -> float:
    """Two-sided binomial test of `one` against `other` successes of a fair coin."""
    n, least = one + other, min(one, other)
    if n == 0:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(least + 1)
    ]
    tail = math.fsum(math.exp(log - n * math.log(2)) for log in logs)
    return min(1.0, 2 * tail)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: of all true null hypotheses, none is rejected in 95 % of cases.

    p            0.01   0.04   0.03
    times        3      1      2          (the smallest by their number, the next by one less)
    corrected    0.03   0.06   0.06       (none below a smaller one's)
    """
    corrected, least = [0.0] * len(p), 0.0
    for rank, index in enumerate(np.argsort(p, kind="stable")):
        least = max(least, min(1.0, (len(p) - rank) * p[index]))
        corrected[int(index)] = least
    return corrected


def verdict(a: str, b: str, difference: float, low: float, high: float, p: float) -> str:
    """The outcome in words; points are hundredths of the metric. `p` is after correction.

    >>> verdict("x", "y", 0.05, 0.01, 0.09, 0.02)
    'x is above y by 5.0 points (95 % interval 1.0 to 9.0; p = 0.020 after correction)'
    >>> verdict("x", "y", 0.05, -0.02, 0.12, 0.3)
    'x and y: the difference of 5.0 points (95 % interval -2.0 to 12.0) is within the noise'
    >>> verdict("x", "y", 0.05, 0.01, 0.09, 0.3)
    'x and y: the difference of 5.0 points (95 % interval 1.0 to 9.0) is within the noise of as \
many comparisons'
    """
    span = f"95 % interval {100 * low:.1f} to {100 * high:.1f}"
    if p >= LEVEL:
        by = f"the difference of {100 * difference:.1f} points ({span})"
        # The interval is of this pair alone; the correction asks more of it.
        many = " of as many comparisons" if low > 0 or high < 0 else ""
        return f"{a} and {b}: {by} is within the noise{many}"
    place = "above" if difference > 0 else "below"
    said = f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"
    by = f"by {100 * abs(difference):.1f} points"
    return f"{a} is {place} {b} {by} ({span}; {said} after correction)"
