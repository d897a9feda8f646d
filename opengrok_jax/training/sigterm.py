"""A SIGTERM, as a cloud sends it before it takes a machine away: noted, and not died of."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

STATUS = 143  # 128 + 15, as shells report a process that ended on SIGTERM


@contextlib.contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Notes a SIGTERM; yields whether one came.

    Signals are the main thread's: elsewhere nothing is changed and none is ever seen.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
