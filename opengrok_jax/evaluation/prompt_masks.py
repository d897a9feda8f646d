"""Which tokens of a test prompt the student may attend to: what `opengrok mask-prompts` wrote.

A prompt is found by its tokens and not by an id, so that whatever made the masks, they can only be
read for the very tokens that they were drawn for. Two rows of the same tokens: the first counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from opengrok_jax import storage
from opengrok_jax.errors import DataError
from opengrok_jax.evaluation.tasks import Item, Task
from opengrok_jax.masked_file import digest, read_masked
from opengrok_jax.records import Message, prompt_id, to_json


class PromptMasks:
    """The masks of some prompts.

    Attributes:
      made_of: SHA-256 that tells these masks from others.
    """

    def __init__(self, path: Path):
        """Reads a masked file; DataError if it is missing, incomplete or damaged."""
        rows, _ = read_masked(path, [])
        self.path, self.made_of = path, digest(path)
        self._masks: dict[bytes, np.ndarray] = {}
        for row in rows:
            self._masks.setdefault(row.tokens.astype(np.int32).tobytes(), row.key_mask)

    def of(self, prompts: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The mask of each tokenized prompt: bool [T], True = may be attended to.

        Raises:
          DataError: a prompt has none.
        """
        try:
            return [self._masks[np.asarray(ids, np.int32).tobytes()] for ids in prompts]
        except KeyError:
            missing = sum(np.asarray(ids, np.int32).tobytes() not in self._masks for ids in prompts)
            raise DataError(
                f"{self.path} has no mask for {missing} of {len(prompts)} prompts; mask the "
                "prompts of these very tasks, with the tokenizer of the student (`opengrok "
                "mask-prompts --config`)"
            ) from None


def write_prompts(path: Path, asked: Iterable[tuple[Task, Sequence[Item]]]) -> int:
    """Writes the prompts of some tasks as `opengrok mask-prompts` reads them; how many there are.

    A prompt that is asked twice stands there once.
    """
    rows = {}
    for task, items in asked:
        for item in items:
            message = Message(role="user", content=task.ask(item))
            name = prompt_id((message,))
            rows[name] = {"id": name, "messages": [to_json(message)]}
    return storage.write_jsonl(path, rows.values())
