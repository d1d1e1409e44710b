"""Who reads what a server says, and runs the callbacks."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspex.stores.redis_copy import RedisCopy

__all__ = ["Readers"]

_log = logging.getLogger("dspex.redis")


class Readers:
    """
    Threads of which one reads.

    It applies what comes and runs the callbacks itself, as a change of threads costs more than all else;
    while it does, another one reads on. So a callback may wait, and call.
    """

    closed: bool
    guard: threading.RLock

    def reset_threads(self) -> None:
        """No thread runs."""
        self.guard = threading.RLock()
        self.closed = False
        self._stop = threading.Event()
        self._turn = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._untold: deque[RedisCopy] = deque()
        """Whose callbacks are to be run: by who has read so, or by the next one if a callback waits."""
        self._reader = 0
        """The thread that reads."""

    def begin(self) -> None:
        """Called before the first thread starts."""
        raise NotImplementedError

    def _read(self) -> list[RedisCopy] | None:
        """Read until there are callbacks to run, and say whose; None at the end."""
        raise NotImplementedError

    def _start(self) -> None:
        while True:
            with self.guard:
                if self._threads and not self.closed:
                    return
                ending = list(self._threads)
                if not ending:
                    self.closed = False
                    self._stop.clear()
                    self.begin()
                    self._spawn()
                    return
            for thread in ending:
                thread.join(5)

    def _spawn(self) -> None:
        thread = threading.Thread(target=self._work, name="dspex-redis", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        try:
            while True:
                with self.guard:
                    if self._idle > 1:  # two: one of them may have been given the turn, and not run yet
                        return
                    self._idle += 1
                self._turn.acquire()
                with self.guard:
                    self._idle -= 1
                if not self._untold:
                    self._reader = threading.get_ident()
                    todo = self._read()
                    self._reader = 0
                    if todo is None:
                        self._turn.release()
                        return
                    self._untold.extend(todo)
                ledger = self._next()
                with self.guard:
                    if not self._idle:
                        self._spawn()
                self._turn.release()
                while ledger is not None:
                    self._drain(ledger)
                    ledger = self._next()
        finally:
            with self.guard:
                self._threads.discard(threading.current_thread())

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
