"""What `forward` yields, piece by piece."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspex import (
    DeadlineExceeded,
    Float,
    InvalidCall,
    InvalidValue,
    Program,
    Session,
    WouldBlock,
    deadlines,
    defvariable,
)
from dspex.modules import FunctionModule


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


# ---- what comes in the end -----------------------------------------------------------------------------


class Spelled(Program):
    def forward(self, word):
        yield from word
        return word.upper()


class Both(Spelled):
    async def aforward(self, word):
        for letter in word:
            yield letter


class Handed(Program):
    """Returns the stream of a module."""

    def init(self):
        self.spell = FunctionModule(spell)

    def forward(self, word):
        return self.spell.stream(word=word)

    async def aforward(self, word):
        return self.spell.astream(word=word)


def spell(word):
    yield from word
    return word.upper()


def test_what_a_generator_returns_is_the_output_of_its_run():
    stream = Spelled.stream("why")
    assert [next(stream), next(stream)] == ["w", "h"]
    with pytest.raises(InvalidCall, match="this stream has no output"):
        _ = stream.output
    assert list(stream) == ["y"]
    assert list(stream) == []
    assert stream.output == "WHY"
    assert Spelled.run("why") == Spelled.run("why", timeout=30) == Spelled()("why") == "WHY"
    assert Spelled.record("why").output == "WHY"
    assert asyncio.run(Spelled.arun("why")) == asyncio.run(Both.arun("why", timeout=30)) == "WHY"


def test_an_awaited_stream_has_its_output_in_the_end():
    async def here():
        stream = Spelled.astream("why")
        assert await anext(stream) == "w"
        with pytest.raises(InvalidCall, match="this stream has no output"):
            _ = stream.output
        assert [piece async for piece in stream] == ["h", "y"]
        assert stream.output == "WHY"
        async with Coroutine.astream("hello") as plain:
            assert [piece async for piece in plain] == [plain.output] == ["hello"]

    asyncio.run(here())


def test_yield_from_gives_the_output_of_a_stream():
    def outer():
        return (yield from Spelled.stream("why")) + "?"

    made = outer()
    assert [next(made) for _ in range(3)] == ["w", "h", "y"]
    with pytest.raises(StopIteration) as ended:
        next(made)
    assert ended.value.value == "WHY?"


def test_a_stream_that_was_left_or_failed_has_no_output():
    left, failed = Spelled.stream("why"), Failing.stream()
    with left:
        next(left)
    with pytest.raises(ValueError, match="no more"):
        list(failed)
    for stream in (left, failed):
        assert list(stream) == []
        with pytest.raises(InvalidCall):
            _ = stream.output


def test_a_stream_that_is_returned_is_the_stream_of_the_program():
    stream = Handed.stream("why")
    assert (list(stream), stream.output) == (["w", "h", "y"], "WHY")
    assert Handed.run("why") == "WHY"

    async def here():
        stream = Handed.bind(Session()).astream("why")
        assert await Handed.arun("why") == "WHY"
        return await taken(stream), stream.output

    assert asyncio.run(here()) == (["w", "h", "y"], "WHY")


def test_what_only_yields_is_not_run():
    runs = [Counted.run, Counted.record, Async.run, lambda count: asyncio.run(Async.arun(count))]
    for run in runs:
        with pytest.raises(InvalidValue, match=r"stream\(\) takes generators \(got pieces only\)"):
            run(1)


def test_a_session_among_the_inputs_is_a_slip():
    with Session() as session, pytest.raises(InvalidCall, match="by name: session="):
        Counted.stream(session)
