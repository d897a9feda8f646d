"""Group commit: whoever writes while the disk is busy is in the next commit, all together."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from opengrok_jax.teacher.journal import Journal


class Commits:
    """Commits what the journal was given, over and over, while the loop goes on.

    Rows are written by the loop's own thread; only the wait for the disk is in another one, since
    a thread that fights for the interpreter at every row is slower than none.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting = asyncio.Event()
        self._closing = False
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Commits:
        """Begins."""
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Commits the rest and ends.

        Raises:
          sqlite3.Error: the disk refused.
        """
        self._closing = True
        self._waiting.set()
        try:
            await self._task
        finally:
            self._disk.shutdown()

    def durable(self) -> asyncio.Future[None]:
        """Done once all that the journal was given until now is on the disk."""
        self._waiting.set()
        return self._done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            done, self._done = self._done, loop.create_future()
            try:
                if self._journal.write():
                    await loop.run_in_executor(self._disk, self._journal.commit)
            except BaseException as error:
                for future in (done, self._done):
                    future.set_exception(error)
                    future.exception()  # whoever waits sees it; nobody waiting is no fault
                raise
            done.set_result(None)
            if self._closing and not self._waiting.is_set():
                return
