"""The watching half of a session: who is told of its commits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import msgspec

from dspex import errors
from dspex.changes import EVERY_NAME, Change, ChangeSignal, Mode, Watch
from dspex.commits import Commit, Declaration, Receipt
from dspex.crossing import check_may_wait
from dspex.dispatch import Bound, Fanout, Push
from dspex.locks import ForkSafeLock, OwnedLock
from dspex.records import Record, Revision, Snapshot
from dspex.stores import Ledger
from dspex.stores.base import ClosedLedger, Ended
from dspex.streams import AsyncChanges, Changes
from dspex.variables import Variable, listened

__all__ = ["Declares", "Rare", "Watching"]

P = ParamSpec("P")
R = TypeVar("R")

_making = ForkSafeLock()


class Rare(msgspec.Struct):
    """What a session has only once somebody uses it; ten thousand forks do not."""

    signals: dict[str, ChangeSignal] = msgspec.field(default_factory=dict)
    attachments: dict[Any, Any] = msgspec.field(default_factory=dict)
    """What the rooms above keep with the session: its modules, the program of each class."""
    given: dict[str, tuple[int, int]] = msgspec.field(default_factory=dict)
    """What a fork has given its parent: by name, the versions that it had here and there."""
    lock: Any = msgspec.field(default_factory=OwnedLock)
    """Held while a program is bound for the first time; its `init` may bind others."""


class Declares(Protocol):
    """What a program class tells a session when it is bound."""

    @property
    def declarations(self) -> tuple[Declaration, ...]:
        """What the session is to have."""
        ...

    @property
    def variables(self) -> Mapping[str, Variable[Any]]:
        """The declarations on the class, by their names in the session."""
        ...

    @property
    def alone(self) -> tuple[Declares, ...]:
        """A tuple of this one, for all sessions to share that have no other."""
        ...


class Watching:
    """Signals, watches, iterators, and the programs that are pushed to."""

    __slots__ = ("_fanout", "_ledger", "_plans", "_programs", "_rare")

    _ledger: Ledger
    _fanout: Fanout | None
    _rare: Rare | None
    _plans: tuple[Declares, ...]
    """What was declared here already, so that binding again asks nothing of the store."""
    _programs: list[Bound] | tuple[()]
    """What is pushed to. A program may end at any moment, which takes it out of the list."""
    queue: Collection[Any] = ()
    """What watchers are still to be told waits in the fan-out."""

    if TYPE_CHECKING:

        async def _call(self, verb: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R: ...
        def _commit(self, commit: Commit) -> Receipt: ...
        @property
        def variables(self) -> Mapping[str, Declaration]: ...
        def _unknown(self, name: str) -> errors.UnknownVariable: ...
        def record(self, name: str) -> Record: ...
        def snapshot(self, tag: str | None = None) -> Snapshot: ...

    def signal(self, name: str) -> ChangeSignal:
        """
        The `blinker.Signal` of *name*, or of every variable: `"*"`.

        Receivers are called as `receiver(session, change=change)`, in the order in which they connected.
        """
        records = self._ledger.records
        if isinstance(records, Ended):
            raise records.error()
        if name != EVERY_NAME and not (isinstance(name, str) and name in self._ledger.schema.kinds):
            raise self._unknown(name)
        signal = self._rarely().signals.setdefault(name, ChangeSignal(f"{name} changed"))
        if self._fanout is None:
            self._hear()
        return signal

    def watch(
        self,
        name: str,
        fn: Callable[[Change], object],
        *,
        mode: Mode = "latest",
        debounce: float | None = None,
    ) -> Watch:
        """
        Call `fn(change)` after every commit that sets *name* (`"*"`: any variable).

        Calls come in the order of commits, one at a time, outside locks; in one thread before `set` returns.
        What *fn* raises is logged and counted, and disturbs nobody. An `async def` is awaited on the running
        loop.

        Args:
            name: What to watch.
            fn: Kept alive until the watch is closed.
            mode: `latest`: who falls behind is told the newest change of a name. `all`: every change; who
                falls too far behind is closed with `LimitExceeded`.
            debounce: Wait until so many seconds have passed without a change, then call with the last one.

        Returns:
            A handle whose `close()` ends the watch.
        """
        signal = self.signal(name)
        watch = Watch(signal, name, fn, mode=mode, opened=self._ledger.rev, debounce=debounce)
        if isinstance(records := self._ledger.records, Ended):  # by another thread, just now
            watch.close()
            raise records.error()
        return watch

    def changes(
        self, name: str = EVERY_NAME, *, mode: Mode = "latest", since: Revision | None = None
    ) -> Changes:
        """
        An iterator over the changes of *name* from now on, or from revision *since* on.

        What cannot be resumed starts with a `Snapshot`; after that nothing is missed and nothing told twice.
        """
        stream = Changes(name, mode)
        self._stream(stream, name, mode, since)
        return stream

    def achanges(
        self, name: str = EVERY_NAME, *, mode: Mode = "latest", since: Revision | None = None
    ) -> AsyncChanges:
        """The same for `async for`. If a store has to be asked what was missed, the first `anext` does."""
        stream = AsyncChanges(name, mode)
        self._stream(stream, name, mode, since)
        return stream

    def _stream(self, stream: Changes | AsyncChanges, name: str, mode: Mode, since: Revision | None) -> None:
        if since is not None and not isinstance(since, Revision):
            raise errors.InvalidValue.expecting("a Revision", errors.shown(since)).at("since")
        if since is not None and (type(since.rev) is not int or since.rev < 0):
            raise errors.InvalidValue.expecting("an integer from 0", errors.shown(since.rev)).at("since.rev")
        stream.open(self.watch(name, stream.weak_push(), mode=mode))
        if since is None:
            return
        if isinstance(stream, AsyncChanges) and self._ledger.blocking:
            stream.begin_with(lambda: self._call(self._missed, name, since))
        else:
            stream.begin(*self._missed(name, since))

    def _missed(self, name: str, since: Revision) -> tuple[list[Change | Snapshot], int]:
        """What a stream that has seen *since* must be given first, and how far that goes."""
        if since.epoch == self._ledger.epoch and since.rev <= self._ledger.rev:
            try:
                changes = self._ledger.history(since=since.rev)
            except errors.UnknownRevision:
                pass
            else:
                seen = changes[-1].rev if changes else since.rev
                return [c for c in changes if name in (EVERY_NAME, c.name)], seen
        snapshot = self.snapshot()
        return [snapshot], snapshot.revision.rev

    def _newest(self, name: str) -> Record | None:
        try:
            return self._ledger.records[name]
        except errors.SessionClosed:
            return None

    def _end_watches(self) -> None:
        for signal in list(self._rare.signals.values()) if self._rare is not None else ():
            for watch in [one for one in signal.receivers_for(self) if isinstance(one, Watch)]:
                watch.close()

    def _signals_of(self, name: str) -> Iterable[ChangeSignal]:
        signals = self._rare.signals if self._rare is not None else {}
        for key in (name, EVERY_NAME):
            if key in signals:
                yield signals[key]
        for variable in dict.fromkeys(plan.variables.get(name) for plan in self._plans):
            if variable is not None and variable.listened:
                yield variable.changed

    def declare(self, plan: Declares) -> None:
        """Declare all that *plan* names; nothing the second time."""
        if plan in self._plans:
            return
        self._commit(Commit(declare=plan.declarations))
        if not self._plans and self._fanout is None:
            self._hear()
        with _making:
            if plan not in self._plans:
                self._plans = (*self._plans, plan) if self._plans else plan.alone
        if self._fanout is not None:
            self._fanout.look_again()

    def attach(self, program: object, pushes: Mapping[str, Push]) -> None:
        """Push every commit of the names of *pushes*, declared before, into *program* as long as it lives."""
        bound = Bound(program, _forget)
        bound.pushes, bound.session = pushes, self
        with _making:
            programs = self._programs or []
            programs.append(bound)
            self._programs = programs  # also where the garbage collector has just taken out the last one
        if self._fanout is not None:
            self._fanout.look_again()

    def attachment(self, key: object, make: Callable[[], Any]) -> Any:
        """What is kept with this session under *key*, made once however many threads ask."""
        rare = self._rarely()
        if key not in rare.attachments:
            if not rare.lock.acquire(blocking=False):
                self._check_may_wait()
                rare.lock.acquire()
            try:
                if key not in rare.attachments:
                    rare.attachments[key] = make()
            finally:
                rare.lock.release()
        return rare.attachments[key]

    def attached(self, key: object) -> Any:
        """What is kept under *key* by now, or None."""
        return None if self._rare is None else self._rare.attachments.get(key)

    def _rarely(self) -> Rare:
        if self._rare is None:
            with _making:
                if self._rare is None:
                    self._rare = Rare()
        return self._rare

    def _check_may_wait(self) -> None:
        if self._fanout is None or not self._fanout.telling:  # what a callback does is no verb of the loop
            check_may_wait(self)

    # ---- the sink of the ledger -------------------------------------------------------------------

    # While nobody listens the session is told of its commits itself, and pushes them: a sink beside it would
    # weigh as much as it does. At the first commit that somebody listens to a fan-out takes its place, under
    # the lock of the ledger, so that each commit is told by one of the two.

    def _hear(self) -> None:
        while True:
            ledger = self._ledger
            with suppress(errors.SessionMoved):
                ledger.subscribe(self)
            if ledger is self._ledger:
                break
            ledger.unsubscribe(self)  # the handle went elsewhere in this very moment
        if isinstance(records := ledger.records, Ended):
            ledger.unsubscribe(self)
            raise records.error()

    def apply(self, changes: Iterable[Change]) -> None:
        """Push *changes* into the bound programs, or let a fan-out do that and the rest."""
        if (self._rare is not None or listened) and self._is_heard(changes):
            self._hand_over(changes)
            return
        for bound in tuple(self._programs):
            if (program := bound()) is not None:
                pushes = bound.pushes
                for change in changes:
                    if change.name in pushes:
                        pushes[change.name](program, change.value)

    def lost(self, rev: int, names: Collection[str]) -> None:
        """Let a fan-out see to those who watch already, though nothing was told yet."""
        if self._rare is not None and self._rare.signals and self._fanout is None:
            self._fanout = Fanout(self)
            self._fanout.lost(rev, names)

    def drain(self) -> None:
        """Nothing waits here."""

    def end(self) -> None:
        """End all watches: the session is gone."""
        self._end_watches()

    def _is_heard(self, changes: Iterable[Change]) -> bool:
        if self._rare is not None and self._rare.signals:
            return True
        for change in changes if listened else ():
            for plan in self._plans:
                variable = plan.variables.get(change.name)
                if variable is not None and variable.listened:
                    return True
        return False

    def _hand_over(self, changes: Iterable[Change]) -> None:
        ledger = self._ledger
        if isinstance(ledger, ClosedLedger):  # by another thread, just now
            return
        if self._fanout is None:
            self._fanout = Fanout(self)
        if ledger.subscribe(self._fanout):
            self._fanout.apply(changes)
        ledger.unsubscribe(self)


def _forget(gone: Bound) -> None:
    # Runs wherever a program ends, maybe under the lock of a ledger, so it must not wait for another lock. If
    # it would have to, an empty list stays.
    session = gone.session
    programs = session._programs
    programs.remove(gone)
    if not programs:
        try:
            if _making.acquire(False) and not session._programs:
                session._programs = ()
        finally:
            with suppress(RuntimeError):  # another thread has it
                _making.release()
    if session._fanout is not None:
        session._fanout.look_again()
