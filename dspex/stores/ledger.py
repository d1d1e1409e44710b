"""One session in memory: the reference of the ledger contract. Read this one first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from operator import attrgetter
from typing import Any, Never

import msgspec

from dspex import errors
from dspex.changes import Change
from dspex.commits import Commit, Receipt, Schema, Write
from dspex.locks import ForkSafeLock
from dspex.records import Record, Revision, Snapshot, check_name, frozen_metadata
from dspex.stores import base, refusals
from dspex.stores.base import Ended, Sink, apply_again, join, leave, new_epoch
from dspex.stores.claimed import Claims
from dspex.stores.log import Layer, Log
from dspex.stores.movable import Movable

__all__ = ["MemoryLedger"]

EMPTY = Schema({})
NOTHING_ELSE = Commit()

OPS = 10_000
"""Names of commits that a session remembers, to answer a retry like the first try."""

_rev_of = attrgetter("rev")
_now = time.time

_numbers = count(1)


class _Rare(msgspec.Struct):
    """What most sessions never have, made when it is needed."""

    claims: Claims = msgspec.field(default_factory=Claims)
    tags: dict[str, Snapshot] = msgspec.field(default_factory=dict)
    ops: OrderedDict[str, Receipt] = msgspec.field(default_factory=OrderedDict)
    store: Any = None


class MemoryLedger(Movable):
    """
    One session in memory. A fork is one too, which starts with the frozen records of its parent.

    `records` takes three forms. What the session started with, shared with all that started alike, until
    something is set. Then a layer over that, as long as each name is set once: these changes are the whole
    history. Then, for a session in use, a plain dict of all records, which reads fastest, and a log.
    """

    __slots__ = (
        "_epoch",
        "_frozen",
        "_id",
        "_lock",
        "_log",
        "_rare",
        "_sink",
        "_start",
        "records",
        "rev",
        "rules",
        "schema",
    )

    records: Mapping[str, Record]

    def __init__(
        self,
        lock: ForkSafeLock,
        epoch: str | None = None,
        *,
        session_id: str | None = None,
        store: Any = None,
        start: Snapshot | None = None,
        schema: Schema = EMPTY,
        rules: tuple[Any, ...] = (),
    ) -> None:
        self._lock = lock
        self._id = session_id
        self._log: Log | None = None
        self._rare: _Rare | None = None if store is None else _Rare(store=store)
        self._sink: Sink | None = None
        self._frozen: Snapshot | None = None
        self._epoch = epoch or ""  # made when somebody looks, or at the first write
        self.rev = 0 if start is None else start.revision.rev
        self.rules, self.schema = rules, schema
        self._start = schema.initial if start is None else start._records
        self.records = self._start

    @property
    def store(self) -> Any:
        return self._rare and self._rare.store

    @property
    def id(self) -> str:  # type: ignore[override]  # made when somebody looks, 10,000 forks never do
        """The id of the session; one of a private session says only that it is private."""
        if self._id is None:
            with self._lock:
                self._id = self._id or f"private-{next(_numbers)}"
        return self._id

    @property
    def epoch(self) -> str:  # type: ignore[override]  # the same
        """The name of this history. That of a fork is not its parent's, though it counts on from there."""
        if not self._epoch:
            with self._lock:
                self._epoch = self._epoch or new_epoch()
        return self._epoch

    @property
    def tags(self) -> Mapping[str, Revision]:
        self._check_alive()
        rare = self._rare
        return {} if rare is None else {label: at.revision for label, at in list(rare.tags.items())}

    # ---- the hot path -----------------------------------------------------------------------------

    def put(
        self,
        name: str,
        value: Any,
        metadata: Mapping[str, Any] | None = None,
        source: str | None = None,
        expect: int | None = None,
    ) -> Change:
        # What commit() does for one write and nothing else, without the messages: 0.65 of its time.
        try:
            kind = self.schema.kinds[name]
            value = kind.check(value)
        except (KeyError, TypeError, errors.InvalidValue, errors.LimitExceeded) as error:
            self._refuse(name, error)
        if metadata is not None:
            metadata = frozen_metadata(metadata)
        lock, change = self._lock, None
        try:
            lock.acquire()  # in here, as a signal may raise right after it
            log = self._log
            if log is None:
                change = self._put_first(name, value, metadata, source, expect)
            else:
                rare = self._rare
                if rare is not None and rare.claims:
                    rare.claims.check((name,), None, self.id)
                records: Any = self.records
                last = records[name]
                version = last.version
                if expect is not None and (type(expect) is not int or expect != version):
                    raise refusals.version_conflict(self.id, name, version, expect)  # noqa: TRY301
                rev = self.rev + 1
                change = Change(
                    name, value, version + 1, rev, self._epoch, source, metadata, _now(), last.value
                )
                records[name] = change
                self._frozen = None
                self.rev = rev
                log.append(change)
                if rev >= log.due or not kind.fixed:
                    log.bound((change,), rev, self.schema)
                if (sink := self._sink) is not None:
                    sink.apply((change,))
            sink = self._sink
        except BaseException:
            if change is not None:
                self._finish((change,))
            raise
        finally:
            try:  # noqa: SIM105 - suppress() is a call: an interrupt after it would leave the lock taken
                lock.release()
            except RuntimeError:  # interrupted as it waited; a thread that has the lock already never waits
                pass
        if sink is not None and sink.queue:
            sink.drain()
        return change

    def _put_first(
        self,
        name: str,
        value: Any,
        metadata: Mapping[str, Any] | None,
        source: str | None,
        expect: int | None,
    ) -> Change:
        self._check_alive()
        self._check_claims((name,), None)
        self._check_version(name, expect, self.schema)
        changes = self._made({name: value}, source, metadata, self.schema)
        self._apply(NOTHING_ELSE, self.schema, changes)
        return changes[0]

    # ---- the general case -------------------------------------------------------------------------

    def commit(self, commit: Commit) -> Receipt:
        values, metadata = self._checked(commit)
        with self._lock:
            done = self._done(commit)
            if done is not None:
                return done
            schema = self._admitted(commit, values)
            # Nothing below can fail.
            changes = self._made(values, commit.source, metadata, schema, commit.writes)
            receipt = self._apply(commit, schema, changes)
            sink = self._sink
        if sink is not None:
            sink.drain()
        return receipt

    def _checked(self, commit: Commit) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
        """The values as their kinds store them, and the metadata; what can be refused without the lock."""
        if len(commit.writes) > base.BATCH:
            raise refusals.too_many_writes(self.id, len(commit.writes), base.BATCH)
        kinds = self.schema.extended(commit.declare).kinds if commit.declare else self.schema.kinds
        values = {}
        for write in commit.writes:
            try:
                values[write.name] = kinds[write.name].check(write.value)
            except (KeyError, TypeError, errors.InvalidValue, errors.LimitExceeded) as error:
                self._refuse(write.name, error)
        return values, None if commit.metadata is None else frozen_metadata(commit.metadata)

    def _done(self, commit: Commit) -> Receipt | None:
        """How the commit of that op was answered, if it was made already."""
        self._check_alive()
        return None if commit.op is None else self._rarely().ops.get(commit.op)

    def _admitted(self, commit: Commit, values: Mapping[str, Any]) -> Schema:
        """The schema that *commit* needs, once nothing can be said against it any more."""
        schema = self._extended(commit)
        self._check_claims(values, commit.token)
        if commit.claim is not None:
            self._check_known(commit.claim.names, schema)
            self._rarely().claims.check_claim(commit.claim, self.id)
        self._check_known((name for name, _ in commit.given), schema)
        for name, version in (*((one.name, one.expect) for one in commit.writes), *commit.given):
            self._check_version(name, version, schema)
        tag = commit.tag
        if tag is not None and check_name(tag) not in self.tags and len(self.tags) >= base.TAGS:
            raise refusals.too_many_tags(self.id, base.TAGS)
        return schema

    def _made(
        self,
        values: Mapping[str, Any],
        source: str | None,
        metadata: Mapping[str, Any] | None,
        schema: Schema,
        writes: Iterable[Write] = (),
    ) -> tuple[Change, ...]:
        """The changes that setting *values* makes."""
        if not values:
            return ()
        sources = {write.name: write.source for write in writes if write.source is not None}
        rev, now = self.rev + 1, _now()
        changes = []
        for name, value in values.items():
            last = self._last(name, schema)
            by = sources.get(name, source)
            changes.append(
                Change(name, value, last.version + 1, rev, self.epoch, by, metadata, now, last.value)
            )
        return tuple(changes)

    def _apply(self, commit: Commit, schema: Schema, changes: tuple[Change, ...]) -> Receipt:
        """Do what *commit* asks for, and tell the sinks; all of it, even if an interrupt comes between."""
        try:
            receipt = self._do(commit, schema, changes)
            if self._sink is not None:
                self._sink.apply(changes)
        except BaseException:
            self._do(commit, schema, changes)
            self._finish(changes)
            raise
        return receipt

    def _finish(self, changes: tuple[Change, ...]) -> None:
        """Make *changes* that an interrupt has cut short, from wherever it came."""
        self._keep(changes)
        if self._sink is not None:
            apply_again(self._sink, changes)

    # Twice they do what they do once.

    def _do(self, commit: Commit, schema: Schema, changes: tuple[Change, ...]) -> Receipt:
        self._adopt(schema)
        self._keep(changes)
        if commit.release is not None:
            self._rarely().claims.release(commit.release)
        if commit.claim is not None:
            self._rarely().claims.take(commit.claim)
        if commit.tag is not None:
            self._rarely().tags[commit.tag] = self._snapshot()
        receipt = Receipt(self.epoch, self.rev, changes)
        if commit.op is not None:
            self._remember(commit.op, receipt)
        return receipt

    def _keep(self, changes: tuple[Change, ...]) -> None:
        if not changes:
            return
        records = self._writable(changes)
        for change in changes:
            if self._log is None:  # a read may have put it there, and the order of a layer is its history
                records.pop(change.name, None)
            records[change.name] = change
        self._frozen = None
        self.rev = rev = changes[0].rev
        if (log := self._log) is not None:
            if not log or log[-1] is not changes[-1]:
                log.extend(changes)
            log.bound(changes, rev, self.schema)

    def _writable(self, changes: Iterable[Change]) -> Any:
        """`records` in the form in which *changes* can be put there."""
        records, start = self.records, self._start
        if self._log is not None:
            return records
        if not isinstance(records, Layer):
            self.records = Layer(start)
        elif any(
            (known := records.get(one.name)) is not None and known is not start[one.name] and known is not one
            for one in changes
        ):
            self._log, self.records = self._history(), {**start, **records}
        return self.records

    def _history(self) -> Log:
        if self._log is not None:
            return self._log
        own: Any = self.records.own() if isinstance(self.records, Layer) else ()
        return Log(sorted(own, key=_rev_of), self.rev - len({record.rev for record in own}))

    def _extended(self, commit: Commit) -> Schema:
        schema = self.schema.extended(commit.declare)
        if len(schema.declarations) > base.NAMES:
            raise refusals.too_many_names(self.id, len(schema.declarations), base.NAMES)
        return schema

    def _adopt(self, schema: Schema) -> None:
        if schema is self.schema:
            return
        new = {name: one for name, one in schema.initial.items() if name not in self.schema.initial}
        self._start = {**self._start, **new} if self._start else schema.initial
        records: Any = self.records
        if self._log is not None:
            self.records = {**records, **new}
        elif isinstance(records, Layer):
            records.base = self._start
        else:
            self.records = self._start
        self._frozen = None
        self.schema = schema

    # ---- what may be refused ----------------------------------------------------------------------

    def _refuse(self, name: str, error: Exception) -> Never:
        if not isinstance(error, errors.DspexError):
            self._check_alive()
        raise refusals.refused(self.id, name, error, self.schema.kinds) from None

    def _check_alive(self) -> None:
        if isinstance(self.records, Ended):
            raise self.records.error()

    def _check_version(self, name: str, expect: int | None, schema: Schema) -> None:
        if expect is not None:
            version = self._last(name, schema).version
            if type(expect) is not int or expect != version:
                raise refusals.version_conflict(self.id, name, version, expect)

    def _last(self, name: str, schema: Schema) -> Record:
        return (self.records if name in self.schema.kinds else schema.initial)[name]

    def _check_known(self, names: Iterable[str], schema: Schema) -> None:
        for name in names:
            if not isinstance(name, str) or name not in schema.kinds:
                raise errors.unknown_variable(f"session '{self.id}'", name, schema.kinds)

    def _check_claims(self, names: Iterable[str], token: str | None) -> None:
        if self._rare is not None:
            self._rare.claims.check(names, token, self.id)

    def _rarely(self) -> _Rare:
        if self._rare is None:
            self._rare = _Rare()
        return self._rare

    def _remember(self, op: str, receipt: Receipt) -> None:
        ops = self._rarely().ops
        ops[op] = receipt
        if len(ops) > OPS:
            ops.popitem(last=False)

    def own_versions(self) -> Mapping[str, int]:
        with self._lock:
            now, start = self.records, self._start
            return {name: start[name].version for name in self.schema.kinds if now[name] is not start[name]}

    # ---- history ----------------------------------------------------------------------------------

    def history(self, name: str | None = None, since: int | None = None) -> Sequence[Change]:
        with self._lock:
            self._check_alive()
            if name is not None:
                self._check_known((name,), self.schema)
            return self._history().part(self.id, name, since)

    def snapshot(self, tag: str | None = None) -> Snapshot:
        with self._lock:
            self._check_alive()
            if tag is None:
                return self._snapshot()
            tags = self._rare.tags if self._rare is not None else {}
            try:
                return tags[tag]
            except (KeyError, TypeError):
                raise refusals.unknown_tag(self.id, tag, tags) from None

    def _snapshot(self) -> Snapshot:
        if self._frozen is None:
            records: Any = self.records
            values = self._start if records is self._start else {**self._start, **records}
            self._frozen = Snapshot(self.id, self.revision, values)
        return self._frozen

    # ---- handles ----------------------------------------------------------------------------------

    def subscribe(self, sink: Sink) -> bool:
        with self._lock:
            self._check_alive()
            before, self._sink = self._sink, join(self._sink, sink)
            return self._sink is not before

    def unsubscribe(self, sink: Sink) -> None:
        with self._lock:
            self._sink = leave(self._sink, sink)

    def close(self) -> None:
        if self.store is not None:
            self.store.closed(self)
