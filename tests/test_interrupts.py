"""Ctrl-C in the middle: a commit is whole or not at all, no lock stays taken, watchers hear the next one."""

import threading

import pytest
from interrupts import everywhere

from dspex import Integer, Program, Session, defvariable, watching
from dspex.stores import MemoryStore


class Pair(Program):
    a = defvariable(Integer(), initial=0)
    b = defvariable(Integer(), initial=0)

    def forward(self):
        return self.a + self.b


def is_free(lock):
    """Whether another thread can take *lock*."""
    found = []

    def look():
        found.append(lock.acquire(False))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(30)
    return found[0]


class Interrupted:
    """A session that a program is bound to and a watcher listens to, and what both should know."""

    def __init__(self, earlier, *, watched=False):
        self.session = Session("demo", store=MemoryStore())
        self.program = Pair.bind(self.session)
        self.told = []
        if watched:
            self.session.watch("*", self.told.append, mode="all")
        for value in range(earlier):
            self.session.set("a", value + 1)

    def agrees(self):
        """Whether all that a commit changes has the same commits, and goes on from there."""
        session = self.session
        assert is_free(session.ledger._lock)
        for _ in range(2):
            values, history = session.snapshot(), session.history()
            assert dict(values) == {"a": self.program.a, "b": self.program.b}
            assert session.revision.rev == (history[-1].rev if history else 0)
            versions = [sum(change.name == name for change in history) for name in ("a", "b")]
            assert [session.record(name).version for name in ("a", "b")] == versions
            assert [change.rev for change in history] == sorted(change.rev for change in history)
            session.set("a", 99)
        session.close()
        return True


@pytest.mark.parametrize("earlier", [0, 1, 2, 3])
def test_a_set_that_is_interrupted_is_whole_or_not_at_all(earlier):
    demo = None

    def begin():
        nonlocal demo
        demo = Interrupted(earlier)
        return lambda: demo.session.set("a", 7, source="tests", expect=earlier)

    values = set()
    for _ in everywhere(begin):
        values.add(demo.session.get("a"))
        assert demo.agrees()
    assert {earlier, 7} == values


@pytest.mark.parametrize("earlier", [0, 1, 3])
def test_a_batch_that_is_interrupted_is_whole_or_not_at_all(earlier):
    demo = None

    def begin():
        nonlocal demo
        demo = Interrupted(earlier)
        return lambda: demo.session.update({"a": 7, "b": 8})

    values = set()
    for _ in everywhere(begin):
        values.add(tuple(demo.session.snapshot().values()))
        assert demo.agrees()
    assert {(earlier, 0), (7, 8)} == values


@pytest.mark.parametrize("earlier", [0, 3])
def test_watchers_hear_what_follows_an_interrupt(earlier):
    demo = None

    def begin():
        nonlocal demo
        demo = Interrupted(earlier, watched=True)
        return lambda: demo.session.set("a", 7)

    for _ in everywhere(begin):
        assert demo.agrees()
        versions = [change.version for change in demo.told]
        assert sorted(set(versions)) == versions
        assert [99, 99] == [change.new for change in demo.told][-2:]


def test_an_interrupt_as_a_program_is_bound_leaves_no_lock_taken():
    demo = None

    def begin():
        nonlocal demo
        demo = Interrupted(0)
        return lambda: Pair.bind(demo.session)

    for _ in everywhere(begin):
        assert is_free(demo.session._rarely().lock)
        assert is_free(watching._making)
        assert demo.agrees()


def test_an_interrupt_as_a_reader_looks_leaves_its_lock_free():
    demo = changes = None

    def begin():
        nonlocal demo, changes
        demo = Interrupted(1)
        changes = demo.session.changes()
        demo.session.set("a", 2)
        return lambda: changes.next(0)

    for _ in everywhere(begin):
        assert is_free(changes._lock)
        assert demo.agrees()
