"""How workers reach the sessions of whoever calls: as any client does, through the state service."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from dspex import errors
from dspex.records import SessionInfo
from dspex.session import Session
from dspex.stores import open_store
from dspex.stores.base import Ledger, Store

if TYPE_CHECKING:
    from dspex.rpc.share import Share

__all__ = ["Address", "Lender", "open_address"]

Address = tuple[str, str | None, bytes | None, bool, float]
"""
URL; and of a state service: token, certificate of the authority, whether TLS is used, the staleness that is
taken.
"""

NEWS = 4_096
"""Bytes of a commit that goes along with a call."""


class _Private(Store):
    """The private sessions that calls were made with, and no others."""

    blocking = False

    def __init__(self) -> None:
        self.sessions_by_id: WeakValueDictionary[str, Session] = WeakValueDictionary()

    def open(self, session_id: str, *, create: bool = True) -> Ledger:
        session = self.sessions_by_id.get(session_id)
        if session is None or session.closed:
            raise errors.UnknownSession(
                f"session '{session_id}' is private to a process that has closed it.", session=session_id
            )
        return session.ledger

    def sessions(self) -> Sequence[SessionInfo]:
        return []

    def delete(self, session_id: str) -> None:
        raise errors.PermissionDenied(
            f"session '{session_id}' belongs to the process that called.", session=session_id
        )

    def close(self) -> None:
        """The sessions go on."""


class Lender:
    """
    Makes sessions of this process reachable for its workers, each store once.

    Args:
        far: Whether workers may be on other machines: then they go to a server of Redis themselves.
    """

    def __init__(self, *, far: bool = False) -> None:
        self._far = far
        self._lock = threading.Lock()
        self._private = _Private()
        self._shares: dict[int, Share] = {}
        self._addresses: WeakKeyDictionary[Store, Address] = WeakKeyDictionary()
        self._news: WeakKeyDictionary[Session, tuple[str, int, bytes | None]] = WeakKeyDictionary()
        self._process = os.getpid()

    def reference(self, session: Session) -> tuple[Any, ...]:
        """
        Where a worker finds *session*, what it must have seen of it, and the last of that: a worker that has
        all but the newest commit need not wait until the server has told it.

        Raises:
            SessionClosed: The handle was closed. MissingExtra: Workers need gRPC to reach sessions.
        """
        ledger = session.ledger
        if session.closed:
            ledger.snapshot()  # says that it is closed
        store = ledger.store
        if store is None:
            store = self._private
            self._private.sessions_by_id[ledger.id] = session
        address = self._addresses.get(store)
        if address is None:
            address = self._address(store)
        rev = ledger.rev  # before the epoch, which a private session makes when somebody looks
        epoch = ledger.epoch
        known = self._news.get(session)
        if known is None or known[0] != epoch or known[1] != rev:
            known = self._news[session] = epoch, rev, _news(ledger, epoch, rev)
        return address, ledger.id, epoch, rev, known[2]

    def _address(self, store: Store) -> Address:
        with self._lock:
            address = self._addresses.get(store)
            if address is None:
                found = _of_remote(store) or (_of_redis(store) if self._far else None)
                address = self._addresses[store] = found or self._shared(store)
        return address

    def _shared(self, store: Store) -> Address:
        from dspex.rpc.limits import Limits
        from dspex.rpc.share import share

        limits = Limits(commits=1e9, opens=1e9, session_bytes=2**40, value_bytes=2**40)
        made = self._shares[id(store)] = share(store, limits=limits)
        return made.url, None, None, False, 30.0

    def close(self) -> None:
        """Workers reach nothing any more; the sessions go on."""
        with self._lock:
            shares, self._shares = list(self._shares.values()), {}
            self._addresses.clear()
        for one in shares:
            one.close()


def _news(ledger: Ledger, epoch: str, rev: int) -> bytes | None:
    """The commit that made *rev*, as a server tells it; None if it is large, or is just being replaced."""
    from dspex.rpc import messages
    from dspex.rpc.extra import pb

    with suppress(errors.DspexError):  # a copy that is stale, and knows no news
        records = list(ledger.records.values())
        newest = [one for one in records if one.rev >= rev > 0 and one.epoch == epoch]
        if not newest or any(one.rev > rev for one in newest):
            return None
        kinds = ledger.schema.kinds
        changes = [messages.message_of(kinds[one.name], one) for one in newest]
        event = pb.Event(rev=rev, prev=rev - 1, changes=changes)
        if event.ByteSize() <= NEWS:
            return event.SerializeToString()
    return None


def _of_remote(store: Store) -> Address | None:
    """The address of a store that is a server's already: workers go there themselves."""
    at = getattr(store, "_address", None)
    if at is None:
        return None
    return at.shown, at.token, at.ca, at.tls, at.max_staleness


def _of_redis(store: Store) -> Address | None:
    """The address of a store whose sessions are in Redis."""
    location = getattr(store, "_location", None)
    return None if location is None else (location.url, None, None, False, location.max_staleness)


def open_address(address: Address) -> Store:
    """
    The store at *address*, in a worker.

    Raises:
        StoreUnavailable: It is a socket of another machine.
    """
    import attrs

    from dspex.rpc.client import RemoteStore

    url, token, ca, tls, staleness = address
    if not url.startswith("grpc"):
        return open_store(url)
    socket = url.removeprefix("grpc+unix://")
    if socket != url and not Path(socket).exists():
        raise errors.StoreUnavailable(
            f"the session is in a process of another machine, which has no {socket}: it is a private one, a "
            "fork, or in a file there. Workers on other machines need a session whose store has an address "
            "of its own, such as grpc:// or redis://; move_to(url) takes it there.",
            address=url,
        )
    store = RemoteStore(f"{url}?tls=on" if tls else url, token=token, max_staleness=staleness)
    if ca is not None:
        store._address = attrs.evolve(store._address, ca=ca)
    return store
