"""One reviewer at work: what is shown next, what was decided, what may be taken back.

A session holds the queue and the open decisions file. What it tells the page is `state`: nothing
in it says which rows are the audit, which come for the second time, or what their ids are.
"""

from __future__ import annotations

import dataclasses
import secrets
import statistics
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from opengrok_jax.curation.review import agreement, decision_log
from opengrok_jax.curation.review.decision_log import CHOICES, REASONS, Log
from opengrok_jax.curation.review.queueing import Entry, findings, key
from opengrok_jax.errors import DataError
from opengrok_jax.records import Decision, Verdict

LONGEST_LOOK = 3600.0  # seconds; who takes longer went away


class Stale(Exception):
    """The page decided on something that is not the answer in question any more."""


class Session:
    """The reviewer's place in the queue; every method may be called from any thread."""

    def __init__(
        self, queue: Sequence[Entry], log: Log, reviewer: str, earlier: Sequence[Decision]
    ) -> None:
        """Goes on after the `earlier` decisions, which are those in the file."""
        self.reviewer = reviewer
        self._queue = queue
        self._log = log
        self._decisions = list(earlier)
        self._mutex = threading.Lock()
        self._closed = False
        # The page names an answer by a number that says nothing about it.
        self._tickets = [secrets.token_hex(8) for _ in queue]
        self._places = {self._look(entry): place for place, entry in enumerate(queue)}
        self._standing: dict[int, Decision] = {}  # place -> own decision, in order of time
        self._again: int | None = None  # place whose decision was just taken back
        for decision in earlier:
            self._count(decision)

    def close(self) -> None:
        """Takes no more decisions; one that is being written is finished first."""
        with self._mutex:
            self._closed = True

    def state(self) -> dict[str, Any]:
        """What the page shows."""
        with self._mutex:
            return self._state()

    def decide(
        self,
        ticket: str,
        decision: str,
        *,
        reason: str = "",
        note: str = "",
        edited: str = "",
        seconds: float = 0.0,
    ) -> dict[str, Any]:
        """Writes the decision on the answer shown; the disk has it when this comes back.

        Raises:
          Stale: the ticket is not that of the answer in question.
          DataError: the decision says too little, see `decision_log.check`.
          StorageError: the disk refused; nothing was counted.
        """
        if decision not in (*CHOICES, "skip"):
            raise DataError(f"{decision!r} is no decision")
        with self._mutex:
            self._check_open()
            place = self._next()
            if place is None or not secrets.compare_digest(
                self._tickets[place].encode(), ticket.encode("utf-8", "replace")
            ):
                raise Stale("this answer was decided already, perhaps in another window")
            entry = self._queue[place]
            if decision == "edit" and edited == entry.row.response:
                raise DataError("nothing was changed; accept the answer instead")
            made = self._made(entry, decision, reason, note, edited, seconds)
            decision_log.check(made)
            self._log.append(made)
            self._count(made)
            self._decisions.append(made)
            return self._state()

    def undo(self) -> dict[str, Any]:
        """Takes back the reviewer's last decision that stands, and shows that answer again.

        Raises:
          Stale: there is none.
        """
        with self._mutex:
            self._check_open()
            if not self._standing:
                raise Stale("there is nothing to take back")
            place = next(reversed(self._standing))
            made = self._made(self._queue[place], "undo", "", "", "", 0.0)
            self._log.append(made)
            self._count(made)
            self._decisions.append(made)
            self._again = place
            return self._state()

    # ---- inside the mutex -------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            raise Stale("the review has ended")

    def _look(self, entry: Entry) -> decision_log.Look:
        return (*key(entry.row), self.reviewer, entry.look)

    def _made(
        self, entry: Entry, said: Any, reason: str, note: str, edited: str, seconds: float
    ) -> Decision:
        prompt, sha = key(entry.row)
        return Decision(
            prompt_id=prompt,
            body_sha=sha,
            reviewer=self.reviewer,
            decision=said,
            reason=reason,
            note=note.strip(),
            edited=edited,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            seconds=round(min(max(seconds, 0.0), LONGEST_LOOK), 1),
            look=entry.look,
        )

    def _count(self, decision: Decision) -> None:
        place = self._places.get(decision_log.look(decision))
        if place is not None:
            self._standing.pop(place, None)
            if decision.decision != "undo":
                self._standing[place] = decision

    def _settled(self, place: int) -> bool:
        return place in self._standing and self._standing[place].decision != "skip"

    def _next(self) -> int | None:
        """What was just taken back; else the first place that is open; else the longest skipped.

        An answer comes for the second time only once the first look has settled it.
        """
        if self._again is not None and self._again not in self._standing:
            return self._again
        for place, entry in enumerate(self._queue):
            if place not in self._standing and self._may_come(entry):
                return place
        for place, decision in self._standing.items():
            if decision.decision == "skip" and self._may_come(self._queue[place]):
                return place
        return None

    def _may_come(self, entry: Entry) -> bool:
        if entry.look == 1:
            return True
        return self._settled(self._places[(*key(entry.row), self.reviewer, 1)])

    def _state(self) -> dict[str, Any]:
        place = self._next()
        settled = [d for d in self._standing.values() if d.decision != "skip"]
        times = [d.seconds for d in settled if d.seconds > 0]
        return {
            "reviewer": self.reviewer,
            "total": len(self._queue),
            "done": len(settled),
            "skipped": len(self._standing) - len(settled),
            "accepted": sum(d.decision == "accept" for d in settled),
            "rejected": sum(d.decision == "reject" for d in settled),
            "edited": sum(d.decision == "edit" for d in settled),
            "median_seconds": round(statistics.median(times), 1) if times else None,
            "can_undo": bool(self._standing),
            "agreement": [
                dataclasses.asdict(found)
                for found in agreement.agreements(self._decisions)
                if self.reviewer in (found.first, found.second)
            ],
            "reasons": REASONS,
            "item": None
            if place is None
            else {"ticket": self._tickets[place], **_shown(self._queue[place].row)},
        }


def _shown(row: Verdict) -> dict[str, Any]:
    """What the page gets of a row.

    Findings are told of flagged rows alone: on the others they would part the doubtful from the
    audit, and sway the reviewer.
    """
    return {
        "turns": [{"role": m.role, "parts": _parts(m.content, row.posts)} for m in row.messages],
        "label": row.label,
        "answer": row.response,
        "why": [dataclasses.asdict(finding) for finding in findings(row)] if row.flagged else [],
    }


def _parts(text: str, posts: Sequence[str]) -> list[dict[str, Any]]:
    """A message cut at the posts that it quotes, in order."""
    parts: list[dict[str, Any]] = []
    for post in posts:
        before, found, after = text.partition(post) if post else (text, "", "")
        if found:
            parts += [{"text": before, "post": False}, {"text": post, "post": True}]
            text = after
    parts.append({"text": text, "post": False})
    return [part for part in parts if part["text"].strip()]
