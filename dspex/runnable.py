"""What makes a program class run, and its instances: here, or in the workers of a pool."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from dspex import runs, streaming
from dspex.runs import Run
from dspex.session import Session

if TYPE_CHECKING:
    from dspex.pieces import AsyncPieces, Pieces
    from dspex.pool.base import BasePool
    from dspex.pool.calls import AsyncStream, Stream

__all__ = ["Runnable"]

P = ParamSpec("P")
R = TypeVar("R")


class _Either:
    """A method of the class and of its instances: `Agent.run(…)` and `agent.run(…)`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type) -> Any:
        return MethodType(self._function, owner if instance is None else instance)


if TYPE_CHECKING:

    def _either(function: Callable[Concatenate[Any, P], R]) -> classmethod[Any, P, R]: ...

else:
    _either = _Either


class Runnable:
    """A class with `forward` or `aforward`, or both."""

    __slots__ = ()

    @_either
    def run(
        target: Any,  # noqa: N805  the class, or an instance
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        pool: BasePool | None = None,
        **named: Any,
    ) -> Any:
        """
        Call `forward(*inputs, **named)` and return what it returns; of one that yields, in the end.

        Args:
            session: Where the values are. The same class and session share one bound program. Without a
                session a private one with the initial values is used.
            pin: Let all reads come from the revision at the start. By default reads are live.
            timeout: Seconds after which `DeadlineExceeded` is raised.
            pool: Let a worker of this pool do it, in another process that reads the same live variables.

        Raises:
            InvalidValue: Nobody can wait for *timeout* seconds; `forward` has not begun.
            InvalidValue: `forward` yields and has returned nothing.
            What `forward` raises, with a note that names program, session and revision.
        """
        if pool is not None:
            cls, where = runs.elsewhere(target, session, inputs, timeout)
            return pool.complete(cls, inputs, named, session=where, deadline=timeout, pin=pin)
        with runs.ready(target, session, pin, inputs, timeout) as program:
            return runs.run(program, inputs, named, timeout)

    @_either
    async def arun(
        target: Any,  # noqa: N805
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        pool: BasePool | None = None,
        **named: Any,
    ) -> Any:
        """`run`, awaited: calls `aforward`, or `forward` in a thread."""
        if pool is not None:
            cls, where = runs.elsewhere(target, session, inputs, timeout)
            return await pool.abegin(cls, inputs, named, session=where, deadline=timeout, pin=pin)
        with await runs.ready(target, session, pin, inputs, timeout).abegun() as program:
            return await runs.arun(program, inputs, named, timeout)

    @_either
    def stream(
        target: Any,  # noqa: N805
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        pool: BasePool | None = None,
        **named: Any,
    ) -> Pieces | Stream:
        """
        What `forward` yields, piece by piece, or all that it returns as the only piece.

        What it returned in the end is the `output` of the stream. Closing the stream ends it.
        """
        if pool is not None:
            cls, where = runs.elsewhere(target, session, inputs, timeout)
            return pool.begin_stream(cls, inputs, named, session=where, deadline=timeout, pin=pin)
        ready = runs.ready(target, session, pin, inputs, timeout).begun()
        return streaming.streamed(ready, inputs, named, timeout)

    @_either
    def astream(
        target: Any,  # noqa: N805
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        pool: BasePool | None = None,
        **named: Any,
    ) -> AsyncPieces | AsyncStream:
        """`stream`, for `async for`. The run begins with the first piece."""
        if pool is not None:
            cls, where = runs.elsewhere(target, session, inputs, timeout)
            return pool.begin_astream(cls, inputs, named, session=where, deadline=timeout, pin=pin)
        ready = runs.ready(target, session, pin, inputs, timeout)
        return streaming.astreamed(ready, inputs, named, timeout)

    @_either
    def record(
        target: Any,  # noqa: N805
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> Run:
        """`run`, and return a `Run`: output, revisions, the values in effect, seconds."""
        with runs.ready(target, session, pin, inputs, timeout) as program:
            return runs.recorded(program, inputs, named, timeout)

    @_either
    async def arecord(
        target: Any,  # noqa: N805
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> Run:
        """`record`, awaited."""
        with await runs.ready(target, session, pin, inputs, timeout).abegun() as program:
            return await runs.arecorded(program, inputs, named, timeout)

    def __call__(self: Any, *inputs: Any, **named: Any) -> Any:
        """The same as `run` on this program."""
        return runs.run(self, inputs, named, None)

    async def acall(self: Any, *inputs: Any, **named: Any) -> Any:
        """The same as `arun` on this program."""
        return await runs.arun(self, inputs, named, None)
