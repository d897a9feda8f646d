"""Masks for new prompts: the factors, the bias and the word counts of a finished mask.

At inference there is a prompt and no answer. Its words are found by the same annotator, weighed by
the document frequencies of the corpus (a word that the corpus lacks is in none of its documents),
and drawn with the same numbers, so that a token is hidden as it would have been in training.
Nothing of the prompts enters the statistics.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from opengrok_jax import masked_file, records, storage, tokenizer_files
from opengrok_jax.errors import ConfigError, DataError
from opengrok_jax.masking import draw, encode, factors, keep, tfidf, words
from opengrok_jax.masking.build import FREQUENCIES, MASKED
from opengrok_jax.masking.encode import Chat
from opengrok_jax.progress import track
from opengrok_jax.records import MaskedExample, Message
from opengrok_jax.tokenizer import load as load_tokenizer

SPLIT = "valid"  # of every prompt: none of them is learnt


class Masker:
    """A finished mask, opened for new prompts.

    Attributes:
      provenance: of the mask.
    """

    def __init__(self, masking: Path):
        """Opens the folder that `build.run` filled.

        Raises:
          DataError: it is not complete.
          ConfigError: the annotator is not the one that made the mask, or cannot be loaded.
        """
        self.provenance: dict[str, Any] = masked_file.manifest(masking / MASKED)["provenance"]
        made = self.provenance
        try:
            name, annotator = made["pipeline_name"], made["annotator"]
            self._weights = keep.Weights(
                **{k: made[k] for k in ("alpha", "beta", "gamma", "delta", "bias")}
            )
            self._scope, self._seed = made["scope"], made["seed"]
            self._chosen = {"pos_tags": made["pos_tags"], "relations": made["relations"]}
        except KeyError as error:
            raise DataError(
                f"{masking / MASKED} does not say its {error.args[0]}; run `opengrok mask` anew"
            ) from None
        if words.identity(name) != annotator:
            raise ConfigError(
                f"the mask was made with pipeline {made['pipeline']} under the spaCy of that time, "
                "which is not what is installed now: other words would be hidden; install that "
                "version again, or run `opengrok mask` anew"
            )
        self._annotator = words.Annotator(name)
        folder = tokenizer_files.handed_over(masking / MASKED, made)
        self._tokenizer = load_tokenizer(str(folder))
        self._frequencies = tfidf.Frequencies(masking / FREQUENCIES)

    def __call__(self, prompts: Sequence[tuple[str, Sequence[Message]]]) -> list[MaskedExample]:
        """Masks some prompts; (id, messages) each, in this order.

        The tokens are those that generation begins with: the chat up to `<|assistant|>`. The
        factor `random` and the draw are keyed by the id, as in the build.
        """
        chats = [
            Chat(
                id=name,
                split=SPLIT,
                label="",
                messages=encode.well_formed(messages),
                response=None,
            )
            for name, messages in prompts
        ]
        rows: list[MaskedExample] = []
        for at in range(0, len(chats), encode.BLOCK):
            rows += _rows(*self._masked(chats[at : at + encode.BLOCK]))
        return rows

    def write(self, out: Path, number: int, chats: Sequence[Chat]) -> dict[str, Any]:
        """Masks some prompts as one part of a masked file; what the manifest notes of it."""
        block, columns = self._masked(chats)
        return masked_file.write_part(
            out,
            number,
            ids=block.ids,
            splits=[SPLIT] * len(block.ids),
            lengths=block.lengths,
            columns=columns,
            provenance=self.provenance,
        )

    def _masked(self, chats: Sequence[Chat]) -> tuple[factors.FactorBlock, dict[str, Any]]:
        longest = 1 << 31
        block = encode.encode(self._tokenizer, chats, longest)
        pieces = block.pieces()
        distinct = list(dict.fromkeys(pieces))
        place = {piece: at for at, piece in enumerate(distinct)}
        table = factors.picked(self._annotator(distinct), [place[p] for p in pieces])
        made = factors.score(block, table, self._frequencies, **self._chosen)
        return made, draw.masked(made, self._weights, self._scope, self._seed)


def run(*, masking: Path, prompts_file: Path, out: Path) -> dict[str, Any]:
    """Masks the prompts of a file for inference; the same arguments give the same bytes.

    Args:
      masking: a finished folder of `opengrok mask`.
      prompts_file: .jsonl; of each row `id` and `messages` are read, as in `records.Prompt`.
      out: the masked file to write, a folder as masked.parquet is.

    Returns:
      prompts, tokens, visible: how many.

    Raises:
      DataError: a file that is missing or malformed, with the number of the line.
      ConfigError: as `Masker`.
      StorageError: the disk refused.
    """
    total = sum(1 for _ in storage.read_lines(prompts_file))
    if not total:
        raise DataError(f"{prompts_file} holds no prompt; expected rows with id and messages")
    masker = Masker(masking)
    masked_file.begin(out)
    notes: list[dict[str, Any]] = []
    prompts = _read(prompts_file)
    with track("mask-prompts", total=total, unit="prompts") as advance:
        while some := list(itertools.islice(prompts, encode.BLOCK)):
            notes.append(masker.write(out, len(notes), some))
            advance(len(some))
    masked_file.drop_others(out, len(notes))
    masked_file.finish(out, notes, masker.provenance)
    visible = sum(
        int(batch.column("key_mask").flatten().to_numpy(zero_copy_only=False).sum())
        for batch in masked_file.stream(out, ["key_mask"])
    )
    tokens = sum(note["tokens"] for note in notes)
    return {"prompts": total, "tokens": tokens, "visible": visible}


def _read(path: Path) -> Iterator[Chat]:
    for number, line in storage.read_lines(path):
        row = storage.parse_line(path, number, line)
        try:
            yield _chat(row)
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from None


def _chat(row: Mapping[str, Any]) -> Chat:
    name, messages = row.get("id"), row.get("messages")
    if not isinstance(name, str) or not isinstance(messages, list) or not messages:
        raise DataError("expected an id and a list of messages")
    read = [records.from_json(Message, message) for message in messages]
    return Chat(id=name, split=SPLIT, label="", messages=encode.well_formed(read), response=None)


def _rows(block: factors.FactorBlock, columns: Mapping[str, Any]) -> Iterable[MaskedExample]:
    end = 0
    for name, length in zip(block.ids, block.lengths.tolist(), strict=True):
        start, end = end, end + length
        here = {column: values[start:end] for column, values in columns.items()}
        yield MaskedExample(id=name, split=SPLIT, **here)
