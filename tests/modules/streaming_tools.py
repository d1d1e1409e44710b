"""What the tests of streams share."""

from __future__ import annotations

import asyncio
import threading

from dspy import lm15

from dspex import Float, ModuleChoice, Program, defvariable
from dspex.modules import Predict
from dspex.modules.base import BoundModule, _unbound

LONG = "word " * 200


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


def bound(module):
    return BoundModule(module, _unbound)


async def taken(stream):
    return [piece async for piece in stream], stream.output


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
