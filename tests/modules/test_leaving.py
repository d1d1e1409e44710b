"""How streams of modules end: left, failed, too late; and how far ahead they run."""

from __future__ import annotations

import asyncio
import gc
import threading
from types import SimpleNamespace

import dspy
import pytest
from dspy import lm15
from dspy.utils.exceptions import AdapterParseError, LMServerError
from streaming_tools import LONG, Told, bound, taken

from dspex import (
    DeadlineExceeded,
    InvalidCall,
    Program,
    telemetry,
)
from dspex.modules import ChainOfThought, Predict, wrap
from dspex.pieces import ROOM


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


@pytest.mark.parametrize("kind", ["str", "int"])
def test_a_stream_within_streamify_keeps_its_pieces_to_itself(speaking, kind):
    _, lm = speaking(answer="17")

    class Outer(dspy.Module):
        def forward(self, question):
            stream = bound(Predict(f"question -> answer: {kind}", lm=lm)).stream(question=question)
            return dspy.Prediction(answer="".join(stream))

    said = list(dspy.streamify(Outer(), async_streaming=False)(question="?"))
    assert [one.answer for one in said] == ["17"]


def test_an_lm_without_engines_is_left_to_dspy():
    from dspex.modules.dspy_streams import _streams

    assert _streams(SimpleNamespace(), "_engine_spec")
    assert _streams(SimpleNamespace(_engine_spec="auto"), "_engine_spec")
