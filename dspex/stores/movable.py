"""Taking a session in memory elsewhere: as data, and for good."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.stores import refusals
from dspex.stores.base import Ended, Hold, Ledger, Sink
from dspex.stores.claimed import OnHold
from dspex.stores.log import Log

if TYPE_CHECKING:
    from dspex.locks import ForkSafeLock
    from dspex.stores.export import Export

__all__ = ["MemoryHold", "Movable", "fill"]


class Movable(Ledger):
    """The verbs by which a ledger in memory moves; its state is that of `MemoryLedger`."""

    __slots__ = ()

    if TYPE_CHECKING:
        _lock: ForkSafeLock
        _log: Log | None
        _rare: Any
        _sink: Sink | None

        def _check_alive(self) -> None: ...
        def _history(self) -> Log: ...
        def _rarely(self) -> Any: ...

    def export(self) -> Export:
        with self._lock:
            self._check_alive()
            return self._exported(self.store.created(self.id) if self.store is not None else time.time())

    def _exported(self, created: float) -> Export:
        from dspex.stores.export import Export, in_epoch, tag_of

        epoch, rare, log = self.epoch, self._rare, self._history()
        records = self.snapshot()._records
        return Export(
            self.schema,
            self.revision,
            created,
            {name: in_epoch(record, epoch) for name, record in records.items() if record.version},
            [in_epoch(change, epoch) for change in log],
            log.start,
            {} if rare is None else {label: tag_of(at, self.id, epoch) for label, at in rare.tags.items()},
            () if rare is None else rare.claims.listed(),
        )

    def hold(self) -> MemoryHold:
        return MemoryHold(self)

    def delete(self) -> Sink | None:
        """End the session, under the lock; return who is to be told outside it."""
        return self.end(partial(refusals.deleted, self.id))

    def end(self, error: Callable[[], errors.DspexError]) -> Sink | None:
        """The same; from now on every look at this ledger raises *error*."""
        # Without a log every later write goes the slow way, which refuses it.
        state: Any = self
        state._log = None
        state.records = Ended(error)
        return self._sink


class MemoryHold(Hold):
    """
    Keeps a ledger in memory from committing.

    Every commit asks the claims, so they are what stops it: commits pay nothing for it otherwise.
    """

    def __init__(self, ledger: Movable) -> None:
        self.ledger = self._movable = ledger
        with ledger._lock:
            self._take()

    def _take(self) -> None:
        ledger = self._movable
        ledger._check_alive()
        rare = ledger._rarely()
        if isinstance(rare.claims, OnHold):
            raise refusals.moving(ledger.id)
        self._claims, self._held = rare.claims, OnHold(rare.claims)
        rare.claims = self._held

    @property
    def held(self) -> bool:
        """Whether nobody could commit until now."""
        rare = self._movable._rare
        return rare is not None and rare.claims is self._held and not isinstance(self.ledger.records, Ended)

    def release(self) -> None:
        with self._movable._lock:
            if self.held:
                self._movable._rarely().claims = self._claims

    def forward(self, url: str, session_id: str) -> None:
        ledger = self._movable
        with ledger._lock:
            if not self.held:
                raise refusals.not_held(ledger.id)
            if ledger.store is not None:
                ledger.store.forward(ledger, url, session_id)
            sink = ledger.end(partial(refusals.moved, ledger.id, url, session_id))
        self.forwarded = True
        if sink is not None:
            sink.end()


def fill(ledger: Any, export: Export) -> None:
    """Put what *export* has into a new ledger in memory that has its schema and its epoch."""
    from dspex.stores.export import tag_of

    ledger.rev = export.revision.rev
    if ledger.rev:
        ledger.records = {**ledger.schema.initial, **export.records}
        ledger._log = Log(export.history, export.start)
    rare = ledger._rarely()
    rare.tags = {label: tag_of(at, ledger.id, ledger.epoch) for label, at in export.tags.items()}
    for name, held in export.claims:
        rare.claims.add(name, held)
