"""Calls on sessions that move to another store."""

from __future__ import annotations

import pytest

from dspex import Session
from dspex.pool.process import Process
from dspex.rpc import Server
from dspex.stores import MemoryStore
from dspex.testing import pool_programs as those


@pytest.fixture(params=["sqlite", "grpc"])
def elsewhere(request, tmp_path):
    """The URL of a store to which a session may move."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/moved.db"
    else:
        with Server(MemoryStore()) as server:
            yield server.url


@pytest.fixture(params=["named", None])
def session(request):
    with Session(request.param, store=MemoryStore()) as session:
        yield session


def test_calls_find_a_session_where_it_is(pool, session, elsewhere):
    workers = pool()
    those.Knobs.bind(session)
    assert those.Knobs.run(session=session, pool=workers) == (0.7, 0)
    for place in (elsewhere, MemoryStore()):
        session.set("temperature", 0.25)
        session.move_to(place, as_id="moved")
        assert those.Knobs.run(session=session, pool=workers) == (0.25, 0)
        session.set("temperature", 0.5)
        assert those.Knobs.run(session=session, pool=workers) == (0.5, 0)
        assert those.Setting.run(0.75, session=session, pool=workers) == 0.75
        assert session.get("best") == 0.75


def test_calls_that_wait_lose_nothing_when_their_session_moves(pool, session, elsewhere):
    workers = pool(workers=1)
    those.Knobs.bind(session)
    session.set("steps", 7)
    calls = [
        workers.submit(those.Where, 0.2),
        *(workers.submit(those.Knobs, session=session) for _ in range(20)),
    ]
    session.move_to(elsewhere, as_id="moved")
    assert [call.result() for call in calls[1:]] == [(0.7, 7)] * 20
    assert {call.attempts for call in calls} == {1}


def test_a_call_that_found_its_session_gone_is_begun_where_it_is(pool, session, elsewhere, monkeypatch):
    workers = pool(workers=1)
    those.Knobs.bind(session)
    session.set("steps", 7)
    send = Process.send

    def after_the_move(member, call):
        monkeypatch.undo()
        session.move_to(elsewhere, as_id="moved")
        send(member, call)

    monkeypatch.setattr(Process, "send", after_the_move)
    assert those.Knobs.run(session=session, pool=workers) == (0.7, 7)
    assert workers.stats().tally.failed == 0
