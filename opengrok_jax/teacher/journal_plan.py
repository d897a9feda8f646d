"""The plan of one call as the journal knows it: what is still to ask, and how far it is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from opengrok_jax.errors import RunFolderError
from opengrok_jax.teacher.outcome import Kind, Outcome, Reply

PAGE = 1000  # requests read, or planned, at a time
_FAULTS = ", ".join(f"'{k}'" for k in Kind if k not in (Kind.OK, Kind.BLOCKED))
_SETTLED = "SELECT 1 FROM attempt WHERE attempt.request = planned.request AND state = "
_OPEN = f"NOT EXISTS ({_SETTLED}'ok') AND NOT EXISTS ({_SETTLED}'blocked')"
_FAILED = (
    "EXISTS (SELECT 1 FROM attempt WHERE attempt.request = planned.request "
    f"AND state IN ({_FAULTS}) AND attempt.id <= :last)"
)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Where the plan's requests stand; each is in exactly one of the last five.

    `failed` got only faults so far, `orphaned` had a sending that ended with the process and no
    reply since, `pending` was never sent.
    """

    planned: int
    ok: int
    blocked: int
    failed: int
    orphaned: int
    pending: int


@dataclass(frozen=True, slots=True)
class Todo:
    """A planned request without an answer; `row` is its number in the journal."""

    row: int
    prompt_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """An answered request of the plan; `cost` is None where the reservation stands for it."""

    key: str
    prompt_id: str
    cost: int | None
    reply: Reply


class Plan:
    """A plan and its rows; made by `Journal.plan`.

    Args:
      database: where the rows are written and counted.
      reader: where they are read while others are written.
      number: of the plan.
      last: number of the last attempt of earlier runs.
    """

    def __init__(
        self, database: sqlite3.Connection, reader: sqlite3.Connection, number: int, last: int
    ) -> None:
        self._db, self._reader, self._plan, self._last = database, reader, number, last
        self.requests = self._of_plan("SELECT requests FROM plan WHERE id = :plan")

    def todo(self) -> Iterator[Todo]:
        """What the plan has to ask still, as it stood when the journal was opened.

        Read a page at a time, beside the writing; those that failed in an earlier run come last: a
        prompt that always fails must not hold up the rest.
        """
        for failed in ("NOT ", ""):
            position = -1
            query = f"""
              SELECT position, planned.request, prompt_id, body
              FROM planned JOIN request ON request.id = planned.request
              JOIN question ON question.request = planned.request
              WHERE plan = :plan AND position > :position AND {_OPEN} AND {failed}{_FAILED}
              ORDER BY position LIMIT {PAGE}
            """
            while True:
                given = {"plan": self._plan, "position": position, "last": self._last}
                page = self._reader.execute(query, given).fetchall()
                for position, row, prompt_id, body in page:  # noqa: B007  read by the next page
                    yield Todo(row, prompt_id, body)
                if len(page) < PAGE:
                    break

    def reread(self, judge: Callable[[Reply], Outcome]) -> int:
        """Reads kept replies that were no answer by the rules of then; answers how many are now."""
        query = f"""
          SELECT attempt.id, planned.request, status, headers, body, error
          FROM attempt INDEXED BY unread
          JOIN planned ON planned.plan = ? AND planned.request = attempt.request
          JOIN reply ON reply.attempt = attempt.id
          WHERE state IN ('transient', 'wrong_model') AND status BETWEEN 200 AND 299 AND {_OPEN}
        """
        now_read: dict[int, tuple[int, str]] = {}
        for number, request, status, headers, body, error in self._reader.execute(
            query, (self._plan,)
        ):
            outcome = judge(_reply(status, headers, body, error))
            if outcome.kind is Kind.OK and outcome.answer and request not in now_read:
                now_read[request] = (number, outcome.answer.model)
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany(
            "UPDATE attempt SET state = 'ok', reason = '', detail = '', model = ? WHERE id = ?",
            [(model, number) for number, model in now_read.values()],
        )
        self._db.execute("COMMIT")
        return len(now_read)

    def counts(self) -> Counts:
        """Where the plan stands, and that nothing was lost on the way.

        Raises:
          RunFolderError: the parts do not add up to the plan: the rows were changed from outside.
        """
        of_plan = "FROM planned WHERE plan = :plan"
        fault = (
            "EXISTS (SELECT 1 FROM attempt WHERE attempt.request = planned.request AND "
            f"state IN ({_FAULTS}))"
        )
        orphan = f"EXISTS ({_SETTLED}'orphaned')"
        sent = "EXISTS (SELECT 1 FROM attempt WHERE attempt.request = planned.request)"
        found = Counts(
            planned=self.requests,
            ok=self._of_plan(f"SELECT COUNT(*) {of_plan} AND EXISTS ({_SETTLED}'ok')"),
            blocked=self._of_plan(
                f"SELECT COUNT(*) {of_plan} AND EXISTS ({_SETTLED}'blocked')"
                f" AND NOT EXISTS ({_SETTLED}'ok')"
            ),
            failed=self._of_plan(f"SELECT COUNT(*) {of_plan} AND {_OPEN} AND {fault}"),
            orphaned=self._of_plan(
                f"SELECT COUNT(*) {of_plan} AND {_OPEN} AND {orphan} AND NOT {fault}"
            ),
            pending=self._of_plan(f"SELECT COUNT(*) {of_plan} AND NOT {sent}"),
        )
        parts = found.ok + found.blocked + found.failed + found.orphaned + found.pending
        if found.planned != parts:
            raise RunFolderError(
                f"the journal does not add up: {found}; another program changed it. Move it away "
                "and collect again"
            )
        return found

    def settled(self) -> int:
        """How many requests of the plan are answered or blocked."""
        return self._of_plan(
            "SELECT COUNT(*) FROM planned JOIN attempt ON attempt.request = planned.request"
            " AND state = 'ok' WHERE plan = :plan"
        ) + self._of_plan(
            "SELECT COUNT(*) FROM planned JOIN attempt ON attempt.request = planned.request"
            " AND state = 'blocked' WHERE plan = :plan"
        )

    def served(self) -> str:
        """The model that gave the plan's latest answer; "" if there is none or it was not told."""
        row = self._db.execute(
            "SELECT model FROM attempt JOIN planned ON planned.plan = ? AND "
            "planned.request = attempt.request WHERE state = 'ok' ORDER BY id DESC LIMIT 1",
            (self._plan,),
        ).fetchone()
        return (row[0] or "") if row else ""

    def failures(self) -> Iterator[tuple[str, str, str]]:
        """(prompt id, reason, detail) of each request whose last reply was a fault, in order."""
        query = f"""
          SELECT prompt_id, reason, detail FROM planned JOIN request ON request.id = planned.request
          JOIN attempt ON attempt.id = (
            SELECT MAX(id) FROM attempt
            WHERE attempt.request = planned.request AND state IN ({_FAULTS}))
          WHERE plan = ? AND {_OPEN} ORDER BY position
        """
        yield from self._db.execute(query, (self._plan,))

    def unanswered(self) -> Iterator[tuple[str, str, str, str]]:
        """(prompt id, "blocked" or "failed", reason, detail), in the order of the plan."""
        query = f"""
          SELECT prompt_id, CASE state WHEN 'blocked' THEN 'blocked' ELSE 'failed' END, reason,
            detail
          FROM planned JOIN request ON request.id = planned.request
          JOIN attempt ON attempt.id = (
            SELECT MAX(id) FROM attempt WHERE attempt.request = planned.request
            AND state IN ('blocked', {_FAULTS}))
          WHERE plan = ? AND NOT EXISTS ({_SETTLED}'ok') ORDER BY position
        """
        yield from self._db.execute(query, (self._plan,))

    def orphans(self) -> Iterator[tuple[str, float, int]]:
        """(prompt id, when sent, ticks reserved) of each sending of the plan that has no reply."""
        query = """
          SELECT prompt_id, sent_at, reserved FROM attempt INDEXED BY orphan
          JOIN planned ON planned.plan = ? AND planned.request = attempt.request
          JOIN request ON request.id = attempt.request
          WHERE state = 'orphaned' ORDER BY attempt.id
        """
        yield from self._db.execute(query, (self._plan,))

    def answers(self) -> Iterator[Accepted]:
        """The accepted answers in the order of the plan, one at a time."""
        query = """
          SELECT key, prompt_id, cost, status, headers, body, received_at
          FROM planned JOIN request ON request.id = planned.request
          JOIN attempt ON attempt.request = planned.request AND state = 'ok'
          JOIN reply ON reply.attempt = attempt.id
          WHERE plan = ? ORDER BY position
        """
        for key, prompt, cost, status, headers, body, at in self._db.execute(query, (self._plan,)):
            yield Accepted(key.hex(), prompt, cost, _reply(status, headers, body, "", at or 0.0))

    def _of_plan(self, query: str) -> int:
        return self._db.execute(query, {"plan": self._plan}).fetchone()[0] or 0


def _reply(status: int, headers: str, body: bytes, error: str, at: float = 0.0) -> Reply:
    return Reply(status=status, headers=json.loads(headers), body=body, error=error, received_at=at)
