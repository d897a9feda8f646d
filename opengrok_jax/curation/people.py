"""What people's decisions do to a verdict.

decision    on an answer that ...                                      becomes
reject      anything                                                   rejected, "human"
accept      rules keep, or reject for what a person may overrule       kept
accept      rules reject for good (empty, cut, a near-duplicate, ...)  stays rejected
edit        as accept                                                  kept with the new text
any         has another text by now                                    stale: ignored, counted
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from opengrok_jax.curation import pii
from opengrok_jax.curation.looks import FINAL, SHOWN, Reason
from opengrok_jax.curation.review_decisions import outcomes
from opengrok_jax.records import Decision, Finding


class People:
    """The decisions that count, by the answer they are about."""

    def __init__(self, decisions: Iterable[Decision], mask_handles: bool) -> None:
        self._outcomes = outcomes(decisions)
        self._mask_handles = mask_handles
        self._met: set[tuple[str, str]] = set()
        self.applied: Counter[str] = Counter()

    def on(self, prompt_id: str, body_sha: str) -> Decision | None:
        """The decision on this very answer, or None."""
        key = (prompt_id, body_sha)
        found = self._outcomes.get(key)
        if found is not None:
            self._met.add(key)
        return found

    def stale(self) -> int:
        """Decisions on answers that were not asked for by `on`."""
        return len(self._outcomes) - len(self._met)

    def edited(self, decision: Decision) -> str:
        """The new text of an edit, personal data masked as everywhere."""
        return pii.mask(decision.edited, self._mask_handles)[0]


def keeps(findings: Iterable[Finding], decision: Decision | None) -> bool:
    """Whether rules and people together keep an answer."""
    certain = [finding for finding in findings if finding.certain]
    if decision is None:
        return not certain
    return decision.decision != "reject" and not any(f.reason in FINAL for f in certain)


def effect(findings: Iterable[Finding], decision: Decision) -> str:
    """What a decision did, for the counts: "accepted", "edited", "rejected", "without_effect"."""
    if decision.decision == "reject":
        return "rejected"
    if not keeps(findings, decision):
        return "without_effect"
    return "edited" if decision.decision == "edit" else "accepted"


def why(decision: Decision) -> Finding:
    """A person's rejection as a finding."""
    note = f": {decision.note[:SHOWN]}" if decision.note else ""
    return Finding(
        check="review",
        reason=str(Reason.HUMAN),
        score=1.0,
        certain=True,
        detail=f"{decision.reviewer} says {decision.reason}{note}",
    )
