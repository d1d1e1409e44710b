"""What only some modules take: limits, tools, modules inside; and what all of them refuse."""

from __future__ import annotations

import pytest

from dspex import Float, Integer, InvalidDeclaration, InvalidValue, Program, Session, defvariable
from dspex.modules import (
    BestOfN,
    ChainOfThought,
    FunctionModule,
    MultiChainComparison,
    Predict,
    ReAct,
    Refine,
    wrap,
)

ADAPTER = "adapter must be a dspy.Adapter or one of 'chat', 'json', 'terse', 'xml'"


class Limits(Program):
    count = defvariable(Integer(), initial=2)
    enough = defvariable(Float(), initial=1.0)
    temperature = defvariable(Float(), initial=0.5)
    made = None

    def init(self):
        self.modules["step"] = Limits.made

    def forward(self, **inputs):
        return self.modules["step"](**inputs)


@pytest.fixture
def calls(monkeypatch):
    """Call a module in a session with these values."""

    def call(module, inputs=None, **values):
        monkeypatch.setattr(Limits, "made", module)
        with Session() as session:
            Limits.bind(session)
            session.update(values)
            return Limits.run(session=session, **(inputs or {"question": "q"}))

    return call


def nothing() -> str:
    """Does nothing."""
    return ""


def never(inputs, prediction):
    return 0.0


def test_the_iterations_of_an_agent_are_a_variable(recorder, calls):
    engine, lm = recorder(next_tool_name="nothing", next_tool_args="{}")
    module = ReAct("question -> answer", tools=[nothing], max_iters=Limits.count, lm=lm)
    calls(module)
    assert len(engine.requests) == 3
    calls(module, count=4)
    assert len(engine.requests) == 3 + 5


@pytest.mark.parametrize("repeating", [BestOfN, Refine])
def test_the_attempts_and_the_threshold_are_variables(repeating, recorder, calls):
    engine, lm = recorder(advice="{}")

    def half(inputs, prediction):
        return 0.5

    module = repeating("question -> answer", N=Limits.count, reward_fn=half, threshold=Limits.enough, lm=lm)
    calls(module, count=3)
    assert len([one for one in engine.requests if "assign blame" not in one.system]) == 3
    engine.requests.clear()
    calls(module, count=3, enough=0.5)
    assert len(engine.requests) == 1


def test_the_completions_to_compare_are_a_variable(recorder, calls):
    engine, lm = recorder()
    module = MultiChainComparison("question -> answer", M=Limits.count, lm=lm)
    chains = [{"reasoning": "r", "answer": str(n)} for n in range(4)]
    calls(module, {"question": "q", "completions": chains[:2]})
    calls(module, {"question": "q", "completions": chains}, count=4)
    assert [request.messages[-1].text.count("my prediction is") for request in engine.requests] == [2, 4]


def test_a_module_inside_keeps_its_settings_and_the_outer_ones_go_first(recorder, calls):
    import dspy

    engine, lm = recorder()
    inner = ChainOfThought("question -> answer", temperature=Limits.temperature, max_tokens=10, lm=lm)
    between = BestOfN(inner, N=1, reward_fn=never, threshold=1.0, top_p=0.25)
    module = BestOfN(between, N=2, reward_fn=never, threshold=1.0, max_tokens=20)
    calls(module, temperature=0.125)
    seen = [(one.config.temperature, one.config.max_tokens, one.config.top_p) for one in engine.requests]
    assert seen == [(0.125, 20, 0.25)] * 2
    assert repr(module)[:76] == "BestOfN(BestOfN(ChainOfThought('question -> answer', temperature=Limits.temp"

    theirs = dspy.Predict("question -> answer", temperature=0.75)
    assert (
        repr(wrap(theirs, temperature=Limits.temperature))
        == "wrap(<Predict>, temperature=Limits.temperature)"
    )
    assert repr(Predict(dspy.Signature("a -> b"), seed=1)) == "Predict(StringSignature, seed=1)"
    calls(BestOfN(theirs, N=1, reward_fn=never, threshold=1.0, lm=lm))
    assert engine.last.config.temperature == 0.75


def test_a_module_inside_may_be_any_that_dspy_runs(recorder, calls):
    engine, lm = recorder()
    compare = MultiChainComparison("question -> answer", M=Limits.count)
    module = BestOfN(compare, N=2, reward_fn=never, threshold=1.0, lm=lm)
    chains = [{"reasoning": "r", "answer": str(n)} for n in range(3)]
    calls(module, {"question": "q", "completions": chains}, count=3)
    assert [request.messages[-1].text.count("my prediction is") for request in engine.requests] == [3, 3]

    with Session() as session:
        bound = Limits.bind(session)
        bound.modules["inner"] = Predict("question -> answer", temperature=Limits.temperature)
        best = BestOfN(bound.modules["inner"], N=1, reward_fn=never, threshold=1.0, lm=lm)
    calls(best, temperature=0.375)
    assert engine.last.config.temperature == 0.375


def test_an_lm_of_the_outer_module_takes_the_place_of_a_model_inside(recorder, calls):
    engine, lm = recorder()
    inner = Predict("question -> answer", model="maker/never-asked")
    calls(BestOfN(inner, N=1, reward_fn=never, threshold=1.0, lm=lm))
    assert len(engine.requests) == 1


@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_when_all_attempts_raise_so_does_the_call(attempts, recorder, calls, capsys):
    engine, lm = recorder()

    def broken(inputs, prediction):
        raise ArithmeticError("no reward")

    module = BestOfN("question -> answer", N=attempts, reward_fn=broken, threshold=1.0, lm=lm)
    with pytest.raises(ArithmeticError, match="no reward"):
        calls(module)
    assert attempts == len(engine.requests)


def test_one_good_attempt_of_two_is_enough(recorder, calls, capsys):
    rewards = [lambda: 0.5, lambda: 1 / 0]

    def reward(inputs, prediction):
        return rewards.pop(0)()

    _, lm = recorder()
    prediction = calls(BestOfN("question -> answer", N=2, reward_fn=reward, threshold=1.0, lm=lm))
    assert prediction.answer == "some answer"


def test_a_wrapped_module_that_is_only_async_can_be_called(recorder):
    import asyncio

    import dspy

    class Later(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        async def aforward(self, question):
            return await self.ask.acall(question=question)

    engine, lm = recorder()
    module = wrap(Later(), lm=lm, temperature=0.3)
    assert module(question="q").answer == "some answer"

    async def within():
        return module(question="q")

    assert asyncio.run(within()).answer == "some answer"
    assert engine.configs("temperature") == [0.3, 0.3]


def test_a_wrapped_module_is_asked_as_it_is_now(recorder, called, instructions):
    import dspy

    engine, lm = recorder()
    theirs = dspy.ChainOfThought("question -> answer")
    module = wrap(theirs, instructions="Rhyme.", lm=lm)
    called(module, question="q")
    theirs.predict = dspy.Predict("question -> verse, answer")
    called(module, question="q")
    assert [instructions(one) for one in engine.requests] == ["Rhyme.", "Rhyme."]
    assert "verse" in engine.last.system


# ---- refusals ------------------------------------------------------------------------------------


def test_an_unknown_setting_is_refused_when_the_module_is_made():
    with pytest.raises(InvalidDeclaration) as refused:
        Predict("question -> answer", temprature=0.5)
    assert str(refused.value) == "Predict takes no setting 'temprature'. Did you mean 'temperature'?"
    with pytest.raises(InvalidDeclaration) as refused:
        ReAct("question -> answer", tools=[], max_iter=5)
    assert str(refused.value) == "ReAct takes no setting 'max_iter'. Did you mean 'max_iters'?"


@pytest.mark.parametrize("name", ["api_base", "base_url", "model_list", "api_key", "extra_headers"])
def test_where_the_model_is_cannot_be_a_setting(name):
    for value in ("http://127.0.0.1", Limits.temperature):
        with pytest.raises(InvalidDeclaration) as refused:
            Predict("question -> answer", **{name: value})
        assert (
            f"Predict takes no setting '{name}': where a model is and how it is reached belongs to the LM. "
            f"Give it one that knows: lm=dspy.LM(…, {name}=…)."
        ) == str(refused.value)


def test_an_lm_cannot_be_a_variable_nor_stand_beside_a_model(recorder):
    with pytest.raises(InvalidDeclaration) as refused:
        Predict("question -> answer", lm=Limits.temperature)
    assert str(refused.value) == (
        "lm cannot be a variable (got Limits.temperature): an LM is no value of any kind. A variable can "
        "name one: model=Limits.temperature."
    )
    _, lm = recorder()
    with pytest.raises(InvalidDeclaration, match="Predict takes lm or model, not both"):
        Predict("question -> answer", lm=lm, model="maker/small")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"lm": "maker/small"}, "lm must be a dspy.LM (got 'maker/small')."),
        ({"instructions": 5}, "instructions must be a text (got 5)."),
        ({"demos": "q"}, "demos must be a list of mappings (got 'q')."),
        ({"demos": [1]}, "demos must be a list of mappings (got [1])."),
        ({"adapter": "yaml"}, f"{ADAPTER} (got 'yaml')."),
        ({"adapter": 1}, f"{ADAPTER} (got 1)."),
    ],
)
def test_a_value_that_a_setting_does_not_take_is_refused_at_once(setting, sentence):
    with pytest.raises(InvalidValue) as refused:
        Predict("question -> answer", **setting)
    assert sentence == str(refused.value)


def test_limits_are_checked(recorder, calls):
    _, lm = recorder()
    with pytest.raises(
        InvalidValue, match=r"^max_iters must be a whole number of at least 1 \(got True\)\.$"
    ):
        ReAct("question -> answer", tools=[], max_iters=True)
    module = ReAct("question -> answer", tools=[], max_iters=Limits.count, lm=lm)
    with pytest.raises(InvalidValue, match=r"^max_iters must be a whole number of at least 1 \(got 0\)\."):
        calls(module, count=0)
    with pytest.raises(InvalidValue, match=r"^threshold must be a number \(got None\)\.$"):
        BestOfN("question -> answer", N=1, reward_fn=never, threshold=None)


def test_a_module_must_be_one_that_dspy_runs_to_be_repeated_or_wrapped():
    import dspy

    with pytest.raises(InvalidDeclaration, match="only what DSPy runs can be repeated"):
        BestOfN(FunctionModule(nothing), N=1, reward_fn=never, threshold=1.0)
    for given in (nothing, dspy.Predict, Predict("question -> answer")):
        with pytest.raises(InvalidDeclaration, match=r"^wrap\(\) takes a dspy.Module \(got "):
            wrap(given)
    with pytest.raises(InvalidDeclaration, match=r"^Limits.temperature cannot stand there"):
        Predict(Limits.temperature)
