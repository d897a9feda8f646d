"""Decisions as CSV: no cell is a formula, and every text comes back exactly.

Spreadsheets run what begins with =, +, - or @, turn 0123 into a number and 1/2 into a date. What
does not begin with a letter is therefore written with an apostrophe before it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from opengrok_jax.errors import DataError

NEEDED = frozenset(("prompt_id", "body_sha", "reviewer", "decision"))


def cell(text: str) -> str:
    """A text as a cell that a spreadsheet takes for text; `text_of` takes it back, exactly.

    What does not begin with a letter gets an apostrophe: formulas, and what would become a number
    or a date. What CSV or UTF-8 cannot carry is written as JSON.

    >>> cell("=1+1"), cell("'tis"), cell("plain"), cell("a\\0b")
    ("'=1+1", "''tis", 'plain', 'json:"a\\\\u0000b"')
    """
    if text.startswith("json:") or any(
        (c < " " and c not in "\n\t") or "\ud800" <= c <= "\udfff" for c in text
    ):
        text = "json:" + json.dumps(text)
    return text if not text or text[0].isalpha() else "'" + text


def text_of(written: str) -> str:
    """The text of a cell.

    Raises:
      DataError: it begins as JSON and is none.
    """
    text = written.removeprefix("'")
    if not text.startswith("json:"):
        return text
    try:
        value = json.loads(text.removeprefix("json:"))
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise DataError("a cell begins with json: and is not JSON")
    return value


def table(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> bytes:
    """The rows as a spreadsheet reads them: UTF-8 with a byte order mark, CRLF."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(cell(row[n]) if isinstance(row[n], str) else row[n] for n in columns)
    return out.getvalue().encode("utf-8-sig")


def read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Flat rows, all values texts, with the line on which each begins.

    A row that cannot be read is {"": why}.

    Raises:
      DataError: the file is missing, no CSV, or lacks a column.
    """
    csv.field_size_limit(2**31 - 1)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8; save it as CSV UTF-8") from None
    first = text.partition("\n")[0]
    # Where the comma is the decimal point, spreadsheets write semicolons.
    separator = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        header = next(reader, [])
        if missing := NEEDED - set(header):
            raise DataError(f"{path}: lacks the column {', '.join(sorted(missing))}")
        line = reader.line_num + 1
        for cells in reader:
            where, line = f"line {line}", reader.line_num + 1
            if not any(cells):
                continue
            if len(cells) != len(header):
                yield where, {"": f"{len(cells)} cells, {len(header)} expected"}
                continue
            try:
                yield where, {n: text_of(c) for n, c in zip(header, cells, strict=True)}
            except DataError as error:
                yield where, {"": str(error)}
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: no CSV: {error}") from None
