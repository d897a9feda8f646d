"""Intervals of shares and of their difference, for counts that may be small.

E. B. Wilson (1927); for the difference of two shares R. G. Newcombe (1998), method 10, which puts
the two Wilson intervals together.
"""

from __future__ import annotations

import math
from statistics import NormalDist


def normal(level: float) -> float:
    """The normal quantile of a two-sided interval: 1.96 at 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(count: int, total: int, z: float) -> tuple[float, float]:
    """The interval of a share; (0, 1) where nothing was counted.

    count 8 of 10, z 1.96     0.490 to 0.943
    """
    if not total:
        return 0.0, 1.0
    p, zz = count / total, z * z / total
    middle = (p + zz / 2) / (1 + zz)
    half = math.sqrt(p * (1 - p) * zz + zz * zz / 4) / (1 + zz)
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(a: tuple[int, int], b: tuple[int, int], z: float) -> tuple[float, float]:
    """The interval of share a minus share b, each (count, total)."""
    p, q = (count / total if total else 0.5 for count, total in (a, b))
    (low_p, high_p), (low_q, high_q) = wilson(*a, z), wilson(*b, z)
    low = p - q - math.hypot(p - low_p, high_q - q)
    return low, p - q + math.hypot(high_p - p, q - low_q)
