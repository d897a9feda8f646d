"""The version of the rules: one hash over all that decides about an answer.

It stands in every verdict and every example, so that rows judged by other rules can be told apart.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from opengrok_jax.curation.looks import Settings
from opengrok_jax.records import canonical_json

HERE = Path(__file__).parent
MODULES = (
    "checks", "contamination", "duplicates", "harm", "labels", "language", "looks", "pii",
    "refusals", "relevance", "repetition", "shingles", "words",
)  # fmt: skip
# The reference of `relevance` as well: other texts, other weights.
ASSETS = ("curation/harmful.txt", "posts.jsonl", "recorded.jsonl")


def version(settings: Settings, **more: Any) -> str:
    """16 hex digits of the SHA-256 of the settings, this room's code and its lists.

    Args:
      settings: as given to the checks; of the evaluation sets the content counts.
      more: JSON-able settings of the rules outside the checks.
    """
    plain = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    plain["evaluation"] = _digest("\n".join(sorted(map(" ".join, settings.evaluation))).encode())
    plain["labels"] = {task: list(names) for task, names in settings.labels.items()}
    files = [
        *(HERE / f"{name}.py" for name in MODULES),
        *(HERE.parent / "assets" / name for name in ASSETS),
    ]
    body = [plain, more, [[p.name, _digest(p.read_bytes())] for p in files]]
    return _digest(canonical_json(body).encode())[:16]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
