"""Commits go over the connection that hears, where few do: nobody who hears, or commits, is hurt by that."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

import pytest

from dspex import PermissionDenied, Session
from dspex.stores import redis_wire
from dspex.stores.redis_ear import Ear
from dspex.stores.redis_peer import Peer


@pytest.fixture
def lent(monkeypatch):
    """How often the connection that hears was lent to who commits."""
    lend, found = Peer.lend, []

    def counted(peer):
        wire = lend(peer)
        if wire is not None:
            found.append(wire)
        return wire

    monkeypatch.setattr(Peer, "lend", counted)
    return found


def is_lent(session, lent):
    session.set("n", session.get("n") + 1)
    return bool(lent)


def test_who_commits_alone_hears_his_own_hints_with_the_answers(own, stores, demo, eventually, lent):
    session = demo(stores(own().url))
    eventually(lambda: is_lent(session, lent), "the server has said how many hear")
    told = []
    session.watch("n", lambda change: told.append((change.value, threading.current_thread().name)))
    first = session.get("n") + 1
    for value in range(first, first + 50):
        session.set("n", value)
    assert [(value, threading.current_thread().name) for value in range(first, first + 50)] == told
    assert session.ledger.peer.cuts == 0


def test_where_many_hear_the_answer_does_not_wait_for_them(own, stores, demo, eventually, lent):
    server = own()
    others = [demo(stores(server.url)) for _ in range(4)]
    session = demo(stores(server.url))
    eventually(lambda: session.ledger.audience == 5, "the server has said how many hear")
    before = len(lent)
    for value in range(20):
        session.set("n", value)
    assert before == len(lent)
    eventually(lambda: {other.get("n") for other in others} == {19}, "all have heard")


def test_who_opens_and_who_hears_have_their_turn_while_many_commit(  # noqa: PLR0917  fixtures
    own, stores, demo, busy, eventually, lent
):
    server = own()
    store, elsewhere = stores(server.url), demo(stores(server.url), "other")
    session, other = demo(store), demo(store, "other")
    eventually(lambda: is_lent(session, lent), "the server has said how many hear")
    told = []
    other.watch("a", told.append)

    def commit():
        session.set("n", 1)

    with busy(commit, commit, commit, commit):
        polls = session.ledger.peer.polls
        for value in range(1, 6):
            elsewhere.set("a", value)
            eventually(lambda value=value: other.get("a") == value, "it was heard", 5)
            demo(store, f"new{value}").close()
        eventually(lambda: session.ledger.peer.polls > polls + 5, "the server was asked all the same")
        eventually(lambda: told and told[-1].value == 5, "it was told")


@pytest.mark.parametrize("error", [KeyboardInterrupt, redis_wire.Lost])
def test_an_answer_that_was_not_read_is_nobody_elses(  # noqa: PLR0917  fixtures
    own, stores, demo, eventually, lent, monkeypatch, caplog, error
):
    session = demo(stores(own().url))
    eventually(lambda: is_lent(session, lent), "the server has said how many hear")
    before = session.get("n")
    with monkeypatch.context() as patch:
        read, broken = redis_wire.Wire.read, []

        def fails_once(wire):
            if wire is lent[-1] and not broken:
                broken.append(wire)
                raise error("in between")
            return read(wire)

        patch.setattr(redis_wire.Wire, "read", fails_once)
        eventually(lambda: _sets(session) and broken, "it was lent again")
    eventually(lambda: session.ledger.status == "LIVE", "it hears again")
    values = [session.set("n", value).value for value in range(before + 100, before + 110)]
    assert list(range(before + 100, before + 110)) == values
    assert session.snapshot()["n"] == values[-1]
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]


def _sets(session):
    with suppress(KeyboardInterrupt):
        session.set("n", session.get("n") + 1)
    return True


def test_what_nobody_understands_is_not_said_to_who_commits(own, stores, demo, eventually, lent):
    session = demo(stores(own().url))
    eventually(lambda: is_lent(session, lent), "the server has said how many hear")
    peer = session.ledger.peer
    eventually(lambda: (wire := peer.lend()) and (_overhears(peer, wire, session) or True), "it was lent")
    eventually(lambda: peer.cuts == 1 and session.ledger.status == "LIVE", "it has begun again")
    assert session.set("n", 7).value == 7


def _overhears(peer, wire, session):
    peer.overhear(redis_wire.Push([b"smessage", session.ledger.channel, b"nothing"]))
    peer.give_back(wire, None)


def test_nobody_borrows_while_another_one_waits_for_the_turn(eventually):
    ear = Ear()
    for _ in range(20):  # who waits may happen to be quicker
        over = threading.Event()
        assert ear.borrow()

        def wait(over=over):
            ear.take()
            over.wait(30)
            ear.give()

        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: ear._wanted, "it waits")
        ear.give()
        borrowed = ear.borrow()
        over.set()
        if borrowed:
            ear.give()
        thread.join(10)
        assert not borrowed


def test_a_callback_may_close_the_store_and_use_it_again(own, stores, demo, eventually):
    server = own()
    writer, store = demo(stores(server.url)), stores(server.url)
    reader, link, again = Session("demo", store=store), store.link, []

    def close(change):
        reader.close()
        link.close()
        with Session("demo", store=store) as session:
            again.append(session.get("n"))

    reader.watch("n", close)
    writer.set("n", 5)
    eventually(lambda: again == [5], "the callback has opened it again")


def test_a_store_that_ends_for_good_leaves_no_thread(own, stores, eventually):
    server = own("requirepass secret", tcp=True)
    before = set(threading.enumerate())
    store = stores(f"redis://127.0.0.1:{server.port}")
    with pytest.raises(PermissionDenied):
        store.open("s")
    eventually(lambda: set(threading.enumerate()) <= before, "its threads have ended")
