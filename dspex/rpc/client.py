"""The store that is a server's: a `Store` over gRPC."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dspex import errors
from dspex.records import Revision, SessionInfo
from dspex.rpc.address import Address
from dspex.rpc.extra import pb
from dspex.rpc.holds import RemoteHold, restored
from dspex.rpc.limits import Timers
from dspex.rpc.link import Link
from dspex.rpc.remote import RemoteLedger
from dspex.stores.base import Store, check_session_id
from dspex.stores.export import Export

__all__ = ["RemoteStore"]

_links: dict[Address, Link] = {}
_lock = threading.Lock()


def _link(address: Address) -> Link:
    with _lock:
        link = _links.get(address)
        if link is None or link.error is not None:
            link = _links[address] = Link(address)
        return link


class RemoteStore(Store):
    """
    The sessions of a server.

    Args:
        url: `grpc://host:port` or `grpc+unix:///path`, with `?token-file=`, `?ca=`, `?tls=on`, `?deadline=`
        and
            `?max-staleness=` as needed.
        token: What `?token-file=` would have. ca: The certificate of the authority that the server's
        certificate is checked by. max_staleness: Seconds without contact after which `session.get` raises
        `StaleRead`; `math.inf` for never. timers: How time is kept.

    All stores of a process with the same address and settings share one connection. It is opened with the
    first call, and opened again when it was lost.
    """

    blocking = True

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: str | Path | None = None,
        max_staleness: float | None = None,
        timers: Timers | None = None,
    ) -> None:
        self._address = Address.parse(url, token=token, ca=ca, max_staleness=max_staleness, timers=timers)
        self._closed = False
        self._link: Link | None = None

    @property
    def url(self) -> str:
        """Where the server is: what is said of sessions that moved there. Others bring their own token."""
        return self._address.shown

    @property
    def link(self) -> Link:
        """The connection."""
        if self._closed:
            raise errors.StoreUnavailable(
                f"this store of {self._address.shown} was closed. Open another one."
            )
        if self._link is None:
            self._link = _link(self._address)
        return self._link

    @property
    def status(self) -> str:
        """`LIVE`, `STALE` while there is no contact, or `CLOSED`."""
        return "CLOSED" if self._closed else self.link.status

    def age(self) -> float:
        """Seconds since the values of this process were known to be up to date."""
        return self.link.age()

    def open(self, session_id: str, *, create: bool = True) -> RemoteLedger:
        check_session_id(session_id)
        return self.link.open(self, session_id, create=create)

    def sessions(self) -> Sequence[SessionInfo]:
        return [
            SessionInfo(one.id, Revision(one.epoch, one.rev), one.variables, one.created)
            for reply in self.link.ask("list_sessions", pb.ListRequest())
            for one in reply.sessions
        ]

    def delete(self, session_id: str) -> None:
        check_session_id(session_id)
        self.link.ask("delete_session", pb.DeleteRequest(session=session_id))

    def restore(self, session_id: str, export: Export) -> RemoteHold:
        check_session_id(session_id)
        return restored(self.link, session_id, export, partial(self.open, session_id, create=False))

    def close(self) -> None:
        """Take no more calls. The connection ends when nobody else in this process uses it."""
        if self._closed:
            return
        link = self.link
        self._closed = True
        if not link.ledgers:
            link.disconnect()

    def __repr__(self) -> str:
        return f"<RemoteStore {self._address.shown}>"


@atexit.register
def _close_all() -> None:
    for link in list(_links.values()):
        link.close()


def _forked() -> None:
    global _lock  # noqa: PLW0603 - it may be held by a thread that is not here
    _lock = threading.Lock()
    for link in _links.values():
        link.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
