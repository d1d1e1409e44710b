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

BRIEF = 0.005
"""Seconds within which the last answer must have come for the next one to be awaited where hints come."""

REASONS = {
    "OOM": "is full: it has no memory for a commit (maxmemory). Reads go on",
    "MISCONF": "does not take commits because it cannot save them to its disk. Reads go on",
    "NOREPLICAS": "does not take commits because it has too few good replicas. Reads go on",
    "WRONGTYPE": "has keys of another program where this session would be",
}


class Call(Job):
    """One command."""

    __slots__ = ("data", "due", "durable", "lost", "near", "reply", "settle", "unsafe")

    def __init__(
        self,
        data: bytes,
        due: float,
        settle: Callable[[Call], object] | None = None,
        *,
        durable: bool = False,
        near: bool = False,
    ) -> None:
        super().__init__()
        self.data = data
        self.due = due
        self.settle = settle
        """Called with the reply, in the order of replies."""
        self.durable = durable
        """Whether it changes something that is to be kept."""
        self.near = near
        """Whether its answer may come where hints come."""
        self.reply: Any = None
        self.lost: str | None = None
        """Why there is no reply."""
        self.unsafe = ""
        """Why the change is not as durable as it is to be, though it was made."""

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
        self._brief = False
        """Whether the last answer came so soon that nobody needs to hear meanwhile."""

    def call(
        self,
        data: bytes,
        settle: Callable[[Call], object] | None = None,
        *,
        durable: bool = False,
        near: bool = False,
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
            job = Call(data, due, settle, durable=durable, near=near)
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
                    self.load()
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
        shown, level = self._peer.shown, self._peer.location.durability
        return errors.DurabilityUnknown(
            f"the commit was made, but {job.unsafe}: it can be lost when the server at {shown} fails.",
            address=shown,
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
        wire: Wire | None = None
        try:
            if not todo:
                return
            left = due - now
            deadline = self._peer.location.timing.deadline
            short = left < 0.9 * deadline
            if self._brief and not short and self._lent(todo):
                return
            wire = self._wire
            if wire is None:
                wire = self._wire = self._peer.connect(left)
            if short:
                wire.wait_at_most(left)
            wait = self._wait if any(job.durable for job in todo) else b""
            self._exchange(wire, todo, wait)
            if short:
                wire.wait_at_most(deadline)
        except Lost as error:
            self._forget()
            missing = _without_answer(todo, str(error))
            if wire is not None and self._wait and not missing:
                level = self._peer.location.durability
                _unsafe(todo, f"its server has not said whether it is as durable as '{level}'")
        except errors.DspexError as error:
            for job in jobs:
                job.error = error
        except BaseException:
            # Half an answer may have been read: what comes next would be taken for the answer of others.
            self._forget()
            _without_answer(todo, "interrupted")
            raise

    def _lent(self, jobs: list[Call]) -> bool:
        """
        Send *jobs* on the connection that hears, if they may go there and it is at rest; whether that is so.

        The hints of their own commits come with their answers then, and no thread is woken for them. What
        else comes is heard here. An answer that comes late would keep the callbacks of others' commits back.
        """
        peer = self._peer
        wire = peer.lend() if all(job.near and not job.durable for job in jobs) else None
        if wire is None:
            return False
        lost: str | None = "interrupted"
        try:
            self._exchange(wire, jobs)
            lost = None
        except Lost as error:
            lost = str(error)
            _without_answer(jobs, lost)
        finally:
            peer.give_back(wire, lost)
        return True

    def _exchange(self, wire: Wire, jobs: list[Call], wait: bytes = b"") -> None:
        begin = time.monotonic()
        for job in jobs:
            job.reply = MAYBE
        wire.send(b"".join([job.data for job in jobs]) + wait if len(jobs) > 1 or wait else jobs[0].data)
        for job in jobs:
            reply = wire.read()
            while type(reply) is Push:
                self._peer.overhear(reply)
                reply = wire.read()
            job.reply, job.lost = reply, None
            if job.settle is not None and type(reply) is bytes:
                job.settle(job)
        if wait:
            self._waited(wire.read(), jobs)
        self._brief = time.monotonic() - begin < BRIEF

    def _waited(self, reply: Any, jobs: list[Call]) -> None:
        level = self._peer.location.durability
        if type(reply) is Refused:
            said = errors.shown(str(reply))[1:-1].rstrip(".")
            _unsafe(jobs, f"its server cannot make commits as durable as '{level}' ({said})")
            return
        reached = reply[0] if isinstance(reply, list) else reply
        if reached < max(1, level.replicas):
            deadline = self._peer.location.timing.deadline
            _unsafe(jobs, f"not as durable as '{level}' within {deadline:g} s")

    def _forget(self) -> bool:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        return wire is not None

    def install(self) -> None:
        """
        Put the library of functions into the server.

        Raises:
            StoreUnavailable, DeadlineExceeded: There is no server, or that is not allowed.
        """
        job = self.load()
        if job.error is not None:
            raise job.error
        if job.lost is not None:
            raise self._unanswered(job.lost, "")

    def load(self) -> Call:
        """
        Try to put the library there; what came of that.

        Raises:
            StoreUnavailable: It is not allowed.
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
        return job


MAYBE = object()
"""In place of a reply: the command was sent, or a part of it."""


def again(data: bytes, op: str) -> bytes:
    """A command that says of its commit that it may have been made already."""
    first, more = (b"%b\r\n$1\r\n%d\r\n" % (op.encode(), tried) for tried in (0, 1))
    return data.replace(first, more, 1) if op else data


def _without_answer(jobs: list[Call], why: str) -> int:
    """Say of those without an answer why; how many they are."""
    missing = [job for job in jobs if job.lost is not None]
    for job in missing:
        job.lost = why
    return len(missing)


def _unsafe(jobs: list[Call], why: str) -> None:
    for job in jobs:
        if job.durable and type(job.reply) is bytes:
            job.unsafe = why


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
