"""A session of one store copied to another."""

from __future__ import annotations

import time
from contextlib import suppress

from dspex import errors
from dspex.session import Session
from dspex.stores import Store, open_store
from dspex.stores.export import Export

__all__ = ["copy", "restored"]


def copy(session_id: str, source: str | Store, target: str | Store, *, as_id: str | None = None) -> Session:
    """
    Copy a session: values, versions, history, labels, claims, authors, reasons and times.

    The copy is all of one revision, is compared with what was read, and is there only when it is the same. It
    counts on from the revision of the original, in a history with a name of its own: each goes its way from
    now on. To take a session along with those who use it, see `Session.move_to`.

    Args:
        session_id: The session to copy.
        source: The store that has it, or its URL.
        target: The store that is to have it, or its URL.
        as_id: Its id there, if it is to have another one.

    Returns:
        A handle on the copy, to be closed.

    Raises:
        UnknownSession: *source* has no such session.
        SessionExists: *target* has a session of that id.
        StoreUnavailable, PermissionDenied, LimitExceeded: Nothing was copied.
    """
    store = open_store(source)
    try:
        ledger = store.open(session_id, create=False)
        try:
            export = ledger.export()
        finally:
            ledger.close()
    finally:
        if store is not source:
            store.close()
    return restored(open_store(target), session_id if as_id is None else as_id, export.renewed(time.time()))


def restored(store: Store, session_id: str, export: Export) -> Session:
    """A handle on the session that *store* makes of *export*."""
    # A whole session may travel for long: a server that is not there is missed at once, by a short call.
    with suppress(errors.UnknownSession, errors.PermissionDenied):
        store.open(session_id, create=False).close()
    hold = store.restore(session_id, export)
    try:
        session = Session(session_id, store=store)
        hold.release()
    finally:
        hold.ledger.close()
    return session
