"""A session of a server as this process sees it: a copy that the server keeps up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from dspex import errors
from dspex.changes import Change
from dspex.commits import Declaration, Receipt, Schema
from dspex.locks import ForkSafeLock
from dspex.records import Record
from dspex.rpc import messages, requests
from dspex.rpc.extra import pb
from dspex.stores.base import Ended, Ledger, Sink, join, leave

if TYPE_CHECKING:
    from dspex.rpc.link import Link
    from dspex.rpc.pending import Pending

__all__ = ["Replica"]


_rev_of = attrgetter("rev")


class _Guarded(dict[str, Record]):
    """The records of a session that has no contact: any look at them runs *look* first."""

    __slots__ = ("_look",)

    def __init__(self, records: Mapping[str, Record], look: Callable[[], None]) -> None:
        super().__init__(records)
        self._look = look

    def __getitem__(self, name: str) -> Record:
        self._look()
        return super().__getitem__(name)


class Replica(Ledger):
    """
    The copy of one session, read without asking anybody.

    The thread that reads from the server applies each commit under the lock and leaves the callbacks to
    whoever waits for the commit, or runs them when nobody does.
    """

    blocking: ClassVar[bool] = True

    __slots__ = (
        "_error",
        "_link",
        "_lock",
        "_parts",
        "_sink",
        "channel",
        "create",
        "epoch",
        "handles",
        "id",
        "live",
        "records",
        "rev",
        "rules",
        "schema",
        "store",
    )

    records: Mapping[str, Record]

    def __init__(self, link: Link, store: Any, session_id: str, *, create: bool) -> None:
        self._link = link
        self._lock = ForkSafeLock()
        self._sink: Sink | None = None
        self._parts: list[Any] = []
        self._error: errors.DspexError | None = None
        self.id = session_id
        self.store = store
        self.create = create
        self.handles = 0
        self.channel = 0
        self.epoch = ""
        self.rev = 0
        self.rules = ()
        self.schema = Schema({})
        self.live: dict[str, Record] = {}
        """The copy, whatever stands before it in `records`."""
        self.records = self.live

    # ---- state -------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """`LIVE`, `STALE` while there is no contact with the server, or `CLOSED`."""
        return "CLOSED" if self._error is not None or self.handles == 0 else self._link.status

    def age(self) -> float:
        """Seconds since the server was heard."""
        return self._link.age()

    def guard(self, look: Callable[[], None] | None) -> None:
        """Let *look* stand before the records, or nothing again."""
        with self._lock:
            if not isinstance(self.records, Ended):
                self.records = self.live if look is None else _Guarded(self.live, look)

    def _check_alive(self) -> None:
        if self._error is not None:
            raise self._ended()

    def _ended(self) -> Any:
        error = self._error
        assert error is not None
        return type(error)(error.message, **error.facts)

    def subscribe(self, sink: Sink) -> bool:
        with self._lock:
            before, self._sink = self._sink, join(self._sink, sink)
            return self._sink is not before

    def unsubscribe(self, sink: Sink) -> None:
        with self._lock:
            self._sink = leave(self._sink, sink)

    def prefer(self, declared: Iterable[Declaration]) -> None:
        """
        Hold values as the kinds of *declared* do, which may know the class that a description only names.
        """
        with self._lock:
            known = self.schema.declarations
            better = {
                one.name: one for one in declared if one.name in known and known[one.name].kind != one.kind
            }
            if not better:
                return
            records = dict(self.live)
            for name, one in better.items():
                old, record = known[name].kind, records[name]
                value = one.kind.load(old.dump(record.value))
                before = record.old if isinstance(record, Change) else None
                records[name] = Change(
                    name,
                    value,
                    record.version,
                    record.rev,
                    record.epoch,
                    record.source,
                    record.metadata,
                    record.time,
                    None if before is None else one.kind.load(old.dump(before)),
                )
            self.schema = Schema({**known, **better})
            self.live.update(records)

    # ---- what the server says; in the thread that reads --------------------------------------------

    def opened(self, message: pb.Opened) -> bool:
        """Take one part of the session; whether it was the last."""
        self._parts.append(message)
        if message.more:
            return False
        parts, self._parts = self._parts, []
        with self._lock:
            self._declare([data for part in parts for data in part.declarations])
            self.channel = message.channel
            if message.start == pb.START_RESUMED:
                return True
            kinds, epoch = self.schema.kinds, message.epoch
            told = (record for part in parts for record in part.records)
            if not self.epoch:
                found = {one.name: messages.change_of(kinds, epoch, one) for one in told}
                self.live.update({**self.schema.initial, **found})
                self.epoch, self.rev = epoch, message.rev
            else:
                self._reset(epoch, message.rev, {one.name: one for one in told})
        return True

    def _reset(self, epoch: str, rev: int, told: Mapping[str, pb.Change]) -> None:
        """Go to what the server has now; of what is between nothing is known but the newest of each name."""
        kinds, live, initial = self.schema.kinds, self.live, self.schema.initial
        same = epoch == self.epoch
        changes = []
        for name in kinds:
            last = live.get(name) or initial[name]
            message = told.get(name)
            if message is None:
                if not same and last.version:
                    first = initial[name]
                    changes.append(
                        Change(name, first.value, 0, rev, epoch, None, None, first.time, last.value)
                    )
            elif not same or message.version > last.version:
                changes.append(messages.change_of(kinds, epoch, message, last.value))
            else:
                continue
        changes.sort(key=_rev_of)
        before, self.epoch = self.rev, epoch
        self._apply(changes, rev, jump=not same or rev > before + 1)

    def event(self, message: pb.Event) -> bool | None:
        """Apply a commit of somebody else; whether there are callbacks to run, None if some are missing."""
        told: Sequence[pb.Change] = message.changes
        if self._parts or message.more:
            self._parts.append(message)
            if message.more:
                return False
            parts, self._parts = self._parts, []
            told = [one for part in parts for one in part.changes]
        rev, prev = message.rev, message.prev
        lock = self._lock
        lock.acquire()
        try:
            if rev <= self.rev:
                return False
            if prev > self.rev:
                return None
            kinds, live, epoch = self.schema.kinds, self.live, self.epoch
            changes = []
            for one in told:
                last = live.get(one.name)
                changes.append(messages.change_of(kinds, epoch, one, None if last is None else last.value))
            self._apply(changes, rev, jump=rev > prev + 1 and message.coalesced)
            sink = self._sink
        finally:
            lock.release()
        return sink is not None and bool(sink.queue)

    def _apply(self, changes: Sequence[Change], rev: int, *, jump: bool = False) -> None:
        live = self.live
        for change in changes:
            live[change.name] = change
        self.rev = rev
        sink = self._sink
        if sink is not None:
            if jump:
                sink.lost(rev, {change.name for change in changes})
            sink.apply(changes)

    def committed(self, pending: Pending, replies: Sequence[pb.CommitReply]) -> Receipt | None:
        """What a commit of this process did; None if what was between is missing."""
        message = replies[0]
        if not message.own:
            kinds, epoch = self.schema.kinds, message.epoch
            told = (one for reply in replies for one in reply.changes)
            return Receipt(epoch, message.rev, tuple(messages.change_of(kinds, epoch, one) for one in told))
        rev, time = message.rev, message.time
        lock = self._lock
        lock.acquire()
        try:
            if rev != self.rev + 1:
                return None
            live, epoch, metadata = self.live, self.epoch, pending.metadata
            own = []
            for name, stored, source in pending.own:
                last = live[name]
                own.append(
                    Change(name, stored, last.version + 1, rev, epoch, source, metadata, time, last.value)
                )
            self._apply(own, rev)
        finally:
            lock.release()
        return Receipt(epoch, rev, tuple(own))

    def declared(self, message: pb.Declared) -> None:
        """Take variables that are new."""
        with self._lock:
            self._declare(message.declarations)

    def _declare(self, declarations: Iterable[bytes]) -> None:
        new = requests.as_declared(map(requests.told_declaration, declarations), self.schema)
        if not new:
            return
        schema = self.schema.extended(new)
        for one in new:  # first, so that no name is known that has no record
            self.live.setdefault(one.name, schema.initial[one.name])
        if isinstance(self.records, _Guarded):
            self.records.update(self.live)
        self.schema = schema

    def agrees(self, message: pb.Bookmark) -> bool:
        """Whether this copy is what the server has at that revision."""
        if message.rev != self.rev:
            return message.rev < self.rev
        if not message.HasField("digest"):
            return True
        with self._lock:
            records = list(self.live.values())
        return messages.digest(records) == message.digest

    def end(self, error: errors.DspexError) -> None:
        """Nothing comes any more, because of *error*."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            self.records = Ended(self._ended)
            sink = self._sink
        if sink is not None:
            sink.end()

    def drain(self) -> None:
        """Run the callbacks."""
        sink = self._sink
        if sink is not None and sink.queue:
            sink.drain()
