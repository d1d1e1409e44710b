"""Whose turn it is to read a connection."""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dspex.rpc import clock
from dspex.rpc.pending import Pending

if TYPE_CHECKING:
    from dspex.rpc.replica import Replica

__all__ = ["SLOW", "Turns"]

SLOW = 0.01
"""Seconds after which a callback is not waited for any more before the next frame is read."""

LEASE = 0.002
"""Seconds without a call after which the turn is not left to callers any more."""

_log = logging.getLogger("dspex.rpc")


class Turns(ABC):
    """
    Reads, applies, and runs callbacks, with as few changes of threads as can be: each costs as much as all
    else.

    The thread that has the turn reads a frame, applies it and runs the callbacks. Where one of them takes
    long, or makes a call on this connection, another thread reads on. While one call follows another, the
    thread that reads leaves the turn to the callers, who read their answers themselves.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """No connection, and no thread."""
        self.guard = threading.RLock()
        self.pending: dict[int, Pending] = {}
        """The calls that wait for their answers, by their numbers."""
        self.stream: Any = None
        """What is read: an iterator of frames."""
        self.live = False
        """Whether the server has answered, and all copies are up to date."""
        self.closed = False
        self._turn = threading.Lock()
        self._recall = threading.Lock()
        """Released to have the thread that left the turn to callers read again."""
        self._recall.acquire()
        self._calls = 0
        self._seen = 0
        self._fast = False
        """Whether the clock ticks often enough for callers to read without a timeout of their own."""
        self._hand = threading.Lock()
        self._telling: float | None = None
        """Since when the thread that has the turn runs callbacks, if it does and still has it."""
        self._events = self._before = 0
        self._hot = False
        """Whether `look` is called often enough to notice a callback that waits."""
        self._until: float | None = None
        """When the caller that reads wants to be interrupted."""
        self._idle = 0
        self._threads: set[threading.Thread] = set()

    # ---- what is read ------------------------------------------------------------------------------

    @abstractmethod
    def take(self, data: bytes) -> list[Replica]:
        """Apply one frame; the sessions whose callbacks are to be run."""

    @abstractmethod
    def connected(self) -> Any:
        """The stream, opened again if need be; None when it is not needed any more."""

    @abstractmethod
    def lost(self, error: Exception | None) -> None:
        """The stream has ended."""

    @abstractmethod
    def tick(self) -> float:
        """Called by the clock: see what is due; the seconds until the next time."""

    # ---- threads -----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether somebody reads."""
        return bool(self._threads)

    def start(self) -> None:
        """Have somebody read."""
        with self.guard:
            if self._threads and not self.closed:
                return
        self.join(5)  # of those that were told to end
        with self.guard:
            if not self._threads:
                self.closed = False
                self._spawn()
        clock.watch(self)

    def join(self, timeout: float) -> None:
        """Wait for the threads, if they are to end."""
        me = threading.current_thread()
        for thread in list(self._threads):
            if thread is not me:
                thread.join(timeout)

    def _spawn(self) -> None:
        thread = threading.Thread(target=self._work, name="dspex-rpc-link", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        try:
            while True:
                with self.guard:
                    if self._idle:  # one who waits is enough
                        return
                    self._idle += 1
                self._take_turn()
                with self.guard:
                    self._idle -= 1
                if not self._read():
                    return
        finally:
            with self.guard:
                self._threads.discard(threading.current_thread())

    def _take_turn(self) -> None:
        seen = -1
        while self._fast and self._calls != seen:
            seen = self._calls
            if self._recall.acquire(timeout=LEASE):
                break
        self._turn.acquire()

    def _give_back(self) -> None:
        """The turn is free, and somebody should take it soon."""
        self._turn.release()
        with suppress(RuntimeError):  # one that was not waited for yet is enough
            self._recall.release()

    # ---- a caller that reads its answer ------------------------------------------------------------

    def answered(self, pending: Pending, seconds: float) -> bool:
        """Wait for the answer to *pending*, reading if that is faster; whether it came within *seconds*."""
        self._calls += 1
        if self._telling is not None:
            self.hand_over()
        if self._fast and self.live and self._turn.acquire(blocking=False):
            return self._read_for(pending, seconds)
        if not self._fast:
            clock.wake()
        return pending.wait(seconds)

    def _read_for(self, pending: Pending, seconds: float) -> bool:
        todo: list[Replica] = []
        self._until = end = time.monotonic() + seconds
        lost = False
        try:
            while not (pending.finished or lost):
                stream = self.stream
                if stream is None:
                    lost = True
                    break
                try:
                    todo += self.take(next(stream))
                except StopIteration:
                    lost = True
                    self.lost(None)
                except Exception as error:
                    lost = True
                    self.lost(error)
        finally:
            self._until = None
            if lost or not pending.finished or self.pending:
                self._give_back()
            else:
                self._turn.release()
        for ledger in todo:
            _drain(ledger)
        return pending.finished or pending.wait(max(0.0, end - time.monotonic()))

    # ---- a thread that reads -----------------------------------------------------------------------

    def _read(self) -> bool:
        """Read until the turn is somebody else's; False when there is nothing to read any more."""
        turn = self._turn
        while True:
            stream = self.stream or self.connected()
            if stream is None:
                turn.release()
                return False
            try:
                todo = self.take(next(stream))
            except StopIteration:
                self.lost(None)
                continue
            except Exception as error:
                self.lost(error)
                continue
            if todo:
                if not self._tell(todo):
                    return True
            elif self._fast and self._calls != self._seen and not self.pending:
                self._seen = self._calls
                turn.release()
                return True

    def _tell(self, todo: list[Replica]) -> bool:
        """Run the callbacks of *todo*; whether the turn is still ours afterwards."""
        self._events += 1
        self._telling = time.monotonic()
        if not self._hot or self.pending:
            self.hand_over()
            if not self._hot:
                clock.wake()
        for ledger in todo:
            _drain(ledger)
        with self._hand:
            ours, self._telling = self._telling is not None, None
        return ours

    def hand_over(self) -> None:
        """If the thread that has the turn runs callbacks, let another one read."""
        with self._hand:
            if self._telling is None:
                return
            self._telling = None
        with self.guard:
            if not self._idle:
                self._spawn()
        self._turn.release()

    def look(self, now: float) -> bool:
        """Called by `tick`: whether it should come again soon, because callbacks are being run."""
        telling = self._telling
        if telling is not None and now - telling > SLOW:
            self.hand_over()
        before, self._before = self._before, self._events
        self._hot = before != self._before
        return self._hot


def _drain(ledger: Replica) -> None:
    try:
        ledger.drain()
    except Exception:
        _log.exception("telling of session '%s' failed", ledger.id, extra={"dspex.session": ledger.id})
