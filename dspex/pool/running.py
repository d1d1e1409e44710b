"""
What a worker does with a call, in a process of its own or in an actor of Ray: one call at a time.

A program stays bound to each session that it ran in, and the server of the session keeps it up to date.
Before a run the worker looks whether it has all that the caller had: most often it has, and asks nobody.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

import attrs

from dspex import deadlines, errors, runs, telemetry
from dspex.changes import Change
from dspex.crossing import OneLoop
from dspex.modules.base import BoundModule
from dspex.pieces import Pieces
from dspex.pool.bridging import RemoteTools
from dspex.pool.values import Values, values_of
from dspex.program import Program
from dspex.session import Session
from dspex.stores import Store
from dspex.streaming import pieces

__all__ = ["Bridge", "Cancelled", "Order", "Running", "resident", "warm_up"]

SESSIONS = 256
"""Sessions that a worker keeps open; of more, those that were used last."""


PUSH = 0.02
"""Seconds to wait for a commit that is on its way, before the server is asked."""


class Cancelled(BaseException):
    """Raised inside a program whose caller does not want the result any more."""


@attrs.frozen
class Order:
    """A call, as it came."""

    number: int
    program: str
    inputs: bytes
    session: tuple[Any, ...] | None = None
    """Address of the store, id, epoch and revision of the caller's, and the commit that made that."""
    deadline: float | None = None
    """On the monotonic clock."""
    pin: bool = False
    window: int = 0
    """How many pieces may be on their way; 0 for a call that is not streamed."""
    carrier: Mapping[str, str] | None = None
    """The context of the caller's span, if it tells of one."""


class Bridge(Protocol):
    """Where the answers of a call go, and its questions."""

    def chunk(self, number: int, data: bytes) -> None:
        """Give a piece of the stream; waits while as many as the window are on their way."""

    def ask(self, number: int, what: str, *details: Any) -> Any:
        """What the process that made the call answers."""


class Running:
    """The programs of a worker, and the sessions in which they are bound."""

    def __init__(self, programs: Mapping[str, type[Program]], bridge: Bridge) -> None:
        self._programs = programs
        self._bridge = bridge
        self._stores: dict[Any, Store] = {}
        self._sessions: OrderedDict[tuple[Any, ...], Session] = OrderedDict()
        self._tools = RemoteTools(bridge)
        self._loop = OneLoop()
        self._lock = threading.Lock()
        self._current: int | None = None
        self._unwanted: set[int] = set()
        """Numbers of calls to end: of the one that runs or comes next, or of one that ended before."""
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    # ---- one call ----------------------------------------------------------------------------------

    def run(self, order: Order) -> tuple[bytes, int | None]:
        """
        Do what *order* says: the encoded result, and the revision of the session afterwards.

        Raises:
            What the program raises; `Cancelled`; `DeadlineExceeded` if it was too late to begin.
        """
        program = self._programs.get(order.program)
        if program is None:
            raise _unknown(order.program, self._programs)
        values = values_of(program)
        args, named = values.unpack(order.inputs)
        session = None if order.session is None else self._found(order.session)
        # Last, since to find a session may take a while.
        left = None if order.deadline is None else order.deadline - time.monotonic()
        if left is not None and left <= 0:
            raise errors.DeadlineExceeded(
                f"{program.__name__} was not started: its time was over.",
                program=order.program,
                started=False,
            )
        try:
            try:
                self._tools.number = order.number
                with self._lock:
                    self._current = order.number
                if order.number in self._unwanted:
                    raise Cancelled
                with deadlines.within(left), runs.ready(program, session, order.pin, ()) as ready:
                    if session is None:
                        self._tools.offer(ready.session)
                    with _continued(order.carrier):
                        data = self._forward(ready, args, named, values, order)
            finally:
                self._current = None
        except Cancelled:  # which may have come in between the two lines above
            self._current = None
            raise
        finally:
            with self._lock:
                self._unwanted.clear()  # the next one comes, and is cancelled, after the end of this one
        return data, None if session is None else session.ledger.rev

    def _forward(
        self, program: Program, args: list[Any], named: dict[str, Any], values: Values, order: Order
    ) -> bytes:
        where = f"what {type(program).__name__} returned"
        if not order.window:
            return values.pack(runs.run(program, tuple(args), named, None, self._awaited), where)
        made = Pieces(pieces(program, tuple(args), named, self._awaited, waits=True))
        try:
            with telemetry.running(program):
                for piece in made:
                    packed = values.pack(piece, f"what {type(program).__name__} yielded")
                    self._bridge.chunk(order.number, packed)
        finally:
            made.close()
        return values.pack(made.output, where)

    def _awaited(self, awaitable: Any) -> Any:
        """
        What *awaitable* gives, in the one loop of this worker, so that its connections outlive the call.
        """

        async def task() -> Any:
            current = asyncio.current_task()
            assert current is not None
            self._task = asyncio.get_running_loop(), current
            return await awaitable

        try:
            return self._loop(task())
        except asyncio.CancelledError:
            if not self.interrupted:  # of the program's own
                raise
            raise Cancelled from None
        finally:
            self._task = None

    # ---- cancelling; from another thread -----------------------------------------------------------

    def cancel(self, number: int, interrupt: Callable[[], None]) -> None:
        """
        Let the call *number* end soon; *interrupt* raises what `interrupted` gives in the thread that runs.
        """
        with self._lock:
            self._unwanted.add(number)
            if self._current != number:
                return
            task = self._task
        if task is not None:
            with suppress(RuntimeError):
                task[0].call_soon_threadsafe(task[1].cancel)
        else:
            interrupt()

    @property
    def interrupted(self) -> bool:
        """Whether the call that runs is one that nobody wants any more."""
        return self._current is not None and self._current in self._unwanted

    # ---- sessions ----------------------------------------------------------------------------------

    def _found(self, wanted: tuple[Any, ...]) -> Session:
        try:
            return self._session(wanted)
        except errors.SessionMoved as moved:  # who called knows where it is by now
            raise errors.SessionMoved(moved.message, **moved.facts, begun=False) from None

    def _session(self, wanted: tuple[Any, ...]) -> Session:
        address, session_id, epoch, rev, news = wanted
        key = (*address, session_id)
        session = self._sessions.get(key)
        if session is not None:
            self._sessions.move_to_end(key)
            try:
                return _caught_up(session, epoch, rev, news)
            except (errors.SessionClosed, errors.UnknownSession):  # deleted, and perhaps made again
                del self._sessions[key]
                session.close()
        session = Session(session_id, store=self._store(address), source=f"worker-{os.getpid()}")
        self._tools.offer(session)
        self._sessions[key] = session
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)[1].close()
        return _caught_up(session, epoch, rev, news)

    def _store(self, address: tuple[Any, ...]) -> Store:
        store = self._stores.get(address)
        if store is None:
            from dspex.pool.lending import open_address

            store = self._stores[address] = open_address(address)
        return store

    def close(self) -> None:
        """Let go of all sessions."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        self._loop.close()


class _Arrivals:
    """Tells who waits that something has come from the server; a `Sink`."""

    queue = False

    def __init__(self) -> None:
        self._came = threading.Event()

    def apply(self, changes: Iterable[Change]) -> None:
        self._came.set()

    def lost(self, rev: int, names: Collection[str]) -> None:
        self._came.set()

    def drain(self) -> None:
        """Nothing is ever left to do."""

    def end(self) -> None:
        self._came.set()

    def wait(self, ledger: Any, epoch: str, rev: int) -> bool:
        """Whether *ledger* is at *rev* of *epoch* within the time that a push takes at most."""
        end = time.monotonic() + PUSH
        ledger.subscribe(self)
        while True:
            self._came.clear()
            if ledger.epoch == epoch and ledger.rev >= rev:
                return True
            if ledger.epoch != epoch or not self._came.wait(max(0.0, end - time.monotonic())):
                return False


def _caught_up(session: Session, epoch: str, rev: int, news: bytes | None) -> Session:
    """
    *session*, when it has all that had been committed when the caller was at *rev* of *epoch*.

    Most often that is one commit more, and it came along as *news*.
    """
    ledger: Any = session.ledger
    if (ledger.epoch != epoch or ledger.rev < rev) and not (news and ledger.foretold(epoch, news)):
        arrivals = session.attachment(_Arrivals, _Arrivals)
        if not arrivals.wait(ledger, epoch, rev):
            ledger.sync()
    return session


def _continued(carrier: Mapping[str, str] | None) -> AbstractContextManager[None]:
    if carrier is None or telemetry.active is None:
        return nullcontext()
    return telemetry.active.continued(carrier)


def _unknown(name: str, known: Mapping[str, Any]) -> errors.UnknownProgram:
    return errors.UnknownProgram(
        f"this worker does not serve {name}; it serves {errors.listed(known)}."
        f"{errors.did_you_mean(name, known)}",
        program=name,
    )


# ---- before the first call -------------------------------------------------------------------------------


def warm_up(program: type[Program]) -> None:
    """Run `init` once, and load the language model that the modules made there would use."""
    with Session() as session:
        if any(_asks_lm(module) for module in _modules(program.bind(session))):
            from dspex import lm

            with suppress(errors.NoLanguageModel):  # it may get one with each call
                lm.default()


def _modules(program: Program) -> Iterator[BoundModule]:
    if program._modules is not None:
        yield from program.modules.values()
    for value in vars(program).values():
        if isinstance(value, BoundModule):
            yield value
    for _, _, inner in program._plan.programs:
        for key, one in type(program).declared.items():
            if getattr(one, "program", None) is inner:
                yield from _modules(getattr(program, key))


def _asks_lm(module: BoundModule) -> bool:
    room = sys.modules.get("dspex.modules.predictors")
    return (
        room is not None and isinstance(module.module, room.DspyModule) and "lm" not in module.module.settings
    )


def _statm() -> Callable[[], int]:
    try:
        statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    page = os.sysconf("SC_PAGE_SIZE")
    return lambda: int(os.pread(statm, 64, 0).split()[1]) * page


_read: Callable[[], int] | None = None


def resident() -> int:
    """Bytes of memory that this process has."""
    global _read  # noqa: PLW0603 - opened with the first question
    if _read is None:
        _read = _statm()
    return _read()
