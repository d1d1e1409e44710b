"""What `forward` yields, piece by piece."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspex import DeadlineExceeded, Float, InvalidCall, Program, Session, WouldBlock, deadlines, defvariable


class Counted(Program):
    temperature = defvariable(Float(min=0.0), initial=0.5)

    def init(self):
        self.left = 0

    def forward(self, count, seconds=0.0):
        try:
            for number in range(count):
                time.sleep(seconds)
                yield number, self.temperature
        finally:
            self.left += 1


class Async(Program):
    async def aforward(self, count, seconds=0.0):
        loop = id(asyncio.get_running_loop())
        for number in range(count):
            await asyncio.sleep(seconds)
            assert loop == id(asyncio.get_running_loop())
            yield number


class Plain(Program):
    def forward(self, word):
        return word, threading.get_ident()


class Coroutine(Program):
    async def aforward(self, word):
        return word


class Failing(Program):
    def forward(self):
        yield 1
        raise ValueError("no more")


class Remaining(Program):
    def forward(self):
        yield deadlines.remaining()
        yield deadlines.remaining()


async def taken(pieces):
    return [piece async for piece in pieces]


def test_the_pieces_come_in_order_and_the_values_are_live():
    with Session() as session:
        pieces = Counted.stream(3, session=session)
        assert next(pieces) == (0, 0.5)
        session.set("temperature", 0.25)
        assert list(pieces) == [(1, 0.25), (2, 0.25)]
        pinned = Counted.stream(2, session=session, pin=True)
        assert next(pinned) == (0, 0.25)
        session.set("temperature", 1.0)
        assert next(pinned) == (1, 0.25)


def test_what_yields_nothing_is_one_piece():
    assert [word for word, _ in Plain.stream("hello")] == ["hello"]
    assert list(Coroutine.stream("hello")) == ["hello"]


def test_an_async_generator_has_one_loop_for_all_its_pieces():
    assert list(Async.stream(3)) == [0, 1, 2]
    assert asyncio.run(taken(Async.astream(3))) == [0, 1, 2]


def test_who_awaits_is_not_stopped_by_what_does_not():
    async def here():
        (word, thread), *more = await taken(Plain.astream("hello"))
        assert (word, more) == ("hello", [])
        assert thread != threading.get_ident()
        return [number for number, _ in await taken(Counted.astream(3))]

    assert asyncio.run(here()) == [0, 1, 2]


def test_a_loop_is_not_stopped_to_wait_for_a_piece():
    async def here():
        for program in (Async, Coroutine):
            with pytest.raises(WouldBlock, match="astream"):
                list(program.stream(1))

    asyncio.run(here())


def test_who_leaves_ends_the_program():
    with Session() as session:
        agent = Counted.bind(session)
        pieces = agent.stream(10)
        next(pieces)
        assert agent.left == 0
        pieces.close()
        assert agent.left == 1
        asyncio.run(left_early(agent))
        assert agent.left == 2


async def left_early(agent):
    pieces = agent.astream(10)
    await anext(pieces)
    await pieces.aclose()


def test_an_error_comes_after_the_pieces_and_says_where():
    pieces = Failing.stream()
    assert next(pieces) == 1
    with pytest.raises(ValueError, match="no more") as raised:
        next(pieces)
    assert "in Failing on session" in raised.value.__notes__[0]
    with pytest.raises(ValueError, match="no more"):
        asyncio.run(taken(Failing.astream()))


def test_no_piece_comes_after_the_deadline():
    pieces = Counted.stream(100, 0.02, timeout=0.1)
    given = []
    with pytest.raises(DeadlineExceeded, match=r"Counted on session .* took longer than 0\.1 s\.$"):
        given.extend(pieces)
    assert len(given) < 10
    for program in (Async, Counted):
        with pytest.raises(DeadlineExceeded):
            asyncio.run(taken(program.astream(100, 0.02, timeout=0.1)))


def test_the_budget_of_a_stream_is_not_that_of_who_takes_its_pieces():
    pieces = Remaining.stream(timeout=60)
    assert 59 < next(pieces) <= 60
    assert deadlines.remaining() is None
    with ThreadPoolExecutor(1) as other:  # the next piece in another thread: a context of its own
        assert 59 < other.submit(next, pieces).result() <= 60
    pieces.close()
    del pieces
    gc.collect()
    assert deadlines.remaining() is None


def test_a_session_among_the_inputs_is_a_slip():
    with Session() as session, pytest.raises(InvalidCall, match="by name: session="):
        Counted.stream(session)
