"""Calls, as whoever made them sees them: futures that can be cancelled at any time, and streams of pieces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self

import attrs

from dspex import deadlines, errors, telemetry
from dspex.pieces import Output
from dspex.pool.bridging import Counter
from dspex.session import Session

if TYPE_CHECKING:
    from dspex.pool.members import Member
    from dspex.pool.scheduling import Scheduler
    from dspex.pool.values import Values

__all__ = ["AsyncStream", "Call", "Outcome", "Stream"]


class Call(Future[Any]):
    """
    A run of a program somewhere else: what `submit` returns.

    Unlike other futures it can be cancelled while it runs: the caller is told at once, the program soon.
    """

    def __init__(
        self,
        pool: Scheduler,
        program: str,
        values: Values,
        inputs: bytes,
        session: Session | None,
        *,
        reference: tuple[Any, ...] | None = None,
        deadline: float,
        seconds: float,
        pin: bool = False,
        idempotent: bool = False,
        window: int = 0,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.number = 0
        self.program = program
        self.values = values
        self.inputs = inputs
        self.session = session
        self.reference = reference
        """Where a worker finds the session: address, id, epoch, revision, newest commit."""
        self.deadline = deadline
        """On the monotonic clock."""
        self.seconds = seconds
        self.pin = pin
        self.idempotent = idempotent
        self.window = window
        self.member: Member | None = None
        """The worker that was told to run it."""
        self.attended = False
        """Whether the thread that makes it will wait for it at once."""
        self.attempts = 0
        self.rev: int | None = None
        """Of the session when it ended, where it ran."""
        self.ended: float | None = None
        """When it did, on the monotonic clock."""
        self.queued = False
        """Whether it waits for a worker."""
        self.piece: Callable[[bytes], None] | None = None
        """Takes the pieces of a stream."""
        self._counter: Counter | None = None
        self._told = None if telemetry.active is None else telemetry.active.call(program)

    @property
    def carrier(self) -> dict[str, str] | None:
        """The context of its span, if anybody is told."""
        return None if self._told is None else self._told.carrier

    @property
    def counter(self) -> Counter:
        """Answers the questions of the program."""
        if self._counter is None:
            self._counter = Counter(self.session)
        return self._counter

    def result(self, timeout: float | None = None) -> Any:
        """What the program returned, waiting *timeout* seconds for it at most. Raises what it raised."""
        if timeout is not None:
            deadlines.check_seconds(timeout, "timeout")
        if not self.done():
            self.pool._attend(self, timeout)
        made = super().result(timeout)
        if self.session is not None and self.rev is not None:
            ledger: Any = self.session.ledger
            if ledger.rev < self.rev and hasattr(ledger, "sync"):
                ledger.sync()  # what the program has set is on its way here
        return made

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the program raised, waiting *timeout* seconds for it at most; None if it returned."""
        if timeout is not None:
            deadlines.check_seconds(timeout, "timeout")
        return super().exception(timeout)

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """
        Have *fn* called with this when it has ended: at once if it has, else in a thread of the pool that
        does nothing else, so that it may wait for other calls, or close the pool.
        """
        prompt = (
            getattr(fn, "__module__", None) == "asyncio.futures"
        )  # waits for nothing, but somebody for it
        if prompt or self.done():
            super().add_done_callback(fn)
        else:
            super().add_done_callback(lambda _: self.pool.callbacks.call(fn, self))

    def when_done(self, tell: Callable[[], object]) -> None:
        """Have *tell*, which waits for nothing, called when this has ended, in whatever thread finds that."""
        super().add_done_callback(lambda _: tell())

    def running(self) -> bool:
        """Whether a worker was told to run it, and has not ended it."""
        return self.member is not None and not self.done()

    def cancel(self) -> bool:
        """End it, also while it runs; False if it has ended before."""
        with self._condition:  # the future's own lock, which two who cancel must not pass both
            if self.done():
                return False
            super().cancel()
            self.set_running_or_notify_cancel()
        self.ended = time.monotonic()
        self.pool.unwanted(self)
        self.settled()
        return True

    def end(self, data: bytes | None = None, error: BaseException | None = None) -> bool:
        """Give it its result or its error; False if it has one, or is not wanted any more."""
        if self.done():
            return False
        self.ended = time.monotonic()
        try:
            if error is None and data is not None:
                try:
                    self.set_result(self.values.unpack(data))
                except Exception as unreadable:
                    self.set_exception(unreadable)
            else:
                self.set_exception(error)
        except Exception:  # cancelled, just now
            return False
        self.settled()
        return True

    def refused(self, error: BaseException) -> None:
        """The pool did not take it."""
        if self._told is not None:
            self._told.end("rejected", error)

    def settled(self) -> None:
        """It has ended in whatever way: so do the streams of its tools."""
        if self._told is not None:
            self._told.end(*_outcome(self))
        if self._counter is not None:
            self._counter.close()


def _outcome(call: Call) -> tuple[str, BaseException | None]:
    if call.cancelled():
        return "cancelled", None
    match error := call.exception():
        case None:
            return "done", None
        case errors.DeadlineExceeded():
            return "expired", error
        case errors.WorkerLost():
            return "lost", error
    return "failed", error


def _output(call: Call) -> Any:
    output = Output()
    if call.done() and not call.cancelled() and call.exception() is None:
        output.give(call.result())
    return output.get()


class Stream(Iterator[Any]):
    """
    The pieces that a program yields, as they come. Leaving it ends the program.

    No more than *window* pieces are on their way: a program whose pieces nobody takes waits.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._pieces = pieces = SimpleQueue[bytes | None]()
        # The call knows the queue alone, so that a stream that nobody has any more is left.
        call.piece = pieces.put
        call.when_done(lambda: pieces.put(None))
        self._taken = 0

    def __next__(self) -> Any:
        data = self._pieces.get()
        if data is None:
            self._pieces.put(None)
            with suppress(CancelledError):
                self._call.result()
            raise StopIteration
        call = self._call
        self._taken += 1
        if 2 * self._taken >= call.window:
            call.pool.more(call, self._taken)
            self._taken = 0
        return call.values.unpack(data)

    @property
    def output(self) -> Any:
        """
        What came in the end.

        Raises:
            InvalidCall: It has not come.
        """
        return _output(self._call)

    def close(self) -> None:
        """Want no more."""
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncStream(AsyncIterator[Any]):
    """`Stream`, awaited."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._pieces = pieces = asyncio.Queue[bytes | None]()
        loop = asyncio.get_running_loop()

        def put(data: bytes | None) -> None:
            with suppress(RuntimeError):  # the loop has ended before the program
                loop.call_soon_threadsafe(pieces.put_nowait, data)

        call.piece = put
        call.when_done(lambda: put(None))
        self._taken = 0

    async def __anext__(self) -> Any:
        try:
            data = await self._pieces.get()
        except asyncio.CancelledError:
            self._call.cancel()
            raise
        if data is None:
            self._pieces.put_nowait(None)
            with suppress(CancelledError):
                self._call.result()
            raise StopAsyncIteration
        call = self._call
        self._taken += 1
        if 2 * self._taken >= call.window:
            call.pool.more(call, self._taken)
            self._taken = 0
        return call.values.unpack(data)

    @property
    def output(self) -> Any:
        """
        What came in the end.

        Raises:
            InvalidCall: It has not come.
        """
        return _output(self._call)

    async def aclose(self) -> None:
        """Want no more."""
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    def __del__(self) -> None:
        self._call.cancel()


@attrs.frozen
class Outcome:
    """What became of one item of a `map`."""

    inputs: Any
    """The item, as it was given."""
    output: Any
    """What the program returned; None where it failed."""
    error: Exception | None
    """What it raised, or why it was not run."""
    seconds: float
    """From when it was given to the pool until it ended."""
