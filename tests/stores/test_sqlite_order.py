"""The SQLite store: disk, memory, answer, events, in this order; and commits that share a transaction."""

import sqlite3
import threading
from collections import deque
from pathlib import Path

import pytest
from sqlite_tools import opened

from dspex import (
    InvalidValue,
    Session,
    SessionClosed,
    VersionConflict,
)
from dspex.commits import Commit, Write
from dspex.stores.groups import Job, Turns
from dspex.testing.tools import until

# ---- the order: disk, memory, answer, events ---------------------------------------------------------


def test_nobody_sees_a_commit_before_the_file_has_it(path, url, spy):
    with opened(url) as session:
        program_sees, told, seen = [], [], []
        session.watch("a", lambda change: told.append(change.value))

        def look(statement):
            if statement == "COMMIT":
                program_sees.append((session.get("a"), session.snapshot()["b"], session.revision.rev))
                seen.append(list(told))

        spy.before = spy.after = look
        session.update({"a": 1, "b": 1})
        spy.before = spy.after = lambda _: None
        assert program_sees == [(0, 0, 0), (0, 0, 0)]
        assert seen == [[], []]
        assert told == [1]


def test_nobody_sees_a_set_before_the_file_has_it(url, spy):
    with opened(url) as session:
        told, seen = [], []
        session.watch("a", lambda change: told.append(change.value))

        def look(statement):
            if statement == "COMMIT":
                seen.append((session.get("a"), session.revision.rev, list(told)))

        spy.before = spy.after = look
        for value in range(1, 5):
            session.set("a", value)
        spy.before = spy.after = lambda _: None
        expected = [(value, value, list(range(1, value + 1))) for value in range(4)]
        assert [one for one in expected for _ in range(2)] == seen


def test_a_watcher_finds_in_the_file_what_it_is_told(path, url):
    found = []

    def look(change):
        beneath = sqlite3.connect(path)
        found.append(beneath.execute("SELECT rev FROM records WHERE name = 'a'").fetchone())
        beneath.close()

    with opened(url) as session:
        session.watch("a", look)
        for value in range(3):
            session.set("a", value)
    assert found == [(1,), (2,), (3,)]


def test_one_caller_commits_in_its_own_thread(url, spy):
    with opened(url) as session:
        threads = set()
        spy.before = lambda _: threads.add(threading.get_ident())
        before = threading.active_count()
        session.set("a", 1)
        assert ({threading.get_ident()}, before) == (threads, threading.active_count())


def grouped(session, spy, *calls):
    """Make the first of *calls* commit alone and the others together, in order; what each raised."""
    held, errors = threading.Event(), [None] * len(calls)
    queued = session.ledger._database.turns._waiting
    spy.before = lambda statement: statement == "COMMIT" and held.wait(30)

    def work(index, call):
        try:
            call()
        except Exception as error:
            errors[index] = error

    threads = []
    for index, call in enumerate(calls):
        threads.append(threading.Thread(target=work, args=(index, call), daemon=True))
        threads[-1].start()
        until(
            lambda: len(queued) >= index and (index or "COMMIT" in spy.statements),  # noqa: B023 - at once
            "the commits wait in this order",
        )
    return threads, held, errors


def finish(threads, held):
    held.set()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_commits_that_wait_share_one_transaction(url, spy):
    with opened(url) as session:
        spy.statements.clear()
        threads, held, errors = grouped(
            session, spy, *(lambda: session.swap("a", lambda a: a + 1) for _ in range(5))
        )
        finish(threads, held)
        assert errors == [None] * 5
        assert session.get("a") == 5


def test_of_a_group_only_what_is_refused_fails(url, spy):
    told = []
    with opened(url) as session:
        session.watch("*", lambda change: told.append((change.name, change.value, change.rev)), mode="all")
        spy.statements.clear()
        threads, held, errors = grouped(
            session,
            spy,
            lambda: session.set("b", 1),
            lambda: session.update({"a": 1, "b": 2}, expect={"a": 0}),
            lambda: session.update({"a": 5, "b": 5}, expect={"a": 0}),
            lambda: session.set("a", 2, expect=1),
            lambda: session.tag("here"),
        )
        finish(threads, held)
        assert [type(None), type(None), VersionConflict, type(None), type(None)] == [*map(type, errors)]
        assert spy.statements.count("COMMIT") == 2
        assert told == [("b", 1, 1), ("a", 1, 2), ("b", 2, 2), ("a", 2, 3)]
        assert dict(session.snapshot("here")) == {"a": 2, "b": 2}
        history = session.history()
    with Session("prod", store=url) as session:
        assert history == session.history()
        assert dict(session.snapshot("here")) == {"a": 2, "b": 2}


def test_one_op_twice_in_a_group_is_one_commit(url, spy):
    with opened(url) as session:
        spy.statements.clear()
        receipts = []
        again = Commit((Write("a", 1),), op="op")
        threads, held, errors = grouped(
            session,
            spy,
            lambda: session.set("b", 1),
            *[lambda: receipts.append(session.ledger.commit(again))] * 3,
        )
        finish(threads, held)
        assert (errors, len(receipts), len({receipt.rev for receipt in receipts})) == ([None] * 4, 3, 1)
        assert (session.revision.rev, session.record("a").version) == (2, 1)


def test_what_waits_when_its_session_is_deleted_is_refused(url, spy):
    with opened(url) as session:
        spy.statements.clear()
        threads, held, errors = grouped(
            session,
            spy,
            lambda: session.set("b", 1),
            lambda: session.ledger.store.delete("prod"),
            lambda: session.set("a", 1),
        )
        finish(threads, held)
        assert [type(None), type(None), SessionClosed] == [*map(type, errors)]


class Interrupting(deque):
    """Takes what is queued, and then it is as if the user had pressed Ctrl-C."""

    def append(self, item):
        super().append(item)
        raise KeyboardInterrupt


def test_a_caller_that_is_interrupted_as_it_queues_leaves_nothing_behind():
    done = []
    turns = Turns(done.append)

    def meanwhile():
        turns._waiting = Interrupting()
        with pytest.raises(KeyboardInterrupt):
            turns.do(Job())
        return not turns._waiting

    assert turns.at_once(meanwhile)
    job = Job()
    turns.do(job)
    assert done == [[job]]


def test_a_caller_that_is_interrupted_while_it_waits_disturbs_nobody(url, script):
    said = script(
        """
import os, signal, sys, threading
sys.path.insert(0, sys.argv[2])
from sqlite_tools import Spy, opened
from dspex.stores import sqlite_file
from dspex.testing.tools import until

spy = Spy()
sqlite_file.connect = spy.connection
with opened(sys.argv[1]) as session:
    held, reached = threading.Event(), threading.Event()

    def hold(statement):
        if statement == "COMMIT":
            reached.set()
            held.wait(30)

    spy.before = hold
    first = threading.Thread(target=lambda: session.set("a", 1))
    first.start()
    reached.wait(30)
    queued = session.ledger._database.turns._waiting

    def interrupt():
        until(lambda: queued, "the second commit waits")
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        session.set("a", 2)
    except KeyboardInterrupt:
        print("interrupted")
    held.set()
    first.join()
    spy.before = lambda _: None
    session.set("a", 3)
    print(session.get("a"), session.revision.rev)
""",
        url,
        str(Path(__file__).parent),
    )
    assert said.splitlines() == ["interrupted", "3 2"]


def test_an_interrupt_in_the_commit_itself_comes_when_all_agree(url, spy):
    with opened(url) as session:
        told = []
        session.watch("a", told.append, mode="all")

        def interrupt(statement):
            if statement == "COMMIT":
                spy.after = lambda _: None
                raise KeyboardInterrupt

        spy.after = interrupt
        with pytest.raises(KeyboardInterrupt):
            session.set("a", 1)
        assert (session.get("a"), session.revision.rev) == (1, 1)
        session.set("a", 2)
        assert [change.value for change in told] == [1, 2]
    with Session("prod", store=url) as session:
        assert (session.get("a"), session.revision.rev) == (2, 2)


@pytest.mark.parametrize("source", ["\ud800", 5])
def test_a_source_that_is_no_text_is_refused(url, source):
    with opened(url) as session, pytest.raises(InvalidValue, match="source must be text of at most 256"):
        session.set("a", 1, source=source)
