"""
The store contract.

A store owns sessions and is the single source of truth about them. Its author writes eight verbs: `open`,
`sessions`, `delete` and `close` on the store; `commit`, `snapshot`, `history` and `subscribe`, which has an
`unsubscribe`, on the ledger of one session that `open` returns. Everything that a user does is built on these
in `session.py`.

**Threads.** Every verb may be called from any thread. `apply` of a sink is called under the ledger's lock
and must not block; it may let another sink take its place. `drain` is called outside every lock, after the
commit, of the sink that is there then, and may run user code.

**Copies.** What goes in is checked by its kind, which makes an immutable copy of what could change; what
comes out never changes afterwards. `records` is the exception that makes reads fast: a mapping that the
ledger keeps up to date, read without a lock and without a call.

**Order.** A commit is applied whole, then `rev` grows by one, then sinks are told, then `commit` returns.
Sinks hear the commits of a ledger in the order of `rev`, none twice, and none missing unless `lost` says so.
Who reads `rev`, then `records`, then finds `rev` unchanged has read one revision.

**Versions.** A variable's version counts its writes; 0 is the declared initial value. A write with `expect`
happens only at that version.

**Errors.** Every refusal is a `DspexError` and leaves the ledger as it was. A commit with an `op` that was
already done is answered as it was then.

**Moving.** A store whose sessions can be copied and moved has three verbs more: `export` and `hold` on the
ledger, `restore` on the store. A held session takes no commits; everything else goes on.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from dspex import errors
from dspex.changes import Change
from dspex.commits import Commit, Receipt, Schema, Write
from dspex.records import Record, Revision, SessionInfo, Snapshot

if TYPE_CHECKING:
    from dspex.stores.export import Export

__all__ = [
    "BATCH",
    "NAMES",
    "ClosedLedger",
    "Ended",
    "Hold",
    "Ledger",
    "Sink",
    "Store",
    "check_session_id",
    "join",
    "leave",
    "new_epoch",
]

NAMES = 1_000
"""Variables that a session may have."""

BATCH = NAMES
"""Writes that one commit may hold: a fork may give all its values back at once."""

TAGS = 256
"""Labels that a session may have: each keeps the records of its revision."""

HISTORY = 1_024
"""Changes of a session that are kept for history and for watches that resume."""

HISTORY_PER_NAME = 16
"""Changes of each variable that are kept at least, however busy the others are."""

HISTORY_BYTES = 8 * 1024 * 1024
"""Encoded size of the values that a session's history may hold on to."""


class Sink(Protocol):
    """Who wants to hear of the commits of a ledger."""

    @property
    def queue(self) -> Any:
        """True when `drain` has something to do."""

    def apply(self, changes: Iterable[Change]) -> None:
        """
        Take the changes of one commit. Runs under the ledger's lock: be quick, do not block.

        After an interrupt they may come again, less those that are in a `queue` of changes.
        """

    def lost(self, rev: int, names: Collection[str]) -> None:
        """
        Hear that the ledger goes on to *rev* over commits that it cannot tell, maybe in another history: what
        `apply` brings next is of each of *names* the newest change only. Runs under the ledger's lock.
        """

    def drain(self) -> None:
        """Do what may be slow. Runs outside every lock."""

    def end(self) -> None:
        """Hear that the session was deleted, or has moved away. Runs outside every lock."""


class _Sinks:
    """Several sinks as one."""

    def __init__(self, sinks: tuple[Sink, ...]) -> None:
        self.all = sinks

    @property
    def queue(self) -> bool:
        return any(sink.queue for sink in self.all)

    def apply(self, changes: Iterable[Change]) -> None:
        for sink in self.all:
            sink.apply(changes)

    def lost(self, rev: int, names: Collection[str]) -> None:
        for sink in self.all:
            sink.lost(rev, names)

    def drain(self) -> None:
        for sink in self.all:
            sink.drain()

    def end(self) -> None:
        for sink in self.all:
            sink.end()


def join(sinks: Sink | None, sink: Sink) -> Sink:
    """*sinks*, which may be none, one, or what this function made, and *sink*."""
    if sinks is None or sinks is sink:
        return sink
    others = sinks.all if isinstance(sinks, _Sinks) else (sinks,)
    return sinks if sink in others else _Sinks((*others, sink))


def leave(sinks: Sink | None, sink: Sink) -> Sink | None:
    """*sinks* without *sink*."""
    if not isinstance(sinks, _Sinks):
        return None if sinks is sink else sinks
    left = tuple(one for one in sinks.all if one is not sink)
    return left[0] if len(left) == 1 else _Sinks(left)


def apply_again(sinks: Sink, changes: Iterable[Change]) -> None:
    """Bring *sinks* the *changes* that an interrupt may have kept from some of them."""
    for sink in sinks.all if isinstance(sinks, _Sinks) else (sinks,):
        queue = sink.queue
        has = {id(change) for change in queue} if isinstance(queue, Collection) else ()
        sink.apply([change for change in changes if id(change) not in has])


class Ledger(ABC):
    """One session as its store sees it."""

    __slots__ = ()

    blocking: ClassVar[bool] = False
    """Whether its verbs may wait for a disk or a network; async callers then use a thread."""

    id: str
    store: Any
    """The store that others can open this session in; None for a private one."""
    epoch: str
    rev: int
    schema: Schema
    records: Mapping[str, Record]
    """The newest record of every variable, kept up to date until `close`."""
    rules: tuple[Any, ...] = ()
    """What handles of this process ask before a commit; a ledger holds it for them, and does not look."""

    @abstractmethod
    def commit(self, commit: Commit) -> Receipt:
        """
        Check *commit* and apply all of it, or raise and apply nothing.

        Raises:
            InvalidValue, UnknownVariable, VariableConflict, VersionConflict, Claimed, LimitExceeded,
            SessionClosed, StoreUnavailable.
        """

    def put(
        self,
        name: str,
        value: Any,
        metadata: Mapping[str, Any] | None = None,
        source: str | None = None,
        expect: int | None = None,
    ) -> Change:
        """Commit one write. A store may override it with something faster that does the same."""
        write = Write(name, value, expect)
        return self.commit(Commit((write,), source=source, metadata=metadata)).changes[0]

    @abstractmethod
    def snapshot(self, tag: str | None = None) -> Snapshot:
        """
        All values at one revision: the newest, or the one that is labelled *tag*.

        Raises:
            UnknownRevision: There is no such label.
        """

    @abstractmethod
    def history(self, name: str | None = None, since: int | None = None) -> Sequence[Change]:
        """
        The changes that are still known, oldest first; of *name* only, and after revision *since* only.

        Raises:
            UnknownRevision: The changes since *since* are no longer all there.
        """

    @abstractmethod
    def subscribe(self, sink: Sink) -> bool:
        """Tell *sink* of every commit from now on; whether this is new. `apply` of a sink may call it too."""

    @abstractmethod
    def unsubscribe(self, sink: Sink) -> None:
        """Tell *sink* no more, if it is told. `apply` of a sink may call this too."""

    @property
    @abstractmethod
    def tags(self) -> Mapping[str, Revision]:
        """The labels of the session."""

    def own_versions(self) -> Mapping[str, int]:
        """The names that a fork has set, and the version that each had where it began; of others, none."""
        return {}

    @property
    def revision(self) -> Revision:
        """Where the session is now."""
        return Revision(self.epoch, self.rev)

    def export(self) -> Export:
        """All that the session is, at one revision."""
        raise _immobile(self)

    def hold(self) -> Hold:
        """
        Let nobody commit, from when this returns until the hold is let go of.

        Raises:
            SessionMoving: Somebody else holds it.
        """
        raise _immobile(self)

    @abstractmethod
    def close(self) -> None:
        """Give back what `open` took. Never deletes a session that others use."""


class Hold(ABC):
    """A session whose commits are refused with `SessionMoving` for the moment."""

    ledger: Ledger

    forwarded: bool = False
    """Whether it has ended here."""

    @abstractmethod
    def release(self) -> None:
        """Let commits go on, if they do not already; whatever happens, they do after a while."""

    @abstractmethod
    def forward(self, url: str, session_id: str) -> None:
        """
        End the session here: who has it open, or opens it, gets a `SessionMoved` that says where it went.

        Raises:
            StoreUnavailable: It was not held all the time, or could not be ended: it goes on here; unless the
                error has the fact `unknown`, because nobody can be asked.
        """


def _immobile(one: object) -> errors.StoreUnavailable:
    return errors.StoreUnavailable(f"sessions of {type(one).__name__} can be neither copied nor moved.")


class Ended(dict[str, Record]):
    """The records of a ledger that has ended: any look at them says so."""

    __slots__ = ("error",)

    def __init__(self, error: Callable[[], errors.DspexError]) -> None:
        self.error = error
        """Makes the error that says so."""

    def __missing__(self, name: str) -> Record:
        raise self.error()


class ClosedLedger(Ledger):
    """What a closed handle holds: every verb says that it is closed."""

    __slots__ = ("epoch", "id", "records", "rev", "schema", "store")

    def __init__(self, last: Ledger) -> None:
        self.id = last.id
        self.epoch = last.epoch
        self.rev = last.rev
        self.schema = last.schema
        self.store = None
        self.records = Ended(self.error)

    def error(self) -> errors.SessionClosed:
        """What it says."""
        return errors.SessionClosed(
            f"this handle of session '{self.id}' is closed. Open another one.", session=self.id
        )

    def commit(self, commit: Commit) -> Receipt:
        raise self.error()

    def snapshot(self, tag: str | None = None) -> Snapshot:
        raise self.error()

    def history(self, name: str | None = None, since: int | None = None) -> Sequence[Change]:
        raise self.error()

    def subscribe(self, sink: Sink) -> bool:
        raise self.error()

    def unsubscribe(self, sink: Sink) -> None:
        """It has left already."""

    @property
    def tags(self) -> Mapping[str, Revision]:
        raise self.error()

    def export(self) -> Export:
        raise self.error()

    def hold(self) -> Hold:
        raise self.error()

    def close(self) -> None:
        """It is closed."""


class Store(ABC):
    """Sessions by id."""

    @abstractmethod
    def open(self, session_id: str, *, create: bool = True) -> Ledger:
        """
        Return the ledger of a session, made first if it is not there and *create* says so.

        Raises:
            InvalidName: *session_id* is not an id.
            UnknownSession: It is not there, and *create* is false.
        """

    @abstractmethod
    def sessions(self) -> Sequence[SessionInfo]:
        """What sessions there are, by id."""

    @abstractmethod
    def delete(self, session_id: str) -> None:
        """
        Delete a session with all its values and history, for everyone.

        Raises:
            UnknownSession: It is not there.
        """

    def restore(self, session_id: str, export: Export) -> Hold:
        """
        Make a session of *export*: whole, checked against it, and on hold; or leave no trace of it.

        The id of a session that has moved away is free, and that of an empty one that nobody has open.

        Raises:
            SessionExists: There is a session of that id.
        """
        raise _immobile(self)

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections."""


def new_epoch() -> str:
    """A name for a history that begins."""
    return os.urandom(4).hex()


def check_session_id(session_id: str) -> str:
    """Return *session_id* if it is 1 to 64 of `A-Z a-z 0-9 _ -`; else raise `InvalidName`."""
    if (
        not isinstance(session_id, str)
        or not 1 <= len(session_id) <= 64
        or not session_id.isascii()
        or not session_id.replace("-", "_").replace("_", "a").isalnum()
    ):
        raise errors.InvalidName(
            f"a session id must be 1 to 64 letters, digits, '_' or '-' (got {errors.shown(session_id, 80)}).",
            name=session_id,
        )
    return session_id
