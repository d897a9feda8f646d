"""Decisions and rows for the tests of the review."""

from __future__ import annotations

from opengrok_jax.records import Decision, body_sha


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
