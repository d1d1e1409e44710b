"""Ctrl-C in the middle of the SQLite store: nobody waits for ever, and memory is what the file is."""

import sqlite3
import threading

import pytest
from interrupts import everywhere

from dspex import Integer, Program, Session, defvariable
from dspex.stores.groups import Job, Turns
from dspex.stores.sqlite import SqliteStore
from dspex.stores.sqlite_database import Database


class Pair(Program):
    a = defvariable(Integer(), initial=0)
    b = defvariable(Integer(), initial=0)

    def forward(self):
        return self.a + self.b


class Once(Job):
    """Counts how often it was done."""

    times = 0

    @property
    def over(self):
        return bool(self.times) or self.error is not None


def elsewhere(call):
    """*call*, in another thread."""
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def once(jobs):
    for job in jobs:
        job.times += 1


def test_a_turn_that_is_interrupted_is_passed_on():
    turns = job = None

    def begin():
        nonlocal turns, job
        turns, job = Turns(once), Once()
        return lambda: turns.do(job)

    for _ in everywhere(begin):
        other = Once()
        elsewhere(lambda: turns.do(other))  # noqa: B023 - at once
        assert (job.times in (0, 1), other.times) == (True, 1)


def test_those_who_wait_for_a_leader_that_is_interrupted_are_served():
    turns = others = threads = None

    def begin():
        nonlocal turns, others, threads
        others = [Once() for _ in range(3)]
        turns = Turns(once)

        def lead():
            nonlocal threads
            threads = [threading.Thread(target=turns.do, args=(one,), daemon=True) for one in others]
            for index, thread in enumerate(threads, 1):
                thread.start()
                while len(turns._waiting) < index:
                    pass
            return True

        return lambda: turns.at_once(lead)

    for _ in everywhere(begin):
        for thread in threads or ():
            thread.join(10)
        assert [1, 1, 1] == [one.times for one in others] or threads is None
        threads = None


def test_an_interrupt_as_garbage_lets_go_of_a_file_lets_others_open_it(url, monkeypatch):
    with SqliteStore(url) as store:
        database = store._open

        def begin():
            database.holds.clear()
            database.holds.append(None)
            return database.release_at_once

        with monkeypatch.context() as patch:
            patch.setattr(Database, "_close_unused", lambda *_: None)
            for _ in everywhere(begin):
                elsewhere(lambda: Database.held(store.location))
        database.holds.clear()
        database.holds.append(None)


@pytest.mark.parametrize("names", ["a", "ab"])
def test_a_commit_that_is_interrupted_is_in_memory_as_it_is_in_the_file(url, path, names):
    told = []

    def begin():
        before = session.get("a")
        wanted[:] = {"a": before, "b": 99}, {**dict.fromkeys(names, before + 1), "b": 99}
        if len(names) == 1:
            return lambda: session.set("a", before + 1)
        return lambda: session.update(dict.fromkeys(names, before + 1))

    def agrees():
        file = sqlite3.connect(path)
        rows = dict(file.execute("SELECT name, version FROM records"))
        file.close()
        assert rows == {name: session.record(name).version for name in ("a", "b")}
        assert dict(session.snapshot()) == {"a": program.a, "b": program.b}
        assert session.revision.rev == session.history()[-1].rev

    wanted = []
    with Session("demo", store=url, source="tests") as session:
        program = Pair.bind(session)
        session.watch("*", told.append, mode="all")
        for value in range(3):
            session.set("a", value)
        for _ in everywhere(begin):
            elsewhere(lambda: session.set("b", 99))
            agrees()
            assert dict(session.snapshot()) in wanted
            session.set("a", 5)
            agrees()
            assert [99, 5] == [change.new for change in told[-2:]]
    versions = [(change.name, change.version) for change in told]
    assert sorted(set(versions), key=versions.index) == versions
