"""The release statement: how many harmful rows may be left among those nobody looked at.

A hidden random sample of them was reviewed, n rows, of which k were rejected. The upper end of
the Wilson score interval at 95 % (two-sided, z = 1.95996...) bounds the share in all of them:

    p = k / n
    upper = (p + z^2/2n + z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n)

    k   n    upper
    0   100  z^2 / (100 + z^2)  =  3.84146 / 103.84146  =  0.036993
    3   50                                                  0.162171

E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal of the
American Statistical Association 22 (1927). That the rows are finitely many is left out, which
makes the bound wider, never narrower.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from opengrok_jax.curation import intervals
from opengrok_jax.curation.review.decision_log import Body, by_look, outcomes
from opengrok_jax.records import Decision

MIN_REVIEWED = 50  # without a rejection the bound is then 7.1 %


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What the hidden sample showed.

    Attributes:
      unreviewed: kept rows that nobody settled and that the sample speaks for.
      uncovered: flagged or uncertain rows, kept and not yet settled: it does not speak for these.
      drawn: rows in the sample.
      reviewed: of these, how many count: settled, or skipped and never settled.
      rejected: of these, how many were rejected; a skipped one counts as rejected.
      edited: of these, how many were accepted only after a change.
      upper: the bound, in [0,1]; None where `reviewed` is below the least that allows one.
      least: that number.
    """

    unreviewed: int
    uncovered: int
    drawn: int
    reviewed: int
    rejected: int
    edited: int
    upper: float | None
    least: int


def wilson_upper(rejected: int, reviewed: int) -> float:
    """Upper end of the Wilson score interval of a share at 95 %; see above.

    Raises:
      ValueError: not 0 <= rejected <= reviewed, or nothing was reviewed.
    """
    if not 0 <= rejected <= reviewed or reviewed < 1:
        raise ValueError(f"expected 0 <= rejected <= reviewed >= 1, got {rejected} of {reviewed}")
    _, upper = intervals.wilson(rejected, reviewed, intervals.normal(0.95))
    return max(upper, rejected / reviewed)  # which rounding may have passed by


def audit(
    *,
    sample: Collection[Body],
    rest: Collection[Body],
    marked: Collection[Body],
    decisions: Iterable[Decision],
    least: int = MIN_REVIEWED,
) -> Audit:
    """What the sample says of the rows that nobody looked at.

    Args:
      sample: the rows of the audit; some of `rest`.
      rest: the kept rows that are neither flagged nor among the most uncertain.
      marked: the kept rows that are.
      decisions: all of them.
      least: fewer reviewed rows allow no bound.
    """
    decisions = list(decisions)
    settled = outcomes(decisions)
    skipped = {(d.prompt_id, d.body_sha) for d in by_look(decisions).values()} - set(settled)
    said = [settled[key].decision if key in settled else "reject"
            for key in sample if key in settled or key in skipped]  # fmt: skip
    rejected = said.count("reject")
    return Audit(
        unreviewed=sum(key not in settled for key in rest),
        uncovered=sum(key not in settled for key in marked),
        drawn=len(sample),
        reviewed=len(said),
        rejected=rejected,
        edited=said.count("edit"),
        upper=wilson_upper(rejected, len(said)) if len(said) >= max(1, least) else None,
        least=least,
    )


def statement(found: Audit) -> str:
    """One line for a data card, or why there is no bound."""
    open_ = (
        f"; {found.uncovered} flagged or uncertain rows are kept, not yet reviewed and not covered"
        if found.uncovered
        else ""
    )
    if found.upper is None:
        return (
            f"no bound on harmful rows: {found.reviewed} rows of the hidden audit are reviewed and "
            f"{found.least} are needed{open_}"
        )
    # Rounded up, so that what is said is never less than what was found.
    shown = math.ceil(found.upper * 1000) / 10
    return (
        f"harmful <= {shown:.1f} % (95 % Wilson, {found.reviewed} reviewed, {found.rejected} "
        f"rejected) of {found.unreviewed} rows kept without review{open_}"
    )
