"""
What happens to workers: started, found wanting, ended, replaced. Knows no engine.

All of it happens in the thread of the pool. What needs the lock says so by `_locked` in its name.
"""

from __future__ import annotations

import heapq
import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import count

from dspex import errors
from dspex.pool.calls import Call
from dspex.pool.members import Member, Slot, State, Tally
from dspex.pool.settings import Settings

__all__ = ["Supervisor"]

_log = logging.getLogger("dspex.pool")
_now = time.monotonic

BACKOFF = 0.05
"""Seconds before the second attempt to start a worker; each later one waits twice as long."""


class Supervisor(ABC):
    """Slots and their workers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.tally = Tally()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        """Something has happened that somebody may be waiting for."""
        self._slots = {index: Slot(index) for index in range(settings.workers)}
        self._spares = [Slot(-1 - index) for index in range(settings.spares)]
        self._former: list[Slot] = []
        """Slots that were given up, until their workers have left."""
        self._ids = count(1)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._wakes = 0.0
        """When the thread looks at the clock again."""
        self._beat = _now() + settings.heartbeat
        self._recycling: Member | None = None
        """The one worker that is being replaced because it is worn."""
        self._closing = False

    # ---- what an engine does -----------------------------------------------------------------------

    @abstractmethod
    def _launch(self, slot: Slot) -> Member:
        """Start a worker for *slot*; it says later that it is ready. Raises what the system raises."""

    @abstractmethod
    def _poke(self) -> None:
        """Have the thread look at the clock. From any thread."""

    # ---- what the scheduler does -------------------------------------------------------------------

    @abstractmethod
    def _feed_locked(self, member: Member) -> None:
        """*member* has nothing to do: give it what waits."""

    @abstractmethod
    def _flush(self) -> None:
        """Send what was given under the lock."""

    @abstractmethod
    def _give_up_locked(self, slot: Slot) -> list[Call]:
        """*slot* will have no worker: move what waits for it, and return what nobody can run."""

    # ---- time --------------------------------------------------------------------------------------

    def _at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._ids), do))
        if when < self._wakes:
            self._poke()

    def _due(self, now: float) -> None:
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > now:
                    return
                do = heapq.heappop(self._timers)[2]
            do()

    def _members(self) -> list[Member]:
        slots = (*self._slots.values(), *self._spares, *self._former)
        return [member for slot in slots for member in slot.all]

    def _wanted(self, slot: Slot) -> bool:
        """Whether *slot* is to have a worker: a resize may have given it up since."""
        return not self._closing and (slot.index < 0 or self._slots.get(slot.index) is slot)

    # ---- starting ----------------------------------------------------------------------------------

    def _start_locked(self, slot: Slot, wait: float = 0.0) -> None:
        if not slot.due and slot.coming is None and self._wanted(slot):
            slot.due = True
            self._at(_now() + wait, lambda: self._begin_start(slot))

    def _begin_start(self, slot: Slot) -> None:
        with self._lock:
            slot.due = False
            if slot.coming is not None or not self._wanted(slot):
                return
        self.tally.started += 1
        try:
            member = self._launch(slot)
        except Exception as error:
            _log.exception("a worker could not be started", extra={"dspex.worker": slot.name})
            with self._lock:
                todo = self._failed_start_locked(slot, f"could not be started: {error}", error)
            self._refuse(todo, slot)
            return
        with self._lock:
            slot.coming = member
            wanted = self._wanted(slot)
            self._at(_now() + self.settings.start, lambda: self._start_over(member))
        if not wanted:  # since a moment ago
            member.kill(now=True)

    def _start_over(self, member: Member) -> None:
        if member.state is State.STARTING:
            member.why = f"it was not ready within {self.settings.start:g} s"
            member.kill(now=True)

    def _ready(self, member: Member, pid: int) -> None:
        """*member* can run calls."""
        spread = 0.9 + 0.2 * random.random()  # noqa: S311 - so that not all are worn at once
        member.limit = max(1, round(self.settings.recycle_calls * spread))
        with self._lock:
            member.pid = pid
            slot = member.slot
            if member.state is not State.STARTING or slot.coming is not member:
                return
            if not self._wanted(slot):  # and it is being ended
                return
            member.state = State.READY
            slot.failures.clear()
            slot.failure = None
            slot.quarantined = False
            slot.coming = None
            if slot.member is not None:
                self._part_locked(slot.member)
            slot.member = member
            if slot.index < 0:
                self._step_in_locked()
            else:
                self._feed_locked(member)
            self._changed.notify_all()
        self._flush()

    def _step_in_locked(self) -> None:
        """Let spares take the places of workers that are lost or worn."""
        for spare in self._spares:
            if spare.member is None:
                continue
            worn = self._recycling.slot if self._recycling is not None else None
            slot = next((one for one in self._slots.values() if one.member is None or one is worn), None)
            if slot is None:
                continue
            member, spare.member = spare.member, None
            if slot.member is not None:
                self._part_locked(slot.member)
            slot.member, member.slot = member, slot
            slot.quarantined, slot.failure = False, None
            coming, slot.coming = slot.coming, None
            if coming is not None:  # as good a spare as any
                spare.coming, coming.slot = coming, spare
            self._start_locked(spare)
            self._feed_locked(member)

    def _failed_start_locked(self, slot: Slot, how: str, cause: Exception | None) -> list[Call]:
        if not self._wanted(slot):
            return []
        settings = self.settings
        now = _now()
        slot.failures.append(now)
        while slot.failures[0] < now - settings.window:
            slot.failures.popleft()
        slot.failure = errors.WorkerLost(
            f"worker {slot.name} {how}", worker=slot.name, started=False, failures=len(slot.failures)
        )
        slot.failure.__cause__ = cause
        self._changed.notify_all()
        if len(slot.failures) < settings.restarts:
            self._start_locked(slot, BACKOFF * 2 ** (len(slot.failures) - 1) - BACKOFF)
            return []
        about = {"dspex.worker": slot.name}
        _log.error(
            "worker %s was given up: %d starts have failed", slot.name, len(slot.failures), extra=about
        )
        slot.quarantined = slot.member is None
        return self._give_up_locked(slot) if slot.quarantined and slot.index >= 0 else []

    def _refuse(self, calls: list[Call], slot: Slot) -> None:
        for call in calls:
            self.tally.failed += call.end(error=slot.refusal)

    # ---- ending ------------------------------------------------------------------------------------

    def _part_locked(self, member: Member) -> None:
        """*member* runs what it runs, and no more."""
        slot = member.slot
        slot.forget(member)
        slot.leaving.append(member)
        member.state = State.LEAVING
        if member.call is None:
            self._leave_locked(member)

    def _leave_locked(self, member: Member) -> None:
        member.leave()
        self._at(_now() + self.settings.grace, lambda: self._kill_late(member))

    def _kill_late(self, member: Member) -> None:
        if member.state is not State.GONE:
            member.kill(now=True)

    def _condemn(self, member: Member, why: str) -> None:
        """End *member*; its place is taken at once, its call has failed."""
        with self._lock:
            if member.state not in (State.READY, State.LEAVING):
                return
            slot, call = member.slot, member.call
            ready = member.state is State.READY
            member.state, member.why, member.call = State.CONDEMNED, why, None
            slot.forget(member)
            slot.leaving.append(member)
            self.tally.lost += 1
            if ready:
                self._vacated_locked(slot)
            retried = call is not None and self._retry_locked(call)
            self._at(_now() + self.settings.grace, lambda: self._kill_late(member))
            self._changed.notify_all()
        if call is not None and not retried:
            self.tally.failed += call.end(error=_lost(member, call, "was ended", {}))
        member.kill(now=False)
        self._flush()

    def _gone(self, member: Member, how: str, **facts: object) -> None:
        """*member* has ended: *how* is a sentence's verb."""
        with self._lock:
            slot, call, state = member.slot, member.call, member.state
            member.state, member.call = State.GONE, None
            slot.forget(member)
            if self._recycling is member:
                self._recycling = None
                self.tally.recycled += 1
            refused: list[Call] = []
            if state is State.STARTING:
                why = member.failure or member.why or how
                told = f"cannot start: {why}" if member.failure or member.why else f"{how} while it started"
                refused = self._failed_start_locked(slot, told, member.failure)
            elif state is State.READY:
                self.tally.lost += 1
                self._vacated_locked(slot)
            retried = call is not None and self._retry_locked(call)
            self._former = [one for one in self._former if one.all]
            self._recycle_locked()
            self._changed.notify_all()
        self._refuse(refused, slot)
        if call is not None and not retried:
            self.tally.failed += call.end(error=_lost(member, call, how, facts))
        self._flush()
        if state in (State.READY, State.CONDEMNED) and not self._closing:
            about = {"dspex.worker": member.name, "dspex.pid": member.pid}
            _log.warning("worker %s (pid %d) %s. %s", member.name, member.pid, how, member.why, extra=about)

    def _vacated_locked(self, slot: Slot) -> None:
        """The worker of *slot* is no more: the next one, please."""
        if slot.index >= 0:
            self._step_in_locked()
        if slot.member is None:
            self._start_locked(slot)

    @abstractmethod
    def _retry_locked(self, call: Call) -> bool:
        """Whether *call*, whose worker is lost, will be run by another."""

    # ---- found wanting -----------------------------------------------------------------------------

    def _heartbeats(self) -> None:
        with self._lock:
            members = self._members()
        for member in members:
            if member.state in (State.READY, State.LEAVING):
                if member.pings >= self.settings.misses:
                    self._condemn(member, f"it has not answered {member.pings} heartbeats")
                    continue
                member.pings += 1
                member.ping()

    def _wear_locked(self, member: Member) -> None:
        """*member* has ended a call: see whether it has worked enough."""
        if member.resident > self.settings.recycle_bytes:
            member.full = True
        if (member.full or member.calls >= member.limit) and not member.worn:
            member.worn = True
            self._recycle_locked()

    def _recycle_locked(self) -> None:
        """Replace a worn worker, if none is being replaced."""
        if self._recycling is not None or self._closing:
            return
        worn = [
            slot.member
            for slot in self._slots.values()
            if slot.member is not None and slot.member.worn and slot.member.state is State.READY
        ]
        if worn:
            self._recycling = max(worn, key=lambda member: member.full)
            slot = self._recycling.slot
            self._step_in_locked()
            if slot.member is self._recycling:
                self._start_locked(slot)


def _lost(member: Member, call: Call, how: str, facts: dict[str, object]) -> errors.WorkerLost:
    why = f" because {member.why}" if member.why else ""
    then = (
        f"It was begun {call.attempts} times."
        if call.idempotent
        else "It is not run again, since it may have had effects; idempotent=True allows that."
    )
    return errors.WorkerLost(
        f"worker {member.name} (pid {member.pid}) {how}{why} while it ran {call.program}. {then}",
        worker=member.name,
        pid=member.pid,
        program=call.program,
        started=True,
        **facts,
    )
