"""The text of a prediction as the language model writes it."""

from __future__ import annotations

import asyncio
import contextvars
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest
from streaming_tools import Told, bound, said_at, taken

from dspex import (
    InvalidCall,
    Session,
)
from dspex.modules import BestOfN, ChainOfThought, FunctionModule, Module, Predict, ReAct, wrap
from dspex.pieces import Pieces

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


def test_a_second_completion_is_not_taken_for_more_of_the_first(speaking, streamed):
    speaker, lm = speaking()
    speaker.engine.supports_raw_completion, speaker.engine.text = True, " no end of line"
    pieces, prediction = streamed(Predict("question -> answer", lm=lm, adapter="terse", n=2), question="?")
    assert "".join(pieces) == prediction.answer == "no end of line"


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
