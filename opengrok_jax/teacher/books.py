"""The journal's books for a reader: where each request stands, what is paid or at risk.

Reads beside a collection that is going on, and never writes.
"""

from __future__ import annotations

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from opengrok_jax.errors import DataError
from opengrok_jax.teacher import journal_file

# Of the best that its sendings came to; a plan's requests are in exactly one of these.
_STANDS = """
  CASE MAX(CASE state WHEN 'ok' THEN 6 WHEN 'blocked' THEN 5 WHEN 'sent' THEN 4 * begun
           WHEN 'orphaned' THEN 2 ELSE CASE WHEN state IS NULL THEN 0 ELSE 3 END END)
    WHEN 6 THEN 'ok' WHEN 5 THEN 'blocked' WHEN 4 THEN 'under_way' WHEN 3 THEN 'failed'
    WHEN 2 THEN 'orphaned' ELSE 'pending' END
"""


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A sending that ended with its process, and may have been paid.

    Attributes:
      sent_at: Unix time, in seconds.
      reserved: ticks that stay reserved for it.
      answered: whether the same request has an answer since.
    """

    prompt_id: str
    sent_at: float
    reserved: int
    answered: bool


@dataclass(frozen=True, kw_only=True)
class Books:
    """What a journal says; planned = ok + failed + blocked + orphaned + pending + under_way.

    `under_way` are sendings without a reply yet: of a collection that is going on, or of one that
    was killed, which the next `collect` calls orphans. The sums are of all plans in the file:
    requests, settled and reserved ticks, and orphans.
    """

    planned: int
    ok: int
    failed: int
    blocked: int
    orphaned: int
    pending: int
    under_way: int
    requests: int
    settled_ticks: int
    reserved_ticks: int
    orphans: tuple[Orphan, ...]

    @property
    def at_risk_ticks(self) -> int:
        """What the orphans may have cost."""
        return sum(orphan.reserved for orphan in self.orphans)


def read(folder: Path) -> Books | None:
    """The books of the stage folder's journal; None where there is none, or no plan in it.

    Raises:
      DataError: it cannot be read, or is of another version of this package.
    """
    path = folder / journal_file.NAME
    if not path.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version != journal_file.VERSION:
                raise DataError(
                    f"{path} has layout {version}, this version of opengrok reads layout "
                    f"{journal_file.VERSION}; the next collect brings older ones up to date"
                )
            return _read(database)
    except sqlite3.Error as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _read(database: sqlite3.Connection) -> Books | None:
    database.execute("BEGIN")  # one moment for all that follows
    plan = database.execute("SELECT MAX(id) FROM plan WHERE requests IS NOT NULL").fetchone()[0]
    if plan is None:
        return None
    stands = dict(
        database.execute(
            f"SELECT stands, COUNT(*) FROM (SELECT {_STANDS} AS stands FROM planned LEFT JOIN "
            "attempt ON attempt.request = planned.request WHERE plan = ? "
            "GROUP BY planned.position) GROUP BY stands",
            (plan,),
        )
    )
    requests, settled, reserved = database.execute(
        "SELECT COALESCE(SUM(begun), 0), COALESCE(SUM(cost), 0),"
        " COALESCE(SUM(CASE WHEN cost IS NULL THEN reserved END), 0) FROM attempt"
    ).fetchone()
    orphans = database.execute(
        "SELECT prompt_id, sent_at, reserved, EXISTS (SELECT 1 FROM attempt AS other WHERE"
        " other.request = attempt.request AND state = 'ok')"
        " FROM attempt INDEXED BY orphan JOIN request ON request.id = attempt.request"
        " WHERE state = 'orphaned' ORDER BY attempt.id"
    )
    names = ("ok", "failed", "blocked", "orphaned", "pending", "under_way")
    return Books(
        planned=sum(stands.values()),
        **{name: stands.get(name, 0) for name in names},
        requests=requests,
        settled_ticks=settled,
        reserved_ticks=reserved,
        orphans=tuple(
            Orphan(prompt_id=prompt, sent_at=at, reserved=ticks, answered=bool(answered))
            for prompt, at, ticks, answered in orphans
        ),
    )
