"""Group commit: whoever writes in the same moment shares a commit, and a wait for the disk.

kept      committed: safe from the end of this process, kill -9 too
durable   on the disk: safe from a power cut
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from opengrok_jax.teacher.disk import TRIM_ROWS
from opengrok_jax.teacher.journal import Journal


class Commits:
    """Commits what the journal was given, over and over, while the loop goes on.

    Rows are written and committed by the loop's own thread, since a thread that fights for the
    interpreter at every row is slower than none; only the wait for the disk is in another one.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._kept: asyncio.Future[None] | None = None  # of what is not committed yet
        self._durable: asyncio.Future[None] = self._loop.create_future()
        self._to_sync: list[asyncio.Future[None]] = []
        self._work = asyncio.Event()
        self._closing, self._rows = False, 0
        self._error: BaseException | None = None

    async def __aenter__(self) -> Commits:
        """Begins."""
        self._disk = self._journal.disk()
        self._task = asyncio.create_task(self._syncing())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commits the rest and ends.

        Raises:
          sqlite3.Error, OSError: the disk refused.
        """
        try:
            self.kept()
            self._write()
            self._closing = True
            self._work.set()
            await self._task
            if self._error is not None:
                raise self._error
        finally:
            self._thread.shutdown()
            self._disk.close()

    def kept(self) -> asyncio.Future[None]:
        """Done once all that the journal was given until now is committed."""
        if self._kept is None:
            self._kept = self._loop.create_future()
            # After all that is ready now, so that they share it.
            self._loop.call_soon(self._write)
        return self._kept

    def durable(self) -> asyncio.Future[None]:
        """Done once all that the journal was given until now is on the disk."""
        self.kept()
        return self._durable

    def _write(self) -> None:
        kept, self._kept = self._kept, None
        if kept is None:  # the end was quicker
            return
        durable, self._durable = self._durable, self._loop.create_future()
        if self._error is None:
            try:
                self._rows += self._journal.write()
            except BaseException as error:
                self._error = error
        if self._error is not None:
            _fail((kept, durable), self._error)
            return
        _tell(kept)
        self._to_sync.append(durable)
        self._work.set()

    async def _syncing(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            waiting, self._to_sync = self._to_sync, []
            if waiting:
                try:
                    await self._loop.run_in_executor(self._thread, self._disk.sync)
                    if self._rows >= TRIM_ROWS:
                        self._rows = 0
                        await self._loop.run_in_executor(self._thread, self._disk.copy)
                        self._disk.trim()
                except BaseException as error:
                    self._error = self._error or error
                    _fail(waiting, error)
                    raise
                for future in waiting:
                    _tell(future)
            if self._closing and not self._to_sync:
                return


def _tell(future: asyncio.Future[None]) -> None:
    if not future.done():  # cancelled with a task that waited for it
        future.set_result(None)


def _fail(futures: Iterable[asyncio.Future[None]], error: BaseException) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
            future.exception()  # whoever waits sees it; nobody waiting is no fault
