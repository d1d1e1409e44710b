"""Text of the local model, as it writes it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dspex import Program
from dspex.modules import ChainOfThought, Predict

ANSWER = {"question": "Tell me a story about the sea."}


class Teller(Program):
    module = None

    def init(self):
        self.tell = Teller.module

    def forward(self, question):
        prediction = yield from self.tell.stream(question=question)
        return prediction.answer


@pytest.fixture
def teller(monkeypatch):
    """A bound program with that module."""

    def bind(module):
        monkeypatch.setattr(Teller, "module", module)
        return Teller()

    return bind


@pytest.mark.parametrize("kind", [Predict, ChainOfThought])
def test_what_is_streamed_is_what_a_call_says(lm, teller, kind):
    agent = teller(kind("question -> answer", lm=lm, max_tokens=60))
    said = agent.tell(**ANSWER)

    async def awaited():
        stream = agent.tell.astream(**ANSWER)
        return [piece async for piece in stream], stream.output

    sync = agent.tell.stream(**ANSWER)
    for pieces, prediction in ((list(sync), sync.output), asyncio.run(awaited())):
        assert "".join(pieces) == prediction.answer == said.answer
        assert len(pieces) > 1
        assert prediction.toDict() == said.toDict()


def test_who_leaves_stops_the_model(lm, teller, eventually):
    agent = teller(Predict("question -> answer", lm=lm, max_tokens=2000))
    stream = agent.stream(**ANSWER)
    next(stream)
    stream.close()
    eventually(
        lambda: not [one for one in threading.enumerate() if one.name == "dspex-lm-stream"], "it ended"
    )

    async def leave():
        async with agent.tell.astream(**ANSWER) as pieces:
            await anext(pieces)

    asyncio.run(leave())
    assert agent.tell(question="1+1")  # the model is free


def test_two_streams_of_one_model_may_be_read_in_turns(lm, teller):
    tell = teller(Predict("question -> answer", lm=lm, max_tokens=20)).tell
    first, second = tell.stream(question="Who are you?"), tell.stream(question="Where is Rome?")
    got = next(first), next(second)
    pieces = "".join([got[0], *first]), "".join([got[1], *second])
    assert pieces == (tell(question="Who are you?").answer, tell(question="Where is Rome?").answer)
