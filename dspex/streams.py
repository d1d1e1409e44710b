"""Changes as iterators, for `for` and `async for`."""

from __future__ import annotations

import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Self

from dspex import deadlines, errors
from dspex.changes import LOSSLESS_QUEUE, Change, Mode, Watch, fell_behind, running_loop
from dspex.locks import ForkSafeLock
from dspex.records import Snapshot

__all__ = ["AsyncChanges", "Changes"]

BUFFER = LOSSLESS_QUEUE
"""Changes that an iterator of mode `all` may be behind."""


class _Stream(ABC):
    """
    What both kinds of iterator share: a buffer, the watch that fills it, how they end.

    The buffer is bounded, and in mode `latest` coalesced by name.
    """

    _watch: Watch | None = None

    def __init__(self, name: str, mode: Mode) -> None:
        self._name = name
        self._mode: Mode = mode
        self._latest: dict[str, Change] = {}
        self._all: deque[Change | Snapshot] = deque()
        self._seen = -1
        self._lock = ForkSafeLock()
        self._error: errors.DspexError | None = None
        self.closed = False
        """Whether the iteration has ended; what was there before may still be read."""

    def open(self, watch: Watch) -> None:
        """Take what *watch* delivers through `push`, and end with it."""
        self._watch = watch
        overrun, end = weakref.WeakMethod(self._overrun), weakref.WeakMethod(self._end)
        watch.overrun = lambda error: (call := overrun()) and call(error)
        watch.ended = lambda: (call := end()) and call()

    def weak_push(self) -> Callable[[Change], object]:
        """`push` for the watch, which must not keep an iterator alive that everybody else has dropped."""
        push = weakref.WeakMethod(self.push)
        return lambda change: (call := push()) and call(change)

    def __del__(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def push(self, change: Change) -> None:
        """Note *change* for the reader."""
        with self._lock:
            if change.rev <= self._seen or self.closed:
                return
            if self._mode == "latest":
                self._latest.pop(change.name, None)
                self._latest[change.name] = change
            elif len(self._all) < BUFFER:
                self._all.append(change)
            else:
                self._error = fell_behind(self._name, BUFFER)
            self._wake()
        if self._error is not None:
            self.close()

    def begin(self, first: list[Change | Snapshot], seen: int) -> None:
        """Put *first* in front of what was pushed meanwhile, less what is in both."""
        with self._lock:
            pushed = [*self._latest.values(), *self._all]
            self._latest.clear()
            self._seen = seen
            self._all = deque(first)
            self._all.extend(c for c in pushed if isinstance(c, Change) and c.rev > seen)
            self._wake()

    def _take(self) -> Change | Snapshot | None:
        """What is to be read now; None when there is nothing yet. Called under the lock."""
        if self._all:
            return self._all.popleft()
        if self._latest:
            return self._latest.pop(next(iter(self._latest)))
        if self._error is not None:
            raise self._error
        if self.closed:
            raise StopIteration
        return None

    @abstractmethod
    def _wake(self) -> None:
        """Tell a reader that waits. Called under the lock."""

    def _overrun(self, error: errors.LimitExceeded) -> None:
        self._error = error
        self.close()

    def _end(self) -> None:
        with self._lock:
            self.closed = True
            self._wake()

    def close(self) -> None:
        """End the iteration; a reader that waits stops."""
        if self._watch is not None:
            self._watch.close()


class Changes(_Stream, Iterator[Any]):
    """
    An iterator over the changes of a session: `Session.changes`. Waits for the next; `close()` ends it.

    Yields `Change`, and where it could not go on from the revision that was asked for, one `Snapshot` first.
    """

    def __init__(self, name: str, mode: Mode) -> None:
        super().__init__(name, mode)
        self._arrived = threading.Condition(self._lock)

    def _wake(self) -> None:
        self._arrived.notify_all()

    def next(self, timeout: float | None = None) -> Change | Snapshot:
        """
        The next change, waited for at most *timeout* seconds.

        Raises:
            DeadlineExceeded: Nothing came.
            InvalidValue: Nobody can wait for that long.
            StopIteration: The iteration was closed, or its session.
            LimitExceeded: In mode `all`, the reader fell too far behind.
        """
        if timeout is not None:
            deadlines.check_seconds(timeout, "timeout")
        end = None if timeout is None else time.monotonic() + timeout
        with self._lock:  # the condition's own way in is Python, where an interrupt would leave it taken
            while (found := self._take()) is None:
                if not self._arrived.wait(None if end is None else max(0.0, end - time.monotonic())):
                    raise errors.DeadlineExceeded(f"no change came within {timeout} s.", seconds=timeout)
        return found

    def __next__(self) -> Any:
        return self.next()

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncChanges(_Stream, AsyncIterator[Any]):
    """The same for `async for`: `Session.achanges`. Belongs to the loop on which it was opened."""

    def __init__(self, name: str, mode: Mode) -> None:
        import asyncio

        self._loop = running_loop("achanges()")
        self._arrived = asyncio.Event()
        self._woken = False
        self._first: Callable[[], Awaitable[tuple[list[Change | Snapshot], int]]] | None = None
        self._beginning = asyncio.Lock()
        super().__init__(name, mode)

    def begin_with(self, first: Callable[[], Awaitable[tuple[list[Change | Snapshot], int]]]) -> None:
        """Let the reader await what `begin` takes, before it reads anything."""
        self._first = first

    async def _begin(self) -> None:
        async with self._beginning:
            if self._first is not None:
                self.begin(*await self._first())
                self._first = None

    def _wake(self) -> None:
        # One wake-up at a time: a busy loop must not collect one for each change.
        if not self._woken and not self._loop.is_closed():
            self._woken = True
            self._loop.call_soon_threadsafe(self._arrived.set)

    async def __anext__(self) -> Any:
        if self._first is not None:
            await self._begin()
        while True:
            self._arrived.clear()
            try:
                with self._lock:
                    self._woken = False
                    found = self._take()
            except StopIteration:
                raise StopAsyncIteration from None
            if found is not None:
                return found
            await self._arrived.wait()

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
