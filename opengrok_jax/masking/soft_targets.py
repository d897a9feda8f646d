"""A teacher's log-probabilities over its own tokens, moved to the student's tokens.

A student's token takes the teacher's distribution if both cut the answer at the same two bytes;
then what was said before is the same text, and what comes next is the same word piece.

    answer       H e l l o   w o r l d !
    teacher     |  Hello   |  world  | !|
    student     |  Hello   |  wor |ld| !|
    aligned        yes        no   no yes

An alternative of the teacher goes to the student's token of the very same bytes; where there is
none its mass stays in the tail, with everything the teacher did not tell. Nothing is guessed: the
tokens in between are learnt by cross-entropy alone, and the aligned share is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from opengrok_jax import records, soft_file, storage
from opengrok_jax.errors import DataError
from opengrok_jax.records import Likely, Logprobs, MaskedExample
from opengrok_jax.soft_file import ABSENT, SoftRows, response_positions
from opengrok_jax.tokenizer import ChatTokenizer

ROWS_PER_PART = 2048
_OVER = 1.01  # probabilities that add up to more are no distribution


def build(
    logprobs_file: Path,
    out: Path,
    chat: ChatTokenizer,
    examples: Iterable[tuple[MaskedExample, str]],
) -> dict[str, Any]:
    """Writes the soft targets of all examples whose answer the teacher's tokens spell.

    In memory are the place of each answer in the file, about 150 bytes, and `ROWS_PER_PART`
    examples.

    Args:
      logprobs_file: .jsonl of `records.Logprobs`; of several with one id the last one counts.
      out: folder of soft_file.py.
      chat: the tokenizer of the examples.
      examples: as tokens, each with the text of its answer. One that was changed after the teacher
        wrote it (a name replaced, say) gets no soft targets.

    Returns:
      examples (with soft targets), changed, and `soft_file.coverage` over the response tokens of
      all examples.

    Raises:
      DataError: the file is missing or malformed.
      StorageError: the disk refused.
    """
    places, k = _places(logprobs_file)
    pieces = vocabulary(chat)
    soft_file.begin(out)
    changed = bare = parts = count = 0
    rows: list[SoftRows] = []
    with open(logprobs_file, "rb") as file:
        for example, response in examples:
            found = _at(logprobs_file, file, places.get(example.id))
            if found is not None and found.text != response:
                changed, found = changed + 1, None
            if found is None:
                bare += len(response_positions(example))
                continue
            rows.append(_widened(align(example, found, chat, pieces), k))
            count += 1
            if len(rows) == ROWS_PER_PART:
                soft_file.write_part(out, parts, rows, k=k)
                parts, rows = parts + 1, []
    if rows or not parts:
        soft_file.write_part(out, parts, rows, k=k)
        parts += 1
    stored = (row for number in range(parts) for row in soft_file.read_part(out, number, k=k))
    figures = soft_file.coverage(stored)
    total = figures["response_tokens"] + bare
    share = figures["aligned_share"] * figures["response_tokens"] / total if total else 0.0
    facts = {**figures, "response_tokens": total, "aligned_share": share}
    facts |= {"examples": count, "changed": changed}
    soft_file.finish(out, parts=parts, k=k, facts=facts)
    return facts


def _places(path: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """Number and first byte of the line of each answer; the most tokens told for one place."""
    places: dict[str, tuple[int, int]] = {}
    most, at = 1, 0
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    row = _parsed(path, number, line)
                    places[row.prompt_id] = number, at
                    told = zip(row.tokens, row.top, strict=False)
                    most = max(
                        most, *(len({one.bytes for one in (token, *top)}) for token, top in told), 1
                    )
                at += len(line)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    return places, most


def _at(path: Path, file: IO[bytes], place: tuple[int, int] | None) -> Logprobs | None:
    if place is None:
        return None
    number, at = place
    file.seek(at)
    return _parsed(path, number, file.readline())


def _parsed(path: Path, number: int, line: bytes) -> Logprobs:
    row = storage.parse_line(path, number, line)
    try:
        return records.from_json(Logprobs, row)
    except DataError as error:
        raise DataError(f"{path}, line {number}: {error}") from None


def vocabulary(chat: ChatTokenizer) -> dict[bytes, int]:
    """Bytes -> the student's token of exactly these; a piece goes before the byte of fallback."""
    pieces: dict[bytes, int] = {}
    for index in reversed(range(chat.vocab_size)):
        # The byte tokens <0x00> .. <0xFF> come before the pieces; control tokens are no text.
        if not chat.is_special(index):
            spelled = chat.token_bytes(index)
            if spelled not in pieces or not chat.token_text(index).startswith("<0x"):
                pieces[spelled] = index
    return pieces


def align(
    example: MaskedExample, told: Logprobs, chat: ChatTokenizer, pieces: dict[bytes, int]
) -> SoftRows:
    """The teacher's distributions at the response tokens of one example.

    Args:
      example: whose response is `told.text`, then the end of the turn.
      told: the teacher's tokens.
      chat, pieces: the student's tokenizer and its `vocabulary`.

    Returns:
      One row per response token; rows that do not align are all `ABSENT`.
    """
    targets = example.tokens[response_positions(example) + 1]
    spelled = [chat.token_bytes(int(t)) for t in targets if not chat.is_special(int(t))]
    text = told.text.encode()
    lead = len(b"".join(spelled)) - len(text)  # Phi-3's space before the first word
    found: list[dict[int, float]] = [{} for _ in targets]
    if b" " * lead + text == b"".join(spelled) and 0 <= lead <= 1:
        places = {span: at for at, span in enumerate(_spans(spelled, lead))}
        theirs = _spans([bytes.fromhex(token.bytes) for token in told.tokens], 0)
        for token, top, span in zip(told.tokens, told.top, theirs, strict=True):
            at = places.get(span)
            if at is not None and span[0] < span[1]:
                space = b" " * (lead if span[0] == 0 else 0)
                found[at] = _distribution([token, *top], space, pieces)
    k = max((len(one) for one in found), default=1) or 1
    ids, logprobs = (
        np.full((len(found), k), ABSENT, np.int32),
        np.zeros((len(found), k), np.float32),
    )
    for at, one in enumerate(found):
        ranked = sorted(one.items(), key=lambda item: (-item[1], item[0]))
        for slot, (index, logprob) in enumerate(ranked):
            ids[at, slot], logprobs[at, slot] = index, logprob
    return SoftRows(id=example.id, fits=soft_file.checksum(example), ids=ids, logprobs=logprobs)


def _distribution(
    likely: Iterable[Likely], space: bytes, pieces: dict[bytes, int]
) -> dict[int, float]:
    """Student's token -> log-probability; {} where the numbers are no distribution."""
    found: dict[int, float] = {}
    for one in likely:
        index = pieces.get(space + bytes.fromhex(one.bytes))
        if index is not None:
            found[index] = max(one.logprob, found.get(index, -np.inf))
    return found if sum(np.exp(x) for x in found.values()) <= _OVER else {}


def _spans(spelled: Sequence[bytes], lead: int) -> Iterator[tuple[int, int]]:
    """Where each token begins and ends in the answer's bytes.

    spelled  " Hel" "lo" "!", lead 1      spans  (0, 3) (3, 5) (5, 6)
    """
    at = -lead
    for piece in spelled:
        yield max(at, 0), at + len(piece)
        at += len(piece)


def _widened(row: SoftRows, k: int) -> SoftRows:
    more = ((0, 0), (0, k - row.ids.shape[1]))
    return SoftRows(
        id=row.id,
        fits=row.fits,
        ids=np.pad(row.ids, more, constant_values=ABSENT),
        logprobs=np.pad(row.logprobs, more),
    )
