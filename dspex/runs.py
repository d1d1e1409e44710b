"""Calling `forward`: sync and async, with a time limit, and with a record of what was in effect."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import attrs

from dspex import deadlines, errors, telemetry
from dspex.crossing import in_loop, in_thread, result_of
from dspex.pieces import AsyncPieces, Pieces, taking
from dspex.records import Revision
from dspex.session import Session

if TYPE_CHECKING:
    from dspex.program import Program

__all__ = [
    "Run",
    "arecorded",
    "arun",
    "asked",
    "checked",
    "elsewhere",
    "methods",
    "no_values",
    "note",
    "ready",
    "recorded",
    "run",
    "would_block",
]

R = TypeVar("R")


@attrs.frozen
class Run:
    """What `Program.record` returns."""

    program: str
    session: str
    output: Any
    """What `forward` returned, in the end if it yields."""
    first: Revision
    """The revision of the session when the run started."""
    last: Revision
    """The revision when it ended; the reads of a live run lie between the two."""
    pinned: bool
    """Whether all reads came from `first`."""
    values: Mapping[str, Any]
    """The program's variables as they were at `first`."""
    seconds: float

    @property
    def mixed(self) -> bool:
        """Whether the run may have read more than one revision."""
        return not self.pinned and self.first != self.last


class ready:  # noqa: N801  reads as what it gives
    """
    The program that a run uses: of this session, pinned or live; a private session ends with the run.

    It is bound, if it is not yet, where the block begins, or by `begun` or `abegun`.
    """

    def __init__(
        self,
        target: Any,
        session: Session | None,
        pin: bool,
        inputs: tuple[Any, ...],
        timeout: float | None = None,
    ) -> None:
        _check_call(target, session, inputs, timeout)
        self._target = target
        self._session = session if isinstance(target, type) else target.session
        self._pin = pin
        self._private: Session | None = None
        self._program: Any = None

    def begun(self) -> Self:
        """Have the program ready from now on, and at the revision of now if it is pinned."""
        if self._session is None:
            self._session = self._private = Session()
        self._program = self._made(self._session)
        return self

    async def abegun(self) -> Self:
        """`begun`, awaited; without a thread where the program is there already."""
        session, target = self._session, self._target
        if session is None:
            return self.begun()
        if not self._pin:
            self._program = session.attached(target) if isinstance(target, type) else target
        if self._program is None:
            self._program = await session._call(self._made, session)
        return self

    def _made(self, session: Session) -> Any:
        target = program = self._target
        if isinstance(target, type):
            cls: Any = target
            program = session.attachment(cls, lambda: cls.bind(session))
        return program.pinned() if self._pin else program

    def __enter__(self) -> Any:
        if self._program is None:
            self.begun()
        return self._program

    def __exit__(self, *_: object) -> None:
        if self._private is not None:
            self._private.close()


def elsewhere(
    target: Any, session: Session | None, inputs: tuple[Any, ...], timeout: float | None
) -> tuple[Any, Session | None]:
    """The class and the session with which a pool runs *target*."""
    _check_call(target, session, inputs, timeout)
    if isinstance(target, type):
        return target, session
    if target._pin is not None or target._plan.prefix:
        raise errors.InvalidDeclaration(
            f"{target!r} is here only: a pool runs programs of sessions, by class."
        )
    return type(target).__mro__[1], target.session


def _check_call(target: Any, session: Session | None, inputs: tuple[Any, ...], timeout: float | None) -> None:
    if timeout is not None:
        deadlines.check_seconds(timeout, "timeout")
    name = (target if isinstance(target, type) else type(target)).__name__
    if session is not None:
        checked(session)
        if not isinstance(target, type) and session is not target.session:
            raise errors.VariableConflict(
                f"{target!r} cannot run on session '{session.id}'; call {name}.run.", session=session.id
            )
    elif any(isinstance(one, Session) for one in inputs):
        raise errors.InvalidCall(
            f"{name} got a session among its inputs. Give it by name: session=….", program=name
        )


def checked(session: Any) -> Session:
    """*session* if it is one; else raise `InvalidValue`."""
    if not isinstance(session, Session):
        raise errors.InvalidValue.expecting("a Session", errors.shown(session, 80)).at("session") from None
    return session


def no_values(cls: type, inputs: tuple[Any, ...], values: Mapping[str, Any]) -> errors.InvalidCall:
    """What to say to somebody who gives values where a program is bound."""
    given = ", ".join([*(errors.shown(one, 40) for one in inputs), *(f"{name}=…" for name in values)])
    return errors.InvalidCall(
        f"{cls.__name__}(session) binds a program and takes no values (got {given}). Set them in the session "
        "or on the bound program; inputs go to run(…).",
        program=cls.__name__,
    )


def run(
    program: Program,
    inputs: tuple[Any, ...],
    named: Mapping[str, Any],
    timeout: float | None,
    awaited: Callable[[Awaitable[Any]], Any] = result_of,
) -> Any:
    """What `forward` returns; `aforward` is *awaited* where there is only that."""
    with telemetry.running(program):
        return _run(program, inputs, named, timeout, awaited)


def _run(
    program: Program,
    inputs: tuple[Any, ...],
    named: Mapping[str, Any],
    timeout: float | None,
    awaited: Callable[[Awaitable[Any]], Any],
) -> Any:
    try:
        forward = _forward(program, awaited)
        if timeout is None:
            return _output(forward, *inputs, **named)
        with deadlines.within(timeout):
            return _within(timeout, program, partial(_output, forward, *inputs, **named))
    except Exception as error:
        note(error, program)
        raise


async def arun(
    program: Program, inputs: tuple[Any, ...], named: Mapping[str, Any], timeout: float | None
) -> Any:
    """What `aforward` returns; `forward` runs in a thread where there is only that."""
    if telemetry.active is None:
        return await _arun(program, inputs, named, timeout)
    with await asked(program, telemetry.running):
        return await _arun(program, inputs, named, timeout)


async def asked(program: Program, look: Callable[[Program], R]) -> R:
    """What *look* returns of *program*; in a thread, if it looks at a snapshot that a store has to give."""
    return look(program) if program._pin is not None else await program.session._call(look, program)


async def _arun(
    program: Program, inputs: tuple[Any, ...], named: Mapping[str, Any], timeout: float | None
) -> Any:
    try:
        if timeout is None:
            return await _acall(program, inputs, named)
        import asyncio

        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                with deadlines.within(timeout):
                    return await _acall(program, inputs, named)
        except TimeoutError:
            if limit.expired():
                cancelled = methods(program)[1] is not None
                raise _too_late(program, timeout, cancelled=cancelled) from None
            raise
    except Exception as error:
        note(error, program)
        raise


def recorded(
    program: Program, inputs: tuple[Any, ...], named: Mapping[str, Any], timeout: float | None
) -> Run:
    """`run`, with the record."""
    first, values = _begin(program)
    started = time.perf_counter()
    return _end(program, first, values, started, run(program, inputs, named, timeout))


async def arecorded(
    program: Program, inputs: tuple[Any, ...], named: Mapping[str, Any], timeout: float | None
) -> Run:
    """`arun`, with the record."""
    first, values = await asked(program, _begin)
    started = time.perf_counter()
    return _end(program, first, values, started, await arun(program, inputs, named, timeout))


def _begin(program: Program) -> tuple[Revision, Mapping[str, Any]]:
    snapshot = program._pin or program.session.snapshot()
    prefix = program._plan.prefix
    values = {name: snapshot[prefix + name] for name in type(program).variables}
    return snapshot.revision, values


def _end(program: Program, first: Revision, values: Mapping[str, Any], started: float, output: Any) -> Run:
    pinned = program._pin is not None
    return Run(
        program=type(program).__name__,
        session=program.session.id,
        output=output,
        first=first,
        last=first if pinned else program.session.revision,
        pinned=pinned,
        values=values,
        seconds=time.perf_counter() - started,
    )


def _forward(program: Program, awaited: Callable[[Awaitable[Any]], Any]) -> Callable[..., Any]:
    """`forward`, or a function that waits for `aforward` where there is only that."""
    forward, aforward = methods(program)
    if forward is not None:
        return forward
    assert aforward is not None
    if in_loop():
        raise would_block(program, "arun(…), or acall(…) on a bound program")
    return lambda *inputs, **named: awaited(_aoutput(aforward, *inputs, **named))


def would_block(program: Program, instead: str) -> errors.WouldBlock:
    """What to say to somebody who would stop a loop; *instead* is how to await the same."""
    name = type(program).__name__
    return errors.WouldBlock(
        f"{name} has only aforward, and to wait for it here would stop the event loop of this thread. "
        f"Await it: await {name}.{instead}.",
        program=name,
    )


async def _acall(program: Program, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    forward, aforward = methods(program)
    if forward is None or (aforward is not None and not inspect.isasyncgenfunction(aforward)):
        assert aforward is not None
        return await _aoutput(aforward, *inputs, **named)
    import asyncio

    return await asyncio.to_thread(_output, forward, *inputs, **named)


_streams = frozenset({AsyncGeneratorType, GeneratorType, Pieces})


def _output(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """What *forward* returns; of one that yields, in the end."""
    made = forward(*inputs, **named)
    if type(made) not in _streams:  # which is quicker than to ask abstract classes
        return made
    if isinstance(made, AsyncGenerator):
        raise _only_pieces()
    with taking(False):
        while True:
            try:
                next(made)
            except StopIteration as end:
                if end.value is None:
                    raise _only_pieces() from None
                return end.value


async def _aoutput(aforward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """`_output`, awaited."""
    made = aforward(*inputs, **named)
    made = await made if inspect.isawaitable(made) else made
    if isinstance(made, AsyncGenerator):
        raise _only_pieces()
    if not isinstance(made, AsyncPieces):
        return made
    with taking(False):
        async for _ in made:
            pass
    return made.output


def _only_pieces() -> errors.InvalidValue:
    return errors.InvalidValue.expecting("a value; stream() takes generators", "pieces only").at(
        "what it returned"
    )


def methods(
    program: Program,
) -> tuple[Callable[..., Any] | None, Callable[..., Awaitable[Any]] | None]:
    """`forward` if it is a plain function, and `aforward`, or the `forward` that is a coroutine."""
    forward = getattr(program, "forward", None)
    aforward = getattr(program, "aforward", None)
    if inspect.iscoroutinefunction(forward):
        forward, aforward = None, aforward or forward
    if forward is None and aforward is None:
        raise errors.InvalidDeclaration(
            f"{type(program).__name__} cannot run: define forward(self, …) or async aforward(self, …)."
        )
    return forward, aforward


def _within(timeout: float, program: Program, call: Callable[[], Any]) -> Any:
    future = in_thread(call)
    try:
        return future.result(timeout)
    except TimeoutError:
        if future.done():  # just now, or with a TimeoutError of its own
            return future.result()
        raise _too_late(program, timeout) from None


def _too_late(program: Program, timeout: float, *, cancelled: bool = False) -> errors.DeadlineExceeded:
    name = type(program).__name__
    rest = (
        "It was cancelled."
        if cancelled
        else "A thread cannot be ended from outside: what it was doing goes on in the background."
    )
    return errors.DeadlineExceeded(
        f"{name} on session '{program.session.id}' took longer than {timeout} s. {rest}",
        program=name,
        session=program.session.id,
        seconds=timeout,
    )


def note(error: Exception, program: Program) -> None:
    """Say with *error* where it happened."""
    revision = program._pin.revision if program._pin is not None else program.session.revision
    name = type(program).__name__
    error.add_note(f"in {name} on session '{program.session.id}' at revision {revision}")
    if isinstance(error, AttributeError) and error.obj is program:
        # CPython 3.11 asks this itself, but only where it prints what nobody caught: in no log.
        near = errors.did_you_mean(error.name, type(program).declared)
        if near:
            error.add_note(f"{name} has no variable '{error.name}'.{near}")
