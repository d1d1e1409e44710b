"""What comes over a connection: applied to the copies of the sessions, or given to who waits for it."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from typing import TYPE_CHECKING

from dspex import errors
from dspex.rpc import status
from dspex.rpc.extra import pb
from dspex.rpc.pending import Pending
from dspex.rpc.replica import Replica
from dspex.rpc.turns import Turns
from dspex.stores import refusals

if TYPE_CHECKING:
    from dspex.rpc.remote import RemoteLedger

__all__ = ["Incoming"]

FINAL = (errors.PermissionDenied, errors.UnknownSession, errors.InvalidName, errors.SessionMoved)
"""Refusals of a session that another attempt would only get again."""


class Incoming(Turns):
    """The copies of the sessions, and what the server says about them."""

    def __init__(self) -> None:
        self.ledgers: dict[str, RemoteLedger] = {}
        super().__init__()

    def reset(self) -> None:
        super().reset()
        self.changed = threading.Condition(threading.RLock())
        self.channels: dict[int, RemoteLedger] = {}
        self.opening: set[str] = set()
        """The sessions that a new connection has not brought up to date yet."""
        self.error: errors.DspexError | None = None
        """Why there will never be a connection again."""
        self.hello = 0
        """The number of the first call of the connection."""
        self.heard = self.fresh = time.monotonic()
        self.resyncs = 0
        """How often a copy was found to be wrong; a number that should stay 0."""

    @property
    def status(self) -> str:
        """`LIVE`, `STALE` or `CLOSED`."""
        if self.error is not None:
            return "CLOSED"
        return "LIVE" if self.live else "STALE"

    def age(self) -> float:
        """Seconds since the copies were known to be up to date."""
        return time.monotonic() - self.fresh

    # ---- what is asked in return -------------------------------------------------------------------

    @abstractmethod
    def welcomed(self, message: pb.Welcome) -> None:
        """The server has answered."""

    @abstractmethod
    def going(self) -> None:
        """All sessions are up to date."""

    @abstractmethod
    def resubscribe(self, ledger: RemoteLedger, *, resume: bool) -> None:
        """Have the server send *ledger* again."""

    @abstractmethod
    def redeclare(self, ledger: RemoteLedger) -> None:
        """Tell a server that has begun anew which variables there are."""

    # ---- what comes --------------------------------------------------------------------------------

    def take(self, data: bytes) -> list[Replica]:
        todo: list[Replica] = []
        self.heard = now = time.monotonic()
        if self.live:
            self.fresh = now
        for item in pb.Down.FromString(data).items:
            what = item.WhichOneof("what")
            if what == "event":
                ledger = self.channels.get(item.event.channel)
                if ledger is not None:
                    told = ledger.event(item.event)
                    if told:
                        todo.append(ledger)
                    elif told is None:
                        self._resync(ledger, resume=True)
            elif item.id:
                self._answered(item, what, todo)
            elif what == "bookmark":
                ledger = self.channels.get(item.bookmark.channel)
                if ledger is not None and not ledger.agrees(item.bookmark):
                    self._resync(ledger, resume=False)
            elif what == "declared":
                ledger = self.channels.get(item.declared.channel)
                if ledger is not None:
                    ledger.declared(item.declared)
            elif what == "ended":
                ledger = self.channels.get(item.ended.channel)
                if ledger is not None:
                    self._ended(ledger, item.ended)
        return todo

    def _answered(self, item: pb.Item, what: str | None, todo: list[Replica]) -> None:
        if what == "welcome":
            self.welcomed(item.welcome)
            return
        pending = self.pending.get(item.id)
        if pending is None:
            if what == "error" and item.id == self.hello:
                self.fail(status.unpacked(item.error))
            return
        ledger = pending.ledger
        if what == "error":
            del self.pending[item.id]
            self._refused(pending, status.unpacked(item.error))
        elif what == "commit" and ledger is not None:
            pending.replies.append(item.commit)
            if item.commit.more:
                return
            del self.pending[item.id]
            receipt = ledger.committed(pending, pending.replies)
            if receipt is None:
                self._resync(ledger, resume=True)
                error = errors.StoreUnavailable(
                    f"the commit was made, at revision {item.commit.rev}, but this copy of the session is "
                    "not up to date.",
                    op=pending.op,
                )
                pending.finish(error=error)
                return
            if pending.abandoned:
                todo.append(ledger)
            pending.finish(receipt)
        elif what == "opened" and ledger is not None:
            self._opened(item, pending, ledger, todo)
        else:
            reply = getattr(item, what or "left")
            pending.replies.append(reply)
            if not getattr(reply, "more", False):
                del self.pending[item.id]
                pending.finish(pending.replies)

    def _opened(self, item: pb.Item, pending: Pending, ledger: RemoteLedger, todo: list[Replica]) -> None:
        known = ledger.schema.declarations
        if not ledger.opened(item.opened):
            return
        del self.pending[item.id]
        self.channels[item.opened.channel] = ledger
        if pending.what == "resubscribe":
            if item.opened.start == pb.START_OTHER_EPOCH and known:
                self.redeclare(ledger)
            self.opening.discard(ledger.id)
            todo.append(ledger)
            if not self.opening and not self.live:
                self.going()
        pending.finish(ledger)

    def _refused(self, pending: Pending, error: errors.DspexError) -> None:
        ledger = pending.ledger
        if pending.what == "resubscribe" and ledger is not None:
            if not isinstance(error, FINAL):
                raise error  # the connection is of no use: another attempt, later
            self.opening.discard(ledger.id)
            ledger.end(error)
            with self.guard:
                self.forget(ledger)
            if not self.opening and not self.live:
                self.going()
        pending.finish(error=error)

    def _ended(self, ledger: RemoteLedger, message: pb.Ended) -> None:
        with self.guard:
            self.forget(ledger)
        moved = status.unpacked(message.error) if message.HasField("error") else None
        ledger.end(moved or refusals.deleted(ledger.id))

    def _resync(self, ledger: RemoteLedger, *, resume: bool) -> None:
        self.resyncs += 1
        if ledger.id not in self.opening:
            self.resubscribe(ledger, resume=resume)

    def forget(self, ledger: RemoteLedger) -> None:
        """Take no more of *ledger*."""
        if self.ledgers.get(ledger.id) is ledger:
            del self.ledgers[ledger.id]
        self.channels.pop(ledger.channel, None)

    def fail(self, error: errors.DspexError) -> None:
        """There will never be a connection: say so to all who wait and all who read."""
        with self.changed:
            self.error = error
            stream = self.stream
            self.changed.notify_all()
        if stream is not None:
            stream.cancel()
        with self.guard:
            ledgers = list(self.ledgers.values())
            self.ledgers.clear()
        for ledger in ledgers:
            ledger.end(error)
        for number in list(self.pending):
            pending = self.pending.pop(number, None)
            if pending is not None:
                pending.finish(error=error)
