"""What people's decisions do to a verdict.

decision    on an answer that ...                                      becomes
reject      anything                                                   rejected, "human"
accept      rules keep, or reject for what a person may overrule       kept
accept      rules reject for good (empty, cut, a near-duplicate, ...)  stays rejected
edit        anything; the new text is judged by the same rules         kept with the new text
edit        ... which rejects it for good, or for what the old one     rejected
            had not and nobody has overruled
any         has another text by now                                    stale: ignored, counted
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from opengrok_jax.curation import judging, pii
from opengrok_jax.curation.judging import How, Judged
from opengrok_jax.curation.looks import FINAL, SHOWN, Reason
from opengrok_jax.curation.review.decision_log import outcomes
from opengrok_jax.records import Decision, Finding, Prompt

EDITED = "edited "


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

    def judged(self, row: Judged, how: How) -> Judged:
        """The row; where a person edited the answer, with what the rules say of the new text.

        The verdict keeps the old text, which the decision is about. A fault that the old one had
        not gets `EDITED` before the name of its check.
        """
        old = row.verdict
        decision = self.on(old.prompt_id, old.body_sha)
        if decision is None or decision.decision != "edit":
            return row
        prompt = Prompt(
            id=old.prompt_id,
            messages=old.messages,
            cell=old.cell,
            template=row.provenance.template,
            posts=old.posts,
            label=old.label,
        )
        # Who edited it made it whole.
        response = replace(row.response, text=self.edited(decision), finish_reason="stop")
        new = judging.one(prompt, response, how)
        overruled = {finding.reason for finding in old.findings}
        findings = tuple(
            replace(f, check=EDITED + f.check) if f.certain and f.reason not in overruled else f
            for f in new.verdict.findings
        )
        verdict = replace(
            old,
            findings=findings,
            scores=new.verdict.scores,
            **{n: getattr(new.verdict, n) for n in ("keep", "reason", "check", "detail")},
            **{n: getattr(new.verdict, n) for n in ("flagged", "uncertain")},
        )
        return replace(row, verdict=verdict, sketch=new.sketch, marks=new.marks)

    def edited(self, decision: Decision) -> str:
        """The new text of an edit, personal data masked as everywhere."""
        return pii.mask(decision.edited, self._mask_handles)[0]


def keeps(findings: Iterable[Finding], decision: Decision | None) -> bool:
    """Whether rules and people together keep an answer."""
    certain = [finding for finding in findings if finding.certain]
    if decision is None:
        return not certain
    final = any(f.reason in FINAL or f.check.startswith(EDITED) for f in certain)
    return decision.decision != "reject" and not final


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
