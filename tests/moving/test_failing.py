"""What fails in the middle of a move leaves the session in one place."""

import itertools

import pytest
from moving_tools import demo, seen
from sqlite_tools import Spy

from dspex import (
    Session,
    SessionMoved,
    StoreUnavailable,
    moving,
    open_store,
)
from dspex.stores import MemoryStore, sqlite_schema


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_target_whose_disk_fails_is_left_clean(tmp_path, opens, monkeypatch, after):
    spy = Spy().install(monkeypatch)
    target = open_store(f"sqlite:///{tmp_path}/target.db?durability=fast")
    session, other = demo(opens, store := MemoryStore()), opens("demo", store=store)
    session.tag("begin")
    told = []
    session.watch("n", lambda change: told.append(change.value), mode="all")
    session.set("n", 1)
    for failing in itertools.count(1):
        other.tag("alive")
        before = seen(session)
        spy.fail(failing, after=after)
        try:
            session.move_to(target)
        except StoreUnavailable:
            spy.fail(0)
            assert seen(session) == before
            assert target.sessions() == []
        else:
            spy.fail(0)
            break
    assert failing > 15
    assert seen(session) == before
    with pytest.raises(SessionMoved):
        other.get("n")
    session.set("n", 2)
    assert told == [1, 2]
    target.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_source_whose_disk_fails_keeps_the_session_or_has_let_go_of_it(tmp_path, opens, monkeypatch, after):
    spy = Spy().install(monkeypatch)
    url = f"sqlite:///{tmp_path}/source.db?durability=fast"
    session, target = demo(opens, url), MemoryStore()
    told = []
    session.watch("n", lambda change: told.append(change.value), mode="all")
    session.set("n", 1)
    for failing in itertools.count(1):
        session.tag("alive")
        before = seen(session)
        spy.fail(failing, after=after)
        try:
            session.move_to(target)
        except StoreUnavailable:
            spy.fail(0)
            assert seen(session) == before
            assert target.sessions() == []
        else:
            spy.fail(0)
            if target.sessions():
                break
    assert failing > 5
    assert seen(session) == before
    with pytest.raises(SessionMoved):
        Session("demo", store=url)
    session.set("n", 2)
    assert told == [1, 2]


def test_a_source_that_does_not_say_whether_it_let_go_costs_nothing(tmp_path, opens, monkeypatch):
    spy = Spy().install(monkeypatch)
    url = f"sqlite:///{tmp_path}/source.db?durability=fast"
    session, target = demo(opens, url), MemoryStore()
    session.set("n", 1)

    def fails(statement):
        if sqlite_schema.MOVE in spy.statements and statement != "ROLLBACK":
            raise OSError("the disk is gone")

    def commits(statement):
        if statement == "COMMIT":
            fails(statement)

    spy.after, spy.before = (
        commits,
        lambda s: None if s == "COMMIT" else fails(s) if s != sqlite_schema.MOVE else None,
    )
    with pytest.raises(StoreUnavailable, match="not known") as error:
        session.move_to(target)
    assert "look at both" in error.value.__notes__[0]
    spy.before = spy.after = lambda _statement: None
    with pytest.raises(SessionMoved):
        session.set("n", 2)
    with Session("demo", store=target) as kept:
        assert kept.get("n") == 1


def test_a_copy_that_is_not_what_was_copied_is_dropped(place, opens, monkeypatch):
    source, target = place("memory"), place("sqlite")
    session = demo(opens, source)
    session.set("n", 1)
    session.set("n", 2)
    wrong = sqlite_schema.RESTORE_CHANGE.replace("?, ?, ?)", "'not ' || ?, ?, ?)")
    monkeypatch.setattr(sqlite_schema, "RESTORE_CHANGE", wrong)
    for verb in (lambda: session.move_to(target), lambda: moving.copy("demo", source, target)):
        with pytest.raises(StoreUnavailable, match=r"the copy is not what was copied: 1 values at .*dropped"):
            verb()
        assert target.sessions() == []
    assert session.set("n", 3).version == 3
