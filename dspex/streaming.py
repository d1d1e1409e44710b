"""Calling `forward` for its pieces: what it yields, as it comes."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dspex import deadlines, errors, telemetry
from dspex.crossing import OneLoop, in_loop
from dspex.runs import methods, note, ready, would_block

if TYPE_CHECKING:
    from dspex.program import Program

__all__ = ["astreamed", "pieces", "streamed"]

END = object()
"""What stands for the end of a stream."""


def pieces(
    program: Program,
    inputs: tuple[Any, ...],
    named: Mapping[str, Any],
    awaited: Callable[[Awaitable[Any]], Any],
) -> Generator[Any, None, None]:
    """
    What `forward` yields; what it returns, as the only piece, if it yields nothing.

    All that has to be *awaited* should be so in one loop: an async generator belongs to one.
    """
    made: Any = None
    try:
        method = _method(program)
        _check_no_loop(program, method)
        made = method(*inputs, **named)
        if inspect.isawaitable(made):
            made = awaited(made)
        if inspect.isgenerator(made):
            yield from made
        elif inspect.isasyncgen(made):
            while (piece := awaited(_next(made))) is not END:
                yield piece
        else:
            yield made
    except Exception as error:
        note(error, program)
        raise
    finally:
        if inspect.isasyncgen(made):
            awaited(made.aclose())


async def _apieces(
    program: Program, inputs: tuple[Any, ...], named: Mapping[str, Any]
) -> AsyncGenerator[Any, None]:
    """`pieces`, awaited; what is no coroutine runs in threads."""
    import asyncio

    made: Any = None
    try:
        method = _method(program)
        if _is_async(method):
            made = method(*inputs, **named)
            made = await made if inspect.isawaitable(made) else made
        else:
            made = await asyncio.to_thread(method, *inputs, **named)
        if inspect.isasyncgen(made):
            async for piece in made:
                yield piece
        elif inspect.isgenerator(made):
            while (piece := await asyncio.to_thread(next, made, END)) is not END:
                yield piece
        else:
            yield made
    except Exception as error:
        note(error, program)
        raise
    finally:
        if inspect.isasyncgen(made):
            await made.aclose()
        elif inspect.isgenerator(made):
            with suppress(ValueError):  # a thread is still in it, and nobody can call it back
                made.close()


async def _next(made: AsyncGenerator[Any, Any]) -> Any:
    return await anext(made, END)


def _method(program: Program) -> Callable[..., Any]:
    forward, aforward = methods(program)
    if aforward is not None and (forward is None or inspect.isasyncgenfunction(aforward)):
        return aforward
    assert forward is not None
    return forward


def _check_no_loop(program: Program, method: Callable[..., Any]) -> None:
    if in_loop() and _is_async(method):
        raise would_block(program, "astream(…)")


def _is_async(method: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)


def streamed(
    program: ready, inputs: tuple[Any, ...], named: Mapping[str, Any], timeout: float | None
) -> Iterator[Any]:
    """The pieces of a run on *program*, which ends with them."""
    end = None if timeout is None else time.monotonic() + timeout
    with program as bound, OneLoop() as awaited:
        made, run = pieces(bound, inputs, named, awaited), telemetry.Steps(bound)
        try:
            while True:
                # One step at a time: whoever takes the pieces has time of their own.
                with deadlines.within(_left(end)), run.step():
                    piece = next(made, END)
                if piece is END:
                    return
                if _left(end) == 0.0:
                    raise _too_late(bound, timeout)
                yield piece
        finally:
            made.close()
            run.end()


async def astreamed(
    program: ready, inputs: tuple[Any, ...], named: Mapping[str, Any], timeout: float | None
) -> AsyncIterator[Any]:
    """`streamed`, awaited."""
    import asyncio

    end = None if timeout is None else time.monotonic() + timeout
    with program as bound:
        made, run = _apieces(bound, inputs, named), telemetry.Steps(bound)
        try:
            while True:
                left = _left(end)
                limit = asyncio.timeout(left)
                try:
                    async with limit:
                        with deadlines.within(left), run.step():
                            piece = await anext(made, END)
                except TimeoutError:
                    if limit.expired():
                        raise _too_late(bound, timeout) from None
                    raise
                if piece is END:
                    return
                yield piece
        finally:
            await made.aclose()
            run.end()


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


def _too_late(program: Program, timeout: float | None) -> errors.DeadlineExceeded:
    name = type(program).__name__
    return errors.DeadlineExceeded(
        f"{name} on session '{program.session.id}' took longer than {timeout:g} s.",
        program=name,
        session=program.session.id,
        seconds=timeout,
    )
