"""Making what a process already has reachable for others, without copying it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

from dspex import errors
from dspex.records import SessionInfo
from dspex.rpc.auth import Token
from dspex.rpc.limits import Limits, Timers
from dspex.rpc.listening import Tls
from dspex.rpc.server import Server
from dspex.stores.base import Ledger, Store, check_session_id

__all__ = ["Share", "share"]


class Holder(Protocol):
    """A handle of a session, as far as sharing it goes."""

    @property
    def id(self) -> str:
        """The id of the session."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the handle was closed."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The session as its store sees it."""
        ...


class _OneSession(Store):
    """A store with the one session that a handle of this process has."""

    blocking = False

    def __init__(self, session: Holder, session_id: str) -> None:
        self._session = session
        self._id = check_session_id(session_id)

    def open(self, session_id: str, *, create: bool = True) -> Ledger:
        if session_id != self._id or self._session.closed:
            ended = " and it has ended" if self._session.closed else ""
            raise errors.UnknownSession(
                f"only session '{self._id}' is shared here{ended}.", session=session_id
            )
        return self._session.ledger

    def sessions(self) -> Sequence[SessionInfo]:
        ledger = self._session.ledger
        return [SessionInfo(self._id, ledger.revision, len(ledger.schema.kinds), 0.0)]

    def delete(self, session_id: str) -> None:
        raise errors.PermissionDenied(
            f"session '{self._id}' belongs to the process that shares it.", session=session_id
        )

    def close(self) -> None:
        """The session goes on."""


class Share:
    """What `share` returns: a store or a session that others can reach until `close`."""

    def __init__(self, server: Server, session_id: str | None) -> None:
        self._server = server
        self.id = session_id
        """The id under which a shared session is reached; None where a whole store is shared."""

    @property
    def url(self) -> str:
        """What others give as their store."""
        return self._server.url

    def close(self) -> None:
        """End it; what is shared goes on here."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Share {self.url}{f' of session {self.id!r}' if self.id else ''}>"


def share(
    what: Store | Holder,
    address: str | None = None,
    *,
    tokens: Sequence[Token] = (),
    tls: Tls | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    timers: Timers = Timers(),  # noqa: B008 - frozen
) -> Share:
    """
    Make *what* reachable at *address*, by default a new socket that only this user can open.

    A session of a named store is shared with the whole store; a private session alone, under its id. Nothing
    is copied: others set the very values that this process reads.
    """
    session_id: str | None = None
    if isinstance(what, Store):
        store = what
    else:
        session_id = what.id
        store = what.ledger.store or _OneSession(what, session_id)
    server = Server(store, address, tokens=tokens, tls=tls, limits=limits, timers=timers)
    return Share(server.start(), session_id)
