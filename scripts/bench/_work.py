"""What the systems of training.py are given to learn, and how they take turns."""

from __future__ import annotations

import gzip
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

VOCAB = 32064
LONGEST = 128  # tokens; the few posts beyond it would only make those wait that pad to the longest
HIDDEN_SHARE = 0.15
SIZES: dict[str, Any] = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 1408,
    "vocab_size": VOCAB,
    "max_position_embeddings": 4096,
}


def posts(folder: Path, count: int) -> list[Any]:
    """Pairs of posts as `MaskedExample`s: one is the prompt, the next the answer to learn."""
    import numpy as np

    from opengrok_jax.records import MaskedExample, Message
    from opengrok_jax.tokenizer import ChatTokenizer

    tokenizer = ChatTokenizer(folder / "phi3-tokenizer" / "tokenizer.json")
    with gzip.open(folder / "tweeteval" / "sentiment.train-rebuilt.jsonl.gz", "rt") as file:
        texts = [json.loads(line)["text"] for _, line in zip(range(4 * count), file, strict=False)]
    rng, made = np.random.default_rng(0), []
    for prompt, answer in zip(texts[::2], texts[1::2], strict=True):
        encoded = tokenizer.encode_chat((Message(role="user", content=prompt),), answer)
        length = len(encoded.tokens)
        if length > LONGEST:
            continue
        made.append(_example(len(made), encoded.tokens, encoded.roles, rng.random(length)))
        assert isinstance(made[-1], MaskedExample)
        if len(made) == count:
            break
    return made


def full_rows(count: int, tokens: int) -> list[Any]:
    """Random examples of one whole row each; every token but the first is learnt."""
    import numpy as np

    from opengrok_jax.tokenizer import PROMPT, RESPONSE

    rng = np.random.default_rng(0)
    roles = np.full(tokens, RESPONSE, np.int8)
    roles[0] = PROMPT
    return [
        _example(i, rng.integers(3, VOCAB, tokens).astype(np.int32), roles, rng.random(tokens))
        for i in range(count)
    ]


def _example(number: int, tokens: Any, roles: Any, draws: Any) -> Any:
    import numpy as np

    from opengrok_jax.records import MaskedExample

    key_mask = draws >= HIDDEN_SHARE
    key_mask[0] = True
    zeros = np.zeros(len(tokens), np.float32)
    return MaskedExample(
        id=f"{number:016x}", split="train", tokens=tokens, roles=roles, key_mask=key_mask,
        tfidf=zeros, pos=zeros, dep=zeros, random=zeros, keep_prob=zeros,
    )  # fmt: skip


def labels(example: Any) -> list[int]:
    """Targets as torch trainers take them: the answer's tokens in their places, -100 elsewhere."""
    import numpy as np

    from opengrok_jax.tokenizer import RESPONSE

    return np.where(example.roles == RESPONSE, example.tokens, -100).tolist()


class Turns:
    """A worker's side of taking turns: `next` before each update; the process waits in between.

    Attributes:
      warm_up: updates before the first turn.
      updates: of a turn.
    """

    def __init__(self, warm_up: int, updates: int):
        self.warm_up, self.updates, self.done, self.bearing = warm_up, updates, 0, 0
        # What a library prints must not come between.
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def due(self) -> bool:
        """Whether the next `next` will report: what was sent to a device has to be done by then."""
        return self.done >= self.warm_up and (self.done - self.warm_up) % self.updates == 0

    def next(self, bearing: int) -> None:
        """Before an update of `bearing` loss-bearing tokens; ends the process when told so."""
        if self.due():
            if self.done == self.warm_up:
                self._say({"ready": True})
            else:
                wall, processor = time.perf_counter() - self._wall, time.process_time() - self._cpu
                self._say({"wall": wall, "processor": processor, "bearing": self.bearing})
            if sys.stdin.readline().strip() != "go":
                raise SystemExit(0)
            self.bearing = 0
            self._wall, self._cpu = time.perf_counter(), time.process_time()
        self.done += 1
        self.bearing += bearing

    def _say(self, row: dict[str, Any]) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps(row | {"peak_gib": round(peak, 3)}), file=self._out, flush=True)
