"""The reference store: sessions in this process, gone with their last handle."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dspex import errors
from dspex.locks import ForkSafeLock
from dspex.records import SessionInfo
from dspex.stores import refusals
from dspex.stores.base import Store, check_session_id
from dspex.stores.ledger import MemoryLedger
from dspex.stores.movable import MemoryHold, fill

if TYPE_CHECKING:
    from dspex.stores.export import Export

__all__ = ["MemoryStore"]


class MemoryStore(Store):
    """
    Sessions in this process; each is gone when its last handle is closed.

    `memory://` names one store for the whole process; an instance of your own is private to whoever has it.
    """

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._open: dict[str, tuple[MemoryLedger, int, float]] = {}
        self._moved: dict[str, tuple[str, str]] = {}
        """Where sessions went: the URL of the store, and the id there."""

    def private(self) -> MemoryLedger:
        """A ledger that no other handle can open."""
        return MemoryLedger(self._lock)

    def open(self, session_id: str, *, create: bool = True) -> MemoryLedger:
        check_session_id(session_id)
        with self._lock:
            found = self._open.get(session_id)
            if found is None:
                if session_id in self._moved:
                    raise refusals.moved(session_id, *self._moved[session_id])
                if not create:
                    raise _unknown(session_id, self._open)
                found = (
                    MemoryLedger(self._lock, session_id=session_id, store=self),
                    0,
                    time.time(),
                )
            ledger, handles, created = found
            self._open[session_id] = ledger, handles + 1, created
        return ledger

    def sessions(self) -> Sequence[SessionInfo]:
        with self._lock:
            return [
                SessionInfo(session_id, ledger.revision, len(ledger.schema.kinds), created)
                for session_id, (ledger, _, created) in sorted(self._open.items())
            ]

    def delete(self, session_id: str) -> None:
        with self._lock:
            if self._moved.pop(session_id, None) is not None:
                return
            if session_id not in self._open:
                raise _unknown(session_id, self._open)
            sink = self._open.pop(session_id)[0].delete()
        if sink is not None:
            sink.end()

    def restore(self, session_id: str, export: Export) -> MemoryHold:
        from dspex.stores.pieces import check_same

        ledger = MemoryLedger(
            self._lock,
            export.revision.epoch,
            session_id=check_session_id(session_id),
            store=self,
            schema=export.schema,
        )
        fill(ledger, export)
        check_same(export, ledger._exported(export.created))
        hold = MemoryHold(ledger)
        with self._lock:
            if session_id in self._open:
                raise refusals.exists(session_id, self._open[session_id][0].revision)
            self._moved.pop(session_id, None)
            self._open[session_id] = ledger, 1, export.created
        return hold

    def created(self, session_id: str) -> float:
        """When a session began."""
        with self._lock:
            return self._open[session_id][2]

    def forward(self, ledger: MemoryLedger, url: str, session_id: str) -> None:
        """Say to who opens *ledger* from now on where it went. Called under the lock."""
        del self._open[ledger.id]
        self._moved[ledger.id] = url, session_id

    def close(self) -> None:
        """Nothing to let go of: sessions end with their handles."""

    def closed(self, ledger: MemoryLedger) -> None:
        """One handle of *ledger* less; with the last one the session ends."""
        with self._lock:
            found = self._open.get(ledger.id)
            if found is None or found[0] is not ledger:
                return
            _, handles, created = found
            if handles > 1:
                self._open[ledger.id] = ledger, handles - 1, created
            else:
                del self._open[ledger.id]


def _unknown(session_id: str, known: Mapping[str, object]) -> errors.UnknownSession:
    return errors.UnknownSession(
        f"the store has no session '{session_id}'.{errors.did_you_mean(session_id, known)}",
        session=session_id,
    )
