"""Sessions into a SQLite file as a whole, and out of it for good."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve

from dspex import errors
from dspex.kinds import Kind
from dspex.kinds.plain import thaw
from dspex.records import Record, Revision
from dspex.stores import refusals
from dspex.stores import sqlite_schema as sql
from dspex.stores.base import Ended
from dspex.stores.log import Log
from dspex.stores.movable import MemoryHold
from dspex.stores.pieces import check_same
from dspex.wire import pack_declaration, pack_plain, pack_value

if TYPE_CHECKING:
    from dspex.stores.base import Sink
    from dspex.stores.export import Export
    from dspex.stores.sqlite_database import Database
    from dspex.stores.sqlite_ledger import SqliteLedger

__all__ = ["SqliteHold", "restore"]

Execute = Callable[..., sqlite3.Cursor]
Write = Callable[[str, Sequence[Any]], None]


class SqliteHold(MemoryHold):
    """
    Keeps a ledger of a file from committing.

    Made in a turn, so that no commit is on its way to the disk.
    """

    def __init__(self, ledger: SqliteLedger, database: Database) -> None:
        super().__init__(ledger)
        self._key = ledger._key
        self._database = database

    def forward(self, url: str, session_id: str) -> None:
        sink: Sink | None = None
        try:
            sink = self._database.alone(partial(self._forward, url, session_id))
        except errors.StoreUnavailable as error:
            # The disk may have it all the same.
            if not self._is_forwarded(error):
                raise
            self.forwarded = True
        if sink is not None:
            sink.end()

    def _forward(self, url: str, session_id: str, execute: Execute) -> Sink | None:
        ledger, database = self._movable, self._database
        if not self.held:
            raise refusals.not_held(ledger.id)
        for statement in sql.DELETE:
            database._write(statement, (self._key,))
        database._write(sql.MOVE, (ledger.id, url, session_id, time.time()))
        interrupt = database._end()
        database._ledgers.pop(ledger.id, None)
        with database.lock:
            sink = ledger.end(partial(refusals.moved, ledger.id, url, session_id))
        self.forwarded = True
        if interrupt is not None:
            raise interrupt
        return sink

    def _is_forwarded(self, error: errors.StoreUnavailable) -> bool:
        try:
            found = self._database.alone(
                lambda execute: execute(sql.MOVED, (self.ledger.id,)).fetchone() is not None
            )
        except errors.StoreUnavailable:
            raise errors.StoreUnavailable(
                f"{error.message} Whether session '{self.ledger.id}' has ended there is not known.",
                **error.facts,
                unknown=True,
            ) from None
        return found


def restore(database: Database, ledger: SqliteLedger, export: Export) -> SqliteHold:
    """Put *export* into the file and into a new *ledger*, in one turn, or not at all."""
    arrival = _Arrival(database, ledger, export)
    try:
        return database.alone(arrival.work)
    except BaseException:
        if arrival.ending:  # the file may have it all the same
            with suppress(errors.StoreUnavailable):
                database.alone(arrival.undo)
        raise


class _Arrival:
    """A session that is put into a file."""

    def __init__(self, database: Database, ledger: SqliteLedger, export: Export) -> None:
        self._database = database
        self._ledger = ledger
        self._export = export
        self._rows = _Rows(export)  # before the turn: a kind may run code of its author
        self.ending = False
        """Whether all that is left to do is to commit."""

    def work(self, execute: Execute) -> SqliteHold:
        """Write it, read it again, compare, and commit."""
        database, ledger, export = self._database, self._ledger, self._export
        _free(database, ledger.id, execute)
        self._rows.write(ledger.id, database._write, execute)
        # What a file can only describe, this process has.
        ledger._known = {
            name: kind
            for name, kind in export.schema.kinds.items()
            if Kind.from_description(kind.describe()) != kind
        }
        ledger.read(execute)
        since = Log((), export.revision.rev)
        made = ledger._exported(export.created)
        check_same(export, evolve(made, history=ledger.unread(execute, since), start=ledger._log_start))
        hold = SqliteHold(ledger, database)
        self.ending = True
        interrupt = database._end()
        if interrupt is not None:
            raise interrupt
        database._ledgers[ledger.id] = ledger
        ledger.handles = 1
        database.holds.append(None)
        return hold

    def undo(self, execute: Execute) -> None:
        """Take it out again."""
        for statement in sql.DELETE:
            self._database._write(statement, (self._ledger._key,))
        self._database._end()


def _free(database: Database, session_id: str, execute: Execute) -> None:
    """Make room for a session of that id, unless somebody uses it."""
    database._write(sql.UNMOVE, (session_id,))
    found = execute(sql.FIND, (session_id,)).fetchone()
    if found is None:
        return
    key, epoch = found[:2]
    known = database._ledgers.get(session_id)
    is_open = known is not None and bool(known.handles) and not isinstance(known.records, Ended)
    (used,) = execute(sql.USED, (key,)).fetchone()
    if is_open or used:
        (rev,) = execute(sql.REV, (key,)).fetchone()
        raise refusals.exists(session_id, Revision(epoch, rev))
    for statement in sql.DELETE:
        database._write(statement, (key,))


class _Rows:
    """An export as rows."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self._packed: dict[tuple[str, int], bytes] = {}
        kinds = export.schema.kinds
        self._declared = [pack_declaration(one) for one in export.schema.declarations.values()]
        self._records = [self._row(kinds, one) for one in export.records.values()]
        self._tagged = {
            label: [self._row(kinds, one) for one in at._records.values() if one.version]
            for label, at in export.tags.items()
        }
        self._changes: list[tuple[Any, ...]] = []
        rev = seq = 0
        for change in export.history:
            seq = seq + 1 if change.rev == rev else 0
            rev = change.rev
            old = None if change.version == 1 else pack_value(kinds[change.name], change.old)
            fields = (change.version, change.time, change.source, _why(change), old)
            self._changes.append((rev, change.name, seq, *fields))

    def _row(self, kinds: dict[str, Kind[Any]], record: Record) -> tuple[Any, ...]:
        name, version = at = record.name, record.version
        if at not in self._packed:
            self._packed[at] = pack_value(kinds[name], record.value)
        return (record.rev, name, version, record.time, record.source, _why(record), self._packed[at])

    def write(self, session_id: str, write: Write, execute: Execute) -> None:
        """Write all of it as a session of that id."""
        export, now, here = self._export, time.time(), time.monotonic()
        write(sql.RESTORE, (session_id, export.revision.epoch, export.created, export.start))
        key = execute(sql.FIND, (session_id,)).fetchone()[0]
        if self._declared:
            write(sql.DECLARE, (key, 0, len(self._declared), pack_plain(self._declared)))
        for change in self._changes:
            write(sql.RESTORE_CHANGE, (key, *change))
        for record in self._records:
            write(sql.RECORD, (key, *record))
        for label, records in self._tagged.items():
            at = export.tags[label]
            write(sql.TAG, (key, label, at.revision.rev, len(at)))
            for record in records:
                write(sql.RESTORE_TAGGED, (key, label, *record))
        for name, held in export.claims:
            left = held.until - here
            write(sql.CLAIM, (key, name, held.owner, held.token, left, now + left))


def _why(record: Record) -> bytes | None:
    return None if record.metadata is None else pack_plain(thaw(record.metadata))
