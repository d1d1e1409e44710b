"""What a worker does with a call, without the process around it."""

from __future__ import annotations

import socket
import threading
import time

import pytest

pytest.importorskip("grpc")

from dspex import DeadlineExceeded, InvalidValue, Program, Session, UnknownProgram
from dspex.pool import running as room
from dspex.pool.channel import Channel, Say
from dspex.pool.running import Cancelled, Order, Running, resident, warm_up
from dspex.pool.values import values_of
from dspex.pool.worker import Worker
from dspex.rpc import Server
from dspex.stores import MemoryStore
from dspex.testing import pool_programs as those

NAMED = "dspex.testing.pool_programs"
SERVED = {f"{NAMED}:{one.__name__}": one for one in (those.Echo, those.Where, those.Pieces, those.Setting)}


@pytest.fixture
def ends():
    """The channel on which a worker speaks, and the one on which a pool hears it."""
    mine, other = socket.socketpair()
    speaks, hears = Channel(mine), Channel(other)
    yield speaks, hears
    speaks.close()
    hears.close()


@pytest.fixture
def running(ends):
    made = Running(SERVED, Worker(ends[0], ends[0], "0.1"))
    yield made
    made.close()


def order(program, *args, number=1, **more):
    packed = values_of(program).pack([list(args), {}], "inputs")
    return Order(number, f"{NAMED}:{program.__name__}", packed, **more)


def output(program, answer):
    return values_of(program).unpack(answer[0])


def test_a_call_gives_its_result_and_no_revision_without_a_session(running):
    answer = running.run(order(those.Echo, 1, "a"))
    assert (output(those.Echo, answer), answer[1]) == ([[1, "a"], {}], None)


def test_a_program_that_this_worker_has_not_is_named_with_the_near_one(running):
    with pytest.raises(UnknownProgram, match=rf"^this worker does not serve {NAMED}:Ecko; it serves .* Did"):
        running.run(Order(1, f"{NAMED}:Ecko", b""))


def test_what_comes_too_late_is_not_begun(running, tmp_path):
    with pytest.raises(DeadlineExceeded, match="Echo was not started: its time was over") as raised:
        running.run(order(those.Echo, deadline=0.0))
    assert raised.value.started is False


def test_what_became_too_late_while_its_session_was_found_is_not_begun(running, served, monkeypatch):
    store, address = served
    found = running._found
    end = time.monotonic() + 0.05

    def late(wanted):
        session = found(wanted)
        while time.monotonic() < end:
            pass
        return session

    monkeypatch.setattr(running, "_found", late)
    with Session("s", store=store) as session:
        late_order = order(those.Setting, 0.5, session=at(address, session), deadline=end)
        with pytest.raises(DeadlineExceeded, match="Setting was not started: its time was over"):
            running.run(late_order)


def test_what_was_cancelled_before_it_came_is_not_begun(running):
    interrupts = []
    running.cancel(1, lambda: interrupts.append(1))
    with pytest.raises(Cancelled):
        running.run(order(those.Echo))
    assert (interrupts, running.interrupted) == ([], False)
    assert output(those.Echo, running.run(order(those.Echo))) == [[], {}]


def test_what_was_cancelled_too_late_is_forgotten(running):
    for number in range(1, 20):
        running.run(order(those.Echo, number=number))
        running.cancel(number, lambda: pytest.fail("nothing runs"))
    assert len(running._unwanted) == 1
    assert output(those.Echo, running.run(order(those.Echo, number=20))) == [[], {}]
    assert not running._unwanted


def test_a_stream_sends_its_pieces_while_there_is_room(running, ends):
    running._bridge._room = threading.Semaphore(3)
    running.run(order(those.Pieces, 3, number=7, window=3))
    messages = ends[1].receive()
    assert [(say, number) for say, number, _ in messages] == [(Say.CHUNK, 7)] * 3
    assert [values_of(those.Pieces).unpack(data) for *_, data in messages] == [0, 1, 2]
    with pytest.raises(InvalidValue, match=r"stream\(\) takes generators"):
        running.run(order(those.Pieces, 3))


@pytest.fixture
def served():
    """A store of whoever calls, and its address."""
    store = MemoryStore()
    with Server(store) as server:
        yield store, (server.url, None, None, False, 30.0)


def at(address, session, rev=None):
    return address, session.id, session.ledger.epoch, session.ledger.rev if rev is None else rev, None


def test_a_session_is_left_when_there_are_too_many_and_it_was_used_longest_ago(running, served, monkeypatch):
    store, address = served
    monkeypatch.setattr(room, "SESSIONS", 2)
    seen = []
    for name in ("a", "b", "a", "c", "a", "b"):
        with Session(name, store=store) as session:
            answer = running.run(order(those.Where, session=at(address, session)))
        seen.append((name, output(those.Where, answer)[2]))
    assert seen == [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("a", 3), ("b", 1)]


def test_a_worker_that_has_seen_less_than_its_caller_asks_the_server(running, served, monkeypatch):
    store, address = served
    monkeypatch.setattr(room, "PUSH", 0.0)
    with Session("s", store=store) as session:
        for value in (0.25, 0.5, 0.75):
            answer = running.run(order(those.Setting, value, session=at(address, session)))
            assert answer[1] == session.ledger.rev
            assert session.get("best") == value
            session.set("best", 0.0)


def test_a_session_that_was_made_again_is_another_one(running, served):
    store, address = served
    for _ in range(2):
        with Session("s", store=store) as session:
            answer = running.run(order(those.Where, session=at(address, session)))
            assert output(those.Where, answer)[2] == 1
            session.delete()


def test_memory_is_told_in_bytes():
    before = resident()
    kept = b"1" * (64 * 2**20)
    grown = resident() - before
    assert len(kept) * 0.9 <= grown <= len(kept) * 1.5


# ---- before the first call -----------------------------------------------------------------------------


def test_a_program_is_made_ready_once_before_the_first_call():
    made = []

    class Ready(Program):
        def init(self):
            made.append(self.session.id)

        def forward(self):
            """Not called."""

    warm_up(Ready)
    assert len(made) == 1
