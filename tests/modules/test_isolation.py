"""Calls at the same time see only their own settings, and no call leaves anything behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dspex import Demos, Float, Integer, Program, Session, Text, defvariable
from dspex.modules import BestOfN, ChainOfThought, Predict, ReAct, Refine, wrap

THREADS = 8
TASKS = 4


class Waiting:
    """An async engine that answers when all tasks of a loop have asked."""

    def __init__(self, sync):
        self.sync = sync
        self.barriers = {}

    async def complete(self, request):
        loop = asyncio.get_running_loop()
        await self.barriers.setdefault(loop, asyncio.Barrier(TASKS)).wait()
        return self.sync.complete(request)


class Own(Program):
    """Says what the model was asked with."""

    temperature = defvariable(Float(), initial=0.0)
    length = defvariable(Integer(), initial=1)
    task = defvariable(Text(), initial="")
    examples = defvariable(Demos(), initial=[])
    module = None

    def init(self):
        self.ask = Own.module

    def forward(self, question):
        return self.ask(question=question).answer

    async def aforward(self, question):
        return (await self.ask.acall(question=question)).answer


def settings(lm):
    """One set of settings, all of them variables."""
    return {
        "temperature": Own.temperature,
        "max_tokens": Own.length,
        "instructions": Own.task,
        "demos": Own.examples,
        "lm": lm,
    }


@pytest.fixture
def echo(instructions, demos):
    """What a request was made with, in one line."""

    def of(request):
        shown = demos(request)[0][0].splitlines()[-1]
        return f"{request.config.temperature} {request.config.max_tokens} {instructions(request)} {shown}"

    return of


def values(number):
    return {
        "temperature": number / 100,
        "length": number,
        "task": f"task{number}",
        "examples": [{"question": f"demo{number}", "answer": "a"}],
    }


def expected(number):
    return f"{number / 100} {number} task{number} demo{number}"


@pytest.mark.usefixtures("switching")
def test_threads_and_tasks_at_once_each_ask_with_their_own_settings(recorder, echo, together, monkeypatch):
    gate = threading.Barrier(THREADS)

    def answer(request):
        if request.config.max_tokens < 100:  # a thread's; those of tasks wait in their loops
            gate.wait(30)
        return echo(request)

    _, lm = recorder(async_engine=Waiting, answer=answer)
    monkeypatch.setattr(Own, "module", Predict("question -> answer", **settings(lm)))

    def sync(number):
        with Session() as session:
            Own.bind(session)
            session.update(values(number))
            return [Own.run("q", session=session) for _ in range(5)]

    def loop(number):
        async def one(mine):
            with Session() as session:
                Own.bind(session)
                session.update(values(mine))
                return [await Own.arun("q", session=session) for _ in range(5)]

        async def all_of_them():
            return await asyncio.gather(*(one(number + index) for index in range(TASKS)))

        return asyncio.run(all_of_them())

    calls = [lambda n=n: sync(n) for n in range(1, THREADS + 1)]
    calls += [lambda n=n: loop(n) for n in range(100, 100 + 10 * THREADS, 10)]
    results = together(*calls)
    assert [[expected(n)] * 5 for n in range(1, THREADS + 1)] == results[:THREADS]
    assert [
        [[expected(n + index)] * 5 for index in range(TASKS)] for n in range(100, 100 + 10 * THREADS, 10)
    ] == results[THREADS:]


@pytest.mark.usefixtures("switching")
def test_threads_at_once_each_have_their_own_limits(recorder, together, monkeypatch):
    counts = threading.local()

    def answer(request):
        counts.requests += 1
        return "a"

    def reward(inputs, prediction):
        return 0.25

    _, lm = recorder(answer=answer)
    module = BestOfN(
        "question -> answer", N=Own.length, reward_fn=reward, threshold=Own.temperature, fail_count=4, lm=lm
    )
    monkeypatch.setattr(Own, "module", module)

    def ask(number):
        with Session() as session:
            Own.bind(session)
            session.update({"length": number, "temperature": 0.5 if number % 2 else 0.125})
            seen = []
            for _ in range(5):
                counts.requests = 0
                Own.run("q", session=session)
                seen.append(counts.requests)
            return seen

    results = together(*(lambda n=n: ask(n) for n in range(1, THREADS + 1)))
    assert results == [[number if number % 2 else 1] * 5 for number in range(1, THREADS + 1)]


def test_a_call_leaves_a_wrapped_module_and_its_lm_as_they_were(recorder, called):
    import dspy

    engine, lm = recorder(answer="a")
    theirs = dspy.ChainOfThought("question -> answer", temperature=0.9)
    theirs.predict.demos = [dspy.Example(question="theirs", answer="a")]
    theirs.set_lm(lm)

    def state():
        predict = theirs.predict
        return predict.signature, list(predict.demos), dict(predict.config), predict.lm, dict(lm.kwargs)

    before = state()
    _, other = recorder(answer="b")
    module = wrap(theirs, temperature=0.1, instructions="Rhyme.", demos=[], lm=other)
    assert called(module, question="q").answer == "b"
    assert before == state()
    assert theirs(question="q").answer == "a"
    assert engine.configs("temperature") == [0.9]
    assert (dspy.settings.lm, dspy.settings.adapter) == (None, None)


def test_failures_of_one_call_do_not_count_in_the_next(recorder, called, capsys):
    engine, lm = recorder()

    def reward(inputs, prediction):
        raise ValueError("no reward")

    module = BestOfN("question -> answer", N=4, reward_fn=reward, threshold=1.0, lm=lm)
    for calls in (4, 8, 12):
        with pytest.raises(ValueError, match="no reward"):
            called(module, question="q")
        assert calls == len(engine.requests)


def test_a_module_that_a_tool_calls_has_its_own_settings(recorder, called, instructions):
    outer, outer_lm = recorder(
        "outer", next_tool_name=["search", "finish"], next_tool_args=['{"word": "x"}', "{}"]
    )
    inner, inner_lm = recorder("inner", answer="found")
    import dspy

    bare = dspy.Predict("question -> answer")
    plain = Predict("question -> answer")
    own = Predict("question -> answer", temperature=0.2)

    def search(word: str) -> str:
        return "".join(step(question=word).answer for step in (plain, own))

    def bare_search(word: str) -> str:
        return bare(question=word).answer

    module = ReAct("question -> answer", tools=[search], lm=outer_lm, temperature=0.9, instructions="Rhyme.")
    with dspy.context(lm=inner_lm):
        prediction = called(module, question="q")
    assert prediction.trajectory["observation_0"] == "foundfound"
    assert outer.configs("temperature") == [0.9] * 3
    assert inner.configs("temperature") == [None, 0.2]
    assert [one for one in inner.requests if "Rhyme" in one.system] == []

    # What is made during the call has the settings of the LM as defaults, not the prompt's.
    outer.fields.update(next_tool_name=["bare_search", "finish"], next_tool_args=['{"word": "x"}', "{}"])
    module = ReAct(
        "question -> answer", tools=[bare_search], lm=outer_lm, temperature=0.9, instructions="Rhyme."
    )
    called(module, question="q")
    request = outer.requests[4]
    assert (
        request.config.temperature,
        instructions(request),
    ) == (0.9, "Given the fields `question`, produce the fields `answer`.")


def test_advice_of_refine_does_not_reach_a_module_that_a_tool_calls(recorder, called):
    import dspy

    outer, outer_lm = recorder(
        next_tool_name=["search", "finish"] * 2, next_tool_args=["{}"] * 4, advice='{"react": "be good"}'
    )
    inner, inner_lm = recorder()
    plain = Predict("question -> answer")

    def search() -> str:
        return plain(question="x").answer

    def never(inputs, prediction):
        return 0.0

    agent = ReAct("question -> answer", tools=[search], temperature=0.9)
    with dspy.context(lm=inner_lm):
        called(Refine(agent, N=2, reward_fn=never, threshold=1.0, lm=outer_lm), question="q")
    assert len([one for one in outer.requests if "hint_" in one.system]) == 3
    assert [("hint_" in one.system, one.config.temperature) for one in inner.requests] == [(False, None)] * 2


def test_only_the_lm_keeps_a_history(recorder, called):
    _, lm = recorder()
    module = ChainOfThought("question -> answer", lm=lm)
    called(module, question="q")
    made = module._made.module
    assert (len(lm.history), len(made.history), len(made.predict.history)) == (1, 0, 0)


def test_a_predictor_made_during_the_call_keeps_what_it_says_itself(recorder, called):
    import dspy

    class Fresh(dspy.Module):
        def forward(self, question):
            return dspy.Predict("question -> answer", max_tokens=5)(question=question)

        async def aforward(self, question):
            return await dspy.Predict("question -> answer", max_tokens=5).acall(question=question)

    engine, lm = recorder()
    called(wrap(Fresh(), max_tokens=9, temperature=0.4, lm=lm), question="q")
    assert (engine.last.config.max_tokens, engine.last.config.temperature) == (5, 0.4)


def test_predictors_reached_by_another_way_have_the_settings_too(recorder, called, instructions):
    import dspy

    class Hidden(dspy.Module):
        """Calls its predictor through a closure and keeps something for the next call."""

        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")
            self.how = lambda question: self.ask(question=question)
            self.calls = 0

        def forward(self, question):
            self.calls += 1
            return self.how(question=question)

    theirs = Hidden()
    engine, lm = recorder()
    module = wrap(theirs, temperature=0.4, instructions="Rhyme.", lm=lm)
    called(module, question="q")
    called(module, question="q")
    assert engine.configs("temperature") == [0.4, 0.4]
    assert instructions(engine.last) == "Rhyme."
    assert theirs.calls == 2


def test_callbacks_of_the_adapter_run_once(recorder, called):
    import dspy
    from dspy.utils.callback import BaseCallback

    class Counting(BaseCallback):
        formats = 0

        def on_adapter_format_start(self, call_id, instance, inputs):
            self.formats += 1

    counting = Counting()
    _, lm = recorder()
    called(
        Predict("question -> answer", lm=lm, temperature=0.5, adapter=dspy.ChatAdapter(callbacks=[counting])),
        question="q",
    )
    assert counting.formats == 1


def test_what_a_tool_or_the_lm_raises_reaches_the_caller(recorder, called):
    class Broken(Exception):
        pass

    def fail(request):
        raise Broken("no answer")

    _, lm = recorder(answer=fail)
    import dspy

    with pytest.raises(dspy.LMUnexpectedError, match="no answer") as raised:
        called(ChainOfThought("question -> answer", lm=lm, temperature=0.5), question="q")
    assert Broken is type(raised.value.__cause__)

    class Raising(dspy.Module):
        def forward(self, question):
            raise Broken(question)

        async def aforward(self, question):
            raise Broken(question)

    with pytest.raises(Broken, match="why") as own:
        called(wrap(Raising(), lm=lm), question="why")
    assert getattr(own.value, "__notes__", []) == []


def test_refine_gives_its_advice_to_the_next_attempt(recorder, called, demos):
    engine, lm = recorder(answer=["bad", "good"], advice='{"self": "be good"}')

    def reward(inputs, prediction):
        return float(prediction.answer == "good")

    module = Refine("question -> answer", N=3, reward_fn=reward, threshold=1.0, lm=lm, instructions="Rhyme.")
    assert called(module, question="q").answer == "good"
    assert len(engine.requests) == 3
    assert "be good" in engine.last.messages[-1].text
    assert "Rhyme." in engine.last.system
