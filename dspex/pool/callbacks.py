"""What users want to be called when a call has ended. It may do anything, so no other thread does it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

__all__ = ["Callbacks"]

_log = logging.getLogger("dspex.pool")

Callback = Callable[[Future[Any]], object]


class Callbacks:
    """Calls one after the other in a thread of its own, which is there as soon as there is one to call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None
        self._closed = False

    def call(self, callback: Callback, future: Future[Any]) -> None:
        """Have *callback* called with *future*, which has ended; here and now after `close`."""
        with self._lock:
            if not self._closed:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "dspex-pool-callback")
                try:
                    self._thread.submit(_call, callback, future)
                except RuntimeError:  # the interpreter ends
                    self._closed = True
                else:
                    return
        _call(callback, future)

    def close(self) -> None:
        """Take no more; those that wait are called."""
        with self._lock:
            self._closed = True
        if self._thread is not None:
            self._thread.shutdown(wait=False)


def _call(callback: Callback, future: Future[Any]) -> None:
    try:
        callback(future)
    except BaseException:
        _log.exception("what was to be called at the end of a call has failed")
