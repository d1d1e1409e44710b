"""Sessions in one SQLite file: durable, for one process at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Self

from dspex import errors
from dspex.records import SessionInfo
from dspex.stores.base import Store, check_session_id
from dspex.stores.export import Export
from dspex.stores.sqlite_database import Database
from dspex.stores.sqlite_file import Location
from dspex.stores.sqlite_ledger import SqliteLedger
from dspex.stores.sqlite_moving import SqliteHold, restore

__all__ = ["SqliteStore"]


class SqliteStore(Store):
    """
    Sessions in the file that a URL names: `sqlite:///relative.db`, `sqlite:////absolute/path.db`.

    A commit is on disk when `set` returns, and before anybody hears of it. With `?durability=full`, the
    default, it survives a power cut; with `?durability=fast` the death of this process only, and is faster.

    The file is open in one process at a time, which may make any number of these for it: it is let go of when
    all of them, and all their sessions, are closed or gone.

    Raises:
        StoreUnavailable: The URL is none of these, the file cannot be opened, is no store, or another process
            has it open.
    """

    def __init__(self, url: str) -> None:
        self.location = Location.of_url(url)
        self._database: Database | None = Database.held(self.location)

    @property
    def _open(self) -> Database:
        if self._database is None:
            raise errors.StoreUnavailable(
                f"this store of {self.location.path} was closed. Open it again.", path=str(self.location.path)
            )
        return self._database

    @property
    def url(self) -> str:
        """What opens it from anywhere."""
        return f"sqlite:///{self.location.path}"

    def open(self, session_id: str, *, create: bool = True) -> SqliteLedger:
        check_session_id(session_id)
        database = self._open
        return database.open(partial(_ledger, database), session_id, create=create)

    def sessions(self) -> Sequence[SessionInfo]:
        return self._open.sessions()

    def delete(self, session_id: str) -> None:
        self._open.delete(check_session_id(session_id))

    def restore(self, session_id: str, export: Export) -> SqliteHold:
        database = self._open
        return restore(database, _ledger(database, check_session_id(session_id)), export)

    def close(self) -> None:
        """Let go of the file; the sessions that are open keep it until they are closed."""
        database, self._database = self._database, None
        if database is not None:
            database.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # `Session(store=url)` makes one of these and keeps the session only.
        database = getattr(self, "_database", None)
        if database is not None:
            database.release_at_once()

    def __repr__(self) -> str:
        return f"<SqliteStore {self.location.path} {self.location.durability}>"


class _Beneath(SqliteStore):
    """The store of a session, which has the file open for as long as the session is."""

    def __init__(self, database: Database) -> None:
        self.location = database.location
        self._database = database

    def close(self) -> None:
        """The session closes the file."""

    def __del__(self) -> None:
        """The same."""


def _ledger(database: Database, session_id: str) -> SqliteLedger:
    return SqliteLedger(database, session_id, _Beneath(database))
