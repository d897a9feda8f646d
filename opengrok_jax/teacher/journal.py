"""The journal: what was asked and what came back, safe against kill -9 and power cuts.

    request   one row per question: (key, endpoint), its prompt and its body
    attempt   one row per sending:  sent -> ok | blocked | rate_limited | transient | ...
                                    sent -> orphaned   (the process died before the reply)

An attempt is committed as `sent` before the first byte goes out, and with its raw reply before
anybody counts it. So a crash can cost at most the requests that were in flight, and the orphaned
rows name them. How far a run is, is derived from the rows, never from a counter.

The same body to another endpoint is another question: (key, endpoint) is what has one answer.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from opengrok_jax import storage
from opengrok_jax.errors import DataError, RunFolderError, StorageError
from opengrok_jax.teacher.wire import Kind, Outcome, Reply, Request

VERSION = 1
NAME = "journal.sqlite"
# Whoever empties the folder keeps all of these: after a crash, answers live in the -wal file.
FILES = (NAME, f"{NAME}-wal", f"{NAME}-shm")

_STATES = ", ".join(f"'{s}'" for s in ("sent", "orphaned", *Kind))
_SCHEMA = f"""
BEGIN;
CREATE TABLE request (
  key TEXT NOT NULL, endpoint TEXT NOT NULL, prompt_id TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (key, endpoint)
);
CREATE TABLE attempt (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL, endpoint TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ({_STATES})),
  sent_at REAL NOT NULL, received_at REAL,
  status INTEGER, headers TEXT, body BLOB, error TEXT, reason TEXT, detail TEXT,
  FOREIGN KEY (key, endpoint) REFERENCES request
);
CREATE INDEX attempt_of ON attempt (key, endpoint);
CREATE UNIQUE INDEX one_answer ON attempt (key, endpoint) WHERE state = 'ok';
CREATE UNIQUE INDEX one_in_flight ON attempt (key, endpoint) WHERE state = 'sent';
PRAGMA user_version = {VERSION};
COMMIT;
"""
# The plan of the running call, and where each of its requests stands; never on disk.
_PLAN = """
CREATE TEMP TABLE plan (position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TEMP VIEW tried AS
  SELECT plan.position, plan.key, attempt.id, attempt.state, attempt.reason, attempt.detail
  FROM plan JOIN endpoint JOIN attempt
    ON attempt.key = plan.key AND attempt.endpoint = endpoint.address;
"""
_FAULTS = ", ".join(f"'{k}'" for k in Kind if k not in (Kind.OK, Kind.BLOCKED))


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Where the plan's requests stand; each is in exactly one of the last four."""

    planned: int
    ok: int
    blocked: int
    failed: int
    pending: int


@contextlib.contextmanager
def opened(path: Path, endpoint: str) -> Iterator[Journal]:
    """The journal at `path`, made if there is none; requests left `sent` become `orphaned`.

    The caller keeps other processes away (`storage.locked`): what is in flight over there would be
    taken for orphaned here.

    Raises:
      RunFolderError: another process writes to it, or another version of this package wrote it.
      DataError: the file is no journal, or damaged.
      StorageError: the disk refuses.
    """
    with storage.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _explained(path):
        database = sqlite3.connect(path, isolation_level=None)
        with contextlib.closing(database):
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                database.execute(f"PRAGMA {pragma}").fetchall()
            database.execute("PRAGMA temp_store = MEMORY")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                database.executescript(_SCHEMA)
            elif version != VERSION:
                raise RunFolderError(
                    f"{path} has layout {version}, this version of opengrok writes layout "
                    f"{VERSION}; collect into another folder, or use the version that wrote it"
                )
            yield Journal(database, endpoint)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """SQLite's errors as ours; a broken constraint is a bug and passes."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise RunFolderError(f"{path} is in use by another program: {error}") from error
        raise StorageError(
            f"cannot write {path}: {error}; free some space or mend the permissions and run the "
            "same command again, every answer received so far is kept"
        ) from error
    except sqlite3.DatabaseError as error:
        raise DataError(
            f"{path} is not a readable journal: {error}; move it away and collect again"
        ) from error


class Journal:
    """The open journal of one stage folder, bound to one endpoint; made by `opened`."""

    def __init__(self, database: sqlite3.Connection, endpoint: str) -> None:
        self._db = database
        self._endpoint = endpoint
        database.execute("CREATE TEMP TABLE endpoint (address TEXT)")
        database.execute("INSERT INTO endpoint VALUES (?)", (endpoint,))
        database.executescript(_PLAN)
        self.orphans = database.execute(
            "UPDATE attempt SET state = 'orphaned' WHERE state = 'sent'"
        ).rowcount

    def plan(self, requests: Sequence[Request]) -> None:
        """Notes what is to be asked, in order; what is known already stays as it is.

        Raises:
          DataError: two requests have the same key.
        """
        seen: dict[str, str] = {}
        for request in requests:
            if (other := seen.setdefault(request.key, request.prompt_id)) != request.prompt_id:
                raise DataError(f"prompts {other} and {request.prompt_id} ask the same words")
        if len(seen) < len(requests):
            raise DataError("a prompt stands in the plan twice")
        with self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO request VALUES (?, ?, ?, ?)",
                [(r.key, self._endpoint, r.prompt_id, r.body) for r in requests],
            )
            self._db.executemany("INSERT INTO plan (key) VALUES (?)", [(r.key,) for r in requests])

    def pending(self) -> set[str]:
        """Keys without an answer that may still be asked, those that failed before included."""
        settled = "SELECT key FROM tried WHERE state IN ('ok', 'blocked')"
        rows = self._db.execute(f"SELECT key FROM plan WHERE key NOT IN ({settled})")
        return {key for (key,) in rows}

    def failures_of(self) -> dict[str, int]:
        """How often each key failed so far, in every run; keys that never did are left out."""
        query = f"SELECT key, COUNT(*) FROM tried WHERE state IN ({_FAULTS}) GROUP BY key"
        return dict(self._db.execute(query).fetchall())

    def sent(self, key: str) -> int:
        """Commits the intent to send; answers the attempt's number."""
        with self._transaction():
            cursor = self._db.execute(
                "INSERT INTO attempt (key, endpoint, state, sent_at) VALUES (?, ?, 'sent', ?)",
                (key, self._endpoint, time.time()),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def received(self, attempt: int, reply: Reply, outcome: Outcome) -> None:
        """Commits what came back for an attempt."""
        with self._transaction():
            self._db.execute(
                "UPDATE attempt SET state = ?, received_at = ?, status = ?, headers = ?, body = ?,"
                " error = ?, reason = ?, detail = ? WHERE id = ?",
                (
                    str(outcome.kind),
                    reply.received_at,
                    reply.status,
                    json.dumps(dict(reply.headers)),
                    reply.body,
                    reply.error,
                    outcome.reason,
                    outcome.detail,
                    attempt,
                ),
            )

    def counts(self) -> Counts:
        """Where the plan stands, and that nothing was lost on the way.

        Raises:
          RunFolderError: the parts do not add up to the plan: the rows were changed from outside.
        """
        fault = f"state IN ({_FAULTS})"
        settled = "key IN (SELECT key FROM tried WHERE state IN ('ok', 'blocked'))"
        found = Counts(
            planned=self._number("SELECT COUNT(*) FROM plan"),
            ok=self._number("SELECT COUNT(*) FROM tried WHERE state = 'ok'"),
            blocked=self._number("SELECT COUNT(DISTINCT key) FROM tried WHERE state = 'blocked'"),
            failed=self._number(
                f"SELECT COUNT(DISTINCT key) FROM tried WHERE {fault} AND NOT {settled}"
            ),
            pending=self._number(
                "SELECT COUNT(*) FROM plan WHERE key NOT IN "
                f"(SELECT key FROM tried WHERE state IN ('ok', 'blocked') OR {fault})"
            ),
        )
        if found.planned != found.ok + found.blocked + found.failed + found.pending:
            raise RunFolderError(
                f"the journal does not add up: {found}; another program changed it. Move it away "
                "and collect again"
            )
        return found

    def failed(self) -> list[tuple[str, str, str]]:
        """(prompt id, reason, detail) of each request whose last reply was a fault, in order."""
        query = f"""
          SELECT request.prompt_id, last.reason, last.detail
          FROM (SELECT *, MAX(id) FROM tried WHERE state IN ({_FAULTS}) GROUP BY key) AS last
          JOIN endpoint
          JOIN request ON request.key = last.key AND request.endpoint = endpoint.address
          WHERE request.key NOT IN (SELECT key FROM tried WHERE state IN ('ok', 'blocked'))
          ORDER BY last.position
        """
        return self._db.execute(query).fetchall()

    def orphaned(self) -> int:
        """How many sendings of the plan ended with the process, not with a reply, in all runs."""
        return self._number("SELECT COUNT(*) FROM tried WHERE state = 'orphaned'")

    def answers(self) -> Iterator[tuple[str, str, Reply]]:
        """(key, prompt id, raw reply) of each answered request, in the order of the plan."""
        query = """
          SELECT request.key, request.prompt_id, attempt.status, attempt.body, attempt.headers
          FROM tried JOIN attempt ON attempt.id = tried.id
          JOIN request ON request.key = attempt.key AND request.endpoint = attempt.endpoint
          WHERE tried.state = 'ok' ORDER BY tried.position
        """
        for key, prompt_id, status, body, headers in self._db.execute(query):
            yield key, prompt_id, Reply(status=status, body=body, headers=json.loads(headers))

    def _number(self, query: str) -> int:
        return self._db.execute(query).fetchone()[0]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
