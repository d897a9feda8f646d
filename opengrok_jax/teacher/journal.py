"""The journal: what was asked and what came back, safe against kill -9 and power cuts.

    an attempt:  sent -> ok | blocked | rate_limited | transient | ...   with the raw reply
                 sent -> orphaned                (the process died before the reply was there)
                 sent -> gone                    (it died, or stopped, before the sending began)

An attempt is on the disk as `sent`, with what is reserved for it, some time before its first byte
goes out: intents are written ahead, so that nobody waits for the disk between two requests. When
its turn comes it is marked `begun`, and that is committed before the first byte; the raw reply is
committed before that place sends again, and on the disk before anybody counts it. So kill -9 costs
at most the requests that were in flight, and the orphaned rows name exactly these. A power cut can
take the marks of its last moments with it: where the machine was started anew since, all intents
without a reply are taken for orphans, begun or not, and none is unnamed. How far a run is, and what
was spent, is derived from the rows, never from a counter.

The same body to another endpoint is another question: (key, endpoint) is what has one answer.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from opengrok_jax.errors import DataError
from opengrok_jax.teacher import journal_file
from opengrok_jax.teacher.budget import Spent
from opengrok_jax.teacher.disk import Disk
from opengrok_jax.teacher.journal_plan import PAGE, Plan, Todo
from opengrok_jax.teacher.money import Need
from opengrok_jax.teacher.outcome import Outcome, Reply, Request


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Journal]:
    """The journal at `path`; requests that a dead process left `sent` become `orphaned`.

    Raises:
      UserError: as `journal_file.connected`.
    """
    with journal_file.connected(path) as (database, reader):
        yield Journal(path, database, reader)


class Journal:
    """The open journal of one stage folder; made by `opened`."""

    def __init__(
        self, path: Path, database: sqlite3.Connection, reader: sqlite3.Connection
    ) -> None:
        self._path, self._db, self._reader = path, database, reader
        boot = _boot_id()
        with self._transaction():
            written_by = database.execute("SELECT id FROM boot").fetchone()
            if boot and written_by == (boot,):
                database.execute("DELETE FROM attempt WHERE state = 'sent' AND NOT begun")
            else:
                database.execute("DELETE FROM boot")
                database.execute("INSERT INTO boot VALUES (?)", (boot,))
            query = (
                "SELECT DISTINCT prompt_id FROM attempt JOIN request ON request.id = "
                "attempt.request WHERE state = 'sent' ORDER BY attempt.id"
            )
            self.new_orphans = [prompt for (prompt,) in database.execute(query)]
            database.execute("UPDATE attempt SET state = 'orphaned' WHERE state = 'sent'")
        self._last = self._number("SELECT COALESCE(MAX(id), 0) FROM attempt")
        self._next = self._last
        self._intents: list[tuple] = []
        self._begun: list[tuple] = []
        self._gone: list[tuple] = []
        self._updates: list[tuple] = []
        self._replies: list[tuple] = []

    def disk(self) -> Disk:
        """The disk below; the caller closes it."""
        return Disk(self._path, self._db)

    # ---- the plan -------------------------------------------------------------------------

    def plan(self, fingerprint: str, endpoint: str, requests: Iterable[Request]) -> Plan:
        """Notes what this call is to ask, in order, unless it is known already.

        Args:
          fingerprint: of all that `requests` are made of; they are read only if it is new.
          endpoint: the address they go to.

        Raises:
          DataError: two requests have the same key.
        """
        row = self._db.execute(
            "SELECT id, requests FROM plan WHERE fingerprint = ?", (fingerprint,)
        ).fetchone()
        if row is not None and row[1] is not None:
            return Plan(self._db, self._reader, row[0], self._last)
        with self._transaction():  # what an interrupted call left of it
            if row is not None:
                self._db.execute("DELETE FROM planned WHERE plan = ?", (row[0],))
                self._db.execute("DELETE FROM plan WHERE id = ?", (row[0],))
            self._db.execute("INSERT OR IGNORE INTO endpoint (address) VALUES (?)", (endpoint,))
            query = "INSERT INTO plan (fingerprint) VALUES (?)"
            plan = self._db.execute(query, (fingerprint,)).lastrowid
        assert plan is not None
        at = self._db.execute("SELECT id FROM endpoint WHERE address = ?", (endpoint,)).fetchone()
        total, rest = 0, iter(requests)
        while page := list(islice(rest, PAGE)):
            with self._transaction():
                self._note(plan, page, at[0], total)
            total += len(page)
        with self._transaction():
            self._db.execute("UPDATE plan SET requests = ? WHERE id = ?", (total, plan))
        return Plan(self._db, self._reader, plan, self._last)

    def _note(self, plan: int, page: Sequence[Request], endpoint: int, first: int) -> None:
        find = "(SELECT id FROM request WHERE key = ? AND endpoint = ?)"
        keys = [(bytes.fromhex(r.key), endpoint) for r in page]
        self._db.executemany(
            "INSERT OR IGNORE INTO request (key, endpoint, prompt_id) VALUES (?, ?, ?)",
            [(*key, r.prompt_id) for key, r in zip(keys, page, strict=True)],
        )
        self._db.executemany(
            f"INSERT OR IGNORE INTO question VALUES ({find}, ?)",
            [(*key, r.body) for key, r in zip(keys, page, strict=True)],
        )
        try:
            self._db.executemany(
                f"INSERT INTO planned VALUES (?, ?, {find})",
                [(plan, first + n, *key) for n, key in enumerate(keys)],
            )
        except sqlite3.IntegrityError:
            raise DataError(self._twice(plan, page, endpoint)) from None

    def _twice(self, plan: int, page: Sequence[Request], endpoint: int) -> str:
        seen: dict[str, str] = {}
        for request in page:
            other = seen.setdefault(request.key, request.prompt_id)
            before = self._db.execute(
                "SELECT prompt_id FROM request JOIN planned ON planned.request = request.id "
                "WHERE key = ? AND endpoint = ? AND plan = ? AND prompt_id != ?",
                (bytes.fromhex(request.key), endpoint, plan, request.prompt_id),
            ).fetchone()
            other = before[0] if before else other
            if other != request.prompt_id:
                return f"prompts {other} and {request.prompt_id} ask the same words"
        return "a prompt stands in the plan twice"

    # ---- attempts -------------------------------------------------------------------------

    def intend(self, todo: Todo, need: Need) -> int:
        """Puts the intent to send into the next commit; answers the attempt's number."""
        self._next += 1
        self._intents.append((self._next, todo.row, time.time(), need.ticks, need.tokens))
        return self._next

    def begin(self, attempt: int) -> None:
        """Puts into the next commit that the sending begins."""
        self._begun.append((time.time(), attempt))

    def withdraw(self, attempt: int) -> None:
        """Puts into the next commit that an intent whose sending never began is gone."""
        if self._intents and attempt >= self._intents[0][0]:
            self._intents = [intent for intent in self._intents if intent[0] != attempt]
        else:
            self._gone.append((attempt,))

    def received(
        self, attempt: int, reply: Reply, outcome: Outcome, cost: int | None, tokens: int | None
    ) -> None:
        """Puts what came back for an attempt into the next commit; None lets a reserve stand."""
        model = outcome.answer.model if outcome.answer else None
        self._updates.append(
            (
                str(outcome.kind),
                reply.received_at,
                reply.status,
                cost,
                tokens,
                model,
                outcome.reason,
                outcome.detail,
                attempt,
            )
        )
        headers = json.dumps(dict(reply.headers)) if reply.headers else "{}"
        self._replies.append((attempt, headers, reply.body, reply.error))

    def write(self) -> int:
        """Commits what is waiting, short of the disk; answers how many replies were among it."""
        waiting = (self._updates, self._intents, self._begun, self._gone)
        if not any(waiting):
            return 0
        with self._transaction():
            # Intents after the replies: of a request, one attempt at most is in state `sent`.
            self._db.executemany(
                "DELETE FROM attempt WHERE id = ? AND state = 'sent' AND NOT begun", self._gone
            )
            self._db.executemany(
                "UPDATE attempt SET state = ?, received_at = ?, status = ?, cost = ?, tokens = ?,"
                " model = ?, reason = ?, detail = ? WHERE id = ?",
                self._updates,
            )
            self._db.executemany("INSERT INTO reply VALUES (?, ?, ?, ?)", self._replies)
            self._db.executemany(
                "INSERT INTO attempt"
                " (id, request, state, sent_at, reserved, reserved_tokens, begun)"
                " VALUES (?, ?, 'sent', ?, ?, ?, 0)",
                self._intents,
            )
            self._db.executemany(
                "UPDATE attempt SET begun = 1, sent_at = ? WHERE id = ?", self._begun
            )
        replies = len(self._replies)
        self._intents, self._begun, self._gone, self._updates, self._replies = [], [], [], [], []
        return replies

    def spent(self) -> Spent:
        """What all attempts of the file took, in every run; reservations where none settled."""
        row = self._db.execute(
            "SELECT COUNT(*), COALESCE(SUM(COALESCE(cost, reserved)), 0),"
            " COALESCE(SUM(COALESCE(tokens, reserved_tokens)), 0) FROM attempt"
        ).fetchone()
        return Spent(requests=row[0], ticks=row[1], tokens=row[2])

    def _number(self, query: str) -> int:
        return self._db.execute(query).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite may have done so itself
                self._db.execute("ROLLBACK")
            raise


def _boot_id() -> str:
    """Names this start of the machine; "" where it has no such name, which equals none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
