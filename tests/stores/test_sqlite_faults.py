"""The SQLite store when it is interrupted, when its file is not what it should be, when it was let go of."""

import os
import sqlite3
import subprocess
import sys

import attrs
import pytest
from sqlite_tools import opened

from dspex import (
    InvalidValue,
    Session,
    SessionMoved,
    StoreUnavailable,
    Struct,
    UnknownSession,
    errors,
)
from dspex.commits import Commit, Write
from dspex.stores import MemoryStore, sqlite_schema
from dspex.stores.sqlite import SqliteStore


def interrupted(spy, statement, when="after"):
    """Raise KeyboardInterrupt the next time that *statement* is done, or is about to be."""

    def raises(said):
        if said == statement:
            spy.before = spy.after = lambda _: None
            raise KeyboardInterrupt

    setattr(spy, when, raises)
    return pytest.raises(KeyboardInterrupt)


# ---- interrupts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", [sqlite_schema.RECORD, "COMMIT"])
def test_a_set_that_is_interrupted_before_its_commit_is_not_made(url, spy, state, statement):
    with opened(url) as session:
        for rev in (1, 2, 3):  # the first ones have another way to the file than all others
            before = state(session)
            with interrupted(spy, statement, "before"):
                session.set("a", 7)
            assert before == state(session)
            assert session.set("a", rev).rev == rev


def test_a_session_whose_making_is_interrupted_is_there_the_next_time(url, spy):
    with SqliteStore(url) as store:
        with interrupted(spy, "COMMIT"):
            store.open("prod")
        store.open("prod", create=False).close()
        assert [one.id for one in store.sessions()] == ["prod"]


def test_a_session_whose_deletion_is_interrupted_after_it_was_made_is_gone(url, spy):
    with opened(url) as session, SqliteStore(url) as store:
        with interrupted(spy, "COMMIT"):
            store.delete("prod")
        assert store.sessions() == []
        with pytest.raises(errors.SessionClosed, match="was deleted"):
            session.get("a")


def test_a_session_whose_end_here_is_interrupted_after_it_was_made_has_moved(url, spy):
    with opened(url) as session:
        hold = session.ledger.hold()
        with interrupted(spy, "COMMIT"):
            hold.forward("memory://there", "prod")
        assert hold.forwarded
        with pytest.raises(SessionMoved, match="memory://there"):
            session.get("a")


def test_a_session_whose_arrival_is_interrupted_is_not_there(url, spy):
    with Session("prod", store=MemoryStore()) as session, SqliteStore(url) as store:
        session.register("a", int, initial=0)
        session.set("a", 1)
        with interrupted(spy, "COMMIT"):
            store.restore("prod", session.ledger.export())
        assert store.sessions() == []
        session.move_to(store)
        assert session.get("a") == 1


# ---- disks -------------------------------------------------------------------------------------------


def test_a_connection_that_cannot_even_roll_back_is_made_again(url, spy, state):
    with opened(url) as session:
        session.set("a", 1)
        before = state(session)

        connection = session.ledger.store._open._connection
        spy.before = lambda statement: connection.close() if statement == sqlite_schema.RECORD else None
        with pytest.raises(StoreUnavailable, match=r"cannot be read or written: .*closed database"):
            session.set("a", 2)
        spy.before = lambda _: None
        assert session.set("a", 3).rev == 2
        assert [change.value for change in session.history("a")] == [1, 3]
        assert before[0].epoch == session.revision.epoch


@attrs.frozen
class Settings:
    rate: float


def test_a_class_that_could_not_be_read_for_the_disk_is_read_the_next_time(url, spy):
    with Session("prod", store=url) as session:
        session.register("settings", Struct(Settings), initial=Settings(1.0))
        session.set("settings", Settings(0.5))
    with Session("prod", store=url) as session:
        spy.fail(1)
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            session.register("settings", Struct(Settings), initial=Settings(1.0))
        assert dict(session.get("settings")) == {"rate": 0.5}
        spy.fail(0)
        session.register("settings", Struct(Settings), initial=Settings(1.0))
        assert session.get("settings") == Settings(0.5)


def test_damage_that_shows_only_when_all_is_read_is_found_where_a_process_was_killed(path, url):
    with opened(url) as session:
        session.set("a", 1)
    beneath = sqlite3.connect(path)
    # Two tables in one place: each page is right, all of them together are not.
    beneath.execute("PRAGMA writable_schema = ON")
    (root,) = beneath.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'log'").fetchone()
    beneath.execute("UPDATE sqlite_schema SET rootpage = ? WHERE name = 'tags'", (root,))
    beneath.commit()
    beneath.close()
    (path.parent / "agent.db-wal").touch(0o600)
    with pytest.raises(StoreUnavailable, match=r"(?s)is damaged: .*2nd reference.*Restore a copy"):
        Session("prod", store=url)


# ---- files -------------------------------------------------------------------------------------------


def test_what_is_no_file_is_refused(path, url):
    os.mkfifo(path)
    with pytest.raises(StoreUnavailable, match="is not a file"):
        Session("prod", store=url)


@pytest.mark.parametrize("known", [True, False])
def test_who_has_locked_a_file_and_does_not_say_so_is_told_as_far_as_it_is_known(path, url, known):
    """Its id is that of a process that has ended, or is not there yet."""
    import fcntl

    left = subprocess.Popen([sys.executable, "-c", ""])
    left.wait(30)
    opened(url).close()
    with (path.parent / "agent.db.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if known:
            lock.write(b"%-19d\n" % left.pid)
            lock.flush()
        with pytest.raises(StoreUnavailable, match="is in use by process") as caught:
            Session("prod", store=url)
        assert caught.value.pid == (left.pid if known else None)
    opened(url).close()


# ---- what was let go of ------------------------------------------------------------------------------


def test_a_ledger_says_that_its_file_was_closed(url):
    with opened(url) as session:
        ledger = session.ledger
    with pytest.raises(StoreUnavailable, match=r"was closed by this process\. Open it again"):
        ledger.commit(Commit((Write("a", 1),)))


def test_who_does_not_hold_a_session_any_more_may_not_end_it(url):
    with opened(url) as session:
        hold = session.ledger.hold()
        hold.release()
        with pytest.raises(StoreUnavailable, match="was not held back all the time"):
            hold.forward("memory://there", "prod")
        assert session.set("a", 1).rev == 1


def test_that_a_session_has_moved_is_forgotten_when_it_is_deleted(url):
    with SqliteStore(url) as store:
        with opened(store) as session:
            session.move_to(MemoryStore())
        with pytest.raises(SessionMoved):
            store.open("prod")
        store.delete("prod")
        with pytest.raises(UnknownSession):
            store.delete("prod")
        with opened(store) as anew:
            assert (anew.get("a"), anew.revision.rev) == (0, 0)


@pytest.mark.parametrize("what", ["op", "release"])
def test_text_that_sqlite_cannot_keep_is_refused(url, state, what):
    with opened(url) as session:
        before = state(session)
        with pytest.raises(InvalidValue, match=f"{what}.*valid text"):
            session.ledger.commit(Commit((Write("a", 1),), **{what: "\ud800"}))
        assert before == state(session)
