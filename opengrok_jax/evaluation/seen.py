"""Which of a text's tokens the student could see, token by token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from opengrok_jax import masked_file, storage, tokenizer_files
from opengrok_jax import tokenizer as tokenizers
from opengrok_jax.evaluation.outcomes import Outcome, question_id
from opengrok_jax.pages import inert, pieces
from opengrok_jax.records import Example, MaskedExample, Message
from opengrok_jax.tokenizer import TEMPLATE, ChatTokenizer

FACTORS = {
    "keep": "keep_prob",
    "tf-idf": "tfidf",
    "POS": "pos",
    "dependency": "dep",
    "random": "random",
}


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of text that one or several tokens cover, as a page shows it."""

    text: str
    role: str
    visible: bool
    keep_prob: float
    tip: str


def chat_of(masked: Path) -> ChatTokenizer:
    """The tokenizer that made the tokens of a masked file."""
    made = masked_file.manifest(masked)["provenance"]
    beside = tokenizer_files.handed_over(masked, made)
    return tokenizers.load(str(beside) if beside else made.get("tokenizer", ""))


def spans(chat: ChatTokenizer, row: MaskedExample, part: slice = slice(None)) -> list[Span]:
    """The text of some of a row's tokens; the bytes of one character are one span.

    tokens   Hi   0xF0 0x9F 0x91 0x8D   !           visible where one of its tokens is
    spans    Hi           👍            !
    """
    found = []
    start = range(len(row.tokens))[part].start
    for piece in pieces(chat, row.tokens[part].tolist()):
        here = slice(start + piece.first, start + piece.stop)
        visible = bool(row.key_mask[here].any())
        special = chat.is_special(int(row.tokens[here.start]))
        factors = " · ".join(
            f"{name} {float(np.max(getattr(row, key)[here])):.2f}" for name, key in FACTORS.items()
        )
        found.append(
            Span(
                text=inert(piece.text, lines=True),
                role="special" if special else tokenizers.ROLES[int(row.roles[here.start])],
                visible=visible,
                keep_prob=float(row.keep_prob[here].max()),
                tip="always visible" if special else f"{factors}{'' if visible else ' · hidden'}",
            )
        )
    return found


def examples(masked_path: Path, kept: Sequence[Example], count: int) -> Iterator[dict[str, Any]]:
    """Training examples token by token, from as many intents as there is room for."""
    masked, _ = masked_file.read_masked(masked_path)
    chat = chat_of(masked_path)
    places = {name: at for at, name in enumerate(masked.ids)}
    queues: dict[str, list[Example]] = {}
    for example in kept:
        if example.id in places:
            queues.setdefault(example.cell.intent, []).append(example)
    chosen: list[Example] = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            if queue and len(chosen) < count:
                chosen.append(queue.pop(0))
    for example in chosen:
        row = masked[places[example.id]]
        special = np.array([chat.is_special(int(token)) for token in row.tokens])
        hideable = ~special & (row.roles != TEMPLATE)
        yield {
            "intent": example.cell.intent.replace("_", " "),
            "where": " · ".join(filter(None, (example.cell.topic, example.cell.platform))),
            "split": example.split,
            "kept": float(row.key_mask[hideable].mean()) if hideable.any() else 1.0,
            "tokens": len(row.tokens),
            "spans": spans(chat, row),
        }


class Posts:
    """The posts that were asked about, under the mask that training would give them."""

    def __init__(self, questions: Path, masked: Path, chat: ChatTokenizer):
        """Opens the questions and their masks, as `opengrok mask-prompts` makes them.

        Args:
          chat: the tokenizer that made the masks' tokens.

        Raises:
          DataError: one of them is missing or malformed.
        """
        self._asked = {
            row["id"]: row["messages"][0]["content"] for row in storage.read_jsonl(questions)
        }
        self._rows, _ = masked_file.read_masked(masked)
        self._places = {name: at for at, name in enumerate(self._rows.ids)}
        self._chat = chat

    def _find(self, task: str, item: str, text: str) -> tuple[MaskedExample, slice] | None:
        """The question's row, and which of its tokens are the post's; None without any."""
        name = question_id(task, item)
        if name not in self._places or not text.strip():
            return None
        message = Message(role="user", content=self._asked[name])
        encoded = self._chat.encode_chat((message,))
        start = encoded.text.rfind(text)
        inside = (encoded.spans[:, 1] > start) & (encoded.spans[:, 0] < start + len(text))
        places = np.flatnonzero(inside & ~encoded.special)
        if start < 0 or not len(places):
            return None
        return self._rows[self._places[name]], slice(int(places[0]), int(places[-1]) + 1)

    def spans(self, task: str, item: str, text: str) -> list[Span]:
        """The post's tokens; none where its mask is not known."""
        found = self._find(task, item, text)
        shown = spans(self._chat, *found) if found else []
        # A token's leading space stands between it and the word before, which is not shown.
        return [replace(shown[0], text=shown[0].text.lstrip(" ")), *shown[1:]] if shown else []

    def hidden(self, outcome: Outcome) -> list[float]:
        """Of each post of a task the share of its tokens that the mask would hide."""
        shares = []
        run: Mapping[Any, Any] | Any = outcome.predictions[outcome.shown[0]][0]
        for p in run:
            found = self._find(outcome.task.name, p.id, p.text)
            shares.append(float(1 - found[0].key_mask[found[1]].mean()) if found else 0.0)
        return shares
