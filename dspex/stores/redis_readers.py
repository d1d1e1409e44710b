"""Who reads what a server says, and runs the callbacks."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from dspex.stores.redis_ear import Ear

if TYPE_CHECKING:
    from dspex.stores.redis_copy import RedisCopy

__all__ = ["Readers"]

_log = logging.getLogger("dspex.redis")


class Readers:
    """
    Threads that wait for what comes, of which one at a time reads.

    It applies what has come, gives back the turn, and runs the callbacks itself, as a change of threads costs
    more than all else. Another one waits meanwhile, and reads what comes next: a callback may wait, and call.
    """

    closed: bool
    guard: threading.RLock

    def reset_threads(self) -> None:
        """No thread runs."""
        self.guard = threading.RLock()
        self.closed = False
        self.ear = Ear()
        self._stop = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._waiting = 0
        """Threads that wait or read."""
        self._untold: deque[RedisCopy] = deque()
        """Whose callbacks are to be run: by who has read so, or by the next one if a callback waits."""

    def begin(self) -> None:
        """Called before the first thread starts."""
        raise NotImplementedError

    def finish(self) -> None:
        """Called after the last thread has ended."""
        raise NotImplementedError

    def _read(self) -> None:
        """Read until there are callbacks to run, or this is closed."""
        raise NotImplementedError

    def _start(self) -> None:
        with self.guard:
            if self._threads and not self.closed:
                return
            self.closed = False
            self._stop.clear()
            self.ear.open()
            self.begin()
            if not self._waiting:
                self._spawn()

    def _spawn(self) -> None:
        thread = threading.Thread(target=self._work, name="dspex-redis", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        try:
            while True:
                with self.guard:
                    if self.closed or self._waiting > 1:
                        return
                    self._waiting += 1
                try:
                    self._read()
                finally:
                    with self.guard:
                        self._waiting -= 1
                        if self._untold and not self._waiting:
                            self._spawn()
                if len(self._untold) > 1:  # the first one's callback may wait
                    self.ear.wake()
                while (ledger := self._next()) is not None:
                    self._drain(ledger)
        finally:
            with self.guard:
                self._threads.discard(threading.current_thread())
                if not self._threads:
                    self.finish()
                    self.ear.close()
                else:
                    self.ear.wake()  # if this has ended, the next one ends

    def _next(self) -> RedisCopy | None:
        try:
            return self._untold.popleft()
        except IndexError:
            return None

    def _drain(self, ledger: RedisCopy) -> None:
        try:
            ledger.drain()
        except Exception:
            _log.exception("telling of session '%s' failed", ledger.id)
