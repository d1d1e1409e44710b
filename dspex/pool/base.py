"""
The contract of all pools.

A pool runs programs in other processes, on this machine or on many. What a caller can rely on, whatever the
engine:

**Calls.** A program and its inputs travel as a name and as canonical values (`dspex.pool.values`); a worker
runs programs that it imported itself, one call at a time. What the program raises comes back as itself.

**State.** A run sees every `set` that its caller had made before it, and every one that is made while it
runs, as in one process; what it sets itself is the session's when the call returns.

**Once.** A call that was begun is not begun again, unless it is `idempotent`; when its worker is lost it
fails with `WorkerLost`. A call that waits loses nothing when a worker is lost.

**Time.** A deadline is one budget for queue, run and language model. After it the caller hears at once, and
the program is ended. What is too late is not begun.

**Room.** The queue is bounded; who finds it full gets `PoolSaturated` at once.

**Place.** With affinity `strict` the calls of a session run in one worker, one after another, in which its
program stays bound; that is a cache: another worker gets everything from the session.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import attrs

from dspex import deadlines, errors, telemetry
from dspex.pool import programs
from dspex.pool.calls import AsyncStream, Call, Outcome, Stream
from dspex.pool.channel import FRAME
from dspex.pool.mapping import Progress, outcomes, split
from dspex.pool.members import Slot, State, Stats
from dspex.pool.scheduling import Scheduler
from dspex.pool.settings import Settings, check_count
from dspex.pool.values import PLAIN, Values, values_of
from dspex.session import Session

__all__ = ["BasePool"]

Inputs = Any
"""A mapping: inputs by name. A tuple: by position. Anything else: the only one."""


class BasePool(Scheduler):
    """What every pool can do. See the module for what it promises."""

    def __init__(self, serves: Any, **settings: Any) -> None:
        names = programs.named(serves)
        try:
            made = Settings(**settings)
        except TypeError:
            known = [field.name for field in attrs.fields(Settings)]
            wrong = next(name for name in settings if name not in known)
            raise errors.InvalidDeclaration(
                f"a pool has no setting '{wrong}'.{errors.did_you_mean(wrong, known)}", name=wrong
            ) from None
        super().__init__(made)
        self.programs = names
        """What it runs, by name."""
        self._names: dict[Any, tuple[str, Values]] = {}
        self._owner = os.getpid()
        telemetry.pools.add(self)

    # ---- calls -------------------------------------------------------------------------------------

    def submit(
        self,
        program: Any,
        inputs: Inputs = (),
        *,
        session: Session | None = None,
        deadline: float | None = None,
        idempotent: bool = False,
        pin: bool = False,
    ) -> Call:
        """
        Have a worker run *program*; returns at once.

        Args:
            program: One of `programs`, the class or its name.
            inputs: By name in a mapping, by position in a tuple, else the only one.
            session: Where the values are. Without one a private session with the initial values.
            deadline: Seconds from now; less if less is left of the caller's own.
            idempotent: Whether it may be run again when its worker is lost.
            pin: Let all reads come from the revision at the start.

        Raises:
            UnknownProgram: The pool does not serve it. InvalidValue: The inputs cannot travel. PoolSaturated:
            The queue is full. PoolClosed, SessionClosed.
        """
        args, named = split(inputs)
        return self.begin(
            program, args, named, session=session, deadline=deadline, idempotent=idempotent, pin=pin
        )

    def begin(
        self,
        program: Any,
        args: tuple[Any, ...],
        named: Mapping[str, Any],
        *,
        session: Session | None = None,
        deadline: float | None = None,
        idempotent: bool = False,
        pin: bool = False,
        window: int = 0,
        attended: bool = False,
        prepare: Callable[[Call], Any] | None = None,
    ) -> Call:
        """
        `submit` with the inputs apart.

        Args:
            window: Pieces of a stream that may be on their way; 0 for a call that is none.
            attended: Whether this thread will ask for the result next.
            prepare: Gets the call before anything can come of it.
        """
        name, values = self._named(program)
        packed = values.pack_inputs(args, named)
        return self.begin_packed(
            name,
            packed,
            values,
            session=session,
            deadline=deadline,
            idempotent=idempotent,
            pin=pin,
            window=window,
            attended=attended,
            prepare=prepare,
        )

    def begin_packed(
        self,
        name: str,
        packed: bytes,
        values: Values,
        *,
        session: Session | None = None,
        deadline: float | None = None,
        idempotent: bool = False,
        pin: bool = False,
        window: int = 0,
        attended: bool = False,
        prepare: Callable[[Call], Any] | None = None,
    ) -> Call:
        """`begin` with inputs that are bytes already; *values* makes of the output what the caller gets."""
        self._check_accepting()
        if len(packed) > FRAME - 4096:
            raise errors.LimitExceeded(
                f"the inputs of {name} take {len(packed)} bytes; the limit is {FRAME - 4096}. Store "
                "them, and send where they are.",
                limit=FRAME - 4096,
            )
        if deadline is not None:
            deadlines.check_seconds(deadline, "deadline")
        seconds = self.settings.timeout if deadline is None else deadline
        left = deadlines.remaining()
        if left is not None and left < seconds:
            seconds = left
        call = Call(
            self,
            name,
            values,
            packed,
            session,
            reference=None if session is None else self._lender.reference(session),
            deadline=time.monotonic() + seconds,
            seconds=seconds,
            pin=pin,
            idempotent=idempotent,
            window=window,
        )
        call.attended = attended
        if prepare is not None:
            prepare(call)
        try:
            self._enter(call)
        except errors.DspexError as error:
            call.refused(error)
            raise
        return call

    async def asubmit(
        self,
        program: Any,
        inputs: Inputs = (),
        *,
        session: Session | None = None,
        deadline: float | None = None,
        idempotent: bool = False,
        pin: bool = False,
    ) -> Any:
        """`submit`, awaited: what the program returns. Cancelling the task cancels the program."""
        args, named = split(inputs)
        return await self.abegin(
            program, args, named, session=session, deadline=deadline, idempotent=idempotent, pin=pin
        )

    def complete(self, program: Any, args: tuple[Any, ...], named: Mapping[str, Any], **settings: Any) -> Any:
        """`begin`, and what it returns."""
        call = self.begin(program, args, named, attended=True, **settings)
        try:
            return call.result()
        finally:
            call.cancel()  # where something else than the call has ended the waiting

    async def abegin(
        self, program: Any, args: tuple[Any, ...], named: Mapping[str, Any], **settings: Any
    ) -> Any:
        """`begin`, awaited."""
        return await asyncio.wrap_future(self.begin(program, args, named, **settings))

    def begin_stream(
        self, program: Any, args: tuple[Any, ...], named: Mapping[str, Any], **settings: Any
    ) -> Stream:
        """`stream` with the inputs apart."""
        made: list[Stream] = []
        settings |= {"window": self.settings.pieces, "prepare": lambda call: made.append(Stream(call))}
        self.begin(program, args, named, **settings)
        return made[0]

    def begin_astream(
        self, program: Any, args: tuple[Any, ...], named: Mapping[str, Any], **settings: Any
    ) -> AsyncStream:
        """`astream` with the inputs apart."""
        made: list[AsyncStream] = []
        settings |= {"window": self.settings.pieces, "prepare": lambda call: made.append(AsyncStream(call))}
        self.begin(program, args, named, **settings)
        return made[0]

    def stream(
        self,
        program: Any,
        inputs: Inputs = (),
        *,
        session: Session | None = None,
        deadline: float | None = None,
        pin: bool = False,
    ) -> Stream:
        """The pieces that *program* yields, as they come; see `Stream`."""
        args, named = split(inputs)
        return self.begin_stream(program, args, named, session=session, deadline=deadline, pin=pin)

    def astream(
        self,
        program: Any,
        inputs: Inputs = (),
        *,
        session: Session | None = None,
        deadline: float | None = None,
        pin: bool = False,
    ) -> AsyncStream:
        """`stream`, for `async for`."""
        args, named = split(inputs)
        return self.begin_astream(program, args, named, session=session, deadline=deadline, pin=pin)

    def map(
        self,
        program: Any,
        items: Iterable[Inputs],
        *,
        session: Session | None = None,
        deadline: float | None = None,
        idempotent: bool = False,
        pin: bool = False,
        in_flight: int | None = None,
        progress: bool | Progress = False,
    ) -> Iterator[Outcome]:
        """
        Run *program* for each of *items*, and give what became of each, in their order.

        An item that fails does not end the others: its `Outcome` has the error. *items* may be endless; no
        more than *in_flight* are with the pool, by default twice as many as it has workers.

        Args:
            deadline: Seconds for each item, from when it is given to the pool.
            progress: A bar in the terminal (extra `cli`), or a function of how many are done, of how many.
        """
        if deadline is not None:
            deadlines.check_seconds(deadline, "deadline")
        if in_flight is not None:
            check_count(in_flight, "in_flight", 1)
        return outcomes(
            self,
            program,
            items,
            in_flight or 2 * len(self._slots),
            progress,
            session=session,
            deadline=deadline,
            idempotent=idempotent,
            pin=pin,
        )

    def lend(self, session: Session) -> None:
        """Make *session* reachable for workers now, so that its first call need not wait for that."""
        self._lender.reference(session)

    # ---- the life of a pool ------------------------------------------------------------------------

    def wait_ready(self, timeout: float | None = None) -> None:
        """
        Return when every worker is ready.

        Raises:
            WorkerLost: One cannot start; its cause is what it raised. DeadlineExceeded: They take too long.
        """
        if timeout is not None:
            deadlines.check_seconds(timeout, "timeout")
        limit = self.settings.start * 2 if timeout is None else timeout
        with self._lock:
            end = time.monotonic() + limit
            while not all(slot.member is not None for slot in self._slots.values()):
                for slot in (*self._slots.values(), *self._spares):
                    if slot.failure is not None and slot.member is None:
                        raise slot.refusal
                if self._closing:
                    raise errors.PoolClosed("this pool was closed before its workers were ready.")
                if not self._changed.wait(max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    raise errors.DeadlineExceeded(
                        f"the workers of this pool were not ready within {limit:g} s.", seconds=limit
                    )

    def resize(self, workers: int) -> None:
        """Have so many workers. Few sessions move: those of workers that go, or 1/n to one that comes."""
        check_count(workers, "workers", 1)
        with self._lock:
            if self._closing:
                raise errors.PoolClosed("this pool is closed, and has no workers any more: make another.")
            self._homes.clear()
            former = [self._slots.pop(index) for index in range(workers, len(self._slots))]
            self._former += former
            for slot in former:
                if slot.member is not None:
                    self._part_locked(slot.member)
                if slot.coming is not None:
                    slot.coming.kill(now=True)
            for index in range(len(self._slots), workers):
                self._slots[index] = Slot(index, born=self.tally.started)
                self._start_locked(self._slots[index])
            refused = [call for slot in former for call in self._give_up_locked(slot)]
        self._flush()
        self._refuse(refused, self._slots[0])

    def drain(self, grace: float | None = None) -> bool:
        """
        Take no more calls, let all that wait and run end within *grace* seconds, and close.

        Returns:
            Whether all of them did; the others have failed with `PoolClosed`.
        """
        if grace is not None:
            deadlines.check_seconds(grace, "grace")
        end = None if grace is None else time.monotonic() + grace
        with self._lock:
            self._accepting = False
            while not self._closing and (self._queued or any(member.call for member in self._members())):
                left = None if end is None else end - time.monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            drained = not (self._queued or any(member.call for member in self._members()))
        self.close()
        return drained

    def close(self) -> None:
        """End all workers now. Calls that wait or run fail with `PoolClosed`."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._accepting = False
            first, self._closing = not self._closing, True
            queues = [slot.waiting for slot in self._slots.values()]
            calls = [call for queue in (*queues, self._anywhere) for call in queue if self._dequeue(call)]
            for queue in (*queues, self._anywhere):
                queue.clear()
            members = self._members() if first else []
            for member in members:
                if member.call is not None:
                    calls.append(member.call)
                    member.call = None
                if member.state in (State.READY, State.LEAVING):
                    member.state = State.LEAVING
                    member.leave()
                self._at(time.monotonic() + self.settings.grace, partial(self._kill_late, member))
            self._changed.notify_all()
        for call in calls:
            call.end(error=errors.PoolClosed(f"the pool was closed before {call.program} had ended."))
            if call.member is not None:
                call.member.kill(now=False)
        for member in members:
            if member.state is State.STARTING:
                member.kill(now=True)
        self._poke()
        self._ended.wait()

    def stats(self) -> Stats:
        """How the pool is."""
        with self._lock:
            slots = list(self._slots.values())
            return Stats.of(slots, self._spares, self._members(), self._queued, self.tally)

    def __enter__(self) -> Self:
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.drain()
        else:
            self.close()

    def __repr__(self) -> str:
        stats = self.stats()
        return f"<{type(self).__name__} {stats.ready} workers, {stats.busy} busy, {stats.queued} calls wait>"

    # ---- helpers -----------------------------------------------------------------------------------

    def serves(self, name: str) -> str:
        """*name*, if it is that of a program that this pool runs; else raise `UnknownProgram`."""
        if name not in self.programs:
            known, near = errors.listed(self.programs), errors.did_you_mean(name, list(self.programs))
            raise errors.UnknownProgram(
                f"this pool does not serve {errors.shown(name, 200)}; it serves {known}.{near}", program=name
            )
        return name

    def _named(self, program: Any) -> tuple[str, Values]:
        if (known := self._names.get(program)) is None:
            name = self.serves(programs.name_of(program))
            values = PLAIN if isinstance(program, str) else values_of(program)
            known = self._names[program] = name, values
        return known
