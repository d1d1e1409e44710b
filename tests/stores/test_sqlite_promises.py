"""What the SQLite store promises when processes are killed, disks fail and many want the same."""

import os
import random
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlite_tools import Spy, opened

from dspex import Session, StoreUnavailable
from dspex.commits import Commit, Write
from dspex.stores.sqlite import SqliteStore

HERE = Path(__file__).parent
SOAK = bool(os.environ.get("DSPEX_SOAK"))
"""Full length instead of what a minute allows: `make soak`."""


def run(script, *arguments, deadline):
    done = subprocess.run(
        [sys.executable, "-W", "error", str(HERE / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=deadline,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout.split()


# ---- kill -9 -----------------------------------------------------------------------------------------


@pytest.mark.timeout(1800 if SOAK else 170)
def test_no_acknowledged_commit_is_lost_to_kill_9(tmp_path):
    kills, seed = (1_000 if SOAK else 150), random.randrange(10**6)
    # Twice the same seed is not twice the same moments; what failed is in the directory of the test.
    made, acks, rev = map(int, run("sqlite_killed.py", tmp_path, kills, seed, deadline=1700 if SOAK else 160))
    assert made == kills
    assert rev >= acks >= kills


# ---- a disk that fails -------------------------------------------------------------------------------

SPREAD = Commit((Write("a", 1), Write("b", 1)), tag="here", op="op", metadata={"why": 1})


def refusal(session):
    """What the store says when it cannot commit; None if it can."""
    try:
        session.ledger.commit(SPREAD)
    except StoreUnavailable as error:
        return str(error)
    return None


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_disk_fails_a_commit_is_whole_or_not_at_all(tmp_path, monkeypatch, after, state):
    """The statement fails before it did anything, or when it has done it and cannot say so."""
    spy = Spy().install(monkeypatch)
    number = 0
    while True:
        number += 1
        url = f"sqlite:///{tmp_path}/{number}.db?durability=fast"
        with opened(url) as session:
            told = []
            session.watch("*", told.append, mode="all")
            before = state(session)
            spy.fail(number, after=after)
            said = refusal(session)
            if said is None:
                break
            assert "disk I/O error" in said
            assert (before, []) == (state(session), told)
            spy.fail(0)
            receipt = session.ledger.commit(SPREAD)
            assert (receipt.rev, len(receipt.changes)) == (1, 2)
            assert sorted((change.name, change.value) for change in told) == [("a", 1), ("b", 1)]
            session.update({"a": 2, "b": 2})
            after_all = state(session)
        with Session("prod", store=url) as session:
            assert after_all[0] == session.revision
            assert after_all[2:4] == (list(session.history()), dict(session.tags))
            assert dict(session.snapshot("here")) == {"a": 1, "b": 1}
            assert dict(session.snapshot()) == {"a": 2, "b": 2}
    assert number > 8


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_wherever_the_disk_fails_a_set_is_made_or_not(url, monkeypatch, after):
    spy = Spy().install(monkeypatch)
    with opened(url) as session:
        told = []
        session.watch("a", told.append, mode="all")
        refused = 0
        for number in range(1, 6):
            for value in range(3):
                session.set("a", value)
            before = session.record("a"), session.revision
            spy.fail(number, after=after)
            try:
                session.set("a", 100 + number)
            except StoreUnavailable:
                refused += 1
                assert before == (session.record("a"), session.revision)
            spy.fail(0)
        assert refused == 4  # BEGIN, two statements, COMMIT
        session.set("a", 7)
        assert [change.rev for change in told] == list(range(1, session.revision.rev + 1))
        revision, history = session.revision, list(session.history("a"))
    with Session("prod", store=url) as session:
        assert (revision, history) == (session.revision, list(session.history("a")))


def test_a_group_that_the_disk_refuses_fails_as_one_and_heals(url, monkeypatch):
    spy = Spy().install(monkeypatch)
    with opened(url) as session:
        held, raised = threading.Event(), []

        def block(statement):
            if statement == "COMMIT":
                held.wait(30)
                raise sqlite3.OperationalError("database or disk is full")

        spy.before = block

        def work(value):
            try:
                session.set("a", value)
            except StoreUnavailable as error:
                raised.append(str(error))

        threads = [threading.Thread(target=work, args=(value,)) for value in range(5)]
        for thread in threads:
            thread.start()
        held.set()
        for thread in threads:
            thread.join(30)
        assert len(raised) == 5
        assert all("disk is full" in sentence and "try again" in sentence for sentence in raised)
        assert (session.get("a"), session.revision.rev) == (0, 0)
        spy.before = lambda _: None
        assert session.set("a", 7).version == 1


def test_reads_go_on_while_the_disk_fails(url, monkeypatch):
    spy = Spy().install(monkeypatch)
    with opened(url) as session:
        session.set("a", 1)

        def fails(_statement):
            raise sqlite3.OperationalError("disk I/O error")

        spy.before = fails
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                session.set("a", 2)
        assert (session.get("a"), session.snapshot()["a"]) == (1, 1)
        spy.before = lambda _: None
        assert session.set("a", 2).version == 2


FILLS = """
import resource
import sys
from dspex import Session, StoreUnavailable, Text

def fill(url, stop, go):
    session = Session("prod", store=url)
    for name in ("a", "b"):
        session.register(name, Text(), initial="")
    stop()
    refused, last = 0, 0
    for number in range(1, 200):
        text = f"{number} " + "x" * 20_000
        try:
            session.update({"a": text, "b": text})
            last = number
        except StoreUnavailable as error:
            refused += 1
            assert session.get("a").split()[:1] == ([str(last)] if last else []), (number, last)
            assert session.get("a") == session.get("b")
            if refused == 5:
                break
    assert refused == 5, refused
    go()
    session.update({"a": "healed", "b": "healed"})
    rev = session.revision.rev
    session.close()
    with Session("prod", store=url) as session:
        assert (session.get("a"), session.get("b"), session.revision.rev) == ("healed", "healed", rev)
        assert len({change.rev for change in session.history()}) == rev
    print("healed", last)
"""


def test_a_file_that_must_not_grow_is_a_full_disk(url, script):
    source = (
        FILLS
        + """

_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
fill(
    sys.argv[1],
    lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, most)),
    lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
)
"""
    )
    assert script(source, url).split()[0] == "healed"


def test_a_disk_that_is_really_full(tmp_path, script):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        (disk / "ballast").write_bytes(b"x" * 500_000)
        source = (
            FILLS
            + """
import os
fill(sys.argv[1], lambda: None, lambda: os.unlink(sys.argv[2]))
"""
        )
        url = f"sqlite:///{disk}/agent.db"
        assert script(source, url, str(disk / "ballast")).split()[0] == "healed"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_others_lock_is_typed_and_heals(tmp_path, url):
    with opened(url) as session:
        other = sqlite3.connect(tmp_path / "agent.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            session.set("a", 1)
        other.execute("ROLLBACK")
        other.close()
        assert session.set("a", 1).version == 1


# ---- who comes first ---------------------------------------------------------------------------------


@pytest.mark.timeout(170)
def test_of_two_processes_that_open_a_store_one_wins(tmp_path):
    races = 1_000 if SOAK else 100
    assert [str(races)] == run("sqlite_raced.py", tmp_path, races, deadline=160)


def test_a_second_process_is_told_the_pid_of_the_first(url, script):
    with opened(url):
        said = script(
            """
import sys, time
from dspex import Session, StoreUnavailable

begin = time.monotonic()
try:
    Session("prod", store=sys.argv[1])
except StoreUnavailable as error:
    print(error.pid, time.monotonic() - begin < 1, error)
""",
            url,
        )
        assert [str(os.getpid()), "True"] == said.split()[:2]
        assert f"in use by process {os.getpid()}" in said
    with opened(url) as session:
        assert session.set("a", 1).version == 1


# ---- many at once ------------------------------------------------------------------------------------


@pytest.mark.timeout(170)
def test_32_threads_swap_1000_times_each(url, together):
    with opened(url) as session:

        def work():
            for _ in range(1_000):
                session.swap("a", lambda value: value + 1)

        together(*[work] * 32, deadline=160)
        assert (
            session.get("a"),
            session.record("a").version,
            session.revision.rev,
        ) == (32_000, 32_000, 32_000)


def test_pairs_are_never_torn(url, together):
    """In snapshots, in what watchers are told, in the file, and after it is opened again."""
    torn, stop, told = [], threading.Event(), {}
    with opened(url) as session:

        def hear(change):
            told.setdefault(change.rev, []).append(change.value)

        session.watch("*", hear, mode="all")

        def write():
            try:
                for value in range(1, 1_501):
                    session.update({"a": value, "b": value})
            finally:
                stop.set()

        def look():
            while not stop.is_set():
                seen = session.snapshot()
                if seen["a"] != seen["b"]:
                    torn.append(seen)

        def look_beneath():
            beneath = sqlite3.connect(str(session.ledger.store.location.path))
            while not stop.is_set():
                rows = beneath.execute("SELECT DISTINCT rev FROM records").fetchall()
                if len(rows) > 1:
                    torn.append(rows)
            beneath.close()

        together(write, look, look, look_beneath)
    assert torn == []
    assert {len(set(values)): len(told) for values in told.values()} == {1: 1500}
    assert all(len(values) == 2 for values in told.values())
    with Session("prod", store=url) as session:
        assert (session.get("a"), session.get("b")) == (1500, 1500)


def test_commits_are_retried_at_will_and_each_is_made_once(url):
    """Every third answer is lost, and every hundredth time the store is opened again."""
    chance = random.Random(5)
    ops = {f"op-{number}": number for number in range(300)}
    revs = {}
    for start in range(0, 300, 100):
        with opened(url) as session:
            for op, number in list(ops.items())[max(0, start - 50) : start + 100]:
                commit = Commit((Write("a", number),), op=op)
                for _ in range(1 + (chance.random() < 0.3)):
                    receipt = session.ledger.commit(commit)
                    assert revs.setdefault(op, receipt.rev) == receipt.rev
    with Session("prod", store=url) as session:
        assert (session.revision.rev, len(set(revs.values())), session.record("a").version) == (300, 300, 300)


def test_open_files_and_threads_do_not_grow(url, tmp_path):
    def count():
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    opened(url).close()
    before = count()
    for _ in range(30):
        with opened(url) as session, SqliteStore(url) as store:
            session.set("a", 1)
            store.sessions()
    assert before == count()
