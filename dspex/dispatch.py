"""The one loop that tells: bound programs at once, watchers in order after the commit."""

from __future__ import annotations

import inspect
import math
import os
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from threading import get_ident
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from dspex import errors
from dspex.changes import (
    LOSSLESS_QUEUE,
    Change,
    ChangeSignal,
    Watch,
    connections,
    fell_behind,
    report,
    skipped,
)
from dspex.records import Record

__all__ = ["Bound", "Fanout", "Push"]

QUEUE = 1_024
"""Changes that may wait for a busy dispatcher before those that nobody needs are dropped."""

NESTING = 16
"""How deep a callback may set what calls a callback that sets …"""

Push = Callable[[Any, Any], object]
"""Stores a value in a bound program: `push(program, value)`."""

Delivery = Callable[[Change], object]


class Bound(weakref.ref[Any]):
    """A weak reference to a bound program, and all that is known about it."""

    __slots__ = ("pushes", "session")

    pushes: Mapping[str, Push]
    """How each name is pushed into it."""
    session: Any
    """Which one pushes."""


class Targets(msgspec.Struct, frozen=True):
    """Who is to be told of the changes of one name."""

    pushes: tuple[tuple[Bound, Push], ...] = ()
    """Bound programs."""
    every: tuple[Delivery, ...] = ()
    """Watchers."""
    lossless: tuple[Delivery, ...] = ()
    """Those watchers that are told of every change, even when they fall behind."""
    watches: Mapping[int, Watch] = MappingProxyType({})
    """Whose deliveries these are, by their identity."""
    since: float = -1
    """The revision after which all of them listen."""


NOBODY = Targets(since=math.inf)


class Listened(Protocol):
    """What a fan-out asks its session."""

    @property
    def _programs(self) -> Sequence[Bound]:
        """The programs that it pushes to."""
        ...

    def _signals_of(self, name: str) -> Iterable[ChangeSignal]:
        """The signals that have a say about *name*."""
        ...

    @property
    def variables(self) -> Iterable[str]:
        """The names of its variables."""
        ...

    def _newest(self, name: str) -> Record | None:
        """The newest record of *name*; None once the session is closed."""
        ...

    def _end_watches(self) -> None:
        """Close every watch."""


class Fanout:
    """
    All that one session handle pushes to, from the first commit on that somebody is to be told of.

    `apply` runs under the store's lock, so programs and the queue have the order of commits. Whoever gets the
    dispatch lock drains the queue; the others go on with their work. In one thread a callback has
    therefore run when `set` returns, and what a callback sets is told after it.
    """

    __slots__ = (
        "__weakref__",
        "_age",
        "_drainer",
        "_free",
        "_limit",
        "_nested",
        "_overrun",
        "_session",
        "_targets",
        "depth",
        "queue",
    )

    def __init__(self, session: Listened) -> None:
        self._session = session
        self._targets: dict[str, Targets] = {}
        self._age = connections.count
        self._free = True
        """
        Who deletes this dispatches: a lock at half the price, as `del` is atomic; and no call, after each of
        which an interrupt may come, here before it is known that there is a turn to give back.
        """
        self._drainer: int | None = None
        """The thread that dispatches."""
        self._limit = QUEUE
        self._nested: dict[int, int] = {}
        """Of the changes in the queue that a callback made: how many callbacks deep, by id."""
        self._overrun: list[tuple[Watch, int]] = []
        """Watches that cannot be told everything any more, and from where on."""
        self.depth = 0
        """How many callbacks deep the change is that is being told; 0 outside callbacks."""
        self.queue: deque[Change] = deque()
        """What watchers are still to be told."""
        _fanouts.add(self)

    def look_again(self) -> None:
        """Hear that the session has other programs or signals than before."""
        self._age = -1

    def apply(self, changes: Iterable[Change]) -> None:
        """Push *changes* into the bound programs and queue them for the watchers."""
        if self._age != connections.count:
            self._age = connections.count
            self._targets = {}
        for change in changes:
            try:
                targets = self._targets[change.name]
            except KeyError:
                targets = self._targets[change.name] = self._find(change.name)
            for bound, push in targets.pushes:
                program = bound()
                if program is not None:
                    push(program, change.value)
            if targets.every:
                self.queue.append(change)
                if self._drainer is not None:
                    self._fell_behind(change)

    def lost(self, rev: int, names: Collection[str]) -> None:
        """Who wants every change of *names* is to be closed; the others go on, maybe from a lower *rev*."""
        for name in self._session.variables:
            for watch in self._find(name).watches.values():
                if name in names and watch.mode == "all":
                    watch.opened = math.inf
                    self._overrun.append((watch, rev))
                else:
                    watch.opened = -1
        self._age = -1

    def _fell_behind(self, change: Change) -> None:
        if self.telling:
            self._nested[id(change)] = self.depth + 1
        if len(self.queue) > self._limit:
            self._coalesce()

    @property
    def telling(self) -> bool:
        """Whether this thread is in a callback."""
        return self._drainer == get_ident()

    def admit(self) -> None:
        """
        Let a commit pass, unless it comes from a callback at the end of a long chain of callbacks.

        Raises:
            LimitExceeded: The chain is `NESTING` deep.
        """
        if self.depth >= NESTING and self.telling:
            raise errors.LimitExceeded(
                f"watchers that set what calls them are nested {NESTING} deep: is this a loop?",
                limit=NESTING,
            )

    def drain(self) -> None:
        """Call the watchers of all that is queued, unless somebody already does."""
        while self._overrun:  # marked under the lock of the ledger, where nobody may be called
            watch, rev = self._overrun.pop()
            watch.overrun(skipped(watch.name, rev))
        # Looked at again after the turn is given back: a committer that found it taken left its change to us.
        here = get_ident()
        while self.queue:
            try:
                del self._free
            except AttributeError:
                return
            try:
                self._drainer = here
                self._deliver()
            finally:
                self._drainer = None
                self.depth = 0
                self._free = True

    def _deliver(self) -> None:
        while self.queue:
            try:
                change = self.queue.popleft()
            except IndexError:  # a committer is just making the queue shorter
                continue
            if self._nested or self.depth:
                self.depth = self._nested.pop(id(change), 0)
            try:
                targets = self._targets[change.name]
            except KeyError:
                targets = NOBODY
            if self._age != connections.count or targets.since >= change.rev:
                targets = self._find(change.name, before=change.rev)
            # One that is no longer the newest of its name is followed in the queue by one that is.
            stale = self.queue and self._is_stale(change)
            leaving: BaseException | None = None
            for deliver in targets.lossless if stale else targets.every:
                try:
                    deliver(change)
                except Exception as error:
                    if (watch := targets.watches.get(id(deliver))) is not None:
                        watch.failed(error, change)
                    else:
                        report(deliver, change, error)
                except BaseException as error:
                    leaving = error
            if leaving is not None:
                raise leaving

    def end(self) -> None:
        """End all watches: the session is gone."""
        self._session._end_watches()

    def _find(self, name: str, before: float = math.inf) -> Targets:
        """Who is to be told of *name*; of watchers, those that listened already *before* that revision."""
        every: list[Delivery] = []
        lossless: list[Delivery] = []
        watches: dict[int, Watch] = {}
        since: float = -1
        for signal in self._session._signals_of(name):
            for receiver in () if signal.is_muted else signal.receivers_for(self._session):
                if not isinstance(receiver, Watch):
                    every.append(_BlinkerReceiver(receiver, self._session))
                elif receiver.opened < before:
                    # A function that is watched with twice must fail as the watch that it is called for.
                    deliver = receiver.tell if id(receiver.deliver) in watches else receiver.deliver
                    watches[id(deliver)] = receiver
                    since = max(since, receiver.opened)
                    every.append(deliver)
                    if receiver.mode == "all":
                        lossless.append(deliver)
        programs = tuple(self._session._programs)
        pushes = tuple((bound, bound.pushes[name]) for bound in programs if name in bound.pushes)
        return Targets(pushes, tuple(every), tuple(lossless), watches, since)

    def _coalesce(self) -> None:
        """Drop from a queue that nobody drains what no watcher will be told anyway."""
        # The dispatching thread may take changes at the same time: each is taken by one of the two, and what
        # is kept follows all that it takes.
        before, self.queue = self.queue, deque()
        taken: list[Change] = []
        with suppress(IndexError):
            while True:
                taken.append(before.popleft())
        needed = self._still_needed(taken)
        if len(needed) > LOSSLESS_QUEUE:
            self._end_lossless({change.name for change in needed})
            needed = self._still_needed(taken)
        if self._nested:
            kept = set(map(id, needed))
            for change in taken:
                if id(change) not in kept:
                    self._nested.pop(id(change), None)
        self.queue.extend(needed)
        self._limit = max(QUEUE, 2 * len(needed))

    def _still_needed(self, changes: Iterable[Change]) -> list[Change]:
        lossless = {name for name in {change.name for change in changes} if self._find(name).lossless}
        return [change for change in changes if change.name in lossless or not self._is_stale(change)]

    def _is_stale(self, change: Change) -> bool:
        # By the version: a session that has moved has the same record, but it is another object.
        newest = self._session._newest(change.name)
        return newest is not None and newest.version != change.version

    def _end_lossless(self, names: Iterable[str]) -> None:
        for name in names:
            for watch in self._find(name).watches.values():
                if watch.mode == "all":
                    watch.overrun(fell_behind(watch.name, LOSSLESS_QUEUE))

    def _reset_after_fork(self) -> None:
        # The thread that was dispatching is not in this process, unless it is the one that forked.
        if self._drainer != get_ident():
            self._drainer = None
            self._free = True


class _BlinkerReceiver:
    """A receiver that the user connected; held as weakly as blinker holds it."""

    __slots__ = ("_reference", "_session")

    def __init__(self, receiver: Callable[..., object], session: object) -> None:
        weak: Any = weakref.WeakMethod if inspect.ismethod(receiver) else weakref.ref
        self._reference = weak(receiver)
        self._session = session

    def __call__(self, change: Change) -> None:
        receiver = self._reference()
        if receiver is not None:
            receiver(self._session, change=change)


_fanouts: weakref.WeakSet[Fanout] = weakref.WeakSet()


def _reset_after_fork() -> None:
    for fanout in _fanouts:
        fanout._reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
