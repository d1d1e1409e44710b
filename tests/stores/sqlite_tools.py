"""What the tests of the SQLite store share: a session, and connections that look and fail."""

from __future__ import annotations

import sqlite3

from dspex import Integer, Session
from dspex.stores import sqlite_file


def opened(url):
    """Session `prod` at *url*, which has the integers `a` and `b`."""
    session = Session("prod", store=url, source="tests")
    session.register("a", Integer(), initial=0)
    session.register("b", Integer(), initial=0)
    return session


class Spy:
    """Hears every statement before it is done, and may raise; `after` hears it when it was done."""

    def __init__(self):
        self.statements = []
        self.before = self.after = lambda _statement: None

    def connection(self, path):
        spy = self

        class Cursor(sqlite3.Cursor):
            def execute(self, statement, *values):
                spy.statements.append(statement)
                spy.before(statement)
                result = super().execute(statement, *values)
                spy.after(statement)
                return result

        class Connection(sqlite3.Connection):
            def cursor(self, factory=Cursor):
                return super().cursor(factory)

        return sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, factory=Connection, timeout=0.5
        )

    def install(self, monkeypatch):
        monkeypatch.setattr(sqlite_file, "connect", self.connection)
        return self

    def fail(self, number, *, after=False, error="disk I/O error"):
        """Let the statement that is the *number*th from now raise; 0 for none any more."""
        left = [number]

        def count(_statement):
            left[0] -= 1
            if left[0] == 0:
                raise sqlite3.OperationalError(error)

        self.before = self.after = lambda _statement: None
        if number:
            setattr(self, "after" if after else "before", count)
