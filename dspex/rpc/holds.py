"""Sessions of a server as a whole, as the client sees them: exported, held back, restored."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.rpc import framing
from dspex.rpc.extra import pb
from dspex.stores.assembling import unpacked
from dspex.stores.base import Hold
from dspex.stores.pieces import digest, pieces_of

if TYPE_CHECKING:
    from dspex.rpc.link import Link
    from dspex.rpc.remote import RemoteLedger
    from dspex.stores.export import Export

__all__ = ["RemoteHold", "exported", "restored"]

LONGER = 4
"""How many times as long as other calls these may take."""


def exported(link: Link, ledger: RemoteLedger) -> Export:
    """All that the session is; *ledger* is at least as far when this returns."""
    replies = _ask(link, "export", pb.ExportRequest(session=ledger.id))
    export = unpacked((piece for reply in replies for piece in reply.pieces), ledger.schema)
    ledger.sync()
    return export


def _ask(link: Link, what: str, request: Any) -> list[Any]:
    return link.ask(what, request, LONGER * link.address.timers.deadline)


class RemoteHold(Hold):
    """Keeps a session of a server from committing. The server forgets it after a minute."""

    def __init__(self, link: Link, session: str, token: str | None = None) -> None:
        self._link = link
        self._session = session
        self._token = token or os.urandom(16).hex()

    def taken(self, ledger: RemoteLedger) -> RemoteHold:
        """Return this hold when the server has it, or raise."""
        self.ledger = ledger
        try:
            self._step(pb.STEP_HOLD)
        except (errors.DeadlineExceeded, errors.StoreUnavailable):
            self.release()  # it may have it all the same
            raise
        return self

    def _step(self, step: pb.Step, **where: str) -> None:
        request = pb.HoldRequest(session=self._session, token=self._token, step=step, **where)
        _ask(self._link, "hold", request)

    def release(self) -> None:
        if not self.forwarded:
            with suppress(errors.DspexError):  # it ends by itself
                self._step(pb.STEP_RELEASE)

    def drop(self) -> None:
        """Delete what was restored under this hold, if it was."""
        with suppress(errors.DspexError):
            self._step(pb.STEP_DROP)

    def forward(self, url: str, session_id: str) -> None:
        try:
            self._step(pb.STEP_FORWARD, url=url, there=session_id)
        except errors.SessionMoved as moved:  # by this very call, whose answer was lost
            if (moved.facts.get("url"), moved.facts.get("session_id")) != (url, session_id):
                raise
        except (errors.DeadlineExceeded, errors.StoreUnavailable) as error:
            if "address" not in error.facts:  # the server has said so
                raise
            raise errors.StoreUnavailable(
                f"{error.message} Whether session '{self._session}' has ended there is not known.",
                **error.facts,
                unknown=True,
            ) from error
        self.forwarded = True


def restored(link: Link, session_id: str, export: Export, opened: Callable[[], RemoteLedger]) -> RemoteHold:
    """Have the server make a session of *export*, and open it."""
    hold = RemoteHold(link, session_id)
    made = ""
    try:
        for number, (part, more) in enumerate(framing.parts(pieces_of(export))):
            request = pb.RestoreRequest(
                session=session_id, token=hold._token, part=number, pieces=part, more=more
            )
            made = _ask(link, "restore", request)[-1].digest
        _check_came(link, made, export)
        ledger = opened()
    except (errors.SessionExists, errors.PermissionDenied):
        raise
    except BaseException:
        hold.drop()  # it may be there all the same
        raise
    ledger.prefer(export.schema.declarations.values())
    hold.ledger = ledger
    return hold


def _check_came(link: Link, made: str, export: Export) -> None:
    if made != digest(export):
        raise errors.StoreUnavailable(
            f"what has come to {link.address.shown} is not what was sent. It was dropped; the session is "
            "where it was."
        )
