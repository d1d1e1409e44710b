"""
Which worker runs what, and when: queues, affinity, deadlines. Knows no engine.

Calls are made and cancelled from any thread, under one lock that is never held while user code runs or
anything waits. What a worker is to do is noted under the lock and sent after it.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from abc import abstractmethod
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any, ClassVar

from dspex import errors
from dspex.pool.affinity import home
from dspex.pool.callbacks import Callbacks
from dspex.pool.calls import Call
from dspex.pool.channel import Say
from dspex.pool.failures import pack_failure, unpack_failure
from dspex.pool.lending import Lender
from dspex.pool.members import Member, Slot, State
from dspex.pool.settings import Settings
from dspex.pool.supervision import Supervisor

__all__ = ["Scheduler"]

_log = logging.getLogger("dspex.pool")
_now = time.monotonic

LONGEST = 60.0
"""Seconds that the thread waits at most, since the system does not know how to wait for years."""

LARGE = 64 * 1024
"""
Bytes of inputs that this thread does not send itself: a worker that has stopped would stop it too. Less than
what a socket takes from who does not wait.
"""

HOMES = 100_000
"""Sessions of which the slot is remembered."""


class Scheduler(Supervisor):
    """Calls and their ways to workers."""

    far: ClassVar[bool] = False
    """Whether workers may be on other machines."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._anywhere: deque[Call] = deque()
        self._queued = 0
        self._numbers = count(1)
        self._homes: dict[str, int] = {}
        self._expiring: list[tuple[float, int, Call]] = []
        """Calls that were queued, by their deadlines."""
        self._todo: list[tuple[Member, Call]] = []
        self._lender = Lender(far=self.far)
        self._accepting = True
        self._abandoned = False
        self._ended = threading.Event()
        self._tools: ThreadPoolExecutor | None = None
        self.callbacks = Callbacks()
        self._thread = threading.Thread(target=self._run, name="dspex-pool", daemon=True)

    # ---- what an engine does -----------------------------------------------------------------------

    @abstractmethod
    def _wait(self, seconds: float) -> None:
        """Wait until something has come from a worker, or `_poke` was called, and take it."""

    @abstractmethod
    def _release(self) -> None:
        """Let go of everything; the last thing that the thread does."""

    def _attend(self, call: Call, timeout: float | None) -> None:
        """The thread that calls waits for *call*: an engine may have it help."""

    def abandon(self) -> None:
        """In a child of fork: all is the parent's, also the threads, which may just have held the locks."""
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._accepting, self._closing, self._abandoned = False, True, True

    # ---- calls; from any thread --------------------------------------------------------------------

    def _enter(self, call: Call) -> None:
        """
        Run *call*, now or when there is room.

        Raises:
            PoolSaturated: The queue is full. PoolClosed: No calls are taken any more.
            WorkerLost: No worker can be started.
        """
        if call.seconds <= 0:
            self._expire(call)
            return
        with self._lock:
            self._check_accepting()
            call.number = next(self._numbers)
            slot = self._slot_of(call)
            member = self._idle(slot)
            if member is not None:
                self._assign_locked(member, call)
            else:
                self._check_room()
                call.attended = False
                self._enqueue(call, slot)
            wake = call.deadline < self._wakes
        if member is not None:
            member.send(call)
        if wake:
            self._poke()

    def _check_accepting(self) -> None:
        if self._abandoned:
            raise errors.PoolClosed(
                "this pool is of the process that made it, and this one is a fork of that: make another here."
            )
        if not self._accepting:
            raise errors.PoolClosed(
                "this pool is closed, or about to be, and takes no more calls: make another."
            )

    def _check_room(self) -> None:
        if self._queued >= self.settings.queue:
            self.tally.rejected += 1
            raise errors.PoolSaturated(
                f"all {len(self._slots)} workers are busy and {self._queued} calls wait, which is the limit. "
                "Try again later, or give the pool more workers or a longer queue.",
                queued=self._queued,
                limit=self.settings.queue,
            )
        if all(slot.quarantined for slot in self._slots.values()):
            raise self._slots[0].refusal

    def _slot_of(self, call: Call) -> Slot | None:
        """The slot that must run it, or should; None where any may."""
        if call.reference is None or self.settings.affinity == "none":
            return None
        key: str = call.reference[1]
        index = self._homes.get(key)
        if index is None:
            able = [slot.index for slot in self._slots.values() if not slot.quarantined]
            if not able:
                return None
            if len(self._homes) >= HOMES:
                self._homes.clear()
            index = self._homes[key] = home(key, able)
        return self._slots[index]

    def _idle(self, slot: Slot | None) -> Member | None:
        """A worker that can run a call of *slot* now, none waiting before it."""
        if slot is not None and (slot.idle is not None or self.settings.affinity == "strict"):
            return None if slot.waiting else slot.idle
        return next((one.idle for one in self._slots.values() if one.idle is not None), None)

    def _enqueue(self, call: Call, slot: Slot | None, *, first: bool = False) -> None:
        strict = slot is not None and self.settings.affinity == "strict"
        queue = slot.waiting if strict and slot is not None else self._anywhere
        if first:
            queue.appendleft(call)
        else:
            queue.append(call)
        call.queued = True
        self._queued += 1
        if len(queue) > 64 + 2 * self.settings.queue:  # some were cancelled, or too late
            live = [one for one in queue if one.queued]
            queue.clear()
            queue.extend(live)
        heapq.heappush(self._expiring, (call.deadline, call.number, call))
        if len(self._expiring) > 64 + 2 * self.settings.queue:
            self._expiring = [one for one in self._expiring if one[2].queued]
            heapq.heapify(self._expiring)

    def _dequeue(self, call: Call) -> bool:
        """Whether it waited until now."""
        if not call.queued:
            return False
        call.queued = False
        self._queued -= 1
        return True

    def _assign_locked(self, member: Member, call: Call) -> None:
        member.call = call
        call.member = member
        call.attempts += 1

    def _feed_locked(self, member: Member) -> None:
        if member.state is not State.READY or member.full or member.call is not None:
            return
        for queue in (member.slot.waiting, self._anywhere):
            while queue:
                call = queue.popleft()
                # One that is too late stays out: the clock tells its caller.
                if self._dequeue(call) and not call.done() and not self._too_late(call):
                    self._assign_locked(member, call)
                    self._todo.append((member, call))
                    return

    def _too_late(self, call: Call) -> bool:
        if call.deadline > _now():
            return False
        self._at(0.0, lambda: self._expire(call))
        return True

    def _flush(self) -> None:
        if self._todo:
            with self._lock:
                todo, self._todo = self._todo, []
            for member, call in todo:
                self._renew(call)
                if len(call.inputs) < LARGE:
                    member.send(call)
                else:
                    threading.Thread(target=member.send, args=(call,), daemon=True).start()

    def _renew(self, call: Call) -> None:
        """Look where its session is now: it may have moved while the call waited."""
        if call.session is not None:
            with suppress(errors.SessionClosed):  # the handle was; others may have the session
                call.reference = self._lender.reference(call.session)

    def unwanted(self, call: Call) -> None:
        """The caller of *call* does not want its result any more."""
        with self._lock:
            self.tally.cancelled += 1
            self._dequeue(call)
            member = call.member
            if member is None or member.call is not call:
                return
            self._at(_now() + self.settings.patience, lambda: self._patience_over(member, call))
        member.cancel(call)

    def more(self, call: Call, pieces: int) -> None:
        """Whoever reads the stream of *call* has taken so many *pieces*."""
        member = call.member
        if member is not None and not call.done():
            member.more(call, pieces)

    def _retry_locked(self, call: Call) -> bool:
        again = call.idempotent and call.attempts < self.settings.attempts
        if not again or call.done() or self._closing or call.window:
            return False
        self._enter_again_locked(call)
        return True

    def _enter_again_locked(self, call: Call) -> None:
        call.member = None
        slot = self._slot_of(call)
        member = self._idle(slot)
        if member is not None:
            self._assign_locked(member, call)
            self._todo.append((member, call))
        else:
            self._enqueue(call, slot, first=True)

    def _give_up_locked(self, slot: Slot) -> list[Call]:
        self._homes.clear()
        moving = [call for call in slot.waiting if self._dequeue(call)]
        slot.waiting.clear()
        if all(one.quarantined for one in self._slots.values()):
            return [*moving, *(call for call in self._anywhere if self._dequeue(call))]
        for call in moving:
            self._enqueue(call, self._slot_of(call))
        for one in self._slots.values():
            if one.idle is not None:
                self._feed_locked(one.idle)
        return []

    # ---- the thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        with self._lock:
            for slot in (*self._slots.values(), *self._spares):
                self._start_locked(slot)
        wakes = 0.0
        while not (self._closing and not self._members()):
            try:
                self._wait(min(max(0.0, wakes - _now()), LONGEST))
                wakes = self._tick()
            except Exception:
                _log.exception("the pool stumbled, and goes on")
        self._release()
        if self._tools is not None:
            self._tools.shutdown(wait=False, cancel_futures=True)
        self.callbacks.close()
        self._ended.set()
        with self._lock:
            self._changed.notify_all()

    def _tick(self) -> float:
        """Do what is due; when to come again."""
        now = _now()
        self._due(now)
        late: list[Call] = []
        overdue: list[tuple[Member, Call]] = []
        with self._lock:
            while self._expiring and self._expiring[0][0] <= now:
                call = heapq.heappop(self._expiring)[2]
                if self._dequeue(call):
                    late.append(call)
            for member in self._members():
                call_of = member.call
                if call_of is not None and not call_of.done() and call_of.deadline <= now:
                    overdue.append((member, call_of))
        for call in late:
            self._expire(call)
        for member, call in overdue:
            self._overdue(member, call)
        if now >= self._beat:
            self._beat = now + self.settings.heartbeat
            self._heartbeats()
        with self._lock:
            times = [self._beat, *(heap[0][0] for heap in (self._timers, self._expiring) if heap)]
            for member in self._members():
                call_of = member.call
                if call_of is not None and not call_of.done():
                    times.append(call_of.deadline)
            self._wakes = min(times)
            return self._wakes

    def _expire(self, call: Call) -> None:
        why = "no worker was free" if call.seconds > 0 else "no time was left"
        self.tally.expired += call.end(
            error=errors.DeadlineExceeded(
                f"{call.program} was not begun within {call.seconds:g} s: {why}.",
                program=call.program,
                seconds=call.seconds,
                started=False,
            )
        )

    def _overdue(self, member: Member, call: Call) -> None:
        error = errors.DeadlineExceeded(
            f"{call.program} took longer than {call.seconds:g} s; worker {member.name} was told to end it.",
            program=call.program,
            seconds=call.seconds,
            started=True,
        )
        if call.end(error=error):
            self.tally.expired += 1
            member.cancel(call)
            with self._lock:
                self._at(_now() + self.settings.patience, lambda: self._patience_over(member, call))

    def _patience_over(self, member: Member, call: Call) -> None:
        if member.call is call:
            self._condemn(member, f"it did not end {call.program} when it was told to")

    # ---- what comes from workers; in the thread, or in one that waits for a call -------------------

    def heard(self, member: Member, say: int, *items: Any) -> None:
        """Take what *member* has said of its call."""
        if say == Say.DONE:
            number, data, rev, resident = items
            self._done(member, number, data, None, resident, rev)
        elif say == Say.FAILED:
            number, failure, _, resident = items
            self._done(member, number, None, failure, resident)
        elif say == Say.CHUNK:
            self._piece(member, *items)
        elif say == Say.ASK:
            self._asked(member, *items)

    def _done(  # noqa: PLR0917
        self,
        member: Member,
        number: int,
        data: bytes | None,
        failure: Any,
        resident: int,
        rev: int | None = None,
    ) -> None:
        """*member* has ended its call, with one or the other; with neither if it was told to."""
        with self._lock:
            call = member.call
            if call is None or call.number != number:
                return
            member.call = None
            call.rev = rev
            member.calls += 1
            member.resident = resident
            if member.state is State.LEAVING:
                self._leave_locked(member)
            else:
                self._wear_locked(member)
                self._feed_locked(member)
            self._changed.notify_all()
        # First who waits for this call is told, then the worker gets the next one, which may be large.
        if failure is not None:
            error = unpack_failure(failure)
            if getattr(error, "begun", True) or not self._again(call):
                self.tally.failed += call.end(error=error)
        elif data is not None:
            self.tally.done += call.end(data)
        self._flush()

    def _again(self, call: Call) -> bool:
        """Begin *call*, which could not find its session, where that has moved; whether that is of use."""
        before = call.reference
        self._renew(call)
        with self._lock:
            if (
                call.reference == before
                or call.done()
                or self._closing
                or call.attempts > self.settings.attempts
            ):
                return False
            self._enter_again_locked(call)
        self._flush()
        return True

    @staticmethod
    def _piece(member: Member, number: int, data: bytes) -> None:
        call = member.call
        if call is not None and call.number == number and call.piece is not None:
            call.piece(data)

    def _asked(self, member: Member, number: int, question: Any, what: str, details: list[Any]) -> None:
        """The program that *member* runs wants to know something of its caller."""
        call = member.call
        if call is None or call.number != number:
            return
        if self._tools is None:
            self._tools = ThreadPoolExecutor(self.settings.tools, "dspex-pool-tool")
        self._tools.submit(_answer, member, call, question, what, details)


def _answer(member: Member, call: Call, question: Any, what: str, details: list[Any]) -> None:
    try:
        member.answer(question, value=call.counter.answer(what, *details))
    except BaseException as error:  # the program waits, whatever it is
        member.answer(question, failure=pack_failure(error, "the process that offers the tools"))
