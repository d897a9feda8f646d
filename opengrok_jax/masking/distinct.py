"""Which texts are new: the n-th distinct text of a corpus has place n, at its first occurrence.

The index lies on disk, so that a million posts take no more memory than a thousand; it is a scratch
file, made anew by every build that needs it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from opengrok_jax import storage

CACHE_KIB = 32_768
RECENT = 1 << 16  # digests that are looked up without the disk: the texts that come again and again


class Places:
    """The places of the texts seen so far.

    Attributes:
      count: how many distinct ones there are.
    """

    def __init__(self, connection: sqlite3.Connection):
        """Begins with an empty table; see `opened`."""
        self._connection = connection
        self._connection.execute(
            "create table places (digest blob primary key, place integer) without rowid"
        )
        self._recent: dict[bytes, int] = {}
        self.count = 0

    def of(self, digests: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """The place of each text, and which of them are here for the first time.

            seen     A B        now  B C B D C
            places   0 1             1 2 1 3 2       new  1 3

        Args:
          digests: uint8 [P, 16].

        Returns:
          int64 [P], and the indices of the new ones.
        """
        places = np.empty(len(digests), np.int64)
        new: list[int] = []
        for at, row in enumerate(digests):
            digest = row.tobytes()
            place = self._recent.get(digest)
            if place is None:
                found = self._connection.execute(
                    "select place from places where digest = ?", (digest,)
                ).fetchone()
                if found is None:
                    place = self.count
                    self._connection.execute("insert into places values (?, ?)", (digest, place))
                    self.count += 1
                    new.append(at)
                else:
                    place = found[0]
                if len(self._recent) == RECENT:
                    self._recent.clear()
                self._recent[digest] = place
            places[at] = place
        return places, new


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Places]:
    """An empty index in a scratch file, removed at the end.

    Raises:
      StorageError: the disk refused.
    """
    with storage.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in ("journal_mode = off", "synchronous = off", f"cache_size = -{CACHE_KIB}"):
            connection.execute(f"pragma {pragma}")
        connection.execute("begin")
        yield Places(connection)
    except sqlite3.OperationalError as error:
        with storage.storing(path):
            raise OSError(None, str(error)) from error
    finally:
        connection.close()
        path.unlink(missing_ok=True)
