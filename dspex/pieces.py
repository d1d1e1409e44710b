"""
What comes piece by piece and has an output in the end: a run of a program, a call of a module.

`Pieces` is who takes them, a channel leads there from a thread or a task that makes them. Whoever makes some
looks at `taker()`.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self

from dspex import deadlines, errors

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "ROOM",
    "AsyncChannel",
    "AsyncPieces",
    "Channel",
    "Left",
    "Output",
    "Pieces",
    "in_threads",
    "taker",
    "taking",
]

END = object()
"""What stands for the end of a stream."""

ROOM = 32
"""The most pieces of a stream that wait to be taken."""


class Left(BaseException):
    """Nobody wants the rest. No failure that anybody could take for a reason to try again."""


class Channel:
    """From the thread that makes pieces to the one that takes them."""

    def __init__(self) -> None:
        import queue  # not before somebody streams

        self._pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._empty = queue.Empty
        self._room = threading.Semaphore(ROOM)
        self._left = False
        self._source: Channel | None = None
        self._said: list[str] = []
        """What was passed on last."""

    def put(self, piece: Any) -> None:
        """Wait until there is room for *piece*. Raises `Left`."""
        self._room.acquire()
        if self._left:
            self._room.release()  # for who waits beside us
            raise Left
        self._pieces.put(piece)

    def get(self) -> Any:
        """
        The next piece, or `END`.

        Raises:
            DeadlineExceeded: No time was left to wait for it.
            Left: Somebody wants no more.
        """
        try:
            piece = self._pieces.get(timeout=deadlines.remaining())
        except self._empty:
            what = "the next piece of a stream"
            raise errors.DeadlineExceeded(f"no time was left to wait for {what}.", what=what) from None
        if self._left:
            raise Left
        self._room.release()
        return piece

    def end(self) -> None:
        """There are no more."""
        self._pieces.put(END)

    def leave(self) -> None:
        """Want no more; from any thread. Who waits for a piece is told, too."""
        self._left = True
        self._room.release()
        self._pieces.put(END)
        if self._source is not None:
            self._source.leave()

    def fed_by(self, source: Channel) -> None:
        """Whoever leaves this one leaves *source*."""
        self._source = source
        if self._left:
            source.leave()

    def check(self) -> None:
        """Raise `Left` if nobody wants more."""
        if self._left:
            raise Left

    def pass_on(self, made: Generator[Any, None, Any]) -> Any:
        """Put the pieces of *made*; what it has in the end."""
        self._said.clear()
        with Pieces(made) as stream:
            for piece in stream:
                self.put(piece)
                self._said.append(str(piece))
        return stream.output

    def has_said(self, text: Any) -> bool:
        """Whether *text* is what was passed on last."""
        return _is_joined(text, self._said)


class AsyncChannel:
    """The same between tasks of one loop."""

    def __init__(self) -> None:
        import asyncio

        self._pieces: asyncio.Queue[Any] = asyncio.Queue()
        self._room = asyncio.Semaphore(ROOM)
        self._said: list[str] = []
        """What was passed on last."""

    async def put(self, piece: Any) -> None:
        """Wait until there is room for *piece*."""
        await self._room.acquire()
        self._pieces.put_nowait(piece)

    async def get(self) -> Any:
        """The next piece, or `END`."""
        piece = await self._pieces.get()
        self._room.release()
        return piece

    def end(self) -> None:
        """There are no more."""
        self._pieces.put_nowait(END)

    async def pass_on(self, made: AsyncGenerator[Any, None], output: Output) -> Any:
        """Put the pieces of *made*; what it has in the end."""
        self._said.clear()
        async with AsyncPieces(made, output) as stream:
            async for piece in stream:
                await self.put(piece)
                self._said.append(str(piece))
        return stream.output

    def has_said(self, text: Any) -> bool:
        """Whether *text* is what was passed on last."""
        return _is_joined(text, self._said)


def _is_joined(text: Any, pieces: list[str]) -> bool:
    return isinstance(text, str) and text == "".join(pieces)


_taker: ContextVar[Channel | AsyncChannel | bool] = ContextVar("dspex_taker", default=True)


def taker() -> Channel | AsyncChannel | bool:
    """Who takes the pieces that are made here: somebody, nobody, or whoever a channel leads to."""
    return _taker.get()


@contextmanager
def taking(who: Channel | AsyncChannel | bool) -> Iterator[None]:
    """Say in the block *who* takes the pieces."""
    before = _taker.set(who)
    try:
        yield
    finally:
        _taker.reset(before)


class Output:
    """Where the output of a stream will be."""

    __slots__ = ("_value",)

    def give(self, value: Any) -> None:
        """It is *value*."""
        self._value = value

    def get(self) -> Any:
        """
        What it is.

        Raises:
            InvalidCall: There is none: the stream goes on, was left, or failed.
        """
        try:
            return self._value
        except AttributeError:
            raise errors.InvalidCall(
                "this stream has no output: not all of its pieces were taken, it was left, or it failed."
            ) from None


class Pieces(Generator[Any, None, Any]):
    """
    The pieces, as they come; `output` is there when all were taken, and is what `yield from` gives.

    Leaving it (`close()`, the end of its `with` block, or dropping it) ends what makes the pieces.
    """

    def __init__(self, made: Generator[Any, None, Any]) -> None:
        self._made = made
        self._output = Output()
        self._over = False
        """Whether it has ended in any way, so that Python's own end of it says nothing any more."""

    @property
    def output(self) -> Any:
        """
        What came in the end.

        Raises:
            InvalidCall: It has not come.
        """
        return self._output.get()

    def send(self, value: None) -> Any:
        over, self._over = self._over, True
        try:
            piece = self._made.send(value)
        except StopIteration as end:
            if not over:
                self._output.give(end.value)
            raise
        self._over = False
        return piece

    def throw(self, *error: Any) -> Any:
        return self._made.throw(*error)

    def close(self) -> None:
        """Want no more."""
        self._over = True
        self._made.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncPieces(AsyncIterator[Any]):
    """`Pieces`, for `async for`."""

    def __init__(self, made: AsyncGenerator[Any, None], output: Output) -> None:
        self._made = made
        self._output = output

    @property
    def output(self) -> Any:
        """
        What came in the end.

        Raises:
            InvalidCall: It has not come.
        """
        return self._output.get()

    async def __anext__(self) -> Any:
        return await anext(self._made)

    async def aclose(self) -> None:
        """Want no more."""
        await self._made.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


async def in_threads(made: Generator[Any, None, Any], output: Output) -> AsyncGenerator[Any, None]:
    """The pieces of *made*, each made in a thread."""
    import asyncio

    def step() -> Any:
        try:
            return next(made)
        except StopIteration as end:
            output.give(end.value)
            return END

    try:
        while (piece := await asyncio.to_thread(step)) is not END:
            yield piece
    finally:
        with suppress(ValueError):  # a thread is still in it, and nobody can call it back
            made.close()
