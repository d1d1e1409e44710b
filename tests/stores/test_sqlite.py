"""The SQLite store: its URL, its file, the versions of its tables, what is in them."""

import os
import sqlite3
import stat
import time

import pytest
from sqlite_tools import opened

from dspex import (
    Float,
    Integer,
    Session,
    StoreUnavailable,
    Text,
    open_store,
)
from dspex.commits import Commit, Declaration, Write
from dspex.stores import sqlite_schema
from dspex.stores.sqlite import SqliteStore

# ---- the URL -----------------------------------------------------------------------------------------


def test_a_relative_url_is_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Session("prod", store="sqlite:///agent.db"):
        pass
    assert (tmp_path / "agent.db").exists()


def test_a_url_may_escape_what_it_needs_itself(tmp_path):
    with Session("prod", store=f"sqlite:///{tmp_path}/a%3Fb%23c.db"):
        pass
    assert (tmp_path / "a?b#c.db").exists()


@pytest.mark.parametrize(
    "bad",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://host/agent.db",
        "sqlite:///agent.db?mode=ro",
        "sqlite:///agent.db?durability=none",
        "sqlite:///agent.db?durability=",
        "sqlite:///agent.db?durability=fast&x",
        "sqlite:///agent.db#part",
        "sqlite:///a%00b.db",
    ],
)
def test_a_url_that_says_something_else_is_refused(bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreUnavailable):
        open_store(bad)
    assert list(tmp_path.iterdir()) == []


def test_full_is_the_default_and_fast_is_normal(path, url):
    for address, synchronous in ((f"sqlite:///{path}", 2), (url, 1)):
        with SqliteStore(address) as store:
            found = store._open._connection.execute("PRAGMA synchronous").fetchone()[0]
            mode = store._open._connection.execute("PRAGMA journal_mode").fetchone()[0]
        assert (synchronous, "wal") == (found, mode)


# ---- the file ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_nobody_else_may_read_the_files(path, url, mask):
    before = os.umask(mask)
    try:
        with opened(url) as session:
            session.set("a", 1)
            names = sorted(one.name for one in path.parent.iterdir())
            modes = {stat.S_IMODE((path.parent / name).stat().st_mode) for name in names}
    finally:
        os.umask(before)
    assert names == ["agent.db", "agent.db-shm", "agent.db-wal", "agent.db.lock"]
    assert {0o600} == modes


def test_a_store_that_others_may_read_is_made_private(path, url):
    opened(url).close()
    path.chmod(0o644)
    opened(url).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["agent.db", "agent.db.lock", "agent.db-wal", "agent.db-shm"])
def test_a_symbolic_link_is_refused(path, url, name, tmp_path):
    target = tmp_path / "elsewhere"
    if name != "agent.db":
        opened(url).close()
    (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / name).symlink_to(target)
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        Session("prod", store=url)
    assert not target.exists()


def test_a_directory_may_be_reached_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with (
        Session("one", store=f"sqlite:///{tmp_path}/link/agent.db") as one,
        Session("one", store=f"sqlite:///{tmp_path}/real/agent.db") as other,
    ):
        assert one.ledger is other.ledger


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"# A readme\n" * 100, "is not a SQLite database"),
        (b"SQLite format 3\0", "not a dspex store"),
        (b"\0" * 4096, "is not a SQLite database"),
    ],
)
def test_a_file_that_is_something_else_is_left_alone(path, url, content, says):
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(StoreUnavailable, match=says):
        Session("prod", store=url)
    assert (content, 0o644) == (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    assert list(path.parent.iterdir()) == [path]


def test_the_database_of_another_program_is_left_alone(path, url):
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE studies (id INTEGER)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="not a dspex store"):
        Session("prod", store=url)
    assert before == path.read_bytes()


def test_a_directory_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(StoreUnavailable, match="No such file"):
        open_store(f"sqlite:///{tmp_path}/no/agent.db")


def test_a_directory_is_no_store(tmp_path):
    with pytest.raises(StoreUnavailable):
        open_store(f"sqlite:///{tmp_path}")


def test_a_damaged_store_is_refused_and_says_so(path, url):
    with opened(url) as session:
        for value in range(300):
            session.set("a", value)
    content = bytearray(path.read_bytes())
    for place in range(4096, len(content), 512):
        content[place : place + 64] = os.urandom(64)
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=str(path)):
        opened(url).close()


def test_a_value_that_its_kind_refuses_is_damage_too(path, url):
    with opened(url) as session:
        session.register("t", Float(min=0.0, max=1.0), initial=0.5)
        session.set("t", 0.6)
    beneath = sqlite3.connect(path)
    beneath.execute("UPDATE records SET value = x'cb4000000000000000' WHERE name = 't'")
    beneath.commit()
    beneath.close()
    with pytest.raises(StoreUnavailable, match="at most 1"):
        Session("prod", store=url)


def test_values_are_canonical_bytes_in_the_file(path, url):
    with opened(url) as session:
        session.register("note", Text(), initial="")
        session.update({"a": 2**63 - 1, "note": "a\0b"}, {"why": 1})
        beneath = sqlite3.connect(path)
        rows = beneath.execute("SELECT name, typeof(value), value, version, rev FROM records").fetchall()
        beneath.close()
    assert sorted(rows) == [
        ("a", "blob", b"\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", 1, 1),
        ("note", "blob", b"\xa3a\0b", 1, 1),
    ]


# ---- versions of the tables --------------------------------------------------------------------------


def version_0(path):
    """A store as the first version wrote it: no ops, and claims without what was asked for."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {sqlite_schema.APPLICATION}")
    for statement in sqlite_schema.TABLES.split(";\n"):
        connection.execute(statement)
    connection.execute("DROP TABLE ops")
    connection.execute("DROP TABLE moved")
    connection.execute("ALTER TABLE claims DROP COLUMN ttl")
    connection.execute("INSERT INTO sessions (id, epoch, created) VALUES ('prod', 'e0', 5.0)")
    connection.execute("INSERT INTO declarations VALUES (1, 0, 1, ?)", (_declared(),))
    connection.execute("INSERT INTO records VALUES (1, 'a', 1, 1, 6.0, 'old', NULL, x'07')")
    connection.execute("INSERT INTO log VALUES (1, 1, 'a', 0, 1, 6.0, 'old', NULL, NULL)")
    connection.execute("INSERT INTO claims VALUES (1, 'a', 'tuner', 'token', ?)", (time.time() + 50,))
    connection.commit()
    connection.close()


def _declared():
    from dspex.wire import pack_declaration, pack_plain

    return pack_plain([pack_declaration(Declaration("a", Integer(), 0))])


def test_a_store_of_an_older_version_is_brought_up_to_date(path, url):
    version_0(path)
    with Session("prod", store=url) as session:
        assert (session.get("a"), session.revision.rev, session.revision.epoch) == (7, 1, "e0")
        assert [(change.old, change.new) for change in session.history()] == [(0, 7)]
        session.ledger.commit(Commit((Write("a", 8),), token="token", op="op"))
    beneath = sqlite3.connect(path)
    assert beneath.execute("PRAGMA user_version").fetchone()[0] == sqlite_schema.SCHEMA
    assert beneath.execute("SELECT op FROM ops").fetchall() == [("op",)]
    beneath.close()


def test_a_migration_that_fails_leaves_the_store_as_it_was(path, url, monkeypatch):
    version_0(path)

    def fails(connection):
        connection.execute("DELETE FROM records")
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(sqlite_schema, "MIGRATIONS", (fails,))
        with pytest.raises(StoreUnavailable, match="disk I/O error"):
            Session("prod", store=url)
    with Session("prod", store=url) as session:
        assert session.get("a") == 7


def test_a_store_of_a_newer_version_is_refused(path, url):
    opened(url).close()
    beneath = sqlite3.connect(path)
    beneath.execute(f"PRAGMA user_version = {sqlite_schema.SCHEMA + 1}")
    beneath.close()
    with pytest.raises(StoreUnavailable, match=r"newer dspex.*Upgrade"):
        Session("prod", store=url)


# ---- ops, claims, history on disk --------------------------------------------------------------------


def test_an_op_is_known_when_its_history_is_forgotten(url):
    commit = Commit((Write("a", 1, source="you"), Write("b", 2)), op="op", source="me")
    with opened(url) as session:
        first = session.ledger.commit(commit)
        for _ in range(80):
            for value in range(50):
                session.ledger.commit(Commit((Write("a", value), Write("b", value))))
    with Session("prod", store=url) as session:
        again = session.ledger.commit(commit)
        assert (first.revision, 4001) == (again.revision, session.revision.rev)
        assert [
            (one.name, one.value, one.version, one.rev, one.source, one.time) for one in first.changes
        ] == [(one.name, one.value, one.version, one.rev, one.source, one.time) for one in again.changes]


def test_an_op_is_forgotten_after_its_time(path, url, monkeypatch):
    with opened(url) as session:
        session.ledger.commit(Commit((Write("a", 1),), op="op"))
    later = time.time() + 601
    monkeypatch.setattr(time, "time", lambda: later)
    with Session("prod", store=url) as session:
        session.ledger.commit(Commit((Write("a", 2),), op="op"))
        assert (session.get("a"), session.revision.rev) == (2, 2)
    beneath = sqlite3.connect(path)
    assert beneath.execute("SELECT rev FROM ops").fetchall() == [(2,)]
    beneath.close()


def test_a_claim_ends_by_the_clock_while_no_process_runs(url, monkeypatch):
    with opened(url) as session:
        session.claim(["a"], owner="tuner", ttl=50)
    later = time.time() + 51
    monkeypatch.setattr(time, "time", lambda: later)
    with Session("prod", store=url) as session:
        assert session.set("a", 1).version == 1


def test_history_is_bounded_on_disk(path, url):
    with opened(url) as session:
        session.set("b", 1)
        for value in range(7000):
            session.set("a", value)
    beneath = sqlite3.connect(path)
    (rows,) = beneath.execute("SELECT count(*) FROM log").fetchone()
    beneath.close()
    assert 1024 <= rows <= 3 * 1024 + 16
    with Session("prod", store=url) as session:
        assert [change.value for change in session.history("b")] == [1]


def test_history_is_not_read_before_somebody_asks(url, spy):
    with opened(url) as session:
        for value in range(10):
            session.set("a", value)
        before = session.history()
    spy.statements.clear()
    with Session("prod", store=url) as session:
        session.set("a", 10)
        session.ledger.history(since=10)
        assert sqlite_schema.LOG not in spy.statements
        assert before == session.history()[:-1]
        assert spy.statements.count(sqlite_schema.LOG) == 1


def test_sessions_with_the_same_declarations_share_them(url):
    with SqliteStore(url) as store:
        for name in ("one", "two"):
            with Session(name, store=store) as session:
                session.ledger.commit(Commit(declare=(Declaration("a", Integer(), 0),)))
        with Session("one", store=store) as one, Session("two", store=store) as two:
            assert one.ledger.schema is two.ledger.schema
