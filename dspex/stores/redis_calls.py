"""Commands to one server: who finds nobody at work sends for all who wait, on one connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.stores.groups import Job, Turns
from dspex.stores.redis_wire import LIBRARY, Lost, Push, Refused, Wire, frame, source

if TYPE_CHECKING:
    from dspex.stores.redis_peer import Peer

__all__ = ["Call", "Calls", "refusal"]

LATER = frozenset({"BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "TRYAGAIN", "UNBLOCKED"})
"""Refusals that are over when the server is itself again."""

REASONS = {
    "OOM": "is full: it has no memory for a commit (maxmemory). Reads go on",
    "MISCONF": "does not take commits because it cannot save them to its disk. Reads go on",
    "NOREPLICAS": "does not take commits because it has too few good replicas. Reads go on",
    "WRONGTYPE": "has keys of another program where this session would be",
}


class Call(Job):
    """One command."""

    __slots__ = ("data", "due", "durable", "lost", "reply", "settle", "unsafe")

    def __init__(
        self,
        data: bytes,
        due: float,
        settle: Callable[[Call], object] | None = None,
        *,
        durable: bool = False,
    ) -> None:
        super().__init__()
        self.data = data
        self.due = due
        self.settle = settle
        """Called with the reply, in the order of replies."""
        self.durable = durable
        """Whether it changes something that is to be kept."""
        self.reply: Any = None
        self.lost: str | None = None
        """Why there is no reply."""
        self.unsafe = 0
        """How many copies are known to have the change, where that are too few."""

    @property
    def over(self) -> bool:
        """Whether it was sent, or has failed."""
        return self.reply is not None or self.lost is not None or self.error is not None


class Calls:
    """
    The connection for commands.

    The commands of all threads that wait for their turn go out together, with one wait for their durability.
    """

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._turns: Turns[Call] = Turns(self._work)
        self._wire: Wire | None = None
        self._wait = _wait_for(peer)
        self._connects = 0

    def call(
        self,
        data: bytes,
        settle: Callable[[Call], object] | None = None,
        *,
        durable: bool = False,
        op: str = "",
    ) -> Any:
        """
        The reply to a command that may be sent again when there was none.

        Raises:
            StoreUnavailable, DeadlineExceeded, PermissionDenied: `op` is the commit whose outcome is unknown.
        """
        timing = self._peer.location.timing
        due = time.monotonic() + timing.deadline
        pause = timing.backoff[0]
        sent = installed = False
        while True:
            job = Call(data, due, settle, durable=durable)
            self._turns.do(job)
            if job.error is not None:
                raise job.error
            reply, why = job.reply, job.lost
            if why is None:
                if type(reply) is not Refused:
                    if job.unsafe:
                        raise self._not_durable(job, op)
                    return reply
                if reply.code == "ERR" and "Function not found" in str(reply) and not installed:
                    installed = True
                    self.install()
                    continue
                if reply.code in ("MOVED", "ASK"):
                    raise reply
                if reply.code not in LATER:
                    raise refusal(reply, self._peer)
                why = str(reply)
                if reply.code in ("READONLY", "MASTERDOWN"):
                    self._peer.drop(why)
            elif job.reply is MAYBE:
                sent = True
                data = again(data, op)
            left = due - time.monotonic()
            if left <= pause:
                raise self._unanswered(why, op if sent else "")
            self._peer.pause(min(pause, left))
            pause = min(2 * pause, timing.backoff[1], 0.5)

    def _unanswered(self, why: str, op: str) -> errors.DspexError:
        shown, deadline = self._peer.shown, self._peer.location.timing.deadline
        facts: dict[str, Any] = {"address": shown}
        unknown = ""
        if op:
            facts["op"] = op
            unknown = " Whether the commit was made is not known; the same op again finds out."
        if why == "no answer in time":
            return errors.DeadlineExceeded(
                f"the server at {shown} has not answered within {deadline:g} s.{unknown}", **facts
            )
        return errors.StoreUnavailable(
            f"no contact with the server at {shown} within {deadline:g} s "
            f"({errors.shown(why)[1:-1]}).{unknown}",
            **facts,
        )

    def _not_durable(self, job: Call, op: str) -> errors.DurabilityUnknown:
        level = self._peer.location.durability
        return errors.DurabilityUnknown(
            f"the commit was made, but not as durable as '{level}' within "
            f"{self._peer.location.timing.deadline:g} s: it can be lost when the server at "
            f"{self._peer.shown} fails.",
            address=self._peer.shown,
            durability=str(level),
            op=op,
        )

    def drop(self) -> None:
        """Have the next command use another connection. What waits for an answer gets none."""
        wire = self._wire
        if wire is not None:
            wire.abort()

    def close(self) -> None:
        """Let go of the connection, when nobody uses it."""
        if self._turns.at_once(self._forget) is None:
            self.drop()

    # ---- for who has the turn -------------------------------------------------------------------------

    def _work(self, jobs: list[Call]) -> None:
        now = time.monotonic()
        due = jobs[0].due
        for job in jobs:
            job.lost = "waiting for others"
            due = max(due, job.due)
        todo = [job for job in jobs if job.due > now]
        read = 0
        wire = self._wire
        try:
            if not todo:
                return
            left = due - now
            if wire is None:
                wire = self._wire = self._peer.connect(left)
                self._connects += 1
            deadline = self._peer.location.timing.deadline
            short = left < 0.9 * deadline
            if short:
                wire.sock.settimeout(left)
            wait = self._wait if any(job.durable for job in todo) else b""
            for job in todo:
                job.reply = MAYBE
            wire.send(b"".join([job.data for job in todo]) + wait if len(todo) > 1 or wait else todo[0].data)
            for job in todo:
                reply = wire.read()
                while type(reply) is Push:
                    reply = wire.read()
                job.reply, job.lost = reply, None
                read += 1
                if job.settle is not None and type(reply) is bytes:
                    job.settle(job)
            if wait:
                self._waited(wire.read(), todo)
            if short:
                wire.sock.settimeout(deadline)
        except Lost as error:
            self._forget()
            for job in todo[read:]:
                job.lost = str(error)
            if wire is not None and wait_lost(todo, read, self._wait):
                _unsafe(todo)
        except errors.DspexError as error:
            for job in jobs:
                job.error = error
        except BaseException:
            # Half an answer may have been read: what comes next would be taken for the answer of others.
            self._forget()
            for job in todo[read:]:
                job.lost = "interrupted"
            raise

    def _waited(self, reply: Any, jobs: list[Call]) -> None:
        level = self._peer.location.durability
        if type(reply) is Refused:
            raise errors.StoreUnavailable(
                f"the server at {self._peer.shown} cannot make commits as durable as '{level}': "
                f"{errors.shown(str(reply))[1:-1]}",
                address=self._peer.shown,
            )
        reached = reply[0] if isinstance(reply, list) else reply
        if reached < max(1, level.replicas):
            _unsafe(jobs)

    def _forget(self) -> bool:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        return wire is not None

    def install(self) -> None:
        """
        Put the library of functions into the server.

        Raises:
            StoreUnavailable: That is not allowed.
        """
        due = time.monotonic() + self._peer.location.timing.deadline
        job = Call(frame(b"FUNCTION", b"LOAD", b"REPLACE", source().encode()), due)
        self._turns.do(job)
        if type(job.reply) is Refused:
            raise errors.StoreUnavailable(
                f"the server at {self._peer.shown} has no function library {LIBRARY!r}, and this user may "
                "not put it there. Somebody who may runs: python -m dspex.stores.redis install URL "
                f"({errors.shown(str(job.reply))[1:-1]})",
                address=self._peer.shown,
            )


MAYBE = object()
"""In place of a reply: the command was sent, or a part of it."""


def again(data: bytes, op: str) -> bytes:
    """A command that says of its commit that it may have been made already."""
    first, more = (b"%b\r\n$1\r\n%d\r\n" % (op.encode(), tried) for tried in (0, 1))
    return data.replace(first, more, 1) if op else data


def wait_lost(jobs: list[Call], read: int, wait: bytes) -> bool:
    """Whether only the answer to the wait for durability is missing."""
    return bool(wait) and read == len(jobs)


def _unsafe(jobs: list[Call]) -> None:
    for job in jobs:
        if job.durable and type(job.reply) is bytes:
            job.unsafe = 1


def _wait_for(peer: Peer) -> bytes:
    level = peer.location.durability
    milliseconds = b"%d" % max(1, int(800 * peer.location.timing.deadline))
    if level.level == "fsynced":
        return frame(b"WAITAOF", b"1", b"0", milliseconds)
    if level.replicas:
        return frame(b"WAIT", b"%d" % level.replicas, milliseconds)
    return b""


def refusal(reply: Refused, peer: Peer) -> errors.DspexError:
    """What a server's refusal is for who called."""
    said = errors.shown(str(reply))[1:-1]
    if reply.code in ("NOPERM", "NOAUTH"):
        return errors.PermissionDenied(
            f"the server at {peer.shown} does not allow it: {said}", address=peer.shown
        )
    for code, reason in REASONS.items():
        if code == reply.code or f"-{code} " in str(reply):
            return errors.StoreUnavailable(
                f"the server at {peer.shown} {reason}. It says: {said}", address=peer.shown
            )
    return errors.StoreUnavailable(f"the server at {peer.shown} refused: {said}", address=peer.shown)
