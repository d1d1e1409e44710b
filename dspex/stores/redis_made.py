"""A commit of this process on its way to the server, and back into the copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspex.changes import Change
from dspex.commits import Declaration

if TYPE_CHECKING:
    from dspex.stores.redis_calls import Call
    from dspex.stores.redis_copy import RedisCopy

__all__ = ["Made"]


class Made:
    """A commit of this process on its way."""

    __slots__ = ("changes", "declare", "epoch", "known", "ledger", "metadata", "nonce", "own")

    def __init__(
        self,
        ledger: RedisCopy,
        own: tuple[tuple[str, Any, str | None], ...],
        metadata: Mapping[str, Any] | None,
        nonce: bytes,
        declare: Sequence[Declaration] = (),
    ) -> None:
        self.ledger = ledger
        self.own = own
        """What it sets: names, stored values, authors."""
        self.metadata = metadata
        self.nonce = nonce
        self.declare = declare
        self.known = len(ledger._order)
        self.epoch = ledger._at[0]
        self.changes: Sequence[Change] | None = None
        """What it did, once the copy has it."""

    def settle(self, call: Call) -> None:
        """Apply the answer, in the order of answers, if the copy has all that was before."""
        first, stamp, nonce, *versions = call.reply.split(b" ")
        rev, when, ledger = int(first), float(stamp), self.ledger
        lock = ledger._lock
        lock.acquire()
        try:
            if self.declare and len(ledger._order) == self.known and ledger._at[0] == self.epoch:
                ledger.adopt(self.declare)
                ledger._order += [one.name for one in self.declare]
            if not versions or rev != ledger.rev + 1 or ledger._at[0] != self.epoch:
                return
            live, epoch, metadata = ledger.live, ledger.epoch, self.metadata
            changes = []
            for (name, stored, source), version in zip(self.own, versions, strict=True):
                last = live.get(name)
                if last is None or last.version + 1 != int(version):
                    return
                changes.append(
                    Change(name, stored, last.version + 1, rev, epoch, source, metadata, when, last.value)
                )
            ledger.advance(changes, rev)
            ledger._at = (self.epoch, rev, nonce)
            ledger._recent.append((rev, changes))
            self.changes = changes
        finally:
            lock.release()
