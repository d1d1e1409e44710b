"""A local copy of a session whose truth is elsewhere, kept up to date by events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Never

import msgspec

from dspex import errors
from dspex.changes import Change
from dspex.commits import Commit, Declaration, Receipt, Schema, Write
from dspex.locks import ForkSafeLock
from dspex.records import Record
from dspex.stores import base, refusals
from dspex.stores.base import Ended, Ledger, Sink, join, leave

__all__ = ["Replica"]

_rev_of = attrgetter("rev")


class _Guarded(Mapping[str, Record]):
    """The records of a session that has no contact: any look at them runs *look* first."""

    __slots__ = ("_live", "_look")

    def __init__(self, live: Mapping[str, Record], look: Callable[[], None]) -> None:
        self._live = live
        self._look = look

    def __getitem__(self, name: str) -> Record:
        self._look()
        return self._live[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)


class Replica(Ledger):
    """
    What all copies of a remote truth do: records that are read without asking anybody, sinks, an end.

    A subclass brings what it hears in order to `advance`, and to `jump` where something is missing between.
    """

    __slots__ = (
        "_error",
        "_lock",
        "_sink",
        "epoch",
        "handles",
        "id",
        "live",
        "records",
        "rev",
        "rules",
        "schema",
        "store",
    )

    blocking: ClassVar[bool] = True

    records: Mapping[str, Record]

    def __init__(self, store: Any, session_id: str) -> None:
        self._lock = ForkSafeLock()
        self._sink: Sink | None = None
        self._error: errors.DspexError | None = None
        self.id = session_id
        self.store = store
        self.handles = 0
        self.epoch = ""
        self.rev = 0
        self.rules = ()
        self.schema = Schema({})
        self.live: dict[str, Record] = {}
        """The copy, whatever stands before it in `records`."""
        self.records = self.live

    def guard(self, look: Callable[[], None] | None) -> None:
        """Let *look* stand before the records, or nothing again."""
        with self._lock:
            if not isinstance(self.records, Ended):
                self.records = self.live if look is None else _Guarded(self.live, look)

    # ---- what comes; under the lock ------------------------------------------------------------------

    def adopt(self, declared: Iterable[Declaration]) -> None:
        """Take variables that are new here."""
        new = self.schema.undeclared(declared)
        if not new:
            return
        schema = self.schema.extended(new)
        for one in new:
            self.live.setdefault(one.name, schema.initial[one.name])
        self.schema = schema

    def advance(self, changes: Sequence[Change], rev: int) -> None:
        """Apply the next commit."""
        live = self.live
        for change in changes:
            live[change.name] = change
        self.rev = rev
        sink = self._sink
        if sink is not None:
            sink.apply(changes)

    def begin(self, epoch: str, rev: int, found: Mapping[str, Change]) -> None:
        """Be that, for the first time."""
        self.live.update({**self.schema.initial, **found})
        self.epoch, self.rev = epoch, rev

    def foretold(self, epoch: str, news: bytes) -> bool:
        """
        Apply the next commit, of which a client of the server tells before the server does.

        Returns:
            Whether this copy has that commit now. It has not if others before it are missing, or if copies of
            this kind take nothing from clients.
        """
        return False

    def jump(self, epoch: str, rev: int, found: Mapping[str, Change]) -> None:
        """
        Be that. Of what lies between, nothing is known but the newest change of each name.

        The variables that are not *found* have their initial values; in another epoch they went back to them.
        """
        same = epoch == self.epoch
        changes = []
        for name, first in self.schema.initial.items():
            last, now = self.live.get(name, first), found.get(name)
            if now is None:
                if not same and last.version:
                    changes.append(
                        Change(name, first.value, 0, rev, epoch, None, None, first.time, last.value)
                    )
            elif not same or now.version > last.version:
                changes.append(msgspec.structs.replace(now, old=last.value))
            self.live.setdefault(name, first)
        changes.sort(key=_rev_of)
        before, self.epoch = self.rev, epoch
        if self._sink is not None and (not same or rev > before + 1):
            self._sink.lost(rev, {change.name for change in changes})
        self.advance(changes, rev)

    # ---- what goes ----------------------------------------------------------------------------------

    def checked(self, commit: Commit, declare: Iterable[Declaration]) -> dict[str, Write]:
        """
        The writes of *commit* with what their kinds store, by name.

        Raises:
            InvalidValue, UnknownVariable, LimitExceeded.
        """
        if len(commit.writes) > base.BATCH:
            raise refusals.too_many_writes(self.id, len(commit.writes), base.BATCH)
        kinds = {**self.schema.kinds, **{one.name: one.kind for one in declare}}
        writes: dict[str, Write] = {}
        for write in commit.writes:
            try:
                stored = kinds[write.name].check(write.value)
            except (KeyError, TypeError, errors.InvalidValue, errors.LimitExceeded) as error:
                self.refuse(write.name, error)
            self.check_expect(write.name, write.expect)
            writes[write.name] = Write(write.name, stored, write.expect, write.source)
        return writes

    def check_expect(self, name: str, expect: Any) -> None:
        """Refuse what is no version of *name*, or more than any server has room for."""
        if expect is not None and (type(expect) is not int or not 0 <= expect < 2**63):
            self.check_alive()
            raise refusals.version_conflict(self.id, name, self.live[name].version, expect)

    def refuse(self, name: str, error: Exception) -> Never:
        """Say why *name* cannot be set."""
        if not isinstance(error, errors.DspexError):
            self.check_alive()
        raise refusals.refused(self.id, name, error, self.schema.kinds) from None

    def prefer(self, declared: Iterable[Declaration]) -> None:
        """Hold values as the kinds of *declared* do, which may know a class that a description only names."""
        with self._lock:
            known = self.schema.declarations
            better = {
                one.name: one for one in declared if one.name in known and known[one.name].kind != one.kind
            }
            if not better:
                return
            for name, one in better.items():
                record: Any = self.live[name]
                load, dump = one.kind.load, known[name].kind.dump
                old = getattr(record, "old", None)
                self.live[name] = msgspec.structs.replace(
                    record, value=load(dump(record.value)), old=None if old is None else load(dump(old))
                )
            self.schema = Schema({**known, **better})

    # ---- the end ------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Raise what ended the session, if it has ended."""
        if self._error is not None:
            raise self._ended()

    def _ended(self) -> errors.DspexError:
        error = self._error
        assert error is not None
        return type(error)(error.message, **error.facts)

    def end(self, error: errors.DspexError) -> None:
        """Nothing comes any more, because of *error*."""
        with self._lock:
            if self._error is not None:
                return
            self._error = error
            self.records = Ended(self._ended)
            sink = self._sink
        if sink is not None:
            sink.end()

    # ---- sinks --------------------------------------------------------------------------------------

    @property
    def told(self) -> bool:
        """Whether callbacks are to be run."""
        sink = self._sink
        return sink is not None and bool(sink.queue)

    def drain(self) -> None:
        """Run the callbacks."""
        sink = self._sink
        if sink is not None and sink.queue:
            sink.drain()

    def subscribe(self, sink: Sink) -> bool:
        with self._lock:
            self.check_alive()
            before, self._sink = self._sink, join(self._sink, sink)
            return self._sink is not before

    def unsubscribe(self, sink: Sink) -> None:
        with self._lock:
            self._sink = leave(self._sink, sink)

    def settled(self, receipt: Receipt) -> Receipt:
        """*receipt*, once the callbacks of this thread have run."""
        self.drain()
        return receipt
