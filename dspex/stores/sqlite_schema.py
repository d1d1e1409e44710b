"""What a SQLite store looks like inside: its tables, how older ones become these, and every statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

__all__ = ["APPLICATION", "MIGRATIONS", "SCHEMA", "TABLES"]

SCHEMA = 3
"""The version of the tables below, which a file has in its header: the `user_version`."""

APPLICATION = 0x64737078
"""What SQLite keeps in the header of a file to tell whose it is: "dspx"."""

TABLES = """
CREATE TABLE sessions (
    key INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    epoch TEXT NOT NULL,
    created REAL NOT NULL,
    log_start INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE declarations (
    session INTEGER NOT NULL,
    position INTEGER NOT NULL,
    names INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (session, position)
) WITHOUT ROWID;

CREATE TABLE records (
    session INTEGER NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    time REAL NOT NULL,
    source TEXT,
    metadata BLOB,
    value BLOB NOT NULL,
    PRIMARY KEY (session, name)
) WITHOUT ROWID;

CREATE TABLE log (
    session INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    name TEXT NOT NULL,
    seq INTEGER NOT NULL,
    version INTEGER NOT NULL,
    time REAL NOT NULL,
    source TEXT,
    metadata BLOB,
    old BLOB,
    PRIMARY KEY (session, rev, name)
) WITHOUT ROWID;

CREATE TABLE tags (
    session INTEGER NOT NULL,
    label TEXT NOT NULL,
    rev INTEGER NOT NULL,
    names INTEGER NOT NULL,
    PRIMARY KEY (session, label)
) WITHOUT ROWID;

CREATE TABLE tagged (
    session INTEGER NOT NULL,
    label TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    time REAL NOT NULL,
    source TEXT,
    metadata BLOB,
    value BLOB NOT NULL,
    PRIMARY KEY (session, label, name)
) WITHOUT ROWID;

CREATE TABLE claims (
    session INTEGER NOT NULL,
    name TEXT NOT NULL,
    owner TEXT NOT NULL,
    token TEXT NOT NULL,
    ttl REAL NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (session, name, token)
) WITHOUT ROWID;

CREATE TABLE ops (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    op TEXT NOT NULL,
    time REAL NOT NULL,
    rev INTEGER NOT NULL,
    made BLOB NOT NULL,
    UNIQUE (session, op)
);

CREATE TABLE moved (
    id TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    there TEXT NOT NULL,
    time REAL NOT NULL
) WITHOUT ROWID;
"""
"""
A value is the canonical bytes of its kind. A log row has the value before (NULL: the declared initial one);
the value after it is the one before the next, or that of the record: so a commit writes each value once.
"""


def _add_ops(connection: sqlite3.Connection) -> None:
    """0 to 1: commits are remembered by op, and a claim how long it was asked for."""
    connection.execute(
        "CREATE TABLE ops (id INTEGER PRIMARY KEY, session INTEGER NOT NULL, op TEXT NOT NULL, "
        "time REAL NOT NULL, rev INTEGER NOT NULL, made BLOB NOT NULL, UNIQUE (session, op))"
    )
    connection.execute("ALTER TABLE claims ADD COLUMN ttl REAL NOT NULL DEFAULT 60")


def _nest_claims(connection: sqlite3.Connection) -> None:
    """1 to 2: a claim may be on a name under another."""
    connection.execute("ALTER TABLE claims RENAME TO flat")
    connection.execute(
        "CREATE TABLE claims (session INTEGER NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, token TEXT "
        "NOT NULL, ttl REAL NOT NULL, until REAL NOT NULL, PRIMARY KEY (session, name, token)) WITHOUT ROWID"
    )
    connection.execute("INSERT INTO claims SELECT session, name, owner, token, ttl, until FROM flat")
    connection.execute("DROP TABLE flat")


def _add_moved(connection: sqlite3.Connection) -> None:
    """2 to 3: of sessions that are elsewhere now, where, and under which id."""
    connection.execute(
        "CREATE TABLE moved (id TEXT PRIMARY KEY, url TEXT NOT NULL, there TEXT NOT NULL, time REAL NOT "
        "NULL) WITHOUT ROWID"
    )


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (_add_ops, _nest_claims, _add_moved)
"""From each older version to the next; run in one transaction with the new number."""

# ---- the file --------------------------------------------------------------------------------------

COUNT_TABLES = "SELECT count(*) FROM sqlite_master"
CLAIM_FILE = f"PRAGMA application_id = {APPLICATION}"
GET_SCHEMA = "PRAGMA user_version"
SET_SCHEMA = f"PRAGMA user_version = {SCHEMA}"

# ---- sessions --------------------------------------------------------------------------------------

LIST = """
SELECT s.id, s.epoch, s.created,
    max(s.log_start, (SELECT coalesce(max(rev), 0) FROM records WHERE session = s.key)),
    (SELECT coalesce(sum(names), 0) FROM declarations WHERE session = s.key)
FROM sessions AS s ORDER BY s.id
"""
FIND = """
SELECT key, epoch, log_start,
    EXISTS (SELECT 1 FROM tags WHERE session = key),
    EXISTS (SELECT 1 FROM claims WHERE session = key),
    EXISTS (SELECT 1 FROM ops WHERE session = key)
FROM sessions WHERE id = ?
"""
IDS = "SELECT id FROM sessions"
REV = "SELECT coalesce(max(rev), 0) FROM records WHERE session = ?"
CREATED = "SELECT created FROM sessions WHERE key = ?"
USED = """
SELECT EXISTS (SELECT 1 FROM declarations WHERE session = ?1)
    OR EXISTS (SELECT 1 FROM tags WHERE session = ?1)
"""
"""
What nobody has declared anything in can have no values and no claims either.
"""
CREATE = "INSERT INTO sessions (id, epoch, created) VALUES (?, ?, ?)"
DELETE = (
    "DELETE FROM sessions WHERE key = ?",
    *(
        f"DELETE FROM {table} WHERE session = ?"  # noqa: S608 - the names stand here
        for table in ("declarations", "records", "log", "tags", "tagged", "claims", "ops")
    ),
)

# ---- moving one --------------------------------------------------------------------------------------

RESTORE = "INSERT INTO sessions (id, epoch, created, log_start) VALUES (?, ?, ?, ?)"
RESTORE_CHANGE = """
INSERT INTO log (session, rev, name, seq, version, time, source, metadata, old)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
RESTORE_TAGGED = """
INSERT INTO tagged (session, label, rev, name, version, time, source, metadata, value)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
MOVED = "SELECT url, there FROM moved WHERE id = ?"
MOVE = "INSERT OR REPLACE INTO moved (id, url, there, time) VALUES (?, ?, ?, ?)"
UNMOVE = "DELETE FROM moved WHERE id = ?"

# ---- reading one -----------------------------------------------------------------------------------

DECLARATIONS = "SELECT data FROM declarations WHERE session = ? ORDER BY position"
RECORDS = "SELECT name, version, rev, time, source, metadata, value FROM records WHERE session = ?"
LOG = """
SELECT name, version, rev, time, source, metadata, old FROM log
WHERE session = ? AND rev <= ? ORDER BY rev DESC, seq DESC
"""
TAGS = "SELECT label, rev, names FROM tags WHERE session = ?"
TAGGED = (
    "SELECT name, version, rev, time, source, metadata, value FROM tagged WHERE session = ? AND label = ?"
)
CLAIMS = "SELECT name, owner, token, ttl, until FROM claims WHERE session = ? AND until > ?"
OP = "SELECT rev, made FROM ops WHERE session = ? AND op = ? AND time > ?"


# ---- writing one -----------------------------------------------------------------------------------

DECLARE = "INSERT INTO declarations VALUES (?, ?, ?, ?)"
KEEP = """
INSERT INTO log (session, rev, name, seq, version, time, source, metadata, old)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, (SELECT value FROM records WHERE session = ?1 AND name = ?3))
"""
RECORD = """
INSERT INTO records (session, rev, name, version, time, source, metadata, value)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
ON CONFLICT DO UPDATE SET version = ?4, rev = ?2, time = ?5, source = ?6, metadata = ?7, value = ?8
"""
CLAIM = "INSERT OR REPLACE INTO claims (session, name, owner, token, ttl, until) VALUES (?, ?, ?, ?, ?, ?)"
RELEASE = "DELETE FROM claims WHERE session = ? AND token = ?"
END_CLAIMS = "DELETE FROM claims WHERE session = ? AND until <= ?"
TAG = "INSERT OR REPLACE INTO tags VALUES (?, ?, ?, ?)"
UNTAG = "DELETE FROM tagged WHERE session = ? AND label = ?"
TAG_RECORDS = """
INSERT INTO tagged SELECT session, ?2, name, version, rev, time, source, metadata, value
FROM records WHERE session = ?1
"""
REMEMBER = "INSERT INTO ops (session, op, time, rev, made) VALUES (?, ?, ?, ?, ?)"

# ---- forgetting ------------------------------------------------------------------------------------

SHORTEN = """
DELETE FROM log WHERE session = ? AND rev <= ? AND rev NOT IN (SELECT value FROM json_each(?))
"""
STARTS = "UPDATE sessions SET log_start = ? WHERE key = ?"
FORGET = "DELETE FROM ops WHERE session = ? AND op = ?"
FORGET_UNTIL = """
DELETE FROM ops WHERE id < coalesce((SELECT id FROM ops WHERE time >= ? ORDER BY id LIMIT 1), 1 << 62)
"""
