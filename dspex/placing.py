"""Where a session lives: here, reachable for others, or elsewhere from now on."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from dspex import errors
from dspex.locks import ForkSafeLock
from dspex.rules import abide
from dspex.stores import Ledger, MemoryStore, Store, open_store, refusals
from dspex.stores.base import ClosedLedger, Hold
from dspex.watching import Watching

if TYPE_CHECKING:
    from dspex.rpc.share import Share
    from dspex.session import Session

__all__ = ["Placing", "placed"]

PATIENCE = 30.0
"""Seconds that a commit waits for a session that is being moved."""

T = TypeVar("T")

placed = ForkSafeLock()
"""Held to set what ledger a handle has, and for nothing else."""


class Placing(Watching):
    """The verbs about the place of a session, and what lets the others follow it."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def id(self) -> str: ...
        @property
        def closed(self) -> bool: ...
        @property
        def ledger(self) -> Ledger: ...
        @property
        def parent(self) -> Session | None: ...

    def share(self, address: str | None = None, **settings: Any) -> Share:
        """
        Let other processes open this session at *address*, by default a socket that only this user can open.

        Nothing is copied: they read and set the very values that this process has. *settings* are those of
        `dspex.rpc.share`: `tokens`, `tls`, `limits`, `timers`.

        Returns:
            A handle with the `url` and the `id` for the others; its `close()` ends it.
        """
        from dspex.rpc.share import share

        return share(self, address, **settings)

    def move_to(self, target: str | Store, *, as_id: str | None = None) -> None:
        """
        Take the session to another store: values, versions, history, labels, claims, and the revision.

        This handle goes along, with its watches, iterators, claims, forks and bound programs: they miss
        nothing and are told nothing twice. Commits wait for the moment that it takes. Then the session has
        ended where it was: its other handles, and who opens it there, get a `SessionMoved`.

        Args:
            target: The store, or its URL.
            as_id: Its id there, if it is to have another one.

        Raises:
            SessionExists: *target* has a session of that id.
            SessionMoving: Somebody is moving it already.
            StoreUnavailable, PermissionDenied, LimitExceeded: It has stayed where it was.
        """
        if self.parent is not None:
            raise errors.StoreUnavailable(
                f"session '{self.id}' is a fork, which lives where it was made. Give back what it has set "
                "with commit_to_parent(), or move the parent.",
                session=self.id,
            )
        session_id = self.id if as_id is None else as_id
        store = open_store(target)
        _check_free(store, session_id)  # before anybody has to wait
        said = target.partition("?")[0] if isinstance(target, str) else repr(target)
        # Who binds a program has this lock, and may wait for a commit: so first the lock, then the hold.
        with self._rarely().lock:
            self._move(store, session_id, getattr(store, "url", said))

    def _move(self, store: Store, session_id: str, url: str) -> None:
        held = self._ledger.hold()
        try:
            there = store.restore(session_id, held.ledger.export())
            try:
                self._place(held.ledger, there.ledger)
                held.forward(url, session_id)
            except BaseException as error:
                if not held.forwarded:  # else it is an interrupt, when all was done
                    self._stay(held, there, store, error)
                raise
            finally:
                if held.forwarded:
                    there.release()
                    held.ledger.close()
        finally:
            held.release()

    def _stay(self, held: Hold, there: Hold, store: Store, error: BaseException) -> None:
        """Undo what was done until *error*, which says what more there is to do if that fails."""
        with suppress(errors.SessionClosed):
            self._place(there.ledger, held.ledger)
        if getattr(error, "unknown", False):
            there.release()
            error.add_note("The copy in the other store was kept: look at both, and delete one.")
            if isinstance(store, MemoryStore):
                return  # there it would end with its last handle
        else:
            try:
                store.delete(there.ledger.id)
            except errors.DspexError as unreachable:
                error.add_note(f"The copy in the other store was left there, to be deleted: {unreachable}")
        there.ledger.close()

    def _place(self, source: Ledger, target: Ledger) -> None:
        """Take this handle from *source* to *target*, while nobody commits to either."""
        abide(target, source.rules)
        sink = self._fanout or self  # whichever it is: it changes only when somebody commits
        target.subscribe(sink)
        with placed:
            here = self._ledger is source
            if here:
                self._ledger = target
        (source if here else target).unsubscribe(sink)
        if not here:
            raise ClosedLedger(source).error()

    def _followed(self, verb: Callable[[Ledger], T]) -> T:
        """What *verb* makes of the ledger: if the session moves meanwhile, of the one where it is then."""
        waited = 0.0
        while True:
            ledger = self._ledger
            if ledger.blocking:  # it may have moved there just now
                self._check_may_wait()
            try:
                return verb(ledger)
            except errors.SessionMoved:
                if self._ledger is ledger:
                    raise
            except errors.SessionMoving:
                self._check_may_wait()
                if waited > PATIENCE:
                    raise
                pause = min(0.001 + waited / 4, 0.05)
                time.sleep(pause)
                waited += pause


def _check_free(store: Store, session_id: str) -> None:
    try:
        ledger = store.open(session_id, create=False)
    except (errors.UnknownSession, errors.SessionMoved):
        return
    try:
        if ledger.rev or ledger.schema.declarations:
            raise refusals.exists(session_id, ledger.revision)
    finally:
        ledger.close()
