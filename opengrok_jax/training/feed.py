"""The next batches, made and uploaded by a thread while the devices are busy with this one."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

AHEAD = 2  # finished batches that wait; besides, one is being made and one is in use
T = TypeVar("T")


@contextlib.contextmanager
def feed(
    make: Callable[[int], T], indices: Iterable[int], *, ahead: int = AHEAD
) -> Iterator[Callable[[], T]]:
    """Calls `make` for each index in a background thread, in order, a few ahead of the consumer.

    At the end of the block, however it comes about, the thread has ended and what it had made in
    advance is forgotten.

    Args:
      make: one item; runs in the thread, one call at a time.
      indices: what it is called with; nothing is made beyond the last.
      ahead: how many finished items may wait.

    Yields:
      `take()`: the next item; waits for it if need be. An exception of `make` is raised by the
      `take` that would have given its item; after the last item comes StopIteration.
    """
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(ahead)
    over = threading.Event()

    def work() -> None:
        try:
            for index in indices:
                item = make(index)
                if over.is_set():
                    return
                made.put((item, None))
        except BaseException as error:  # it belongs to the thread that waits for the item
            made.put((None, error))
        else:
            made.put((None, StopIteration()))

    def take() -> T:
        item, error = made.get()
        if error is not None:
            made.put((None, error))  # asked again, it gives the same answer
            raise error
        return item  # type: ignore[return-value]

    thread = threading.Thread(target=work, name="feed", daemon=True)
    thread.start()
    try:
        yield take
    finally:
        over.set()
        while thread.is_alive():  # it may stand before a full queue, twice at the most
            with contextlib.suppress(queue.Empty):
                made.get_nowait()
            thread.join(timeout=0.01)
