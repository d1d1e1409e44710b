"""One session of a Redis store: the copy in this process, and how it follows the server."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.changes import Change
from dspex.commits import Commit
from dspex.stores import base, refusals
from dspex.stores.base import new_epoch
from dspex.stores.claimed import NESTING, Claims, Held
from dspex.stores.redis_calls import refusal
from dspex.stores.redis_names import next_nonce, next_op
from dspex.stores.redis_records import (
    BAD,
    COMMIT,
    KEY,
    change_of,
    changes_of,
    commit_arguments,
    corrupt,
    declarations_of,
    hinted,
    pairs,
)
from dspex.stores.redis_wire import LIBRARY, Lost, Refused, frame
from dspex.stores.replica import Replica

if TYPE_CHECKING:
    from dspex.stores.redis_calls import Call
    from dspex.stores.redis_peer import Peer

__all__ = ["RedisCopy"]

RECENT = 256
"""Commits that are kept for those who made them and find that they were applied already."""

FEW = 3
"""How many hear a session at most, where its commits go over the connection that hears: the server writes to
those that hear one after another, and who commits would wait for his turn among them."""

SET, SINCE, CREATE, RENEW = (f"{LIBRARY}_{name}".encode() for name in ("set", "since", "create", "renew"))

HEADLESS = "its head is not 'epoch rev nonce …'"

At = tuple[bytes, int, bytes]
"""Epoch, revision, and the nonce of its commit."""

NOWHERE: At = (b"", 0, b"0")


class RedisCopy(Replica):
    """
    The copy: applies every commit in the order of revisions, whoever hears of it first.

    Who makes a commit hears of it by the answer. Of others' a hint is published, which is used when it is
    the next one; what hints do not tell is read from the log, and what the log does not have any more from
    the values. A history that does not contain what this copy has seen gets another name on the server, so
    that everybody notices.
    """

    __slots__ = (
        "_at",
        "_order",
        "_ready",
        "_recent",
        "_set_head",
        "asking",
        "audience",
        "channel",
        "create",
        "head_frame",
        "key",
        "peer",
        "resets",
        "spoilt",
    )

    def __init__(self, peer: Peer, store: Any, session_id: str) -> None:
        super().__init__(store, session_id)
        self.peer = peer
        self.key = key = KEY % session_id.encode()
        self.channel = key + b"c"
        self.head_frame = frame(b"HGET", key + b"v", b"")
        self._set_head = frame(b"FCALL", SET, b"1", key).replace(b"*4", b"*14", 1)
        self._at = NOWHERE
        self._order: list[str] = []
        """The variables that the server has, in its order."""
        self._recent: deque[tuple[int, Sequence[Change]]] = deque(maxlen=RECENT)
        self._ready = threading.Event()
        self.asking = False
        """Whether the thread that hears has asked what this copy misses."""
        self.audience = FEW + 1
        """How many hear the session, as far as is known."""
        self.create = False
        """Whether the session is made where it is not there."""
        self.resets = 0
        """How often the history turned out to be another one."""
        self.spoilt: errors.DspexError | None = None
        """Why what the server has cannot be read."""

    # ---- state --------------------------------------------------------------------------------------

    @property
    def status(self) -> str:
        """`LIVE`, `STALE` while this copy may be old, or `CLOSED`."""
        if self._error is not None or self.handles == 0:
            return "CLOSED"
        return "STALE" if self.spoilt is not None else self.peer.status

    def age(self) -> float:
        """Seconds since this copy was known to be up to date."""
        return self.peer.age()

    def opened(self, deadline: float) -> None:
        """Return when the session is there."""
        if not self._ready.wait(deadline):
            raise self.peer.unreached()
        self.check_alive()

    def end(self, error: errors.DspexError) -> None:
        super().end(error)
        self._ready.set()

    # ---- asking -------------------------------------------------------------------------------------

    def _ask(
        self,
        data: bytes,
        settle: Callable[[Call], object] | None = None,
        *,
        durable: bool = False,
        op: str = "",
    ) -> Any:
        for _ in range(8):
            try:
                return self.peer.calls.call(
                    data,
                    settle,
                    durable=durable and self.peer.durable,
                    near=settle is not None and self.audience <= FEW,
                    op=op,
                )
            except Refused:
                if not self.peer.link.moved(self):
                    self.peer.pause(self.peer.location.timing.backoff[0])
        raise self.peer.unreached()

    def _command(self, *arguments: bytes) -> bytes:
        return frame(b"FCALL", COMMIT, b"1", self.key, *arguments)

    def since_frame(self, *, whole: bool = False, heard: bool = False) -> bytes:
        """Asks for what this copy misses, or for all; *heard* is for the connection that hears."""
        epoch, rev, nonce = NOWHERE if whole else self._at
        known, where = b"%d" % len(self._order), b"%d" % heard
        return frame(b"FCALL", SINCE, b"1", self.key, epoch, b"%d" % rev, nonce, known, where)

    def catch_up(self) -> None:
        """Return when this copy has all that was committed before the call."""
        self._follow()
        self.drain()

    def _follow(self) -> None:
        data: bytes | None = self.since_frame()
        while data is not None:
            self.check_alive()
            data = self._next(self._ask(data))
            if self.spoilt is not None:
                raise self.spoilt

    def catch_up_or_end(self) -> None:
        """The same, for who has just deleted the session."""
        with suppress(errors.SessionClosed):
            self.catch_up()

    # ---- what the server says -----------------------------------------------------------------------

    def is_head(self, reply: Any) -> bool:
        """Whether the newest revision that the server says is that of this copy."""
        if reply is None:
            return False
        try:
            epoch, rev, nonce, declared, _ = reply.split(b" ", 4)
            return (epoch, int(rev), nonce) == self._at and int(declared) <= len(self._order)
        except ValueError:  # what is wrong with it is found when it is asked for
            return False

    def head(self, reply: Any) -> None:
        """Hear the newest revision; in the thread that reads."""
        if type(reply) is Refused or self.spoilt is not None or not self.is_head(reply):
            self.peer.refresh(self)

    def hinted(self, payload: bytes) -> bool:
        """Hear of a commit, in the thread that reads; whether it was applied."""
        if payload.startswith(self.peer.origin):
            return False  # the thread that made it applies it
        _, epoch, *rest = payload.split(b" ", 5)
        if len(rest) == 4 and epoch == self._at[0] and int(rest[2]) == len(self._order):
            rev, nonce, body = int(rest[0]), rest[1], rest[3]
            lock = self._lock
            lock.acquire()
            try:
                if rev <= self.rev:
                    return False
                if rev == self.rev + 1 and body:
                    self._apply(rev, nonce, [self._change(name, data) for name, data in hinted(body, 0)])
                    return True
            except BAD:
                pass  # what is wrong with it is found when it is read
            finally:
                lock.release()
        if self.epoch:
            self.peer.refresh(self)
        return False

    def _change(self, name: str, data: bytes) -> Change:
        return change_of(self.schema.kinds, self.epoch, name, data, self.live[name].value)

    def _apply(self, rev: int, nonce: bytes, changes: Sequence[Change]) -> None:
        self.advance(changes, rev)
        self._at = (self._at[0], rev, nonce)
        self._recent.append((rev, changes))

    def subscribed(self, reply: Any) -> None:
        """Hear whether hints will come."""
        if type(reply) is Refused and reply.code not in ("MOVED", "ASK"):  # those the next answer has too
            self._fail(refusal(reply, self.peer))

    def answered(self, reply: Any) -> RedisCopy:
        """Hear what this copy misses, in the thread that reads, and ask on."""
        self.asking = False
        if type(reply) is Refused:
            self.peer.refused(self, reply)
            return self
        if isinstance(reply, list) and reply[0] == b"LARGE":
            try:
                self._follow()
            except errors.DspexError as error:
                if self.spoilt is None and self._error is None:
                    raise Lost(error.message) from None
            data = None
        else:
            data = self._next(reply, heard=True)
        if data is not None:
            self.asking = True
            self.peer.send(data, ("since", self.answered))
        elif not self.peer.live:
            self.peer.settle()
        return self

    def _next(self, reply: Any, *, heard: bool = False) -> bytes | None:
        """Take an answer; what is to be asked next."""
        if not isinstance(reply, list):  # something was done: see what it led to
            return self.since_frame(heard=heard)
        what = reply[0]
        if what == b"GONE":
            return self._gone(reply[1].decode(), reply[2].decode())
        if what == b"BROKEN":
            self.spoil(corrupt(self.id, self.peer.shown, ValueError(HEADLESS)))
            return None
        if what == b"FORKED":
            epoch, rev, nonce = self._at
            return frame(b"FCALL", RENEW, b"1", self.key, epoch, b"%d" % rev, nonce, new_epoch().encode())
        if what not in (b"LOG", b"ALL"):
            return self.since_frame(heard=heard)
        try:
            with self._lock:
                self._declared(reply)
                more = self._logged(reply) if what == b"LOG" else self._all(reply)
        except BAD as error:
            self.spoil(corrupt(self.id, self.peer.shown, error))
            return None
        if more is None:
            return self.since_frame(whole=True, heard=heard)
        if more:
            return self.since_frame(heard=heard)
        if len(self._order) < len(self.schema.kinds):
            return self._redeclare()
        if self.spoilt is not None:
            self.guard(None)
            self.spoilt = None
        self._ready.set()
        return None

    def _gone(self, tomb: str, moved: str) -> bytes | None:
        if moved:
            _, session_id, url = moved.split(" ", 2)
            self._fail(refusals.moved(self.id, url, session_id))
            return None
        if self.epoch and tomb in (self.epoch, "?"):
            self._fail(refusals.deleted(self.id))
            return None
        if not self.epoch and not self.create:
            self._fail(errors.UnknownSession(f"the store has no session '{self.id}'.", session=self.id))
            return None
        return frame(b"FCALL", CREATE, b"1", self.key, new_epoch().encode())

    def _redeclare(self) -> bytes:
        """Tell a server that has begun anew which variables there are."""
        epoch, rev, nonce = self._at
        known = set(self._order)
        missing = [one for name, one in self.schema.declarations.items() if name not in known]
        start = (epoch, b"%d" % rev, nonce, next_op(), b"0", next_nonce(), self.peer.origin, b"")
        return self._command(
            *start, b"%d" % len(self._order), *commit_arguments(Commit(), (), {}, missing, None)
        )

    def _declared(self, reply: Any) -> None:
        if reply[5]:
            declared = declarations_of(pairs(reply[5]))
            self.adopt(declared)
            self._order = [one.name for one in declared]

    def _logged(self, reply: Any) -> bool | None:
        """Apply what the log has; whether there is more, None where it has a gap."""
        epoch, entries = reply[1], reply[6]
        if epoch != self._at[0]:
            return True
        kinds, initial = self.schema.kinds, self.schema.initial
        for identity, fields in entries:
            first, nonce = identity.split(b"-")
            rev = int(first)
            if rev <= self.rev:
                continue
            if rev > self.rev + 1:
                return None
            self._apply(rev, nonce, list(changes_of(kinds, initial, self.epoch, fields)))
        return len(entries) >= 512

    def _all(self, reply: Any) -> bool:
        """Become what the server has."""
        _, first, at, nonce, _, declared, records = reply
        epoch, rev = first.decode(), int(at)
        if first == self._at[0] and rev < self.rev:
            return False
        if not declared and first != self._at[0]:
            self._order = []
        found = {}
        for name, data in pairs(records).items():
            if name:
                found[name.decode()] = change_of(self.schema.kinds, epoch, name.decode(), data)
        if not self.epoch:
            self.begin(epoch, rev, found)
        else:
            self.resets += epoch != self.epoch
            self.jump(epoch, rev, found)
        self._at = (first, rev, nonce)
        return False

    def spoil(self, error: errors.DspexError) -> None:
        """What the server has cannot be read: say so to who reads, until it can."""
        if not self.epoch:
            self._fail(error)
            return
        self.spoilt = error

        def look() -> None:
            raise type(error)(error.message, **error.facts)

        self.guard(look)

    @property
    def guarded(self) -> bool:
        """Whether something stands before the records."""
        return self.records is not self.live

    def _fail(self, error: errors.DspexError) -> None:
        self.end(error)
        self.peer.link.forget(self)

    # ---- refusals -----------------------------------------------------------------------------------

    def _refused(self, reply: Any, expected: Sequence[str]) -> None:
        """
        Raise what the server says against a commit; or return when it may be sent again.

        Whether it may, when the history is another one, depends on the variables whose version is *expected*.
        """
        what = reply[0]
        if what in (b"DECLARED", b"GONE", b"BROKEN"):
            self.catch_up()
            return
        if what == b"FORKED":
            before = self.epoch
            self.catch_up()
            if expected and before != self.epoch:
                raise errors.VersionConflict(
                    f"session '{self.id}' has lost commits on its server: versions from before do not count "
                    "any more. Read it again and retry.",
                    name=expected[0],
                    session=self.id,
                )
            return
        if what == b"VERSION":
            self.catch_up()
            name, version, wanted = reply[1].decode(), int(reply[2]), int(reply[3])
            raise refusals.version_conflict(self.id, name, version, wanted)
        if what == b"CLAIMED":
            _, name, owner, left = reply
            claims = Claims()
            claims.add(name.decode(), Held("", owner.decode(), time.monotonic() + float(left)))
            claims.check((name.decode(),), None, self.id)
            return
        if what == b"MOVING":
            raise refusals.moving(self.id)
        if what == b"NESTED":
            raise refusals.nested(self.id, reply[1].decode(), NESTING)
        if what == b"NAMES":
            raise refusals.too_many_names(self.id, int(reply[1]), base.NAMES)
        if what == b"TAGS":
            raise refusals.too_many_tags(self.id, base.TAGS)
        raise corrupt(self.id, self.peer.shown, ValueError(str(reply)))
