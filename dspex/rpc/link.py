"""The one connection of this process to a server: what goes over it, and how it is kept."""

from __future__ import annotations

import logging
import os
import random
import time
from itertools import count
from typing import Any

from dspex import errors
from dspex.rpc import clock, framing, messages, status
from dspex.rpc.address import Address
from dspex.rpc.extra import SERVICE, grpc, pb
from dspex.rpc.incoming import Incoming
from dspex.rpc.limits import MESSAGE
from dspex.rpc.pending import Outgoing, Pending
from dspex.rpc.remote import RemoteLedger
from dspex.rpc.turns import SLOW

__all__ = ["Link"]

_log = logging.getLogger("dspex.rpc")

_prefix = os.urandom(6).hex()
_ops = count(1)
_chance = random.Random()  # noqa: S311 - spreads clients; the sequence of the module is its user's


def _forked() -> None:
    global _prefix  # noqa: PLW0603 - a child that named its commits like its parent would be taken for a retry
    _prefix = os.urandom(6).hex()
    _chance.seed()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Link(Incoming):
    """
    All sessions of one server, on one stream.

    A lost connection is opened again after a pause that grows,
    each session goes on where it was, and the calls that have no answer are sent again: a commit has a name
    by which the server knows it, so it happens once.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        super().__init__()

    def reset(self) -> None:
        super().reset()
        self._outgoing: Outgoing | None = None
        self._channel: grpc.Channel | None = None
        self._ids = count(1)
        self._attempts = 0
        self._server = 0
        """Which of the servers is asked."""
        self._due = 0.0
        """When the next attempt to connect may be made."""
        self._connected = 0.0
        self._why = ""
        """Why there is no connection."""
        self._used = time.monotonic()
        self._ticked = 0

    # ---- calls -------------------------------------------------------------------------------------

    @staticmethod
    def op() -> str:
        """A name for a commit that no other has."""
        return f"{_prefix}-{next(_ops):x}"

    def next_id(self) -> int:
        """The number of a call."""
        return next(self._ids)

    def commit(
        self, number: int, frame: bytes, ledger: RemoteLedger, *, op: str, own: Any, metadata: Any
    ) -> Any:
        """What the commit did, which has been applied to *ledger* before this returns."""
        return self._call(number, Pending("commit", frame, ledger=ledger, own=own, metadata=metadata, op=op))

    def ask(self, what: str, request: Any, deadline: float | None = None) -> list[Any]:
        """The answers to a call that changes no copy."""
        number = self.next_id()
        frame = pb.Up(calls=[pb.Call(id=number, **{what: request})]).SerializeToString()
        replies: list[Any] = self._call(number, Pending(what, frame), deadline)
        return replies

    def ping(self, session: str) -> None:
        """Return when everything has come that was committed before."""
        self.ask("ping", pb.Ping(session=session))

    def _call(self, number: int, pending: Pending, deadline: float | None = None) -> Any:
        if len(pending.data) > MESSAGE - 1024:
            raise errors.LimitExceeded(
                f"the call takes {len(pending.data)} bytes; the limit is {MESSAGE - 1024}. Split it.",
                limit=MESSAGE - 1024,
            )
        if self.error is not None:
            raise type(self.error)(self.error.message, **self.error.facts)
        self.pending[number] = pending
        if self.live:
            outgoing = self._outgoing
            if outgoing is not None:
                outgoing.put(pending.data)
        else:
            self.start()
            self._hasten()
        deadline = deadline or self.address.timers.deadline
        if not self.answered(pending, deadline):
            raise self._unanswered(number, pending, deadline)
        if pending.error is not None:
            raise pending.error
        return pending.result

    def _unanswered(self, number: int, pending: Pending, deadline: float) -> errors.DspexError:
        if pending.what == "commit" and self.live:
            pending.abandoned = True  # its answer is a part of the session's history
        else:
            self.pending.pop(number, None)
        facts: dict[str, Any] = {"address": self.address.shown}
        unknown = ""
        if pending.op:
            facts["op"] = pending.op
            unknown = " Whether the commit was made is not known; the same op again finds out."
        if self.live:
            return errors.DeadlineExceeded(
                f"the server at {self.address.shown} has not answered within {deadline:g} s.{unknown}",
                **facts,
            )
        return errors.StoreUnavailable(
            f"no contact with the server at {self.address.shown} for {self.age():.1f} s"
            f"{f' ({self._why})' if self._why else ''}.{unknown}",
            **facts,
        )

    # ---- sessions ----------------------------------------------------------------------------------

    def open(self, store: Any, session_id: str, *, create: bool) -> RemoteLedger:
        """The session, kept up to date from now on."""
        with self.guard:
            ledger = self.ledgers.get(session_id)
            if ledger is None:
                ledger = self.ledgers[session_id] = RemoteLedger(self, store, session_id, create=create)
            ledger.handles += 1
            if ledger.epoch:
                return ledger
        try:
            request = pb.SubscribeRequest(session=session_id, create=create)
            number = self.next_id()
            frame = pb.Up(calls=[pb.Call(id=number, subscribe=request)]).SerializeToString()
            self._call(number, Pending("subscribe", frame, ledger=ledger))
        except BaseException:
            self.leave(ledger)
            raise
        return ledger

    def leave(self, ledger: RemoteLedger) -> None:
        """One handle less; with the last one the server is told to send no more."""
        with self.guard:
            self._used = time.monotonic()
            ledger.handles -= 1
            if ledger.handles or self.ledgers.get(ledger.id) is not ledger:
                return
            self.forget(ledger)
        outgoing = self._outgoing
        if self.live and outgoing is not None:
            call = pb.Call(id=next(self._ids), leave=pb.Leave(session=ledger.id))
            outgoing.put(pb.Up(calls=[call]).SerializeToString())

    # ---- the connection; in the thread that reads ---------------------------------------------------

    def connected(self) -> Any:
        """The stream, opened again if need be; None when it is not needed any more."""
        while self.stream is None:
            with self.changed:
                wait = self._due - time.monotonic()
                if self.closed or self.error is not None:
                    return None
                if wait > 0:
                    self.changed.wait(wait)
                    continue
            self._connect()
        return self.stream

    def _connect(self) -> None:
        outgoing = Outgoing()
        self.hello = next(self._ids)
        hello = pb.Call(id=self.hello, hello=pb.Hello(protocol=1, client=f"dspex[{os.getpid()}]"))
        outgoing.put(pb.Up(calls=[hello]).SerializeToString())
        channel = self.address.channel(self._server)
        call: Any = channel.stream_stream(f"/{SERVICE}/Link")
        stream = call(outgoing, metadata=self.address.metadata)
        with self.changed:
            self._channel, self._outgoing = channel, outgoing
            self.stream = stream
            self.heard = self._connected = time.monotonic()
            if self.closed:
                stream.cancel()
        clock.wake()

    def lost(self, error: Exception | None) -> None:
        """The stream has ended."""
        now = time.monotonic()
        with self.changed:
            self.live = False
            stream, self.stream = self.stream, None
            outgoing, self._outgoing = self._outgoing, None
            channel, self._channel = self._channel, None
            if now - self._connected > self.address.timers.good:
                self._attempts = 0
            low, high = self.address.timers.backoff
            pause = _chance.uniform(0, min(high, low * 2**self._attempts))  # so that not all come at once
            self._attempts = min(self._attempts + 1, 30)
            self._server += 1
            self._due = now + pause
            self.channels.clear()
            self.opening.clear()
            for number, pending in list(self.pending.items()):
                pending.replies.clear()  # parts of an answer that another stream will give from its beginning
                if pending.abandoned or pending.what == "resubscribe":
                    self.pending.pop(number, None)
            for ledger in list(self.ledgers.values()):
                ledger.parts.clear()
        if outgoing is not None:
            outgoing.put(None)
        if stream is not None:
            stream.cancel()
        if channel is not None:
            channel.close()
        if isinstance(error, grpc.RpcError):
            made = status.from_call(error, self.address.shown)
            self._why = made.message
            if error.code() in status.FINAL:
                self.fail(made)
        elif error is not None:
            shown = self.address.shown
            about = {"dspex.address": shown}
            _log.error("the stream of %s was not understood", shown, exc_info=error, extra=about)
        clock.wake()

    def welcomed(self, message: pb.Welcome) -> None:
        """The server has answered: go on with all sessions where they were."""
        self._why = ""
        with self.guard:
            ledgers = [ledger for ledger in self.ledgers.values() if ledger.epoch]
        for ledger in ledgers:
            self.resubscribe(ledger, resume=True)
        if not ledgers:
            self.going()

    def resubscribe(self, ledger: RemoteLedger, *, resume: bool) -> None:
        """Have the server send *ledger* again, from where it was or from a snapshot."""
        outgoing = self._outgoing
        if outgoing is None:
            return
        number = next(self._ids)
        self.opening.add(ledger.id)
        at = pb.Revision(epoch=ledger.epoch, rev=ledger.rev) if resume else None
        request = pb.SubscribeRequest(session=ledger.id, create=ledger.create, resume=at)
        frame = pb.Up(calls=[pb.Call(id=number, subscribe=request)]).SerializeToString()
        self.pending[number] = Pending("resubscribe", frame, ledger=ledger)
        outgoing.put(frame)

    def redeclare(self, ledger: RemoteLedger) -> None:
        """Tell a server that has begun anew which variables there are."""
        outgoing = self._outgoing
        if outgoing is None:
            return
        declare = messages.declarations(ledger.schema.declarations.values())
        for part, _ in framing.parts(declare):
            # Nobody waits for the answer: who sets what was refused is told.
            request = pb.CommitRequest(session=ledger.id, declare=part, op=self.op())
            call = pb.Call(id=next(self._ids), commit=request)
            outgoing.put(pb.Up(calls=[call]).SerializeToString())

    def going(self) -> None:
        """All sessions are up to date again: send what waits."""
        with self.changed:
            outgoing = self._outgoing
            if outgoing is None:
                return
            self.fresh = time.monotonic()
            # First, so that whoever calls now sends for himself; what is sent twice is done once.
            self.live = True
            for _, pending in sorted(self.pending.items()):
                if pending.what != "resubscribe":
                    outgoing.put(pending.data)
        with self.guard:
            ledgers = list(self.ledgers.values())
        for ledger in ledgers:
            ledger.guard(None)

    # ---- the state ---------------------------------------------------------------------------------

    def _hasten(self) -> None:
        """Somebody waits: do not pause for long, but do not hammer either."""
        with self.changed:
            soon = time.monotonic() + self.address.timers.backoff[0]
            if self._due > soon:
                self._due = soon
                self.changed.notify_all()

    def tick(self) -> float:
        """See whether the connection is still good, and whether anybody wants it."""
        timers = self.address.timers
        if not self.running:
            return 3600.0
        now = time.monotonic()
        before = self._ticked
        stream = self.stream
        calls, self._ticked = self._calls, self._calls
        self._fast = calls != before
        until = self._until
        if until is not None and now > until and stream is not None:
            stream.cancel()  # the only way to interrupt who reads
        if stream is not None and now - self.heard > timers.silence:
            self.live = False
            self._why = f"silent for {timers.silence:g} s"
            stream.cancel()
        if not self.live and self.running and now - self.fresh > self.address.max_staleness:
            with self.guard:
                ledgers = list(self.ledgers.values())
            for ledger in ledgers:
                ledger.guard(self._stale)
        if self.ledgers or self.pending:
            self._used = now
        elif now - self._used > timers.linger:
            self.disconnect()
        limits = [timers.silence / 4, timers.linger]
        if self.look(now):
            limits.append(2 * SLOW)
        if self._fast or self._until is not None:
            limits.append(timers.deadline / 8)
        if not self.live and now - self.fresh <= self.address.max_staleness:
            limits.append(self.address.max_staleness - (now - self.fresh) + 0.001)
        return max(0.001, min(limits))

    def _stale(self) -> None:
        age = self.age()
        raise errors.StaleRead(
            f"no contact with the server at {self.address.shown} for {age:.1f} s; this reader takes values "
            f"that are at most {self.address.max_staleness:g} s old.",
            address=self.address.shown,
            age=age,
            max_staleness=self.address.max_staleness,
        )

    def disconnect(self) -> None:
        """Let go of the connection; the next call opens it again."""
        with self.changed:
            self.closed = True
            self.live = False
            stream = self.stream
            self.changed.notify_all()
        if stream is not None:
            stream.cancel()

    def close(self) -> None:
        """Let go, and wait until the threads have ended."""
        self.disconnect()
        self.join(5)

    def forked(self) -> None:
        """In a child of fork: nothing of the connection is usable here, and no thread runs."""
        self.reset()
        for ledger in self.ledgers.values():
            ledger.guard(self._revive)

    def _revive(self) -> None:
        for ledger in self.ledgers.values():
            ledger.guard(None)
        self.ping("")
