"""A session of a server as this process sees it: a copy that the server keeps up to date."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dspex.changes import Change
from dspex.commits import Receipt
from dspex.rpc import messages, requests
from dspex.rpc.extra import pb
from dspex.stores import replica

if TYPE_CHECKING:
    from dspex.rpc.link import Link
    from dspex.rpc.pending import Pending

__all__ = ["Replica"]


class Replica(replica.Replica):
    """
    The copy of one session, read without asking anybody.

    The thread that reads from the server applies each commit under the lock and leaves the callbacks to
    whoever waits for the commit, or runs them when nobody does.
    """

    __slots__ = ("_link", "channel", "create", "parts")

    def __init__(self, link: Link, store: Any, session_id: str, *, create: bool) -> None:
        super().__init__(store, session_id)
        self._link = link
        self.parts: list[Any] = []
        """Of a message that has not come whole yet."""
        self.create = create
        self.channel = 0

    # ---- state -------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """`LIVE`, `STALE` while there is no contact with the server, or `CLOSED`."""
        return "CLOSED" if self._error is not None or self.handles == 0 else self._link.status

    def age(self) -> float:
        """Seconds since the server was heard."""
        return self._link.age()

    # ---- what the server says; in the thread that reads --------------------------------------------

    def opened(self, message: pb.Opened) -> bool:
        """Take one part of the session; whether it was the last."""
        self.parts.append(message)
        if message.more:
            return False
        parts, self.parts = self.parts, []
        with self._lock:
            self._declare([data for part in parts for data in part.declarations])
            self.channel = message.channel
            if message.start == pb.START_RESUMED:
                return True
            kinds, epoch = self.schema.kinds, message.epoch
            told = (record for part in parts for record in part.records)
            found = {one.name: messages.change_of(kinds, epoch, one) for one in told}
            if self.epoch:
                self.jump(epoch, message.rev, found)
            else:
                self.begin(epoch, message.rev, found)
        return True

    def event(self, message: pb.Event) -> bool | None:
        """Apply a commit of somebody else; whether there are callbacks to run, None after a gap."""
        told: Sequence[pb.Change] = message.changes
        if self.parts or message.more:
            self.parts.append(message)
            if message.more:
                return False
            parts, self.parts = self.parts, []
            told = [one for part in parts for one in part.changes]
        rev, prev = message.rev, message.prev
        lock = self._lock
        lock.acquire()
        try:
            known = self.rev
            if rev <= known:
                return False
            if prev > known:
                return None
            if prev < known:  # some of it was foretold
                told = [one for one in told if one.rev > known]
            changes = self._changes(told)
            if self._sink is not None and message.coalesced and rev > known + 1:
                self._sink.lost(rev, {change.name for change in changes})
            self.advance(changes, rev)
        finally:
            lock.release()
        return self.told

    def foretold(self, epoch: str, news: bytes) -> bool:
        if self.id in self._link.opening:  # the server's answer may be older, and would take it back
            return False
        message = pb.Event.FromString(news)
        with self._lock:
            if self.epoch != epoch or message.prev > self.rev:
                return False
            if message.rev > self.rev:
                if any(one.name not in self.schema.kinds for one in message.changes):
                    return False
                self.advance(self._changes(message.changes), message.rev)
        self.drain()
        return True

    def _changes(self, told: Iterable[pb.Change]) -> list[Change]:
        kinds, live, epoch = self.schema.kinds, self.live, self.epoch
        changes = []
        for one in told:
            last = live.get(one.name)
            changes.append(messages.change_of(kinds, epoch, one, None if last is None else last.value))
        return changes

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
            self.advance(own, rev)
        finally:
            lock.release()
        return Receipt(epoch, rev, tuple(own))

    def declared(self, message: pb.Declared) -> None:
        """Take variables that are new."""
        with self._lock:
            self._declare(message.declarations)

    def _declare(self, declarations: Iterable[bytes]) -> None:
        self.adopt(map(requests.told_declaration, declarations))

    def agrees(self, message: pb.Bookmark) -> bool:
        """Whether this copy is what the server has at that revision."""
        if message.rev != self.rev:
            return message.rev < self.rev
        if not message.HasField("digest"):
            return True
        with self._lock:
            records = list(self.live.values())
        return messages.digest(records) == message.digest
