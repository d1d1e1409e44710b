"""Which language model a module asks."""

from __future__ import annotations

import asyncio

import pytest

import dspex.lm
from dspex import InvalidValue, NoLanguageModel, Program, Session, Text, defvariable
from dspex.modules import BestOfN, ChainOfThought, Predict, wrap


def never(inputs, prediction):
    return 0.0


@pytest.fixture
def no_default(monkeypatch):
    """Let there be no LM that nobody named."""
    monkeypatch.setattr(dspex.lm, "default", _refuse)


def _refuse():
    raise NoLanguageModel("No language model: there are three ways.")


@pytest.fixture
def named(recorder, monkeypatch):
    """`dspy.LM(name)` makes a recorder of that name."""
    import dspy

    from dspex.modules import dspy_bridge

    made = {}
    real = dspy.LM

    def make(name):
        with monkeypatch.context() as back:
            back.setattr(dspy, "LM", real)
            made[name] = recorder(name)
        return made[name][1]

    monkeypatch.setattr(dspy, "LM", make)
    dspy_bridge._named.cache_clear()
    yield made
    dspy_bridge._named.cache_clear()


def test_an_lm_of_the_settings_goes_first(recorder, called):
    import dspy

    mine, lm = recorder("mine")
    other, configured = recorder("configured")
    with dspy.context(lm=configured):
        called(Predict("question -> answer", lm=lm), question="q")
    assert (len(mine.requests), len(other.requests)) == (1, 0)


def test_the_lm_that_the_user_configured_goes_before_the_default(recorder, called, no_default):
    import dspy

    engine, lm = recorder()
    module = Predict("question -> answer", temperature=0.5)
    with dspy.context(lm=lm):
        assert called(module, question="q").answer == "some answer"
    assert engine.configs("temperature") == [0.5]


def test_the_default_is_used_when_nobody_named_one(recorder, called, monkeypatch):
    import dspy

    engine, lm = recorder()
    asked = []

    def default():
        asked.append(dspy.settings.lm)
        return lm

    monkeypatch.setattr(dspex.lm, "default", default)
    called(BestOfN("question -> answer", N=1, reward_fn=never, threshold=1.0), question="q")
    assert (asked, len(engine.requests)) == ([None], 1)


def test_without_any_lm_it_says_so(called, no_default):
    with pytest.raises(NoLanguageModel, match="there are three ways"):
        called(ChainOfThought("question -> answer"), question="q")


def test_a_module_without_predictors_needs_no_lm(called, no_default):
    import dspy

    class Echo(dspy.Module):
        def forward(self, question):
            return dspy.Prediction(answer=question)

        async def aforward(self, question):
            return dspy.Prediction(answer=question)

    assert called(wrap(Echo()), question="q").answer == "q"


def test_a_wrapped_predictor_keeps_its_lm_unless_the_settings_name_one(recorder, called, no_default):
    import dspy

    theirs, lm = recorder("theirs")
    other, setting = recorder("setting")
    predict = dspy.Predict("question -> answer")
    predict.lm = lm
    called(wrap(predict, temperature=0.5), question="q")
    assert (len(theirs.requests), len(other.requests)) == (1, 0)
    called(wrap(predict, lm=setting), question="q")
    assert (len(theirs.requests), len(other.requests)) == (1, 1)
    with dspy.context(lm=setting):
        called(wrap(predict), question="q")
    assert (len(theirs.requests), len(other.requests)) == (2, 1)


def test_attempts_differ_also_with_an_lm_of_the_settings(recorder, called):
    import dspy

    rollouts = []

    class Watched(dspy.LM):
        def __call__(self, *arguments, **named):
            rollouts.append((self.kwargs.get("rollout_id"), self.kwargs.get("temperature")))
            return super().__call__(*arguments, **named)

    _, old = recorder("theirs")
    engine, _ = recorder()
    lm = Watched("test/watched", engine=engine, async_engine=engine.waiting, cache=False)
    predict = dspy.Predict("question -> answer")
    predict.lm = old
    module = BestOfN(predict, N=2, reward_fn=never, threshold=1.0, lm=lm)
    called(module, question="q")
    assert rollouts == [(0, 1.0), (1, 1.0)]
    assert engine.configs("temperature") == [1.0, 1.0]


def test_the_adapter_that_the_user_configured_stays_also_for_a_module_in_a_tool(recorder, called):
    import dspy

    from dspex.modules import ReAct

    engine, lm = recorder()
    plain = Predict("question -> answer", temperature=0.5)

    def search() -> str:
        engine.text = "<answer>found</answer>"
        found = plain(question="x").answer
        engine.text = "<reasoning>r</reasoning><answer>yes</answer>"
        return found

    next_step = {"next_thought": "t", "next_tool_name": "search", "next_tool_args": "{}"}
    engine.text = "".join(f"<{name}>{value}</{name}>" for name, value in next_step.items())
    with dspy.context(lm=lm, adapter=dspy.XMLAdapter()):
        module = ReAct("question -> answer", tools=[search], max_iters=1, temperature=0.25)
        prediction = called(module, question="q")
    assert (prediction.answer, prediction.trajectory["observation_0"]) == ("yes", "found")
    assert engine.configs("temperature") == [0.25, 0.5, 0.25]


class Choosing(Program):
    model = defvariable(Text(), initial="maker/small")

    def init(self):
        self.ask = Predict("question -> answer", model=Choosing.model)

    def forward(self, question):
        return self.ask(question=question).answer

    async def aforward(self, question):
        return (await self.ask.acall(question=question)).answer


def test_a_variable_names_the_model(named):
    with Session() as session:
        Choosing.run("q", session=session)
        session.set("model", "maker/large")
        Choosing.run("q", session=session)
        asyncio.run(Choosing.arun("q", session=session))
    # One LM per name, so that what it keeps is kept.
    assert {name: len(engine.requests) for name, (engine, _) in named.items()} == {
        "maker/small": 1,
        "maker/large": 2,
    }
    assert named["maker/large"][0].last.model == "test/maker/large"


@pytest.mark.parametrize("name", ["huggingface/https://example.org/v1", "a b\n", "", " "])
def test_a_variable_cannot_say_where_the_model_is(name, named):
    with Session() as session:
        Choosing.bind(session)
        session.set("model", name)
        with pytest.raises(InvalidValue) as refused:
            Choosing.run("q", session=session)
    expected = "model must be the name of a model, such as 'openai/gpt-4o-mini' or 'local'"
    assert str(refused.value).startswith(expected)
    assert named == {}


def test_the_real_local_model_is_asked_with_the_adapter_that_it_needs(called):
    pytest.importorskip("xllamacpp")
    try:
        lm = dspex.lm.local()
    except NoLanguageModel as error:
        pytest.skip(str(error))
    demos = [{"question": "1+2", "answer": 3}, {"question": "4+5", "answer": 9}]
    prediction = called(Predict("question -> answer: int", demos=demos, max_tokens=4, lm=lm), question="2+2")
    assert type(prediction.answer) is int
    request = lm.history[-1]["request"]
    assert (request.config.max_tokens, request.config.temperature) == (4, 0.0)
    prompt = "Question: 1+2\nAnswer: 3\n\nQuestion: 4+5\nAnswer: 9\n\nQuestion: 2+2\nAnswer:"
    assert request.messages[0].text == prompt


@pytest.fixture
def local(recorder, monkeypatch):
    """A recorder instead of the local model."""
    from dspex.modules import dspy_bridge

    engine, lm = recorder("small")
    monkeypatch.setattr(dspex.lm, "local", lambda: lm)
    lm.model = "local/small"
    dspy_bridge._named.cache_clear()
    yield engine
    dspy_bridge._named.cache_clear()


@pytest.mark.parametrize("name", ["local", "local/small"])
def test_the_local_model_has_a_name(name, local, called):
    called(Predict("question -> answer", model=name), question="q")
    assert local.last.model == "local/small"


def test_another_local_model_than_there_is_is_refused(local):
    with pytest.raises(NoLanguageModel) as refused:
        Predict("question -> answer", model="local/other")(question="q")
    assert str(refused.value) == "There is no model 'local/other'; the local one is 'local/small'."


def test_a_nested_call_uses_the_default_not_the_lm_of_the_outer_one(recorder, monkeypatch):
    import dspy

    from dspex.modules import ReAct

    outer, lm = recorder(next_tool_name=["search", "finish"], next_tool_args=["{}", "{}"])
    inner, default = recorder(answer="found")
    # As the real one, it goes by what DSPy has.
    monkeypatch.setattr(dspex.lm, "default", lambda: dspy.settings.lm or default)
    plain = Predict("question -> answer")

    def search() -> str:
        return plain(question="x").answer

    prediction = ReAct("question -> answer", tools=[search], lm=lm)(question="q")
    assert prediction.trajectory["observation_0"] == "found"
    assert (len(outer.requests), len(inner.requests)) == (3, 1)
