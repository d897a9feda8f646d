"""The journal's way to the disk: what is committed becomes safe from a power cut too.

A commit of SQLite's log under `synchronous = NORMAL` is in the kernel's hands: it survives the end
of this process, not that of the machine. FULL would wait for the disk within each commit, and
nothing could be written meanwhile. Here the log is synced by a thread of its own, as often as FULL
would, and who needs the disk waits for that (`commits`). After a power cut the log is good up to
its last whole commit: SQLite chains their checksums.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

TRIM_ROWS = 4000  # replies after which the log is copied into the file and begins anew

# Only Linux has the first one; what it leaves out is the file's times.
_sync = getattr(os, "fdatasync", os.fsync)


class Disk:
    """The disk below an open journal.

    Args:
      path: of the database.
      database: the connection that writes; its own copying of the log is off until `close`.

    Raises:
      OSError, sqlite3.Error: the disk refuses; from `sync` and `trim` too.
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("PRAGMA wal_autocheckpoint = 0")
        self._copier = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        # SQLite locks bytes of the database and of the -shm file, never of this one, so that
        # closing this descriptor frees no lock.
        self._log = os.open(f"{path}-wal", os.O_RDWR)

    def sync(self) -> None:
        """Waits until all that was committed before is on the disk; in any thread."""
        _sync(self._log)  # of a file, whichever descriptor wrote to it

    def copy(self) -> None:
        """Copies the log into the file, in any thread, beside the writing."""
        self._copier.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def trim(self) -> None:
        """Copies the little that came since, in the thread that writes: the log begins anew."""
        self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Syncs and lets go."""
        try:
            _sync(self._log)
        finally:
            os.close(self._log)
            self._copier.close()
            self._database.execute("PRAGMA wal_autocheckpoint = 1000")
