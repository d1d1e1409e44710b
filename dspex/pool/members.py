"""A worker, and the place where one is, as a pool sees them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from enum import Enum
from typing import Any

import attrs

from dspex import errors
from dspex.pool.calls import Call

__all__ = ["Member", "Slot", "State", "Stats", "Tally", "WorkerStats"]


class State(Enum):
    """What a worker is at."""

    STARTING = "starting"
    READY = "ready"
    LEAVING = "leaving"
    """Gets no more calls, and ends when it has ended the one that it runs."""
    CONDEMNED = "condemned"
    """Is being ended, whatever it does."""
    GONE = "gone"


class Slot:
    """A place for one worker. Those from 0 on have sessions, those below are for spares."""

    def __init__(self, index: int, *, born: int = 0) -> None:
        self.index = index
        self.name = str(index) if index >= 0 else f"spare-{-index}"
        self.member: Member | None = None
        """Runs calls; READY."""
        self.coming: Member | None = None
        """Will take its place; STARTING."""
        self.leaving: list[Member] = []
        self.waiting: deque[Call] = deque()
        """Calls that only this one may run."""
        self.failures: deque[float] = deque()
        """When starts have failed, since the last that did not."""
        self.failure: errors.WorkerLost | None = None
        """Why the last one did."""
        self.quarantined = False
        self.due = False
        """Whether a start is about to happen."""
        self.born = born
        """Workers that were started here, or anywhere before this place was made."""

    @property
    def idle(self) -> Member | None:
        """Its worker, if that can run a call now."""
        member = self.member
        return member if member is not None and member.call is None and not member.full else None

    @property
    def refusal(self) -> errors.WorkerLost:
        """`failure`, as an error of its own for each who is told."""
        assert self.failure is not None
        made = errors.WorkerLost(self.failure.message, **self.failure.facts)
        made.__cause__ = self.failure.__cause__
        return made

    @property
    def all(self) -> list[Member]:
        """Its workers, whatever they are at."""
        return [one for one in (self.member, self.coming, *self.leaving) if one is not None]

    def forget(self, member: Member) -> None:
        """It is not here any more."""
        if self.member is member:
            self.member = None
        if self.coming is member:
            self.coming = None
        if member in self.leaving:
            self.leaving.remove(member)


class Member(ABC):
    """One worker. An engine has one class of them; its verbs may be called from any thread."""

    def __init__(self, slot: Slot) -> None:
        slot.born += 1
        self.slot = slot
        self.name = f"{slot.name}.{slot.born}"
        self.pid = 0
        self.state = State.STARTING
        self.call: Call | None = None
        self.calls = 0
        self.limit = 0
        """Calls after which it is to be replaced."""
        self.resident = 0
        """Bytes of memory, when it ended its last call."""
        self.worn = False
        """Whether it is to be replaced."""
        self.full = False
        """Whether it gets no more calls at all."""
        self.pings = 0
        """Heartbeats that it has not answered."""
        self.failure: Exception | None = None
        """Why it could not start, in its own words."""
        self.why = ""
        """Why it was condemned."""

    @abstractmethod
    def send(self, call: Call) -> None:
        """Have it run *call*."""

    @abstractmethod
    def cancel(self, call: Call) -> None:
        """Have it end *call* soon."""

    @abstractmethod
    def more(self, call: Call, pieces: int) -> None:
        """Let it send so many *pieces* more."""

    @abstractmethod
    def answer(self, question: Any, *, value: bytes | None = None, failure: list[Any] | None = None) -> None:
        """Answer what it has asked."""

    @abstractmethod
    def ping(self) -> None:
        """Have it say that it lives."""

    @abstractmethod
    def leave(self) -> None:
        """Have it end, as it has nothing to do."""

    @abstractmethod
    def kill(self, *, now: bool) -> None:
        """End it and all that it has started: ask it to, or do it *now*."""


@attrs.define
class Tally:
    """What has happened in a pool."""

    done: int = 0
    failed: int = 0
    """Calls that raised, or whose worker was lost."""
    cancelled: int = 0
    expired: int = 0
    """Calls whose time was over, begun or not."""
    rejected: int = 0
    """Calls for which there was no room."""
    lost: int = 0
    """Workers that ended without being told to, or had to be ended."""
    recycled: int = 0
    """Workers that were replaced because they had worked enough."""
    started: int = 0
    """Workers that were started."""


@attrs.frozen
class WorkerStats:
    """One worker."""

    name: str
    pid: int
    state: str
    calls: int
    busy: bool
    resident: int


@attrs.frozen
class Stats:
    """A pool at one moment: what `stats` returns."""

    ready: int
    """Workers that run calls or wait for some."""
    busy: int
    spares: int
    """Spare workers that are ready."""
    queued: int
    quarantined: int
    """Slots that were given up because no worker could start there."""
    tally: Tally
    workers: tuple[WorkerStats, ...]

    @classmethod
    def of(
        cls, slots: list[Slot], spares: list[Slot], members: list[Member], queued: int, tally: Tally
    ) -> Stats:
        """What they are at now."""
        return cls(
            ready=sum(slot.member is not None for slot in slots),
            busy=sum(slot.member is not None and slot.member.call is not None for slot in slots),
            spares=sum(slot.member is not None for slot in spares),
            queued=queued,
            quarantined=sum(slot.quarantined for slot in slots),
            tally=attrs.evolve(tally),
            workers=tuple(
                WorkerStats(one.name, one.pid, one.state.value, one.calls, one.call is not None, one.resident)
                for one in members
            ),
        )
