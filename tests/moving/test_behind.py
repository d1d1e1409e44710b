"""Those who do not go along, and what nobody may take."""

import threading
from functools import partial

import attrs
import pytest
from moving_tools import KINDS, demo

from dspex import (
    Claimed,
    Session,
    SessionClosed,
    SessionExists,
    SessionMoved,
    SessionMoving,
    StoreUnavailable,
    Struct,
    moving,
    open_store,
)
from dspex.commits import Commit, Declaration, Write


@pytest.mark.parametrize("kind", KINDS)
def test_other_handles_hear_where_it_went(place, opens, kind):
    source, target = place(kind), place("memory")
    session, other = demo(opens, source), demo(opens, source)
    closed = []
    other.watch("n", print).ended = partial(closed.append, True)
    fork = other.fork()
    session.move_to(target, as_id="there")
    for verb in (
        lambda: other.get("n"),
        lambda: other.set("n", 1),
        other.snapshot,
        other.history,
        lambda: other.tags,
        lambda: other.tag("x"),
        lambda: other.watch("n", print),
        lambda: other.move_to(target),
        lambda: Session("demo", store=source),
    ):
        with pytest.raises(
            SessionMoved, match=r"session 'demo' has moved to <.*> as 'there'. Open it"
        ) as error:
            verb()
        assert (error.value.session, error.value.session_id) == ("demo", "there")
    assert closed == [True]
    assert source.sessions() == []
    assert fork.set("n", 9).value == 9  # what is private goes on
    fork.close()


def test_where_a_session_went_is_written_down(tmp_path, opens, monkeypatch):
    url = f"sqlite:///{tmp_path}/agent.db?durability=fast"
    session = demo(opens, url)
    session.move_to("memory://written-down")
    with pytest.raises(SessionMoved) as error:
        Session("demo", store=url)
    assert error.value.url == "memory://written-down"
    monkeypatch.chdir(tmp_path)
    session.move_to("sqlite:///agent.db?durability=fast")
    with Session("demo", store=url) as again:
        again.set("n", 1)
    assert session.get("n") == 1
    with pytest.raises(SessionMoved) as error:
        Session("demo", store="memory://written-down")
    assert error.value.url == f"sqlite:///{tmp_path}/agent.db"
    open_store("memory://written-down").delete("demo")
    with Session("demo", store="memory://written-down") as anew:
        assert dict(anew.variables) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_an_id_that_is_in_use_is_refused_and_an_empty_one_is_not(place, opens, kind):
    source, target = place("memory"), place(kind)
    session = demo(opens, source)
    session.set("n", 1)
    taken = demo(opens, target)
    for verb in (lambda: session.move_to(target), lambda: moving.copy("demo", source, target)):
        with pytest.raises(SessionExists, match=rf"has a session 'demo' already, at {taken.revision}\."):
            verb()
    assert (session.set("n", 2).version, taken.get("n")) == (2, 0)
    Session("empty", store=target).close()
    session.move_to(target, as_id="empty")
    assert (session.id, session.get("n")) == ("empty", 2)


def test_commits_wait_while_a_session_is_held(place, opens, eventually):
    session = demo(opens, place("sqlite"))
    other = opens("demo", store=session.ledger.store)
    hold = session.ledger.hold()
    done = []
    calls = [lambda: session.set("n", 1), lambda: other.update({"a": 1}), lambda: other.tag("later")]
    calls += [lambda: other.swap("b", lambda b: b + 1)] * 7
    threads = [threading.Thread(target=lambda call=call: done.append(call())) for call in calls]
    for thread in threads:
        thread.start()
    with pytest.raises(SessionMoving, match="on its way to another store"):
        session.ledger.put("n", 2)
    with pytest.raises(SessionMoving):
        other.move_to(place("memory"))
    assert (done, session.get("n"), session.revision.rev) == ([], 0, 0)
    hold.release()
    for thread in threads:
        thread.join(30)
    assert (len(done), session.get("n"), other.get("a"), other.get("b")) == (10, 1, 1, 7)


def test_commits_that_come_to_the_disk_together_are_held_too(place, opens, eventually):
    session = demo(opens, place("sqlite"))
    database, go = session.ledger._database, threading.Event()
    refused = []

    def commit():
        try:
            session.ledger.commit(Commit((Write("n", 1),)))
        except SessionMoving:
            refused.append(True)

    hold = session.ledger.hold()
    threads = [threading.Thread(target=database.alone, args=(lambda _: go.wait(30),))]
    threads += [threading.Thread(target=commit) for _ in range(3)]
    for waiting, thread in enumerate(threads):
        thread.start()
        eventually(lambda at=waiting: len(database.turns._waiting) == at, "it waits for its turn")
    go.set()
    for thread in threads:
        thread.join(30)
    assert refused == [True] * 3
    hold.release()
    assert session.set("n", 2).version == 1


@attrs.frozen
class Settings:
    rate: float


def test_what_a_class_is_declared_for_does_not_end_a_hold(place, opens):
    store = place("sqlite")
    session = demo(opens, store)
    session.register("settings", Struct(Settings), initial=Settings(0.5))
    session.claim(["n"], owner="someone", ttl=60)
    session.close()
    again = opens("demo", store=store)
    hold = again.ledger.hold()
    declared = Declaration("settings", Struct(Settings), Settings(0.5))
    with pytest.raises(SessionMoving):
        again.ledger.commit(Commit(declare=(declared,)))
    assert again.get("settings") == Settings(0.5)
    hold.release()
    with pytest.raises(Claimed):
        again.set("n", 1)


def test_a_child_process_does_not_wait_for_a_move_of_its_parent(script):
    script(
        """
import os
from dspex import Session
session = Session("demo")
session.register("n", int, initial=0)
hold = session.ledger.hold()
child = os.fork()
if not child:
    os._exit(0 if session.set("n", 1).value == 1 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    )


def test_a_closed_handle_and_a_fork_cannot_be_moved(place, opens):
    session = demo(opens, place("memory"))
    with session.fork() as fork, pytest.raises(StoreUnavailable, match=r"is a fork.*commit_to_parent"):
        fork.move_to(place("memory"))
    session.close()
    with pytest.raises(SessionClosed):
        session.move_to(place("memory"))


def test_a_handle_that_is_closed_while_it_moves_leaves_nobody_listening(place, opens, monkeypatch):
    source, target = place("sqlite"), place("sqlite")
    session = demo(opens, source)
    session.watch("n", print)
    restore = type(target).restore

    def closes(store, *words):
        hold = restore(store, *words)
        session.close()
        return hold

    monkeypatch.setattr(type(target), "restore", closes)
    with pytest.raises(SessionClosed):
        session.move_to(target)
    assert target.sessions() == []
    with Session("demo", store=source) as again:
        assert again.set("n", 1).value == 1
