"""The text of a prediction as the language model writes it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import dspy
import pytest
from dspy import lm15
from dspy.utils.exceptions import AdapterParseError, LMServerError

from dspex import (
    DeadlineExceeded,
    Float,
    InvalidCall,
    InvalidValue,
    ModuleChoice,
    Program,
    Session,
    defprogram,
    defvariable,
    telemetry,
)
from dspex.modules import BestOfN, ChainOfThought, FunctionModule, Module, Predict, ReAct, wrap
from dspex.modules.base import BoundModule, _unbound
from dspex.pieces import ROOM, Pieces

LONG = "word " * 200
STORY = 'Once, [[in "Oslo"]], a café:\n\n{a} <b> & ]] 😀\\n [ was < open.'
FORMATS = {
    "chat": "[[ ## reasoning ## ]]\nno [[ ## answer\n\n[[ ## answer ## ]]\n{}\n\n[[ ## completed ## ]]\n",
    "json": '{{"reasoning": "the \\"answer\\": \\"is\\"", "answer": {}}}',
    "xml": "<reasoning>\nnone\n</reasoning>\n<answer>\n{}\n</answer>\n",
}
ESCAPED = {
    "chat": str,
    "json": json.dumps,
    "xml": lambda text: text.replace("&", "&amp;").replace("<", "&lt;"),
}


class Speaking:
    """Has the engine of a recorder speak: *size* characters at a time, and only what it is *allowed*."""

    def __init__(self, engine, size=1, allowed=None):
        self.engine, self.size, self.allowed = engine, size, allowed
        self.said, self.ended, self.error = 0, threading.Event(), None
        engine.stream, engine.waiting.stream = self.stream, self.astream

    def stream(self, request):
        text = self.engine.complete(request).text
        try:
            yield lm15.StreamStartEvent(model=request.model)
            for start in range(0, len(text), self.size):
                if self.allowed is not None:
                    assert self.allowed.acquire(timeout=30)
                if self.error is not None and start:
                    raise self.error
                self.said += 1
                yield lm15.StreamDeltaEvent(lm15.TextDelta(text[start : start + self.size]))
            yield lm15.StreamEndEvent(finish_reason="stop", usage=lm15.Usage())
        finally:
            self.ended.set()

    async def astream(self, request):
        events = self.stream(request)
        try:
            for event in events:
                await asyncio.sleep(0)
                yield event
        finally:
            events.close()


@pytest.fixture
def speaking(recorder):
    def make(size=1, allowed=None, **fields):
        engine, lm = recorder(**fields)
        return Speaking(engine, size, allowed), lm

    return make


def bound(module):
    return BoundModule(module, _unbound)


async def taken(stream):
    return [piece async for piece in stream], stream.output


@pytest.fixture(params=["sync", "async"])
def streamed(request):
    """The pieces of a module, and its prediction."""

    def sync(module, **inputs):
        stream = bound(module).stream(**inputs)
        return list(stream), stream.output

    def awaited(module, **inputs):
        async def here():
            return await taken(bound(module).astream(**inputs))

        return asyncio.run(here())

    return {"sync": sync, "async": awaited}[request.param]


# ---- what comes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000])
@pytest.mark.parametrize("adapter", FORMATS)
def test_the_pieces_are_the_text_of_the_last_output(speaking, streamed, adapter, size):
    speaker, lm = speaking(size)
    speaker.engine.text = FORMATS[adapter].format(ESCAPED[adapter](STORY))
    pieces, prediction = streamed(
        ChainOfThought("question -> answer", adapter=adapter, lm=lm), question="Where?"
    )
    assert "".join(pieces) == prediction.answer == STORY
    assert all(isinstance(piece, str) and piece for piece in pieces)
    assert len(pieces) > 10 or size > 3


def test_a_piece_comes_before_the_answer_has_ended(speaking):
    allowed = threading.Semaphore(0)
    speaker, lm = speaking(size=1, allowed=allowed, answer="abc")
    stream = bound(Predict("question -> answer", lm=lm)).stream(question="?")
    allowed.release(len("[[ ## answer ## ]]\na"))
    assert next(stream) == "a"
    with pytest.raises(InvalidCall, match="no output"):
        _ = stream.output
    assert not speaker.ended.is_set()
    allowed.release(100)
    assert list(stream) == ["b", "c"]
    assert stream.output.answer == "abc"


def test_the_prediction_is_what_yield_from_gives(speaking):
    _, lm = speaking(answer="abc")

    def forward():
        prediction = yield from bound(Predict("question -> answer", lm=lm)).stream(question="?")
        return prediction.answer

    stream = Pieces(forward())
    assert "".join(stream) == stream.output == "abc"


@pytest.mark.parametrize(("kind", "text"), [("int", "7"), ("list[str]", '["a", "b"]')])
def test_an_output_that_is_no_text_is_one_piece(speaking, streamed, kind, text):
    speaker, lm = speaking()
    speaker.engine.text = f"[[ ## answer ## ]]\n{text}"
    pieces, prediction = streamed(Predict(f"question -> answer: {kind}", lm=lm), question="?")
    assert pieces == [str(prediction.answer)]


def test_an_lm_that_does_not_stream_gives_one_piece(recorder, streamed):
    engine, lm = recorder(answer="forty two")
    assert streamed(Predict("question -> answer", lm=lm), question="?")[0] == ["forty two"]
    assert len(engine.requests) == 1


def test_an_answer_from_the_cache_is_one_piece(speaking, streamed):
    speaker, lm = speaking(answer=f"cached {streamed.__name__}")
    module = Predict("question -> answer", lm=lm.copy(cache=True))
    first, second = (streamed(module, question=f"?{streamed.__name__}") for _ in range(2))
    assert len(first[0]) > 1
    assert (second[0], len(speaker.engine.requests)) == (["".join(first[0])], 1)


def test_what_is_chosen_among_several_is_one_piece(speaking, streamed):
    speaker, lm = speaking(answer=["a", "bbb", "cc"])
    best = BestOfN("question -> answer", 3, lambda _, said: len(said.answer), threshold=9, lm=lm)
    pieces, prediction = streamed(best, question="?")
    assert pieces == [prediction.answer] == ["bbb"]
    assert len(speaker.engine.requests) == 3


def test_a_format_that_nobody_knows_is_one_piece(speaking, streamed):
    class Loud(dspy.ChatAdapter):
        def parse(self, signature, completion):
            return {name: text.upper() for name, text in super().parse(signature, completion).items()}

    _, lm = speaking(answer="quiet")
    module = Predict("question -> answer", lm=lm, adapter=Loud())
    assert streamed(module, question="?")[0] == ["QUIET"]


def test_of_several_completions_the_first_is_given(speaking, streamed):
    _, lm = speaking(answer=["one", "two"])
    pieces, prediction = streamed(Predict("question -> answer", lm=lm, n=2), question="?")
    assert ("".join(pieces), prediction.completions.answer) == ("one", ["one", "two"])


def test_an_agent_says_its_answer_and_nothing_of_the_way_to_it(speaking, streamed):
    thoughts = {"next_thought": ["I look.", "I know."], "next_tool_name": ["look", "finish"]}
    speaker, lm = speaking(next_tool_args="{}", reasoning="Because.", answer="It is blue.", **thoughts)

    def look() -> str:
        """Look."""
        return "blue"

    pieces, prediction = streamed(ReAct("question -> answer", tools=[look], lm=lm), question="?")
    assert "".join(pieces) == prediction.answer == "It is blue."
    assert (len(pieces) > 5, len(speaker.engine.requests)) == (True, 3)


class Pipeline(dspy.Module):
    def __init__(self):
        super().__init__()
        self.plan = dspy.Predict("question -> plan")
        self.answer = dspy.Predict("question, plan -> answer")

    def forward(self, question):
        return self.answer(question=question, plan=self.plan(question=question).plan)

    async def aforward(self, question):
        plan = await self.plan.acall(question=question)
        return await self.answer.acall(question=question, plan=plan.plan)


def test_a_wrapped_module_says_what_its_last_predictor_does(speaking, streamed):
    _, lm = speaking(plan="think", answer="thought")
    pieces, prediction = streamed(wrap(Pipeline(), lm=lm), question="?")
    assert "".join(pieces) == prediction.answer == "thought"
    assert len(pieces) > 5


def test_a_predictor_in_a_thread_of_the_module_is_not_heard(speaking):
    class Apart(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question):
            asking = contextvars.copy_context()
            with ThreadPoolExecutor(1) as apart:
                return apart.submit(asking.run, lambda: self.ask(question=question)).result()

    _, lm = speaking(answer="apart")
    assert list(bound(wrap(Apart(), lm=lm)).stream(question="?")) == ["apart"]


def test_a_function_that_yields_gives_its_pieces(streamed):
    def spell(word):
        yield from word
        return word.upper()

    assert streamed(FunctionModule(spell), word="abc") == (["a", "b", "c"], "ABC")


def test_a_module_that_knows_no_pieces_is_one(streamed):
    async def double(number):
        return 2 * number

    class Own(Module):
        def call(self, inputs, settings):
            return 3 * inputs["number"]

    assert streamed(FunctionModule(double), number=2) == ([4], 4)
    assert streamed(Own(), number=2) == ([6], 6)


# ---- settings ------------------------------------------------------------------------------------------


class Told(Program):
    temperature = defvariable(Float(), initial=0.25)
    how = defvariable(ModuleChoice("ask"), initial="ask")
    lm = None

    def init(self):
        self.modules["ask"] = Predict("question -> answer", temperature=Told.temperature, lm=Told.lm)

    def forward(self, question):
        prediction = yield from self.how.stream(question=question)
        return prediction.answer


def said_at(request):
    return f"said at {request.config.temperature}"


def test_the_settings_are_those_of_the_call(speaking, monkeypatch):
    speaker, lm = speaking(answer=said_at)
    monkeypatch.setattr(Told, "lm", lm)
    with Session() as session:
        agent = Told.bind(session)
        stream = agent.how.stream(question="?")
        session.set("temperature", 0.5)
        assert "".join(stream) == "said at 0.25"
        pinned = Told.stream("?", session=session, pin=True)
        session.set("temperature", 0.75)
        assert "".join(pinned) == pinned.output == "said at 0.5"
        assert "".join(agent.stream("?")) == "said at 0.75"
        assert Told.run("?", session=session) == "said at 0.75"
        assert Told.record("?", session=session).output == "said at 0.75"
        assert asyncio.run(Told.arun("?", session=session, timeout=30)) == "said at 0.75"
        assert asyncio.run(taken_of_program(session)) == ("said at 0.75", "said at 0.75")
    assert speaker.engine.configs("temperature") == [0.25, 0.5] + [0.75] * 5
    assert dspy.settings.send_stream is None


async def taken_of_program(session):
    pieces, output = await taken(Told.astream("?", session=session))
    assert len(pieces) > 5
    return "".join(pieces), output


def test_a_call_that_cannot_be_is_refused_before_a_piece_is_asked_for(speaking):
    speaker, lm = speaking()
    ask = bound(Predict("question -> answer", lm=lm))
    for refused in (lambda: ask.stream("?"), lambda: ask.stream(qestion="?"), ask.stream):
        with pytest.raises(InvalidCall):
            refused()
    assert speaker.engine.requests == []


THREADS = 6


@pytest.mark.usefixtures("switching")
def test_streams_at_once_each_have_their_own_settings_and_text(speaking, together, monkeypatch):
    _, lm = speaking(answer=said_at)
    monkeypatch.setattr(Told, "lm", lm)

    def sync(number):
        with Session() as session:
            Told.bind(session)
            session.set("temperature", number / 32)
            return ["".join(Told.stream("?", session=session)) for _ in range(3)]

    def tasks(number):
        async def one(mine):
            with Session() as session:
                agent = Told.bind(session)
                session.set("temperature", mine / 32)
                return ["".join((await taken(agent.how.astream(question="?")))[0]) for _ in range(3)]

        async def all_of_them():
            return await asyncio.gather(*(one(number + mine) for mine in range(3)))

        return asyncio.run(all_of_them())

    results = together(
        *(lambda n=n: sync(n) for n in range(THREADS)),
        *(lambda n=n: tasks(n) for n in range(10, 10 + 3 * THREADS, 3)),
    )
    expected = [[f"said at {n / 32}"] * 3 for n in range(THREADS)]
    assert results[:THREADS] == expected
    assert [one for tasks in results[THREADS:] for one in tasks] == [
        [f"said at {n / 32}"] * 3 for n in range(10, 10 + 3 * THREADS)
    ]


def test_two_streams_may_be_read_in_turns(speaking):
    _, lm = speaking(answer=lambda request: request.messages[-1].text.split("]]")[1].split()[0] * 3)
    ask = bound(Predict("question -> answer", lm=lm))
    pairs = list(zip(ask.stream(question="ab"), ask.stream(question="cd"), strict=True))
    assert ["".join(one) for one in zip(*pairs, strict=True)] == ["ababab", "cdcdcd"]


# ---- a forward that does not yield ---------------------------------------------------------------------


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


# ---- the end -------------------------------------------------------------------------------------------


def leave_close(stream):
    stream.close()


def leave_with(stream):
    with stream:
        pass


@pytest.mark.parametrize("leave", [leave_close, leave_with])
def test_who_leaves_ends_the_answer(speaking, eventually, leave):
    speaker, lm = speaking(answer=LONG)
    stream = bound(Predict("question -> answer", lm=lm)).stream(question="?")
    next(stream)
    leave(stream)
    assert speaker.ended.wait(30)
    assert speaker.said < len(LONG)
    assert list(stream) == []
    with pytest.raises(InvalidCall):
        _ = stream.output
    eventually(lambda: not [one for one in threading.enumerate() if "AnyIO" in one.name], "no thread stays")


def test_a_stream_that_is_dropped_ends_the_answer(speaking):
    speaker, lm = speaking(answer=LONG)
    stream = bound(Predict("question -> answer", lm=lm)).stream(question="?")
    next(stream)
    del stream
    gc.collect()
    assert speaker.ended.wait(30)
    assert speaker.said < len(LONG)


def test_a_task_that_leaves_or_is_cancelled_ends_the_answer(speaking):
    speaker, lm = speaking(answer=LONG)
    ask = bound(Predict("question -> answer", lm=lm))

    async def leave():
        async with ask.astream(question="?") as stream:
            await anext(stream)
        assert speaker.ended.is_set()

    async def cancel():
        begun = asyncio.Event()

        async def read():
            async for _ in ask.astream(question="?"):
                begun.set()

        task = asyncio.ensure_future(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert speaker.ended.is_set()

    for how in (leave, cancel):
        speaker.ended.clear()
        before = speaker.said
        asyncio.run(how())
        assert speaker.said - before < len(LONG)


def test_who_leaves_a_program_ends_the_answer(speaking, monkeypatch):
    speaker, lm = speaking(answer=LONG)
    monkeypatch.setattr(Told, "lm", lm)
    stream = Told.stream("?")
    next(stream)
    stream.close()
    assert speaker.ended.wait(30)

    async def leave():
        stream = Told.astream("?")
        await anext(stream)
        await stream.aclose()

    speaker.ended.clear()
    asyncio.run(leave())
    assert speaker.ended.wait(30)
    assert speaker.said < 2 * len(LONG)


def test_who_leaves_while_no_piece_comes_ends_the_answer_with_the_next(speaking, monkeypatch, eventually):
    allowed, asked = threading.Semaphore(0), threading.Event()
    speaker, lm = speaking(answer=lambda _: asked.set() or LONG, allowed=allowed)
    monkeypatch.setattr(Told, "lm", lm)

    async def leave():
        task = asyncio.ensure_future(taken(Told.astream("?")))
        assert await asyncio.to_thread(asked.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        allowed.release(10_000)

    asyncio.run(leave())
    assert speaker.ended.wait(30)
    assert speaker.said < len(LONG)


def test_after_the_answer_was_left_nothing_is_asked(speaking, eventually):
    asking, go_on = threading.Event(), threading.Event()

    class Looped(dspy.Module):
        def __init__(self):
            super().__init__()
            self.plan = dspy.Predict("question -> plan")
            self.answer = dspy.Predict("question -> answer")

        def forward(self, question):
            said = self.answer(question=question)
            asking.set()
            assert go_on.wait(30)
            self.plan(question=question)
            return said

    speaker, lm = speaking(answer="abc", plan="none")
    stream = bound(wrap(Looped(), lm=lm)).stream(question="?")
    next(stream)
    assert asking.wait(30)
    stream.close()
    go_on.set()
    eventually(lambda: not [one for one in threading.enumerate() if "AnyIO" in one.name], "it has ended")
    assert len(speaker.engine.requests) == 1


def test_nobody_runs_far_ahead_of_who_takes_the_pieces(speaking, eventually):
    speaker, lm = speaking(answer="x" * 1000)
    stream = bound(Predict("question -> answer", lm=lm)).stream(question="?")
    assert next(stream) == "x"
    head = len("[[ ## answer ## ]]\n")
    eventually(lambda: speaker.said >= head + ROOM, "there is room")
    threading.Event().wait(0.1)  # for what should not happen
    assert speaker.said <= head + ROOM + 2
    assert len(list(stream)) == 999

    async def slow():
        before = speaker.said
        async with bound(Predict("question -> answer", lm=lm)).astream(question="?") as stream:
            await anext(stream)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert speaker.said - before <= head + ROOM + 2
            assert len([piece async for piece in stream]) == 999

    asyncio.run(slow())


# ---- errors --------------------------------------------------------------------------------------------


def test_an_error_comes_as_it_is_after_the_pieces(speaking, streamed):
    speaker, lm = speaking(answer="abcdef")
    speaker.error = lm15.ServerError("the model fell over")
    speaker.size = len("[[ ## answer ## ]]\nabc")
    stream = bound(Predict("question -> answer", lm=lm)).stream(question="?")
    assert next(stream) == "abc"
    with pytest.raises(LMServerError, match="the model fell over"):
        next(stream)
    with pytest.raises(InvalidCall):
        _ = stream.output
    with pytest.raises(LMServerError, match="the model fell over"):
        streamed(Predict("question -> answer", lm=lm), question="?")
    assert len(speaker.engine.requests) == 2


def test_an_answer_that_cannot_be_read_is_not_asked_again(speaking, streamed):
    speaker, lm = speaking()
    speaker.engine.text = "[[ ## answer ## ]]\nonly this"
    with pytest.raises(AdapterParseError):
        streamed(ChainOfThought("question -> answer", lm=lm), question="?")
    assert len(speaker.engine.requests) == 1


def test_where_nobody_takes_the_pieces_the_model_is_asked_as_in_a_call(speaking, monkeypatch):
    speaker, lm = speaking()
    speaker.engine.text = '{"answer": "in JSON"}'  # which the chat format cannot read, and DSPy asks again
    monkeypatch.setattr(Told, "lm", lm)
    assert Told.run("?") == "in JSON"
    assert (speaker.said, len(speaker.engine.requests)) == (0, 2)

    class Outer(Program):
        def forward(self):
            yield from Told.stream("?")
            return "never"

    with pytest.raises(AdapterParseError):  # there it takes them itself
        Outer.run()
    assert speaker.said > 0


def test_what_the_module_raises_comes_as_it_is(speaking, streamed):
    class Failing(dspy.Module):
        def forward(self, question):
            raise LookupError("not there")

        async def aforward(self, question):
            raise LookupError("not there")

    with pytest.raises(LookupError, match="not there"):
        streamed(wrap(Failing()), question="?")


def test_nobody_waits_for_a_piece_after_the_deadline(speaking):
    allowed = threading.Semaphore(0)
    speaker, lm = speaking(answer="abc", allowed=allowed)

    class Late(Program):
        def init(self):
            self.ask = Predict("question -> answer", lm=lm)

        def forward(self):
            yield from self.ask.stream(question="?")

    with pytest.raises(DeadlineExceeded, match="next piece of a stream"):
        list(Late.stream(timeout=0.05))
    allowed.release(1000)
    assert speaker.ended.wait(30)


# ---- where it is told ----------------------------------------------------------------------------------


def test_a_streamed_step_is_told_with_its_request(speaking, streamed):
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable(provider)
    try:
        _, lm = speaking(answer="abc")
        streamed(Predict("question -> answer", lm=lm, temperature=0.5), question="?")
    finally:
        telemetry.disable()
        provider.shutdown()
    chat, step = exporter.get_finished_spans()
    assert (chat.name, step.name) == ("chat test/recorder", "step Predict")
    assert chat.parent.span_id == step.context.span_id
    assert step.attributes["dspex.setting.temperature"] == 0.5


def test_a_stream_within_streamify_keeps_its_pieces_to_itself(speaking):
    _, lm = speaking(answer="inner")

    class Outer(dspy.Module):
        def forward(self, question):
            stream = bound(Predict("question -> answer", lm=lm)).stream(question=question)
            return dspy.Prediction(answer="".join(stream))

    said = list(dspy.streamify(Outer(), async_streaming=False)(question="?"))
    assert [one.answer for one in said] == ["inner"]


def test_an_lm_without_engines_is_left_to_dspy():
    from dspex.modules.dspy_streams import _streams

    assert _streams(SimpleNamespace(), "_engine_spec")
    assert _streams(SimpleNamespace(_engine_spec="auto"), "_engine_spec")
