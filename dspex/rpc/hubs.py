"""One session as a server sends it: what was committed, encoded once for all who watch."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import groupby, islice
from operator import attrgetter
from queue import SimpleQueue
from threading import get_ident
from typing import TYPE_CHECKING

import msgspec

from dspex import errors
from dspex.changes import Change
from dspex.rpc import framing, messages
from dspex.rpc.extra import pb
from dspex.rpc.limits import PART, Bucket
from dspex.stores.base import HISTORY, Ended, Ledger

if TYPE_CHECKING:
    import asyncio

    from dspex.rpc.outbox import Outbox

__all__ = ["BACKLOG", "Hub", "Told"]

BACKLOG = 1024 * 1024
"""
Bytes of commits that a session keeps for streams that are behind; the history has more, coalesced or not.
"""


_rev_of = attrgetter("rev")


class Told(msgspec.Struct, gc=False):
    """One commit."""

    rev: int
    changes: tuple[Change, ...]
    frames: list[bytes] | None = None
    """Made when somebody is to be told, once for all."""


class Hub:
    """
    A session with all streams that watch it.

    A stream has no buffer of its own, only the revision up to which it was told. What it is behind is read
    from `ring`, which all streams share, then from the history of the session, and when that does not go back
    so far, from the records: then as one event with the newest change of each name.

    Belongs to the thread of the server's loop; `apply` and `drain` are called by whoever commits.
    """

    __slots__ = (
        "_bookmark",
        "_loop",
        "_noted",
        "_scheduled",
        "_size",
        "_subscribed",
        "_thread",
        "answering",
        "channel",
        "commits",
        "ended",
        "epoch",
        "ledger",
        "links",
        "ops",
        "rev",
        "ring",
        "schema",
        "session",
        "sizes",
        "used",
    )

    def __init__(self, session: str, channel: int, ledger: Ledger, loop: asyncio.AbstractEventLoop) -> None:
        self.session = session
        self.channel = channel
        self.ledger = ledger
        self.schema = ledger.schema
        self.links: tuple[Outbox, ...] = ()
        self.ended = False
        self.used = loop.time()
        self.ring: deque[Told] | None = None
        """The newest commits, without a gap, as long as somebody may have to be told."""
        self.rev = ledger.rev
        self.epoch = ledger.epoch
        self.commits: Bucket | None = None
        """The bucket of its commits, made with the first one."""
        self.ops: dict[str, int] | None = None
        """Of the newest commits, by their names, the revision; less than 0 where nothing was changed."""
        self.sizes: dict[str, int] | None = None
        """Bytes of those values and declarations that are large, by name."""
        self._size = 0
        """Bytes of the frames in `ring`, the newest aside."""
        self._bookmark: tuple[int, bytes] | None = None
        self.answering = False
        """Whether a commit is being made for a call."""
        self._noted: SimpleQueue[Told] = SimpleQueue()
        self._scheduled = False
        self._subscribed = False
        self._loop = loop
        self._thread = get_ident()

    # ---- the sink of the ledger ------------------------------------------------------------------------

    @property
    def queue(self) -> bool:
        """Whether something is to be told."""
        return not self._noted.empty()

    def apply(self, changes: Iterable[Change]) -> None:
        """Note a commit. A store that catches up with a file tells several at once."""
        noted = tuple(changes)
        if len(noted) == 1:
            self._noted.put(Told(noted[0].rev, noted))
        else:
            for at, commit in groupby(noted, key=_rev_of):
                self._noted.put(Told(at, tuple(commit)))

    def lost(self, rev: int, names: Collection[str]) -> None:
        """A gap is seen by its revision when it is told; in another history all streams begin again."""
        if self.ledger.epoch != self.epoch:
            self.epoch = ""
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._restart)

    def drain(self) -> None:
        """Tell what was noted, in the thread of the loop."""
        if get_ident() == self._thread:
            # While a call commits: it pumps when it answers, which may be cheaper then.
            if not self.answering:
                self.pump()
        elif not self._scheduled:
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self.pump)
            except RuntimeError:  # the loop has ended before the store that it served
                self._forget()

    def end(self) -> None:
        """Tell all streams that the session was deleted, in the thread of the loop."""
        if get_ident() == self._thread:
            self._end()
        else:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end)

    # ---- in the thread of the loop ---------------------------------------------------------------------

    def join(self, outbox: Outbox) -> None:
        """Tell *outbox* of what comes; it sets the revision from which on."""
        if not self._subscribed:
            self._subscribed = True
            self.ledger.subscribe(self)
            self._begin()
            self.rev = max(self.rev, self.ledger.rev)
            self.schema = self.ledger.schema
        if outbox not in self.links:
            self.links += (outbox,)

    def leave(self, outbox: Outbox) -> None:
        """Tell *outbox* no more."""
        self.links = tuple(link for link in self.links if link is not outbox)
        self.used = self._loop.time()
        if not self.links and self._subscribed:
            self._subscribed = False
            self.ledger.unsubscribe(self)
            self._forget()

    def _begin(self) -> None:
        """Be in the history in which the ledger is."""
        if self.epoch != self.ledger.epoch:
            self.epoch, self.rev = self.ledger.epoch, self.ledger.rev
            self._bookmark = None
            self._forget()

    def _restart(self) -> None:
        """End all streams: their clients come again, with a revision that is none of this history."""
        self._begin()
        for link in list(self.links):
            link.stop()

    def close(self) -> None:
        """Give the ledger back."""
        if self._subscribed:
            self._subscribed = False
            self.ledger.unsubscribe(self)
        self.ledger.close()

    def _forget(self) -> None:
        self._forget_ring()
        while not self._noted.empty():
            self._noted.get_nowait()

    def alone(self, rev: int) -> bool:
        """Whether the commit *rev* is all there is to tell, to the one stream that watches, which made it."""
        if (
            self._noted.qsize() == 1
            and len(self.links) == 1
            and rev == self.rev + 1
            and self.ledger.schema is self.schema
        ):
            self._noted.get_nowait()
            if self.ring is not None:
                self._forget_ring()
            self.rev = rev
            return True
        return False

    def pump(self) -> None:
        """Take what was noted and tell the streams that they are behind."""
        self._scheduled = False
        if not self.epoch:
            return  # nothing of the other history, until all streams begin again
        noted, ring = self._noted, self.ring
        rev = self.rev
        if self.ledger.schema is not self.schema:
            self._declare()
        while not noted.empty():
            told = noted.get_nowait()
            if told.rev <= rev:
                continue
            if ring is None or told.rev != rev + 1:
                ring = self.ring = deque()
                self._size = 0
            elif ring:
                self._size += sum(map(len, self._frames(ring[-1])))
            rev = told.rev
            ring.append(told)
        if rev == self.rev:
            return
        self.rev = rev
        while ring is not None and (self._size > BACKLOG or len(ring) > HISTORY):
            self._size -= sum(map(len, self._frames(ring.popleft())))
        for link in self.links:
            link.behind(self)

    def _forget_ring(self) -> None:
        self.ring = None
        self._size = 0

    def _frames(self, told: Told) -> list[bytes]:
        frames = told.frames
        if frames is None:
            schema, channel, changes = self.ledger.schema, self.channel, told.changes
            if len(changes) == 1:
                frames = [messages.event(schema, channel, changes[0])]
            else:
                frames = list(messages.events(schema, channel, told.rev - 1, told.rev, changes))
            told.frames = frames
        return frames

    def _declare(self) -> None:
        """Tell of variables that are new."""
        schema, self.schema = self.schema, self.ledger.schema
        new = [one for name, one in self.schema.declarations.items() if name not in schema.declarations]
        for part, _ in framing.parts(messages.declarations(new)):
            data = messages.item(0, declared=pb.Declared(channel=self.channel, declarations=part))
            for link in self.links:
                link.tell(data)

    def since(self, rev: int, upto: int) -> tuple[list[bytes] | Iterator[bytes], int]:
        """What a stream that was told of *rev* is to be told next, up to *upto*, and how far that goes."""
        ring = self.ring
        if ring and ring[0].rev <= rev + 1:
            if ring[-1].rev == upto == rev + 1:
                return self._frames(ring[-1]), upto
            start = rev + 1 - ring[0].rev
            found: list[bytes] = []
            for told in islice(ring, start, start + upto - rev):
                found += self._frames(told)
            return found, upto
        return self._replay(rev)

    def _replay(self, rev: int) -> tuple[list[bytes] | Iterator[bytes], int]:
        ledger, channel = self.ledger, self.channel
        found: list[bytes] = []
        size = 0
        try:
            changes = ledger.history(since=rev)
        except errors.UnknownRevision:
            snapshot = ledger.snapshot()
            newest = [record for record in snapshot.records.values() if record.rev > rev and record.version]
            newest.sort(key=_rev_of)
            upto = snapshot.revision.rev
            return messages.events(ledger.schema, channel, rev, upto, newest, coalesced=True), upto
        for at, commit in groupby(changes, key=_rev_of):
            frames = list(messages.events(ledger.schema, channel, rev, at, commit))
            found += frames
            rev = at
            size += sum(map(len, frames))
            if size > PART:  # the rest when this is on its way
                break
        return found, rev

    def _end(self) -> None:
        self.ended = True
        data = messages.item(0, ended=messages.ended(self.channel, self.ledger))
        for link in self.links:
            link.tell(data)
            link.forget(self)

    def bookmark(self, rev: int) -> bytes:
        """What tells a stream that was told of *rev* that this is all."""
        known = self._bookmark
        if known is not None and known[0] == rev:
            return known[1]
        ledger = self.ledger
        records = ledger.records  # not a snapshot, which a ledger in memory would keep
        whole = {**getattr(records, "base", {}), **records}
        # A commit is in the records just before it is in `rev`.
        same = ledger.rev == rev and all(record.rev <= rev for record in whole.values())
        digest = messages.digest(whole.values()) if same else None
        frame = messages.item(0, bookmark=pb.Bookmark(channel=self.channel, rev=rev, digest=digest))
        if same:
            self._bookmark = rev, frame
        return frame

    def trim(self) -> None:
        """Forget what every stream was told."""
        if self.ring is not None and all(link.sent[self] >= self.rev for link in self.links):
            self._forget_ring()

    @property
    def gone(self) -> bool:
        """Whether somebody has deleted the session."""
        return self.ended or isinstance(self.ledger.records, Ended)
