"""The run folder: finished files appear at once, a manifest written last says "done".

runs/demo/
  config.json          the config this folder belongs to
  log.jsonl            when each stage began and ended
  lock                 held by the one process that writes here
  prompts/             plan-prompts   prompts.jsonl
  teacher/             collect        journal.sqlite, responses.jsonl
  refinement/          refine         prompts.jsonl, responses.jsonl, lineage.jsonl, asked/
  curation/            curate         verdicts.jsonl, kept.jsonl, rejected.jsonl, balance.json
  review/              review         decisions.jsonl (curate applies them), draw.json, lock
  masking/             mask           masked.parquet/, frequencies.parquet, corpus.json, ...
  training/            finetune       checkpoints/, metrics.jsonl
  evaluation/          evaluate       answers/, predictions/, scores.json
  report/              report         report.html
(each stage folder also holds manifest.json once it is complete)
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from opengrok_jax import records
from opengrok_jax.errors import DataError, RunFolderError, StorageError

MANIFEST = "manifest.json"
R = TypeVar("R")


# ---- files ------------------------------------------------------------------------------------


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns the refusal of a write to `path` into a `StorageError` of one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else _refusal(str(error))
        if isinstance(error, ValueError) and not reason:
            raise
        raise StorageError(
            f"cannot write {path}: {reason or error}; free some space or mend the "
            "permissions and run the same command again, nothing earlier was touched"
        ) from error


def _refusal(message: str) -> str:
    """What the system said, out of the ValueError in which TensorStore wraps it; "" if nothing."""
    reasons = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO)
    return next((os.strerror(n) for n in reasons if os.strerror(n) in message), "")


def check_room(folder: Path, needed: int) -> None:
    """Refuses to begin what the disk cannot hold in the end.

    Args:
      folder: where it will be written; what lies in it already counts as room.
      needed: bytes.

    Raises:
      StorageError: there is less.
    """
    there = folder.absolute()
    written = sum(p.stat().st_size for p in there.rglob("*") if p.is_file())
    while not there.exists():
        there = there.parent
    room = shutil.disk_usage(there).free + written
    if room < needed:
        raise StorageError(
            f"{folder} will hold up to {needed / 1e6:,.1f} MB and the disk has room for "
            f"{room / 1e6:,.1f} MB; free some space and run the same command again"
        )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path`, whole, when the block ends without error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def clear_partial(folder: Path) -> None:
    """Removes what killed processes left of files that `replacing` was writing in `folder`.

    For a folder in which no other process writes.
    """
    with storing(folder):
        for path in folder.glob(".*.partial"):
            if path.is_file():
                path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, atomically."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes one indented JSON value, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """Writes records or dicts, one JSON object a line, atomically; answers their number."""
    count = 0
    with replacing(path) as file:
        for row in rows:
            plain = row if isinstance(row, dict) else records.to_json(row)
            file.write((json.dumps(plain, ensure_ascii=False) + "\n").encode())
            count += 1
    return count


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Adds one JSON line to a log that `read_jsonl` reads."""
    with storing(path), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
      DataError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not readable as JSON: {error}") from None


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a .jsonl or .jsonl.gz file, streamed.

    Raises:
      DataError: there is no such file, or a line is not a JSON object (with its number).
    """
    for number, line in read_lines(path):
        yield parse_line(path, number, line)


def parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """The JSON object of one line; DataError, with path and number, if it is none."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}, line {number}: not JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: expected a JSON object, got {type(row).__name__}")
    return row


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a .jsonl or .jsonl.gz file that are not blank, with their numbers, streamed.

    Raises:
      DataError: there is no such file, or it cannot be read to its end.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path}, after line {number}: cannot be read on: {error}") from None


def read_records(path: Path, kind: type[R]) -> list[R]:
    """The records of a .jsonl file that `write_jsonl` wrote.

    Raises:
      DataError: as `read_jsonl`, or a line is not a `kind` (with its number).
    """
    result = []
    for number, row in enumerate(read_jsonl(path), start=1):
        try:
            result.append(records.from_json(kind, row))
        except DataError as error:
            raise DataError(f"{path}, record {number}: {error}") from None
    return result


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- stages -----------------------------------------------------------------------------------


def fingerprint(section: dict[str, Any], inputs: dict[str, str]) -> str:
    """SHA-256 of a stage's config section and of the fingerprints of the stages before it."""
    body = records.canonical_json({"section": section, "inputs": inputs})
    return hashlib.sha256(body.encode()).hexdigest()


def write_manifest(folder: Path, *, print_: str, outputs: Iterable[str], counts: dict) -> None:
    """Declares a stage complete.

    Args:
      folder: the stage's folder.
      print_: the stage's `fingerprint`.
      outputs: names of files in `folder`; their sizes and hashes are noted.
      counts: figures of the stage for `opengrok status` and the report.
    """
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
        for name in outputs
    }
    write_json(folder / MANIFEST, {"fingerprint": print_, "outputs": files, "counts": counts})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete stage; None where there is none or an output is not all there."""
    if not (folder / MANIFEST).exists():
        return None
    manifest = read_json(folder / MANIFEST)
    for name, note in manifest["outputs"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != note["bytes"]:
            return None
    return manifest


# ---- the folder -------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds the run folder for this process; the lock goes with the process, however it ends.

    Raises:
      RunFolderError: another process holds it.
    """
    with storing(run / "lock"):
        run.mkdir(parents=True, exist_ok=True)
        file = open(run / "lock", "w")  # noqa: SIM115  closed below, after the flock was tried
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunFolderError(
                f"{run} is in use by another opengrok process; wait for it or stop it, or give "
                "another folder with --config.run_dir=..."
            ) from None
        yield


def settled(run: Path, config: dict[str, Any]) -> bool:
    """Whether the run folder belongs to this very config already."""
    path = run / "config.json"
    return path.exists() and read_json(path) == json.loads(json.dumps(config))


def claim(
    run: Path,
    config: dict[str, Any],
    may_change: Iterable[str] = (),
    redo: Mapping[str, str] | None = None,
) -> None:
    """Ties a run folder to one config; a second config is refused.

    Args:
      run: the run folder.
      config: JSON-able.
      may_change: sections that may differ from before, since nothing was made of them or it is
        redone, and single settings ("section.key") on which nothing that is made depends.
      redo: section -> what to type after the command to do it and all that follows again, in the
        order of the stages; for the message.

    Raises:
      RunFolderError: the folder belongs to another config; names what differs.
    """
    path = run / "config.json"
    config = json.loads(json.dumps(config))
    before = read_json(path) if path.exists() else config
    free = set(may_change)
    changed = differences(_without(before, free), _without(config, free))
    if changed:
        shown = "; ".join(changed[:4]) + (f"; and {len(changed) - 4} more" if changed[4:] else "")
        sections = {line.split(" ")[0].split(".")[0] for line in changed}
        remedy = next((said for name, said in (redo or {}).items() if name in sections), "")
        raise RunFolderError(
            f"{run} was written with another config: {shown}. Give another folder with "
            f"--config.run_dir=...{remedy and f', or add {remedy}'}"
        )
    if not path.exists() or before != config:
        write_json(path, config)


def _without(config: dict[str, Any], free: set[str]) -> dict[str, Any]:
    """The config without the sections and settings named in `free`."""
    kept = {}
    for name, section in config.items():
        if name in free:
            continue
        if isinstance(section, dict):
            section = {k: v for k, v in section.items() if f"{name}.{k}" not in free}
        kept[name] = section
    return kept


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """What differs between two JSON values, one line per leaf.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    ['a.b was 1, now 3']
    """
    if isinstance(before, dict) and isinstance(after, dict):
        lines = []
        for key in sorted({*before, *after}):
            here = f"{path}.{key}" if path else key
            if key not in after:
                lines.append(f"{here} was {json.dumps(before[key])}, now absent")
            elif key not in before:
                lines.append(f"{here} was absent, now {json.dumps(after[key])}")
            else:
                lines += differences(before[key], after[key], here)
        return lines
    if before == after:
        return []
    return [f"{path} was {json.dumps(before)}, now {json.dumps(after)}"]


def discard(folder: Path, keep: tuple[str, ...] = ()) -> None:
    """Empties a stage's folder but for the names in `keep`; the manifest goes first."""
    if not folder.exists():
        return
    with storing(folder):
        (folder / MANIFEST).unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.name in keep:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
