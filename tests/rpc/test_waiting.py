"""What a client and a server do about what takes longer than it should, or is not there any more."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import attrs
import pytest

from dspex import DeadlineExceeded, Session, SessionMoving, StoreUnavailable, placing
from dspex.errors import DspexError
from dspex.rpc import service
from dspex.rpc.limits import Timers
from dspex.stores import open_store


def impatient(session):
    """Have calls of *session* fail from now on that are not answered within 0.1 s."""
    link = session.ledger._link
    link.address = attrs.evolve(link.address, timers=attrs.evolve(link.address.timers, deadline=0.1))


def test_a_commit_that_is_answered_too_late_says_so_and_is_heard_of_when_it_is_made(
    serving, remote, demo, tmp_path, eventually
):
    server = serving(f"sqlite:///{tmp_path}/x.db")
    demo(server.store)
    session = demo(remote(server.url))
    seen = []
    session.watch("n", lambda change: seen.append(change.new))
    impatient(session)
    with closing(sqlite3.connect(tmp_path / "x.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        # The second where the caller itself reads from the stream, which then has to be ended.
        with pytest.raises((DeadlineExceeded, StoreUnavailable)) as late:
            session.set("n", 5)
        other.execute("ROLLBACK")
    assert "Whether the commit was made is not known; the same op again finds out." in str(late.value)
    assert late.value.op
    eventually(lambda: (session.get("n"), seen) == (5, [5]), "the commit is made and told")


def test_a_server_remembers_only_the_newest_commits_by_name(server, store, demo, monkeypatch):
    monkeypatch.setattr(service, "OPS", 3)
    session = demo(store)
    for number in range(10):
        session.set("n", number)
    assert session.get("n") == 9
    assert len(server._calls.service.hubs["demo"].ops) == 3


def test_a_session_of_a_database_that_nobody_uses_is_let_go_and_comes_back(
    serving, remote, demo, tmp_path, eventually
):
    quick = attrs.evolve(Timers().divided(20), idle=0.01, bookmark=0.01)
    server = serving(f"sqlite:///{tmp_path}/x.db", timers=quick)
    store = remote(server.url)
    session = demo(store)
    session.set("n", 5)
    session.close()
    eventually(lambda: not server._calls.service.hubs, "the server has let go of it")
    with Session("demo", store=store) as again:
        assert again.get("n") == 5


def test_a_claim_that_cannot_be_given_back_says_so(serving, remote, demo):
    server = serving()
    session = demo(remote(server.url))
    with pytest.raises(StoreUnavailable), session.claim(["n"], owner="me", ttl=60):
        impatient(session)
        server.stop(0)
    server.start()


def test_a_claim_that_cannot_be_given_back_does_not_hide_what_failed_first(serving, remote, demo):
    server = serving()
    session = demo(remote(server.url))
    with pytest.raises(LookupError), session.claim(["n"], owner="me", ttl=60):
        impatient(session)
        server.stop(0)
        raise LookupError
    server.start()


def test_a_commit_does_not_wait_for_ever_for_a_session_that_is_moved(demo, monkeypatch):
    from dspex.stores import MemoryStore

    session = demo(MemoryStore())
    held = session.ledger.hold()
    monkeypatch.setattr(placing, "PATIENCE", -1.0)
    with pytest.raises(SessionMoving):
        session.set("n", 1)
    held.release()
    session.set("n", 2)
    assert session.get("n") == 2


def test_a_session_that_another_process_deletes_beneath_a_server_ends_for_its_clients(
    serving, remote, demo, tmp_path, eventually
):
    url = f"sqlite:///{tmp_path}/x.db"
    quick = attrs.evolve(Timers().divided(20), bookmark=0.01)
    session = demo(remote(serving(url, timers=quick).url))
    session.set("n", 1)
    beneath = open_store(url)
    beneath.delete("demo")
    eventually(lambda: session.closed or session.ledger.status == "CLOSED", "its clients are told")
    with pytest.raises(DspexError, match="demo"):
        session.set("n", 2)
    beneath.close()


SERVING_CHILD = """
import os
import dspex.rpc.server
from dspex import Integer, Session
from dspex.rpc import loops
from dspex.rpc.share import share
child = os.fork()
if child == 0:
    with Session() as session, share(session) as shared:
        session.register("n", Integer(), initial=0)
        with Session(session.id, store=shared.url) as other:
            other.set("n", 5)
        assert session.get("n") == 5
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), loops._loop)
"""


def test_a_child_of_a_process_that_could_serve_serves(script, counted):
    assert script(SERVING_CHILD) == "7 None\n"
