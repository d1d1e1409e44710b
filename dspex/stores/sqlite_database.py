"""One open SQLite store: whose turn it is, what a turn writes, and who still holds it."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

from dspex import errors
from dspex.locks import ForkSafeLock
from dspex.records import Revision, SessionInfo
from dspex.stores import refusals
from dspex.stores import sqlite_schema as sql
from dspex.stores.base import Ended, new_epoch
from dspex.stores.groups import Job, Turns
from dspex.stores.sqlite_file import Location, lock, open_file, prepare, unavailable, unlock
from dspex.stores.sqlite_jobs import CommitJob, Task

if TYPE_CHECKING:
    from dspex.changes import Change
    from dspex.commits import Schema
    from dspex.stores.base import Sink
    from dspex.stores.ledger import MemoryLedger
    from dspex.stores.sqlite_ledger import SqliteLedger

__all__ = ["OP_SECONDS", "Database"]

T = TypeVar("T")

OP_SECONDS = 600.0
"""How long the file knows a commit by its op."""

_FAULTS = (sqlite3.Error, OSError, MemoryError)


class Database:
    """
    A file that is open in this process, once, whoever uses it.

    What is on disk comes first: a commit is in the file when memory, its caller and its watchers hear of it.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self.lock = ForkSafeLock()
        """The lock of all its ledgers: held to look at memory and to change it, not while the disk works."""
        self.holds: deque[None] = deque()
        """One for each that needs the file open."""
        self.gone: Callable[[], errors.DspexError] | None = None
        """Why it cannot be used any more."""
        self._ledgers: WeakValueDictionary[str, SqliteLedger] = WeakValueDictionary()
        self.turns: Turns[Job] = Turns(self._work)
        """Who may use the connection."""
        self.broken = False
        """Whether what is in the file may be something else than what is in memory."""
        self._told: deque[Sink] = deque()
        """Who heard of it when that turned out, and has not passed it on yet."""
        self._ops = 0
        header = prepare(location.path)
        self._locked: int | None = lock(location.path)
        try:
            self._connect(header)
        except BaseException:
            unlock(self._locked)
            raise
        _databases.add(self)

    def _connect(self, header: bytes) -> None:
        self._connection = open_file(self.location, header)
        self._execute = self._connection.cursor().execute

    # ---- turns ------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise why the file cannot be used any more, if that is so."""
        if self.gone is not None:
            raise self.gone()

    def do(self, job: Job) -> None:
        """Have *job* done; raises what it failed with."""
        self.check()
        self.turns.do(job)
        if self._told:
            self._tell()
        if job.error is not None:
            raise job.error

    def _tell(self) -> None:
        with suppress(IndexError):
            while True:
                self._told.popleft().drain()

    def alone(self, run: Callable[[Callable[..., sqlite3.Cursor]], T]) -> T:
        """What *run* makes of the database, given its `execute`, while nobody else is at it."""
        task = Task(lambda: run(self._execute))
        self.do(task)
        result: T = task.result
        return result

    def _work(self, group: list[Job]) -> None:
        first = group[0]
        try:
            self.check()
            task = first if isinstance(first, Task) else None
            if self.broken and (task is None or task.run != self._close):
                self._reconnect()
            if task is not None:
                task.result = task.run()
                task.ran = True
            else:
                self._commit(group)  # type: ignore[arg-type]  # only tasks are alone
            self.broken = False
        except _FAULTS as error:
            self._undo()
            for job in group:
                job.error = self._failure(error)
        except errors.DspexError as error:
            self._undo()
            for job in group:
                job.error = error
        except BaseException:
            self._undo()
            for job in group:
                if not job.over:
                    job.error = unavailable(self.location.path, "was interrupted in a commit. Try again.")
            raise

    def _failure(self, error: BaseException) -> errors.StoreUnavailable:
        return unavailable(
            self.location.path,
            f"cannot be read or written: {error}. Nothing was changed; try again when that is over.",
        )

    def _undo(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.broken = True

    def _reconnect(self) -> None:
        # What failed may be in the file all the same: memory is read again, and watchers hear of it.
        with suppress(sqlite3.Error):
            self._connection.close()
        self.broken = True  # until all of it has been read, which may fail
        self._connect(prepare(self.location.path))
        for ledger in list(self._ledgers.values()):
            if not ledger.read(self._execute):
                moved = self._execute(sql.MOVED, (ledger.id,)).fetchone()
                with self.lock:
                    ledger.end(partial(refusals.moved, ledger.id, *moved)) if moved else ledger.delete()
            if ledger._sink is not None:
                self._told.append(ledger._sink)
        self.broken = False

    # ---- commits ----------------------------------------------------------------------------------

    def _commit(self, group: Sequence[CommitJob]) -> None:
        plans: list[tuple[CommitJob, Schema, tuple[Change, ...]]] = []
        several = Counter(job.ledger for job in group) if len(group) > 1 else {}
        stages: dict[SqliteLedger, MemoryLedger] = {}
        twins: dict[tuple[SqliteLedger, str], CommitJob] = {}
        for job in group:
            ledger, op = job.ledger, job.commit.op
            if op is not None and (twin := twins.get((ledger, op))) is not None:
                job.twin = twin
                continue
            try:
                # Two commits of one group on one session: the second starts where the first will end.
                stage = stages.get(ledger)
                if stage is None:
                    stage = stages[ledger] = ledger.stage() if several and several[ledger] > 1 else ledger
                job.receipt = ledger.done_before(job.commit, self._execute)
                if job.receipt is not None:
                    continue
                schema = stage._admitted(job.commit, job.values)
            except errors.DspexError as error:
                job.error = error
                continue
            changes = stage._made(job.values, job.commit.source, job.metadata, schema, job.commit.writes)
            ledger.write(job, stage, schema, changes, self._write)
            if stage is not ledger:
                stage._apply(job.commit, schema, changes)
            plans.append((job, schema, changes))
            if op is not None:
                twins[ledger, op] = job
        interrupt = self._end()
        with self.lock:
            for job, schema, changes in plans:
                job.receipt = job.ledger._apply(job.commit, schema, changes)
                job.sink = job.ledger._sink
            for job in group:
                if job.twin is not None:
                    job.receipt = job.twin.receipt
        self.broken = False
        if interrupt is not None:
            raise interrupt

    def write_now(self, kept: Sequence[Any], record: Sequence[Any]) -> BaseException | None:
        """Commit the rows of one write, for who has the turn; gives an interrupt that came meanwhile."""
        execute = self._execute
        try:
            execute("BEGIN IMMEDIATE")
            execute(sql.KEEP, kept)
            execute(sql.RECORD, record)
            return self._end()
        except _FAULTS as error:
            self._undo()
            raise self._failure(error) from None
        except BaseException:
            self._undo()
            raise

    def _write(self, statement: str, values: Sequence[Any]) -> None:
        if not self._connection.in_transaction:
            self._execute("BEGIN IMMEDIATE")
        self._execute(statement, values)

    def _end(self) -> BaseException | None:
        """COMMIT; gives an interrupt that came meanwhile, once it is sure that the commit was made."""
        if not self._connection.in_transaction:
            return None
        self.broken = True  # until memory has it too
        try:
            self._execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self.broken = False
                raise
            # If nothing is to be rolled back, nobody knows whether it is in the file: that has to be read.
            if isinstance(error, _FAULTS):
                raise
            return error
        return None

    def counts_op(self) -> bool:
        """Count a commit with an op; whether it is time to forget old ones."""
        self._ops += 1
        return self._ops % 1_000 == 1

    # ---- sessions ---------------------------------------------------------------------------------

    def open(self, make: Callable[[str], SqliteLedger], session_id: str, *, create: bool) -> SqliteLedger:
        """The ledger of a session, of which the caller holds one more handle."""

        def work(execute: Callable[..., sqlite3.Cursor]) -> SqliteLedger:
            ledger = self._ledgers.get(session_id)
            if ledger is None or isinstance(ledger.records, Ended) or not ledger.handles:
                ledger = make(session_id)
                if not ledger.read(execute):
                    if moved := execute(sql.MOVED, (session_id,)).fetchone():
                        raise refusals.moved(session_id, *moved)
                    if not create:
                        raise self._unknown(session_id)
                    self._write(sql.CREATE, (session_id, new_epoch(), time.time()))
                    if (interrupt := self._end()) is not None:
                        raise interrupt
                    ledger.read(execute)
                self._ledgers[session_id] = ledger
            with self.lock:
                ledger.handles += 1
            self.holds.append(None)
            return ledger

        return self.alone(work)

    def sessions(self) -> Sequence[SessionInfo]:
        """What sessions are in the file."""
        return [
            SessionInfo(session_id, Revision(epoch, rev), variables, created)
            for session_id, epoch, created, rev, variables in self.alone(
                lambda execute: execute(sql.LIST).fetchall()
            )
        ]

    def delete(self, session_id: str) -> None:
        """Delete a session, for all who have it open too."""

        def work(execute: Callable[..., sqlite3.Cursor]) -> Sink | None:
            found = execute(sql.FIND, (session_id,)).fetchone()
            if found is not None:
                for statement in sql.DELETE:
                    self._write(statement, found[:1])
            elif execute(sql.MOVED, (session_id,)).fetchone() is not None:
                self._write(sql.UNMOVE, (session_id,))
            else:
                raise self._unknown(session_id)
            interrupt = self._end()
            ledger = self._ledgers.pop(session_id, None)
            with self.lock:
                sink = None if ledger is None else ledger.delete()
            if interrupt is not None:
                raise interrupt
            return sink

        sink = self.alone(work)
        if sink is not None:
            sink.end()

    def _unknown(self, session_id: str) -> errors.UnknownSession:
        known = [row[0] for row in self._execute(sql.IDS)]
        return errors.UnknownSession(
            f"the store has no session '{session_id}'.{errors.did_you_mean(session_id, known)}",
            session=session_id,
        )

    # ---- who holds it -----------------------------------------------------------------------------

    @classmethod
    def held(cls, location: Location) -> Database:
        """
        The file at *location*, opened unless this process has it open; held once more.

        Raises:
            StoreUnavailable: It cannot be opened; or it is open here in another way.
        """
        with _registry:
            _settle()
            database = _files.get(location.path)
            if database is None:
                database = _files[location.path] = cls(location)
            elif database.location != location:
                raise unavailable(
                    location.path,
                    f"is open in this process with durability={database.location.durability}: not at the "
                    f"same time with durability={location.durability}.",
                )
            database.holds.append(None)
            return database

    def release(self) -> None:
        """Hold it once less; with the last hold the file is closed."""
        with _registry:
            self.holds.pop()
            _settle()
            self._close_unused(self.turns.do)

    def release_at_once(self) -> None:
        """The same for finalizers, which must not wait: garbage may be collected in the middle of a turn."""
        self.holds.pop()
        if self.gone is not None or self.holds:
            return
        if _registry._is_owned():  # type: ignore[attr-defined]  # garbage of a thread that opens or closes
            _unsettled.append(self)
            return
        try:
            if _registry.acquire(blocking=False):
                self._close_unused(self.turns.do_at_once)
            else:
                _unsettled.append(self)
        finally:
            with suppress(RuntimeError):  # another thread has it
                _registry.release()

    def _close_unused(self, do: Callable[[Job], object]) -> None:
        if self.gone is None and not self.holds and do(Task(self._close)) is False:
            _unsettled.append(self)

    def _close(self) -> None:
        self.gone = self._is_closed
        _files.pop(self.location.path, None)
        try:
            self._connection.close()
        finally:
            assert self._locked is not None
            unlock(self._locked)

    def _is_closed(self) -> errors.StoreUnavailable:
        return unavailable(self.location.path, "was closed by this process. Open it again.")

    # ---- os.fork ----------------------------------------------------------------------------------

    def leave_to_parent(self) -> None:
        """In a child process: end all that came from the parent, without touching its file."""
        if self.gone is not None:
            return
        import ctypes

        # Closed as garbage, it would take the parent's journal away: it must never be collected.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
        assert self._locked is not None
        os.close(self._locked)
        parent = os.getppid()

        def forked() -> errors.StoreUnavailable:
            return unavailable(
                self.location.path,
                f"was opened by process {parent}, before os.fork(): a child cannot use it.",
                pid=parent,
            )

        self.gone = forked
        # Of the old one the lock may be held by a thread that is not in this process.
        self.turns = Turns(self._work)
        for ledger in list(self._ledgers.values()):
            ledger.end(forked)


_registry = threading.RLock()
_files: dict[object, Database] = {}
"""What is open, by path."""
_unsettled: deque[Database] = deque()
"""What may have lost its last hold at a moment when it could not be closed."""
_databases: WeakSet[Database] = WeakSet()


def _settle() -> None:
    while _unsettled:
        database = _unsettled.popleft()
        database._close_unused(database.turns.do)


def _leave_to_parent() -> None:
    global _registry  # noqa: PLW0603 - it may be held by a thread that is not in this process
    _registry = threading.RLock()
    _files.clear()
    _unsettled.clear()
    for database in list(_databases):
        database.leave_to_parent()


os.register_at_fork(after_in_child=_leave_to_parent)
