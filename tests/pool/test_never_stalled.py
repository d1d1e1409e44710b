"""Neither a worker that has stopped nor what a user wants to be called keeps a pool from its work."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future
from threading import Event

import pytest

pytest.importorskip("grpc")

from dspex import DeadlineExceeded, Session, WorkerLost, tool
from dspex.pool.channel import Say
from dspex.testing import pool_programs as those

HASTY = {"patience": 0.2, "grace": 0.2}


@pytest.mark.parametrize("start_method", ["spawn", *(["forkserver"] if hasattr(os, "pidfd_open") else [])])
def test_a_worker_that_stops_between_two_calls_stops_nobody_else(pool, monkeypatch, start_method):
    one = pool(workers=1, start_method=start_method, heartbeat=60.0, **HASTY)
    heard = one.heard

    def stopping(member, say, *items):
        if say == Say.DONE:
            monkeypatch.setattr(one, "heard", heard)
            os.kill(member.pid, signal.SIGSTOP)
        heard(member, say, *items)

    monkeypatch.setattr(one, "heard", stopping)
    with Session() as session:
        first = one.submit(those.Echo, 1, session=session)
        large = one.submit(those.Echo, bytes(60_000_000), session=session, deadline=2.0)
        assert first.exception(20) is None  # not asked for in a way that reads in this thread
        with pytest.raises(DeadlineExceeded):
            large.result(20)
        assert one.submit(those.Echo, 2, session=session).result(30) == [[2], {}]


def test_a_worker_that_stops_while_it_is_answered_is_ended(pool):
    one = pool(workers=1, heartbeat=0.3, misses=2, **HASTY)

    @tool
    def stop() -> bytes:
        os.kill(one.stats().workers[0].pid, signal.SIGSTOP)
        return bytes(20_000_000)

    with Session() as session:
        stop.offer(session)
        with pytest.raises(WorkerLost):
            one.submit(those.Asking, "stop", session=session).result(20)
    assert one.submit(those.Echo, 2).result(30) == [[2], {}]


def called(call, what):
    """What *what* returns, called with *call* when that has ended."""
    found = Future()
    call.add_done_callback(lambda ended: found.set_result(what(ended)))
    return found.result(30)


def test_what_is_called_at_the_end_may_wait_for_another_call(pool):
    one = pool(workers=1)
    with Session() as session:  # so that the second is queued behind the first
        first, second = (one.submit(those.Slow, 0.1, session=session) for _ in range(2))
        assert called(first, lambda _: second.result(20)) == "slept"


@pytest.mark.parametrize("end", ["close", "drain"])
def test_what_is_called_at_the_end_may_end_the_pool(pool, end):
    one = pool(workers=1)
    assert called(one.submit(those.Slow, 0.1), lambda _: getattr(one, end)()) in (None, True)
    assert one.stats().workers == ()


def test_what_is_called_at_the_end_may_fail_in_any_way(pool, caplog):
    def fails(_):
        raise SystemExit

    one = pool(workers=1)
    call = one.submit(those.Slow, 0.1)
    call.add_done_callback(fails)
    assert called(call, lambda ended: ended.result()) == "slept"
    assert "what was to be called at the end of a call has failed" in caplog.text
    assert one.submit(those.Echo, 2).result(20) == [[2], {}]


def test_what_is_called_after_the_end_is_called_at_once(pool):
    call = pool(workers=1).submit(those.Echo, 1)
    call.result(20)
    told = Event()
    call.add_done_callback(lambda _: told.set())
    assert told.is_set()
