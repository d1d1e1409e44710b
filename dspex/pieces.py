"""What comes piece by piece and has an output in the end: a run of a program, a call of a module."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, Self

from dspex import errors

__all__ = ["AsyncPieces", "Output", "Pieces", "in_threads", "taken", "taking"]

END = object()
"""What stands for the end of a stream."""

_taken: ContextVar[bool] = ContextVar("dspex_taken", default=True)


def taken() -> bool:
    """Whether somebody takes the pieces that are made here, and not only what comes in the end."""
    return _taken.get()


@contextmanager
def taking(pieces: bool) -> Iterator[None]:
    """Say in the block whether somebody takes the *pieces*."""
    before = _taken.set(pieces)
    try:
        yield
    finally:
        _taken.reset(before)


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
