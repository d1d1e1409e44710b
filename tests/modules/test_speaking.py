"""Modules that are heard where `forward` does not yield."""

from __future__ import annotations

import asyncio
import threading

import pytest
from streaming_tools import LONG, said_at, taken

from dspex import (
    Float,
    InvalidValue,
    Program,
    Session,
    defprogram,
    defvariable,
)
from dspex.modules import Predict
from dspex.pieces import ROOM


class Plain(Program):
    temperature = defvariable(Float(), initial=0.25)
    aloud = defvariable(bool, initial=True)
    lm = None

    def init(self):
        self.plan = Predict("question -> plan", lm=Plain.lm)
        self.modules["say"] = Predict(
            "question -> answer", temperature=Plain.temperature, lm=Plain.lm, stream=Plain.aloud
        )

    def forward(self, question, shape=str):
        self.plan(question=question)
        return shape(self.modules["say"](question=question).answer)


class Awaited(Plain):
    async def aforward(self, question, shape=str):
        await self.plan.acall(question=question)
        return shape((await self.modules["say"].acall(question=question)).answer)

    forward = None


@pytest.fixture
def plain(speaking, monkeypatch):
    def make(**fields):
        speaker, lm = speaking(plan="none", **fields)
        monkeypatch.setattr(Plain, "lm", lm)
        return speaker

    return make


def of_stream(*given, **named):
    stream = Plain.stream(*given, **named)
    return list(stream), stream.output


def of_astream(*given, **named):
    async def here():
        return await taken(Plain.astream(*given, **named))

    return asyncio.run(here())


def of_coroutine(*given, **named):
    async def here():
        return await taken(Awaited.astream(*given, **named))

    return asyncio.run(here())


def of_coroutine_from_outside(*given, **named):
    stream = Awaited.stream(*given, **named)
    return list(stream), stream.output


WAYS = [of_stream, of_astream, of_coroutine, of_coroutine_from_outside]


@pytest.mark.parametrize("way", WAYS)
def test_a_module_that_speaks_is_heard_where_forward_does_not_yield(plain, way):
    speaker = plain(answer=said_at)
    with Session() as session:
        (Plain if way in WAYS[:2] else Awaited).bind(session)
        session.set("temperature", 0.5)
        pieces, output = way("?", session=session)
        assert ("".join(pieces), output) == ("said at 0.5", "said at 0.5")
        assert len(pieces) > 5
        session.set("aloud", False)
        assert way("?", session=session, pin=True) == (["said at 0.5"], "said at 0.5")
    assert len(speaker.engine.requests) == 4


@pytest.mark.parametrize("way", WAYS)
def test_what_a_module_did_not_say_comes_last(plain, way):
    plain(answer="two words")
    pieces, output = way("?", lambda text: {"words": len(text.split())})
    assert ("".join(pieces[:-1]), pieces[-1]) == ("two words", {"words": 2})
    assert output == {"words": 2}
    pieces, output = way("?", str.upper)
    assert ("".join(pieces[:-1]), pieces[-1]) == ("two words", "TWO WORDS")


def test_a_module_that_speaks_asks_as_ever_where_nobody_listens(plain):
    speaker = plain(answer="quiet")
    assert Plain.run("?") == "quiet"
    assert asyncio.run(Awaited.arun("?")) == "quiet"
    assert speaker.said == 0


def test_who_leaves_a_forward_that_does_not_yield_ends_the_answer(plain, eventually):
    speaker = plain(answer=LONG)
    stream = Plain.stream("?")
    next(stream)
    stream.close()
    assert speaker.ended.wait(30)

    async def leave():
        async with Awaited.astream("?") as stream:
            await anext(stream)
        assert speaker.ended.is_set()

    speaker.ended.clear()
    asyncio.run(leave())
    assert speaker.said < 2 * len(LONG)
    eventually(lambda: not [one for one in threading.enumerate() if one.name == "dspex"], "no thread stays")


def test_after_such_a_forward_was_left_nothing_is_asked(speaking, eventually):
    going, go_on = threading.Event(), threading.Event()
    speaker, lm = speaking(answer="a", plan="p")

    class Twice(Program):
        def init(self):
            self.say = Predict("question -> answer", lm=lm, stream=True)
            self.plan = Predict("question -> plan", lm=lm)

        def forward(self):
            self.say(question="?")
            going.set()
            assert go_on.wait(30)
            self.plan(question="?")

    stream = Twice.stream()
    assert next(stream) == "a"
    assert going.wait(30)
    stream.close()
    go_on.set()
    eventually(lambda: not [one for one in threading.enumerate() if one.name == "dspex"], "it has ended")
    assert len(speaker.engine.requests) == 1


def test_nobody_runs_far_ahead_of_who_listens_to_forward(plain, eventually):
    speaker = plain(answer="x" * 1000)
    stream = Plain.stream("?")
    next(stream)
    eventually(lambda: speaker.said > ROOM, "there is room")
    threading.Event().wait(0.1)  # for what should not happen
    assert speaker.said < 3 * ROOM + len("[[ ## answer ## ]]\n")
    assert len(list(stream)) == 999


@pytest.mark.parametrize("way", WAYS)
def test_an_error_of_such_a_forward_comes_as_it_is(plain, way):
    plain(answer="abc")

    def fail(text):
        raise LookupError(text)

    with pytest.raises(LookupError, match="abc") as raised:
        way("?", fail)
    assert "on session" in raised.value.__notes__[0]


def test_a_program_inside_another_is_heard(plain):
    plain(answer="inner")

    class Outer(Program):
        inner = defprogram(Plain)

        def forward(self):
            return self.inner("?")

    pieces = list(Outer.stream())
    assert ("".join(pieces), len(pieces)) == ("inner", 5)


def test_whether_a_module_speaks_is_true_or_false():
    with pytest.raises(InvalidValue, match="stream must be True or False"):
        Predict("question -> answer", stream="yes")
