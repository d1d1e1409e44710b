"""The file of a SQLite store: opened once per process, locked against others, checked, brought up to date."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import threading
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import attrs

from dspex import errors
from dspex.stores import sqlite_schema as sql
from dspex.stores.urls import split

__all__ = ["Location", "connect", "lock", "open_file", "prepare", "unavailable", "unlock"]

DURABILITY = {"full": "FULL", "fast": "NORMAL"}
"""What `?durability=` may be, and SQLite's word for it."""

ID = 20
"""How wide the id of the owner is in the lock file."""

HEADER = 72
"""As much of a database file as says whose it is: see "Database File Format" in SQLite's documentation."""

WAL = b"\2\2"
"""What the header has in bytes 18 and 19 when the journal is a write-ahead log."""


@attrs.frozen
class Location:
    """Which file, and how a commit of it is kept."""

    path: Path
    """Absolute; only the file itself must not be a symbolic link."""
    durability: str = "full"

    @classmethod
    def of_url(cls, url: str) -> Location:
        """
        What *url* says: `sqlite:///relative.db`, `sqlite:////absolute.db`, `?durability=full|fast`.

        Raises:
            StoreUnavailable: It says something else.
        """
        parts = split(url)
        name = unquote(parts.path[1:])
        if parts.scheme != "sqlite" or parts.netloc or parts.fragment or name in ("", ":memory:"):
            raise errors.StoreUnavailable(
                "the URL of a SQLite store is sqlite:///relative.db or sqlite:////absolute/path.db "
                f"(got {errors.shown(url, 200)}).",
                url=url,
            )
        said = dict(parse_qsl(parts.query, keep_blank_values=True))
        durability = said.pop("durability", "full")
        if said or durability not in DURABILITY or "\0" in name:
            raise errors.StoreUnavailable(
                f"a SQLite store takes ?durability=full or ?durability=fast and nothing else "
                f"(got {errors.shown(url, 200)}).",
                url=url,
            )
        path = Path(name)
        return cls(Path(os.path.realpath(path.parent), path.name), durability)


def unavailable(path: Path, sentence: str, **facts: object) -> errors.StoreUnavailable:
    """*sentence* says what *path* does or lacks."""
    return errors.StoreUnavailable(f"{path} {sentence}", path=str(path), **facts)


# ---- the lock ----------------------------------------------------------------------------------------


def lock(path: Path) -> int:
    """
    Keep other processes out of *path* until the returned descriptor is closed, or the process ends.

    Raises:
        StoreUnavailable: Another process has it open; its id is in the sentence.
    """
    descriptor = _opened(path, ".lock")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = _owner(descriptor)
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise unavailable(path, f"cannot be locked: {error.strerror}.") from None
        raise unavailable(
            path,
            f"is in use by process {owner}. One process at a time has a SQLite store open: end that one, or "
            "reach the session through it.",
            pid=owner,
        ) from None
    # Never cut: some file systems write a file to disk at once when it is.
    os.pwrite(descriptor, f"{os.getpid():<{ID - 1}}\n".encode(), 0)
    return descriptor


def unlock(descriptor: int) -> None:
    """Let others have what *descriptor* locks."""
    os.pwrite(descriptor, b" " * ID, 0)
    os.close(descriptor)


def _owner(descriptor: int) -> int | None:
    """Who has the lock; who has only just taken it writes its id in the next moment."""
    found = None
    pause = threading.Event()
    for _ in range(100):
        said = os.pread(descriptor, ID, 0).strip()
        if said.isdigit():
            found = int(said)
            if _is_alive(found):
                break
        pause.wait(0.002)
    return found


def _is_alive(process: int) -> bool:
    # One that was killed has left its id. In a container that shares the file nobody can tell.
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _opened(path: Path, beside: str = "") -> int:
    """A descriptor of *path*, or of what is *beside* it, made for nobody else's eyes if it is not there."""
    try:
        descriptor = os.open(f"{path}{beside}", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if Path(f"{path}{beside}").is_symlink():
            raise unavailable(path, f"{beside} is a symbolic link, which is not followed.".lstrip()) from None
        raise unavailable(path, f"{beside} cannot be opened: {error.strerror}.".lstrip()) from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise unavailable(path, "is not a file.")
        if not beside:
            # Before anything about it is changed: it may be somebody else's.
            _check_header(path, os.pread(descriptor, HEADER, 0))
        if mode & 0o177:
            os.fchmod(descriptor, 0o600)
    except OSError as error:
        os.close(descriptor)
        raise unavailable(path, f"cannot be made private: {error.strerror}.") from None
    except errors.StoreUnavailable:
        os.close(descriptor)
        raise
    return descriptor


def _check_header(path: Path, header: bytes) -> None:
    if header and not header.startswith(b"SQLite format 3\0"):
        raise unavailable(path, "is not a SQLite database.")
    if header and int.from_bytes(header[68:72], "big") != sql.APPLICATION:
        raise unavailable(path, "is a SQLite database, but not a dspex store.")


# ---- the database ------------------------------------------------------------------------------------


def connect(path: Path) -> sqlite3.Connection:
    """A connection to *path*, on which transactions are begun and ended by hand."""
    # Used under the turns of the store only, from whatever thread has the turn.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.5)


def prepare(path: Path) -> bytes:
    """
    Make the file if it is not there, touch nothing of one that is somebody else's; return its header.

    Raises:
        StoreUnavailable: It is not ours, or cannot be opened.
    """
    descriptor = _opened(path)
    try:
        return os.pread(descriptor, HEADER, 0)
    finally:
        os.close(descriptor)


def open_file(location: Location, header: bytes) -> sqlite3.Connection:
    """
    The database at *location*, with the tables of today. The caller has prepared and locked it.

    Raises:
        StoreUnavailable: It cannot be opened, is no SQLite store, is damaged, or is of a newer dspex.
    """
    path = location.path
    unclean = False
    # Journals get the mode of the database, but one that is there already is taken as it is.
    for beside in ("-wal", "-shm"):
        if os.path.lexists(f"{path}{beside}"):
            os.close(_opened(path, beside))
            unclean = True
    connection = None
    try:
        connection = connect(path)
        if not header:
            # Before the journal is a write-ahead log: this goes straight into the file.
            connection.execute(sql.CLAIM_FILE)
        if header[18:20] != WAL:
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {DURABILITY[location.durability]}")
        if unclean and (found := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise unavailable(path, f"is damaged: {found}. Restore a copy.")
        _bring_up_to_date(path, connection)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise unavailable(path, f"cannot be opened as a SQLite store: {error}.") from None
    except errors.StoreUnavailable:
        assert connection is not None
        connection.close()
        raise
    return connection


def _bring_up_to_date(path: Path, connection: sqlite3.Connection) -> None:
    version = _version(path, connection)
    if version == sql.SCHEMA:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if version is None:
            for statement in sql.TABLES.split(";\n"):
                connection.execute(statement)
        else:
            for step in sql.MIGRATIONS[version:]:
                step(connection)
        connection.execute(sql.SET_SCHEMA)
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    _sync(path.parent)


def _version(path: Path, connection: sqlite3.Connection) -> int | None:
    """The version of the tables; None where there are none yet."""
    version: int = connection.execute(sql.GET_SCHEMA).fetchone()[0]
    if version == 0 and connection.execute(sql.COUNT_TABLES).fetchone()[0] == 0:
        return None
    if version > sql.SCHEMA:
        raise unavailable(
            path,
            f"was written by a newer dspex: its tables are of version {version}, this one knows "
            f"{sql.SCHEMA}. Upgrade dspex.",
            version=version,
        )
    return version


def _sync(directory: Path) -> None:
    """Make sure that the name of a new file survives a power cut, as its content does."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
