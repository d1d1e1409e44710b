"""Who reads what a server says, and runs the callbacks."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from dspex.stores.redis_ear import Ear
from dspex.stores.redis_wire import MISSING, Push, Wire

if TYPE_CHECKING:
    from dspex.stores.redis_copy import RedisCopy

__all__ = ["Readers"]

_log = logging.getLogger("dspex.redis")


class Readers(ABC):
    """
    Threads that wait for what comes, of which one at a time reads.

    It applies what has come, gives back the turn, and runs the callbacks itself, as a change of threads costs
    more than all else. Another one waits meanwhile, and reads what comes next: a callback may wait, and call.
    """

    closed: bool
    guard: threading.RLock
    _wire: Wire | None

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

        self._overheard: deque[Any] = deque()
        """What a borrower has read that only a thread of ours may take."""
        self._reader = 0
        """The thread that has the turn."""

    # ---- what is read -------------------------------------------------------------------------------

    @property
    @abstractmethod
    def lends(self) -> bool:
        """Whether who commits may use the connection now."""

    @abstractmethod
    def begin(self) -> None:
        """Called before the first thread starts."""

    @abstractmethod
    def finish(self) -> None:
        """Called after the last thread has ended."""

    @abstractmethod
    def _patience(self) -> float:
        """Seconds until something has to be looked at."""

    @abstractmethod
    def _turn(self, *, heard: bool) -> list[RedisCopy]:
        """Read what there is, if any, and do what is due; whose callbacks are to be run."""

    @abstractmethod
    def _take(self, message: Any) -> RedisCopy | None:
        """Take one message; whose copy has changed."""

    @abstractmethod
    def _lost(self, why: str) -> None:
        """The connection is of no use any more."""

    # ---- threads ------------------------------------------------------------------------------------

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

    def _read(self) -> None:
        """Read until there are callbacks to run, or this is closed."""
        while not (self.closed or self._untold):
            wire, heard = self._wire, False
            if wire is None:
                self.ear.take()
            else:
                heard = self.ear.wait(self._patience())
            self._reader = threading.get_ident()
            try:
                # What was heard of a connection that others have given up meanwhile is nothing.
                self._untold.extend(self._turn(heard=heard and wire is self._wire))
            finally:
                self._reader = 0
                self.ear.give()

    def _next(self) -> RedisCopy | None:
        try:
            return self._untold.popleft()
        except IndexError:
            return None

    def _drain(self, ledger: RedisCopy) -> None:
        try:
            ledger.drain()
        except Exception:
            _log.exception("telling of session '%s' failed", ledger.id, extra={"dspex.session": ledger.id})

    # ---- who borrows the connection -----------------------------------------------------------------

    def lend(self) -> Wire | None:
        """The connection, if nobody is at it, for a command and its answer; to be given back."""
        if not self.lends or not self.ear.borrow():
            return None
        wire = self._wire
        if wire is None or not self.lends:
            self.ear.give()
            return None
        self._reader = threading.get_ident()
        return wire

    def overhear(self, message: Any) -> None:
        """Hear what has come before an answer to who has borrowed the connection, and after it."""
        # Only hints are taken by a borrower: whatever else comes may have to be answered by a call.
        if self._overheard or type(message) is not Push or message[0] != b"smessage":
            self._overheard.append(message)
            return
        try:
            ledger = self._take(message)
        except Exception:  # what is to be done then is not for who commits
            self._overheard.append(message)
            return
        if ledger is not None and ledger.told:
            self._untold.append(ledger)

    def give_back(self, wire: Wire, lost: str | None) -> None:
        """Take back the connection that was lent, with all that has come, or *lost* as it is."""
        try:
            while lost is None and (message := wire.next()) is not MISSING:
                self.overhear(message)
            if lost is not None and wire is self._wire:
                self._lost(lost)
        finally:
            self._reader = 0
            self.ear.give()
        if self._overheard or self._untold or not self.lends:
            self.ear.wake()
