"""A model's answers kept by what they are made of, so that none is asked for twice.

    evaluation/answers/SYSTEM.KIND.jsonl    {"key": ..., "value": ...} a line, appended as they come
    losses.jsonl.begun                      the same, of `opengrok losses` until it is done

A key is the hash of all that an answer depends on: the system's weights and tokenizer, the
question as it is put, the labels or the number of new tokens. Another limit, parser, metric or
task beside it changes no key. A kill loses the batch in work; a line it cut is dropped.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from opengrok_jax import storage
from opengrok_jax.records import canonical_json


def key_of(**parts: Any) -> str:
    """SHA-256 of what an answer is made of, in hex."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


class AnswerCache:
    """The file of one system and kind of answer, and what stands in it."""

    def __init__(self, path: Path):
        """Reads what is there; what follows the last whole line is cut off."""
        self.path = path
        self._values: dict[str, Any] = {}
        if not path.exists():
            return
        whole = 0
        with open(path, "rb") as file:
            for line in file:
                try:
                    row = json.loads(line)
                    self._values[row["key"]] = row["value"]
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
        if whole < path.stat().st_size:
            with storage.storing(path):
                os.truncate(path, whole)

    def __contains__(self, key: str) -> bool:
        """Whether the answer is there."""
        return key in self._values

    def __getitem__(self, key: str) -> Any:
        """The answer."""
        return self._values[key]

    def add(self, rows: Iterable[tuple[str, Any]]) -> None:
        """Appends answers; they survive the death of the process from here on."""
        found = dict(rows)
        lines = "".join(
            json.dumps({"key": k, "value": v}, ensure_ascii=False) + "\n" for k, v in found.items()
        )
        with storage.storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                file.write(lines.encode())
        self._values |= found
