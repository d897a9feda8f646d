"""The largest microbatch that fits, in few tries: each may cost minutes of compiling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

MOST_ROWS = 1024  # a device; a search ends there


class Probe(NamedTuple):
    """Whether so many rows fit.

    Attributes:
      fits: yes or no.
      needs: bytes at the peak.
      has: bytes there are.
      answer: of `plan_compile.compile_step`; {} from the analytic model.
    """

    fits: bool
    needs: int
    has: int
    answer: dict[str, Any]


def largest_fit(
    probe: Callable[[int], Probe], tried: dict[int, Probe], *, slope: float, most: int
) -> None:
    """Adds probes to `tried` until one count fits and the next does not, or `most` are there.

    Memory grows almost evenly with the rows: so the next count to try is where the line through
    what is known meets the limit, kept between the largest that fits and the smallest that does
    not; it doubles at most, and halves at least when nothing fits.

    Args:
      probe: of a count of rows.
      tried: at least one count.
      slope: bytes a row, until two probes tell.
      most: probes in all.
    """
    while len(tried) < most:
        low = max((count for count, one in tried.items() if one.fits), default=0)
        high = min((count for count, one in tried.items() if not one.fits), default=2 * low + 1)
        bounded = any(not one.fits for one in tried.values())
        if low >= MOST_ROWS or (bounded and high == low + 1):
            return
        counts = sorted(tried, key=lambda count: abs(count - (low or high)))[:2]
        if len(counts) == 2:
            rise = (tried[counts[1]].needs - tried[counts[0]].needs) / (counts[1] - counts[0])
            slope = rise if rise > 0 else slope
        near = tried[counts[0]]
        guess = counts[0] + int((near.has - near.needs) // slope)
        most_next = high - 1 if bounded else 2 * low
        count = min(max(guess, low + 1), most_next, MOST_ROWS)
        tried[count] = probe(count)
