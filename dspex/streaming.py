"""Calling `forward` for its pieces: what it yields, as it comes, and what it returns in the end."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from dspex import deadlines, errors, telemetry
from dspex.crossing import OneLoop, in_loop, in_thread
from dspex.modules.base import BoundModule
from dspex.pieces import END, AsyncChannel, AsyncPieces, Channel, Output, Pieces, in_threads, taking
from dspex.plans import Subprogram
from dspex.runs import asked, methods, note, ready, would_block

if TYPE_CHECKING:
    from dspex.program import Program

__all__ = ["astreamed", "pieces", "streamed"]


def pieces(
    program: Program,
    inputs: tuple[Any, ...],
    named: Mapping[str, Any],
    awaited: Callable[[Awaitable[Any]], Any],
    *,
    waits: bool = False,
) -> Generator[Any, None, Any]:
    """
    What `forward` yields, and in the end what it returns, which is the only piece if it yields nothing.

    Of a `forward` that does not yield the text of the modules that speak comes before that. It runs in a
    thread then; with *waits* whoever leaves waits for it.

    All that has to be *awaited* should be so in one loop: an async generator belongs to one.
    """
    made: Any = None
    try:
        method = _method(program)
        _check_no_loop(program, method)
        if _yields(method) or not _speaks(program):
            made = method(*inputs, **named)
            if inspect.isawaitable(made):
                made = awaited(made)
        elif _is_async(method):
            output = Output()
            made = AsyncPieces(_aheard(method(*inputs, **named), output), output)
        else:
            made = _heard(partial(method, *inputs, **named), waits=waits)
        if isinstance(made, Generator):
            return (yield from made)
        if isinstance(made, AsyncGenerator | AsyncPieces):
            while (piece := awaited(_next(made))) is not END:
                yield piece
            return made.output if isinstance(made, AsyncPieces) else None
        yield made
        return made
    except Exception as error:
        note(error, program)
        raise
    finally:
        if isinstance(made, AsyncGenerator | AsyncPieces):
            awaited(made.aclose())


async def _apieces(
    program: Program, inputs: tuple[Any, ...], named: Mapping[str, Any], output: Output
) -> AsyncGenerator[Any, None]:
    """`pieces`, awaited; what is no coroutine runs in threads."""
    import asyncio

    made: Any = None
    try:
        method = _method(program)
        if not _yields(method) and _speaks(program):
            if _is_async(method):
                made = AsyncPieces(_aheard(method(*inputs, **named), output), output)
            else:
                made = _heard(partial(method, *inputs, **named), waits=False)
        elif _is_async(method):
            made = method(*inputs, **named)
            made = await made if inspect.isawaitable(made) else made
        else:
            made = await asyncio.to_thread(method, *inputs, **named)
        if isinstance(made, Generator):
            made = in_threads(made, output)
        if isinstance(made, AsyncGenerator | AsyncPieces):
            async for piece in made:
                yield piece
            if isinstance(made, AsyncPieces):
                output.give(made.output)
        else:
            yield made
            output.give(made)
    except Exception as error:
        note(error, program)
        raise
    finally:
        if isinstance(made, AsyncGenerator | AsyncPieces):
            await made.aclose()


def _heard(call: Callable[[], Any], *, waits: bool) -> Generator[Any, None, Any]:
    """What the modules say that *call* calls, and what it returns, unless that was just said."""
    channel = Channel()

    def made() -> Any:
        with taking(channel):
            return call()

    future = in_thread(made)
    future.add_done_callback(lambda _: channel.end())
    try:
        while (piece := channel.get()) is not END:
            yield piece
        result = future.result()
        if not channel.has_said(result):
            yield result
        return result
    finally:
        channel.leave()
        if waits:
            future.exception()


async def _aheard(call: Awaitable[Any], output: Output) -> AsyncGenerator[Any, None]:
    """`_heard`, awaited."""
    import asyncio

    channel = AsyncChannel()

    async def made() -> Any:
        with taking(channel):
            return await call

    task = asyncio.ensure_future(made())
    task.add_done_callback(lambda _: channel.end())
    try:
        while (piece := await channel.get()) is not END:
            yield piece
        result = task.result()
        if not channel.has_said(result):
            yield result
        output.give(result)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _speaks(program: Program) -> bool:
    """Whether a module of *program*, or of one inside, is one whose text a stream has."""
    if any(one.module.speaks() for one in program.modules.values()):
        return True
    if any(isinstance(one, BoundModule) and one.module.speaks() for one in vars(program).values()):
        return True
    inner = (getattr(program, key) for key, one in program.declared.items() if isinstance(one, Subprogram))
    return any(_speaks(one) for one in inner)


async def _next(made: AsyncIterator[Any]) -> Any:
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


def _yields(method: Callable[..., Any]) -> bool:
    return inspect.isgeneratorfunction(method) or inspect.isasyncgenfunction(method)


def _is_async(method: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)


def streamed(
    program: ready, inputs: tuple[Any, ...], named: Mapping[str, Any], timeout: float | None
) -> Pieces:
    """The pieces of a run on *program*, which ends with them."""
    return Pieces(_streamed(program, inputs, named, timeout))


def _streamed(
    program: ready, inputs: tuple[Any, ...], named: Mapping[str, Any], timeout: float | None
) -> Generator[Any, None, Any]:
    end = None if timeout is None else time.monotonic() + timeout
    with program as bound, OneLoop() as awaited:
        made, run = pieces(bound, inputs, named, awaited), _steps(bound)
        try:
            while True:
                # One step at a time: whoever takes the pieces has time of their own.
                with deadlines.within(_left(end)), taking(True), run.step():
                    try:
                        piece = next(made)
                    except StopIteration as ended:
                        return ended.value
                if _left(end) == 0.0:
                    raise _too_late(bound, timeout)
                yield piece
        finally:
            made.close()
            run.end()


def astreamed(
    program: ready, inputs: tuple[Any, ...], named: Mapping[str, Any], timeout: float | None
) -> AsyncPieces:
    """`streamed`, awaited."""
    output = Output()
    return AsyncPieces(_astreamed(program, inputs, named, timeout, output), output)


async def _astreamed(
    program: ready,
    inputs: tuple[Any, ...],
    named: Mapping[str, Any],
    timeout: float | None,
    output: Output,
) -> AsyncGenerator[Any, None]:
    import asyncio

    end = None if timeout is None else time.monotonic() + timeout
    with await program.abegun() as bound:
        made, run = _apieces(bound, inputs, named, output), await _asteps(bound)
        try:
            while True:
                left = _left(end)
                limit = asyncio.timeout(left)
                try:
                    async with limit:
                        with deadlines.within(left), taking(True), run.step():
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


def _steps(program: Program) -> telemetry.Steps:
    return telemetry.Steps(lambda active: active.run_in_steps(program))


async def _asteps(program: Program) -> telemetry.Steps:
    return _steps(program) if telemetry.active is None else await asked(program, _steps)


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
