"""One session of a SQLite store: in memory for who reads, on disk before anyone hears of a commit."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve

from dspex import errors
from dspex.changes import Change
from dspex.commits import Commit, Declaration, Receipt, Schema, Write
from dspex.kinds import Kind
from dspex.kinds.plain import thaw
from dspex.records import Record, Revision, Snapshot, frozen_metadata
from dspex.stores import refusals
from dspex.stores import sqlite_schema as sql
from dspex.stores.base import Ended, Sink
from dspex.stores.claimed import OnHold
from dspex.stores.ledger import OPS, MemoryLedger
from dspex.stores.log import Log
from dspex.stores.sqlite_database import OP_SECONDS, Database
from dspex.stores.sqlite_jobs import CommitJob
from dspex.stores.sqlite_moving import SqliteHold
from dspex.stores.sqlite_rows import change_since, check_texts, claims_of, metadata_of, record_of, schema_of
from dspex.wire import (
    pack_declaration,
    pack_plain,
    pack_value,
    unpack_plain,
    unpack_value,
)

if TYPE_CHECKING:
    import sqlite3

    from dspex.stores.export import Export

__all__ = ["SqliteLedger"]

UNREAD = 1_024
"""Changes in memory after which the older ones are read too, as all are shortened together."""

UNREAD_BYTES = 1024 * 1024
"""The same for their size."""

Execute = Callable[..., "sqlite3.Cursor"]


class SqliteLedger(MemoryLedger):
    """
    The state of a session in memory, which follows what is in the file.

    All checks and all reading are those of a session in memory. A commit is checked, written, and applied to
    memory when the file has it.
    """

    __slots__ = (
        "__weakref__",
        "_database",
        "_epoch",
        "_key",
        "_known",
        "_log_start",
        "_ops_until",
        "_unread",
        "handles",
    )

    blocking: ClassVar[bool] = True

    def __init__(self, database: Database, session_id: str, store: Any) -> None:
        super().__init__(database.lock, "", session_id=session_id, store=store)
        self._database = database
        self._key = 0
        self._known: dict[str, Kind[Any]] = {}
        """Kinds that the file can only describe, as this process declared them."""
        self._log_start = 0
        """Where the history in the file begins."""
        self._ops_until = 0.0
        """Until when the file may know an op that memory does not."""
        self._unread = False
        """Whether there is history in the file that memory does not have."""
        self.handles = 0

    # ---- commits ----------------------------------------------------------------------------------

    def put(
        self,
        name: str,
        value: Any,
        metadata: Mapping[str, Any] | None = None,
        source: str | None = None,
        expect: int | None = None,
    ) -> Change:
        try:
            kind = self.schema.kinds[name]
            value = kind.check(value)
        except (KeyError, TypeError, errors.InvalidValue, errors.LimitExceeded) as error:
            self._refuse(name, error)
        if metadata is None and type(source) is str and source.isascii():
            # What commit() does for one write and nothing else, when nobody else is at it. After a wait for
            # the disk the processor has forgotten the code: this is a third of it, in a third of the time.
            packed = pack_value(kind, value)
            done = self._database.turns.at_once(self._put_now, name, value, packed, source, expect)
            if done is not None:
                change, sink, interrupt = done
                if interrupt is not None:
                    raise interrupt
                if sink is not None and sink.queue:
                    sink.drain()
                return change
        commit = Commit((Write(name, value, expect),), source=source, metadata=metadata)
        return self.commit(commit).changes[0]

    def _put_now(
        self, name: str, value: Any, packed: bytes, source: str, expect: int | None
    ) -> tuple[Change, Sink | None, BaseException | None] | None:
        """Make the commit of one write, for who has the turn; None if there is more to it."""
        database, log, rare = self._database, self._log, self._rare
        if (
            log is None
            or (rare is not None and rare.claims)
            or database.broken
            or database.gone is not None
            or self._is_untidy(log)
        ):
            return None
        last = self.records[name]
        if expect is not None and (type(expect) is not int or expect != last.version):
            raise refusals.version_conflict(self.id, name, last.version, expect)
        key, rev, version, now = self._key, self.rev + 1, last.version + 1, time.time()
        interrupt = database.write_now(
            (key, rev, name, 0, version, now, source, None),
            (key, rev, name, version, now, source, None, packed),
        )
        change = Change(name, value, version, rev, self.epoch, source, None, now, last.value)
        with self._lock:
            try:
                self._keep((change,))
                if (sink := self._sink) is not None:
                    sink.apply((change,))
            except BaseException:
                self._finish((change,))
                raise
            sink = self._sink
        database.broken = False
        return change, sink, interrupt

    def commit(self, commit: Commit) -> Receipt:
        self._database.check()
        self._check_alive()
        check_texts(commit)
        if commit.declare:
            self._recognise(commit.declare)
        job = CommitJob(self, commit)
        # Here and not in the turn: a kind may run code of its author.
        job.values, job.metadata = self._checked(commit)
        kinds = self.schema.kinds
        new = {declared.name: declared for declared in commit.declare if declared.name not in kinds}
        job.declared = {name: pack_declaration(declared) for name, declared in new.items()}
        job.packed = {
            name: pack_value(kinds[name] if name in kinds else new[name].kind, value)
            for name, value in job.values.items()
        }
        job.why = None if job.metadata is None else pack_plain(thaw(job.metadata))
        self._database.do(job)
        if job.sink is not None:
            job.sink.drain()
        assert job.receipt is not None
        return job.receipt

    def done_before(self, commit: Commit, execute: Execute) -> Receipt | None:
        """How the commit of that op was answered; also one of before this session was opened."""
        done = self._done(commit)
        if done is not None or commit.op is None or self._ops_until < time.time():
            return done
        found = execute(sql.OP, (self._key, commit.op, time.time() - OP_SECONDS)).fetchone()
        if found is None:
            return None
        rev, made = found
        when, versions = unpack_plain(made)
        self._read_history(execute)
        changes = tuple(change for change in self._history() if change.rev == rev)
        if len(changes) != len(versions):
            # Its history is forgotten. Who asks again has the values; only what was there before is lost.
            values = {write.name: (write.value, write.source) for write in commit.writes}
            why = None if commit.metadata is None else frozen_metadata(commit.metadata)
            changes = tuple(
                Change(
                    name,
                    self.schema.kinds[name].check(value),
                    version,
                    rev,
                    self.epoch,
                    by or commit.source,
                    why,
                    when,
                )
                for name, version in versions
                for value, by in [values[name]]
            )
        return Receipt(self.epoch, rev, changes)

    def stage(self) -> MemoryLedger:
        """A copy that commits can be tried on."""
        with self._lock:
            start = self._snapshot()
        stage = MemoryLedger(self._lock, self.epoch, session_id=self.id, start=start, schema=self.schema)
        if self._rare is not None:
            stage._rarely().claims = self._rare.claims.copy()
            stage._rarely().tags.update(self._rare.tags)
        return stage

    def write(
        self,
        job: CommitJob,
        stage: MemoryLedger,
        schema: Schema,
        changes: Sequence[Change],
        write: Callable[[str, Sequence[Any]], None],
    ) -> None:
        """Write what *job* does to *stage*: to this ledger as it will be once what is before it is done."""
        key, commit = self._key, job.commit
        known = len(stage.schema.declarations)
        if schema is not stage.schema:
            new = [job.declared[name] for name in islice(schema.declarations, known, None)]
            write(sql.DECLARE, (key, known, len(new), pack_plain(new)))
        why = job.why
        for seq, one in enumerate(changes):
            name, rev, source, version, now = one.name, one.rev, one.source, one.version, one.time
            write(sql.KEEP, (key, rev, name, seq, version, now, source, why))
            write(sql.RECORD, (key, rev, name, version, now, source, why, job.packed[name]))
        rev = changes[0].rev if changes else stage.rev
        if commit.release is not None:
            write(sql.RELEASE, (key, commit.release))
        if (claim := commit.claim) is not None:
            until = time.time() + claim.ttl
            write(sql.END_CLAIMS, (key, time.time()))
            for name in claim.names:
                write(sql.CLAIM, (key, name, claim.owner, claim.token, claim.ttl, until))
        if commit.tag is not None:
            write(sql.TAG, (key, commit.tag, rev, len(schema.declarations)))
            write(sql.UNTAG, (key, commit.tag))
            write(sql.TAG_RECORDS, (key, commit.tag))
        if commit.op is not None:
            if self._database.counts_op():
                write(sql.FORGET_UNTIL, (time.time() - OP_SECONDS,))
            if self._rare is not None and len(self._rare.ops) >= OPS:
                write(sql.FORGET, (key, next(iter(self._rare.ops))))
            made = pack_plain(
                [changes[0].time if changes else time.time(), [(one.name, one.version) for one in changes]]
            )
            write(sql.REMEMBER, (key, commit.op, time.time(), rev, made))
        if changes:
            self._tidy(write)

    def _is_untidy(self, log: Log) -> bool:
        if self._unread:
            return len(log) > UNREAD or log._bytes > UNREAD_BYTES
        return log.start > self._log_start

    def _tidy(self, write: Callable[[str, Sequence[Any]], None]) -> None:
        """Forget on disk what memory forgot, together with a commit that is made anyway."""
        log = self._log
        if log is None or not self._is_untidy(log):
            return
        if self._unread:
            self._read_history(self._database._execute)
        else:
            kept = sorted({change.rev for change in log if change.rev <= log.start})
            write(sql.SHORTEN, (self._key, log.start, json.dumps(kept)))
            write(sql.STARTS, (log.start, self._key))
            self._log_start = log.start

    # ---- reading the file -------------------------------------------------------------------------

    def read(self, execute: Execute) -> bool:
        """Take over what the file says, and tell the sinks; whether there is such a session."""
        found = execute(sql.FIND, (self.id,)).fetchone()
        if found is None:
            return False
        self._key, epoch, log_start, tagged, claimed, ops = found
        claims = execute(sql.CLAIMS, (self._key, time.time())).fetchall() if claimed else ()
        try:
            schema = self._schema(row[0] for row in execute(sql.DECLARATIONS, (self._key,)).fetchall())
            rows = execute(sql.RECORDS, (self._key,)).fetchall()
            own = {row[0]: record_of(schema.kinds, epoch, row) for row in rows}
            tags = self._tags(execute, schema, epoch) if tagged else {}
        except (errors.InvalidValue, errors.LimitExceeded, KeyError, TypeError, ValueError) as error:
            raise errors.StoreUnavailable(
                f"session '{self.id}' in {self._database.location.path} cannot be read: {error}",
                session=self.id,
            ) from error
        # What was left out when the session was made of a document may have been the newest.
        rev = max([log_start, *(record.rev for record in own.values())])
        with self._lock:
            before, known = self.records, self.rev if self._epoch == epoch else rev
            self._epoch, self.rev, self.schema = epoch, rev, schema
            self._log_start, self._unread = log_start, rev > 0
            self._start = self.records = schema.initial
            self._frozen = self._log = None
            if own:
                self.records = {**schema.initial, **own}
                self._log = Log((), rev)
            if tags:
                self._rarely().tags = tags
            if claims and not isinstance(self._rarely().claims, OnHold):
                self._rarely().claims = claims_of(claims)
            if ops:
                self._ops_until = time.time() + OP_SECONDS
            if rev > known and self._sink is not None:
                missed = [change_since(before[one.name], one) for one in own.values() if one.rev > known]
                if rev > known + 1:
                    self._sink.lost(rev, {one.name for one in missed})
                self._sink.apply(sorted(missed, key=attrgetter("rev")))
        return True

    def _schema(self, rows: Iterable[bytes]) -> Schema:
        schema = schema_of(tuple(rows))
        if not self._known:
            return schema
        return Schema(
            {
                name: evolve(
                    one, kind=self._known[name], initial=self._known[name].load(one.kind.dump(one.initial))
                )
                if name in self._known
                else one
                for name, one in schema.declarations.items()
            }
        )

    def _tags(self, execute: Execute, schema: Schema, epoch: str) -> dict[str, Snapshot]:
        tags = {}
        for label, rev, names in execute(sql.TAGS, (self._key,)).fetchall():
            records: dict[str, Record] = dict(islice(schema.initial.items(), names))
            for row in execute(sql.TAGGED, (self._key, label)).fetchall():
                records[row[0]] = record_of(schema.kinds, epoch, row)
            tags[label] = Snapshot(self.id, Revision(epoch, rev), records)
        return tags

    def _recognise(self, declarations: Iterable[Declaration]) -> None:
        """Read again those variables whose kind a file can only describe, now that somebody has it."""
        known = self.schema.declarations
        kinds = {
            one.name: one.kind
            for one in declarations
            if (before := known.get(one.name)) is not None
            and before.kind != one.kind
            and one.name not in self._known
            and before.kind.describe() == one.kind.describe()
        }
        if not kinds:
            return

        def again(execute: Execute) -> None:
            self._known.update(kinds)
            try:
                self.read(execute)
            except BaseException:
                for name in kinds:
                    self._known.pop(name, None)
                raise

        self._database.alone(again)

    def history(self, name: str | None = None, since: int | None = None) -> Sequence[Change]:
        log = self._log
        if self._unread and log is not None and (since is None or since < log.start):
            self._database.alone(self._read_history)
        return super().history(name, since)

    def _read_history(self, execute: Execute) -> None:
        """Put the changes from before this session was opened in front of those since."""
        log = self._log
        if not self._unread or log is None:
            return
        whole = Log((*self.unread(execute, log), *log), self._log_start)
        whole.bound(whole, self.rev, self.schema)
        with self._lock:
            self._log = whole
            self._unread = False

    def unread(self, execute: Execute, log: Log) -> list[Change]:
        """The changes in the file that are before those in *log*."""
        newest = {name: (record.version, record.value) for name, record in self.records.items()}
        for change in reversed(log):
            newest[change.name] = change.version - 1, change.old
        older = []
        rows = execute(sql.LOG, (self._key, log.start)).fetchall()
        for name, version, rev, when, source, why, before in rows:
            last, value = newest[name]
            if version != last:
                continue
            kind = self.schema.kinds[name]
            old = self.schema.initial[name].value if before is None else unpack_value(kind, before)
            older.append(Change(name, value, version, rev, self.epoch, source, metadata_of(why), when, old))
            newest[name] = version - 1, old
        older.reverse()
        return older

    # ---- moving -----------------------------------------------------------------------------------

    def export(self) -> Export:
        return self._database.alone(self._export)

    def _export(self, execute: Execute) -> Export:
        self._check_alive()
        self._read_history(execute)
        return self._exported(execute(sql.CREATED, (self._key,)).fetchone()[0])

    def hold(self) -> SqliteHold:
        return self._database.alone(lambda _: SqliteHold(self, self._database))

    # ---- handles ----------------------------------------------------------------------------------

    def end(self, error: Callable[[], errors.DspexError]) -> Sink | None:
        self._unread = False
        return super().end(error)

    def close(self) -> None:
        with self._lock:
            if not self.handles:
                return
            self.handles -= 1
            if not self.handles and not isinstance(self.records, Ended):
                self.end(self._is_left)
        self._database.release()

    def _is_left(self) -> errors.SessionClosed:
        return errors.SessionClosed(
            f"the last handle of session '{self.id}' is closed. Open it again.", session=self.id
        )

    def __del__(self) -> None:
        if getattr(self, "handles", 0) and self._database.gone is None:
            warnings.warn(
                f"session '{self.id}' in {self._database.location.path} was not closed",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            for _ in range(self.handles):
                self._database.release_at_once()
