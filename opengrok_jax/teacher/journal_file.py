"""The journal's file: its tables, how it is opened, and how an older layout becomes this one.

    endpoint   an address                     request   one question: (key, endpoint), its prompt
    question   the body of a request          plan      what one call is to ask; `planned` its rows
    attempt    one sending: its state, what was reserved for it, what it cost
    reply      what came back for it, verbatim
    boot       of the machine that wrote last, see `journal`

What is looked through in large numbers (request, attempt) is apart from what is large (question,
reply), so that a million rows are counted in about a second.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from opengrok_jax import storage
from opengrok_jax.errors import DataError, RunFolderError, StorageError
from opengrok_jax.teacher.outcome import Kind

VERSION = 3
NAME = "journal.sqlite"
# Whoever empties the folder keeps all of these: after a crash, answers live in the -wal file.
FILES = (NAME, f"{NAME}-wal", f"{NAME}-shm")

STATES = ("sent", "orphaned", *Kind)
_STATES = ", ".join(f"'{s}'" for s in STATES)
_TABLES = f"""
CREATE TABLE endpoint (id INTEGER PRIMARY KEY, address TEXT NOT NULL UNIQUE);
CREATE TABLE request (
  id INTEGER PRIMARY KEY,
  key BLOB NOT NULL, endpoint INTEGER NOT NULL REFERENCES endpoint, prompt_id TEXT NOT NULL,
  UNIQUE (key, endpoint)
);
CREATE TABLE question (request INTEGER PRIMARY KEY REFERENCES request, body BLOB NOT NULL);
CREATE TABLE plan (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, requests INTEGER);
CREATE TABLE planned (
  plan INTEGER NOT NULL, position INTEGER NOT NULL, request INTEGER NOT NULL,
  PRIMARY KEY (plan, position)
) WITHOUT ROWID;
CREATE UNIQUE INDEX planned_once ON planned (plan, request);
CREATE TABLE attempt (
  id INTEGER PRIMARY KEY,
  request INTEGER NOT NULL REFERENCES request,
  state TEXT NOT NULL CHECK (state IN ({_STATES})),
  sent_at REAL NOT NULL, received_at REAL, status INTEGER,
  reserved INTEGER NOT NULL, cost INTEGER,
  reserved_tokens INTEGER NOT NULL, tokens INTEGER,
  model TEXT, reason TEXT, detail TEXT,
  begun INTEGER NOT NULL DEFAULT 1
);
CREATE TABLE reply (
  attempt INTEGER PRIMARY KEY REFERENCES attempt,
  headers TEXT NOT NULL, body BLOB NOT NULL, error TEXT NOT NULL
);
CREATE INDEX attempt_of ON attempt (request);
CREATE UNIQUE INDEX one_answer ON attempt (request) WHERE state = 'ok';
CREATE UNIQUE INDEX one_block ON attempt (request) WHERE state = 'blocked';
CREATE UNIQUE INDEX one_in_flight ON attempt (request) WHERE state = 'sent';
CREATE INDEX orphan ON attempt (id) WHERE state = 'orphaned';
CREATE INDEX unread ON attempt (id)
  WHERE state IN ('transient', 'wrong_model') AND status BETWEEN 200 AND 299;
"""
_BOOT = "CREATE TABLE boot (id TEXT NOT NULL);"
_SCHEMA = f"BEGIN IMMEDIATE;{_TABLES}{_BOOT}PRAGMA user_version = {VERSION};COMMIT;"
# Layout 1 had the bodies in `request` and `attempt`, keys in hex, and knew no money.
_FROM_1 = f"""
BEGIN IMMEDIATE;
ALTER TABLE request RENAME TO old_request;
ALTER TABLE attempt RENAME TO old_attempt;
DROP INDEX attempt_of;
DROP INDEX one_answer;
DROP INDEX one_in_flight;
{_TABLES}
INSERT INTO endpoint (address) SELECT DISTINCT endpoint FROM old_request;
INSERT INTO request (id, key, endpoint, prompt_id)
  SELECT old.rowid, from_hex(old.key), endpoint.id, old.prompt_id
  FROM old_request AS old JOIN endpoint ON endpoint.address = old.endpoint;
INSERT INTO question SELECT rowid, body FROM old_request;
INSERT INTO attempt (id, request, state, sent_at, received_at, status, reserved, reserved_tokens,
                     reason, detail)
  SELECT old.id, asked.rowid, old.state, old.sent_at, old.received_at, old.status, 0, 0,
         old.reason, old.detail
  FROM old_attempt AS old
  JOIN old_request AS asked ON asked.key = old.key AND asked.endpoint = old.endpoint;
INSERT INTO reply
  SELECT id, COALESCE(headers, '{{}}'), COALESCE(body, x''), COALESCE(error, '')
  FROM old_attempt WHERE state NOT IN ('sent', 'orphaned');
DROP TABLE old_attempt;
DROP TABLE old_request;
{_BOOT}
PRAGMA user_version = {VERSION};
COMMIT;
"""
# Layout 2 had no intents written ahead of their sending.
_FROM_2 = f"""
BEGIN IMMEDIATE;
ALTER TABLE attempt ADD COLUMN begun INTEGER NOT NULL DEFAULT 1;
{_BOOT}
PRAGMA user_version = {VERSION};
COMMIT;
"""


@contextlib.contextmanager
def connected(path: Path) -> Iterator[tuple[sqlite3.Connection, sqlite3.Connection]]:
    """The file open twice, for writing and for reading beside that; made if there is none.

    The caller keeps other processes away (`storage.locked`): what is in flight over there would be
    taken for orphaned here.

    Raises:
      RunFolderError: another process writes to it, or a later version of this package wrote it.
      DataError: the file is no journal, or damaged.
      StorageError: the disk refuses.
    """
    with storage.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _explained(path):
        # The writer's commits run in a thread of their own, one after the other.
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        with contextlib.closing(database):
            database.execute("PRAGMA journal_mode = WAL").fetchall()
            # A commit is safe from the end of this process; from a power cut, see `disk`.
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA cache_size = -32768")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                database.executescript(_SCHEMA)
            elif version == 1:
                # Off, or the rows to be dropped would be looked for one by one.
                database.execute("PRAGMA foreign_keys = OFF")
                database.create_function("from_hex", 1, bytes.fromhex, deterministic=True)
                database.executescript(_FROM_1)
            elif version == 2:
                database.executescript(_FROM_2)
            elif version != VERSION:
                raise RunFolderError(
                    f"{path} has layout {version}, this version of opengrok writes layout "
                    f"{VERSION}; collect into another folder, or use the version that wrote it"
                )
            database.execute("PRAGMA foreign_keys = ON")
            reader = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
            with contextlib.closing(reader):
                reader.execute("PRAGMA cache_size = -8192")
                yield database, reader


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
