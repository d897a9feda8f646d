"""What reviewers decided: a file that only grows, and what stands when all of it is read.

RUN/review/decisions.jsonl      one records.Decision a line, in the order they were taken

accept   ann  look 1            reject stands: of several looks and reviewers the strictest
reject   bob  look 1            counts, reject before edit before accept
undo     bob  look 1            now the answer is accepted
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from opengrok_jax import records, storage
from opengrok_jax.errors import DataError
from opengrok_jax.records import Decision

FOLDER, FILE = "review", "decisions.jsonl"
REASONS = {
    "harmful": "Harmful or hateful",
    "unsupported": "Not supported by the posts",
    "off_task": "Not what was asked",
    "refusal": "A refusal, or a machine's voice",
    "personal": "Holds personal data",
    "poor": "Badly written or empty",
    "other": "Something else",
}
CHOICES = ("accept", "edit", "reject")  # what settles an answer, the strictest last
MAX_NOTE = 2_000  # characters
MAX_EDITED = 200_000

Body = tuple[str, str]  # prompt_id, body_sha
Look = tuple[str, str, str, int]  # and reviewer, look


def body(decision: Decision) -> Body:
    """The answer that it is about."""
    return decision.prompt_id, decision.body_sha


def look(decision: Decision) -> Look:
    """Who looked at what, for which time."""
    return (*body(decision), decision.reviewer, decision.look)


def check(decision: Decision) -> None:
    """Refuses a decision that says too little or contradicts itself.

    Raises:
      DataError: says what is missing.
    """
    said = decision.decision
    if not decision.reviewer.strip() or len(decision.reviewer) > 80:
        raise DataError("the reviewer's name must have 1 to 80 characters")
    if said == "reject" and decision.reason not in REASONS:
        known = ", ".join(REASONS)
        raise DataError(f"a rejection needs a reason out of {known}; got {decision.reason!r}")
    if said == "reject" and decision.reason == "other" and not decision.note.strip():
        raise DataError("the reason 'other' needs a note that says what is wrong")
    if said != "reject" and decision.reason:
        raise DataError(f"only a rejection has a reason; {said} came with {decision.reason!r}")
    if said == "edit" and not decision.edited.strip():
        raise DataError("an edit needs the new text")
    if said != "edit" and decision.edited:
        raise DataError(f"only an edit has a new text; {said} came with one")
    if len(decision.note) > MAX_NOTE or len(decision.edited) > MAX_EDITED:
        raise DataError(f"a note has at most {MAX_NOTE} characters, an edit at most {MAX_EDITED:,}")
    for name, text in (
        ("reviewer", decision.reviewer),
        ("note", decision.note),
        ("edited", decision.edited),
    ):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise DataError(f"{name} holds half a character (a lone surrogate); take it out")
    if decision.look not in (1, 2) or not 0 <= decision.seconds < 1e6:
        raise DataError(f"look is 1 or 2 and seconds below a million, got {decision.look} and "
                        f"{decision.seconds}")  # fmt: skip


# ---- the file ---------------------------------------------------------------------------------


def read(path: Path) -> list[Decision]:
    """The decisions in order; none where there is no file yet.

    A last line without its end is being written, or was when its process died: nobody was told
    that it was saved. It counts when it is whole, and not when it is torn.

    Raises:
      DataError: a line is no decision (with its number).
    """
    if not path.exists():
        return []
    whole, rest = _cut(path.read_bytes())
    lines = [*whole.split(b"\n")[:-1], *([rest] if _is_whole(rest) else [])]
    return [_parse(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _cut(content: bytes) -> tuple[bytes, bytes]:
    """The lines that have their end, and what follows them."""
    end = content.rfind(b"\n") + 1
    return content[:end], content[end:]


def _is_whole(line: bytes) -> bool:
    try:
        records.from_json(Decision, json.loads(line))
    except (ValueError, DataError):
        return False
    return True


def _parse(path: Path, number: int, line: bytes) -> Decision:
    try:
        return records.from_json(Decision, json.loads(line))
    except (ValueError, DataError) as error:
        raise DataError(f"{path}, line {number}: no decision: {error}") from None


class Log:
    """The open file; what `append` was given is on the disk when it comes back."""

    def __init__(self, path: Path, descriptor: int, torn: int) -> None:
        self.path = path
        self.torn = torn  # bytes of a torn last line that were cut off
        self._descriptor = descriptor

    def append(self, decision: Decision) -> None:
        """Adds one.

        Raises:
          StorageError: the disk refused; the file is as it was.
        """
        line = _line(decision)
        before = os.fstat(self._descriptor).st_size
        with storage.storing(self.path):
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
                os.fsync(self._descriptor)
            except BaseException:
                os.ftruncate(self._descriptor, before)
                raise

    def append_all(self, decisions: Sequence[Decision]) -> None:
        """Adds them all or, on an error or a kill, none: a longer file takes the place of this.

        Raises:
          StorageError: the disk refused; the file is as it was.
        """
        if not decisions:
            return
        with storage.replacing(self.path) as file:
            file.write(self.path.read_bytes())
            file.writelines(_line(decision) for decision in decisions)
        longer = _open(self.path)
        os.dup2(longer, self._descriptor, inheritable=False)
        os.close(longer)


def _line(decision: Decision) -> bytes:
    return (json.dumps(records.to_json(decision)) + "\n").encode("ascii")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


@contextmanager
def opened(run: Path) -> Iterator[Log]:
    """The decisions of a run folder, to write; a torn last line is healed first.

    Raises:
      RunFolderError: another process reviews this run.
      StorageError: the disk refuses.
    """
    folder = run / FOLDER
    path = folder / FILE
    with storage.locked(folder):
        with storage.storing(path):
            storage.clear_partial(folder)
            descriptor = _open(path)
        try:
            with storage.storing(path):
                torn = _heal(path, descriptor)
                storage.sync_folder(folder)
            yield Log(path, descriptor, torn)
        finally:
            os.close(descriptor)


def _heal(path: Path, descriptor: int) -> int:
    """Ends a last line that is whole, cuts off one that is torn; answers the bytes cut off."""
    whole, rest = _cut(path.read_bytes())
    if _is_whole(rest):
        os.write(descriptor, b"\n")
    elif rest:
        os.ftruncate(descriptor, len(whole))
    os.fsync(descriptor)
    return 0 if _is_whole(rest) else len(rest)


# ---- what stands ------------------------------------------------------------------------------


def by_look(decisions: Iterable[Decision]) -> dict[Look, Decision]:
    """For every look the decision that stands, skips included; in the order they were taken."""
    standing: dict[Look, Decision] = {}
    for decision in decisions:
        standing.pop(look(decision), None)
        if decision.decision != "undo":
            standing[look(decision)] = decision
    return standing


def outcomes(decisions: Iterable[Decision]) -> dict[Body, Decision]:
    """For every answer that somebody settled the decision that counts.

    The strictest of all looks and reviewers: reject, else edit, else accept; of two edits the
    later. Look it up by (prompt id, `records.body_sha` of the text at hand): a decision on
    another text is not found.
    """
    found: dict[Body, Decision] = {}
    for decision in by_look(decisions).values():
        if decision.decision not in CHOICES:
            continue
        before = found.get(body(decision))
        rank = CHOICES.index(decision.decision)
        if before is None or rank >= CHOICES.index(before.decision):
            found[body(decision)] = decision
    return found
