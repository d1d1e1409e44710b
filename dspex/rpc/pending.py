"""Calls of a connection that wait for their answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from dspex.rpc.limits import PART

if TYPE_CHECKING:
    from dspex import errors
    from dspex.rpc.remote import RemoteLedger

__all__ = ["Outgoing", "Pending"]


class Pending:
    """One call; kept until its answer, even when nobody waits any more."""

    __slots__ = (
        "_done",
        "abandoned",
        "data",
        "error",
        "ledger",
        "metadata",
        "op",
        "own",
        "replies",
        "result",
        "what",
    )

    def __init__(
        self,
        what: str,
        data: bytes,
        *,
        ledger: RemoteLedger | None = None,
        own: tuple[tuple[str, Any, str | None], ...] = (),
        metadata: Mapping[str, Any] | None = None,
        op: str = "",
    ) -> None:
        self.what = what
        self.ledger = ledger
        self.own = own
        """Of a commit, what it sets: names, stored values, authors."""
        self.metadata = metadata
        self.op = op
        self.data = data
        """The frame, to be sent again on another connection."""
        self.replies: list[Any] = []
        self.result: Any = None
        self.error: errors.DspexError | None = None
        self.abandoned = False
        self._done = threading.Lock()
        self._done.acquire()

    def finish(self, result: Any = None, error: errors.DspexError | None = None) -> None:
        """Wake who waits."""
        self.result = result
        self.error = error
        if self._done.locked():
            self._done.release()

    @property
    def finished(self) -> bool:
        """Whether the answer is there."""
        return not self._done.locked()

    def wait(self, seconds: float) -> bool:
        """Whether the answer came within *seconds*."""
        return self._done.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class Outgoing(Iterator[bytes]):
    """What one connection is to send, as grpc wants it: an iterator that waits."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self.put = self._queue.put
        """Send one frame; None ends."""
        self._ended = False

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        first = self._queue.get()
        if first is None:
            raise StopIteration
        if self._queue.empty():
            return first
        # Frames joined are one frame.
        frames, size = [first], len(first)
        while size < PART:
            try:
                more = self._queue.get_nowait()
            except Empty:
                break
            if more is None:
                self._ended = True
                break
            frames.append(more)
            size += len(more)
        return b"".join(frames)
