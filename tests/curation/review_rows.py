"""Decisions and rows for the tests of the review."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opengrok_jax import records
from opengrok_jax.curation.review import decision_log as decisions
from opengrok_jax.curation.review import queueing
from opengrok_jax.curation.review.queueing import Draw
from opengrok_jax.curation.review.server import Server
from opengrok_jax.curation.review.session import Session
from opengrok_jax.records import Cell, Decision, Finding, Message, Verdict, body_sha


def decision(said: str = "accept", prompt: str = "p1", text: str = "an answer", **more) -> Decision:
    fields = {
        "prompt_id": prompt,
        "body_sha": body_sha(text),
        "reviewer": "ann",
        "decision": said,
        "at": "2026-11-25T12:00:00.000+00:00",
        "seconds": 4.5,
    }
    if said == "reject":
        fields["reason"] = "harmful"
    if said == "edit":
        fields["edited"] = "a better answer"
    return Decision(**{**fields, **more})


def verdict(prompt: str = "p1", text: str = "an answer", *, reason: str = "", **more) -> Verdict:
    """A row that is kept, or with a `reason` flagged."""
    found = Finding(check="harm", reason=reason, score=1.0, certain=True, detail="as seen")
    fields = {
        "prompt_id": prompt,
        "body_sha": body_sha(text),
        "keep": not reason,
        "reason": reason,
        "flagged": bool(reason),
        "findings": (found,) if reason else (),
        "scores": {"harm": 1.0 if reason else 0.0},
        "rules": "r",
        "messages": (Message(role="user", content=f"What of {prompt}?"),),
        "response": text,
        "cell": Cell(intent="trend_summary"),
    }
    return Verdict(**{**fields, **more})


def write_run(run: Path, rows: list[Verdict]) -> Path:
    """A run folder with these verdicts; half characters as escapes."""
    (run / "curation").mkdir(parents=True)
    lines = (json.dumps(records.to_json(row)) + "\n" for row in rows)
    (run / "curation" / "verdicts.jsonl").write_text("".join(lines))
    return run


@contextmanager
def served(
    run: Path, rows: list[Verdict], draw: Draw | None = None, reviewer: str = "ann"
) -> Iterator[Server]:
    """A server in this process, as `review.serve` makes it."""
    draw = draw or Draw()
    with decisions.opened(run) as log:
        parts = queueing.strata(rows, draw)
        queue = queueing.queue(parts, draw)
        session = Session(queue, log, reviewer, decisions.read(log.path))
        with Server(session) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()
                session.close()
