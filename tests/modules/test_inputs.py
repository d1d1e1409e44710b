"""Inputs and settings that a module does not take are refused, with the near name."""

from __future__ import annotations

import asyncio
import functools

import pytest

from dspex import Float, InvalidCall, InvalidDeclaration, InvalidValue, Program, Session, Text, defvariable
from dspex.modules import (
    BestOfN,
    ChainOfThought,
    FunctionModule,
    Module,
    MultiChainComparison,
    Predict,
    ProgramOfThought,
    ReAct,
    Refine,
    execute,
    wrap,
)
from dspex.modules.base import session_modules


def shout(text, loudness=1, *, mark="!"):
    return text + mark * loudness


async def shout_later(text, loudness=1):
    return text + "?" * loudness


def reward(inputs, prediction):
    return 1.0


def pipeline():
    import dspy

    class Pipeline(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, question, hint=""):
            return self.ask(question=f"{question} {hint}")

        async def aforward(self, question, hint=""):
            return await self.ask.acall(question=f"{question} {hint}")

    return Pipeline()


def program_of_thought(signature, **settings):
    with pytest.warns(DeprecationWarning, match="ProgramOfThought is deprecated"):
        return ProgramOfThought(signature, interpreter_factory=object, **settings)


def repeated(cls):
    return lambda signature, **settings: cls(signature, N=1, reward_fn=reward, threshold=1.0, **settings)


SIGNED = {
    "Predict": Predict,
    "ChainOfThought": ChainOfThought,
    "ReAct": lambda signature, **settings: ReAct(signature, tools=[], **settings),
    "ProgramOfThought": program_of_thought,
    "BestOfN": repeated(BestOfN),
    "Refine": repeated(Refine),
}
"""How the modules are made that take what their signature says."""


@pytest.mark.parametrize("kind", SIGNED)
def test_an_input_that_the_signature_does_not_have_is_refused(kind, recorder, called):
    engine, lm = recorder()
    module = SIGNED[kind]("question, context -> answer", lm=lm)
    with pytest.raises(InvalidCall) as refused:
        called(module, questoin="q", context="c")
    assert str(refused.value) == (
        f"{kind} takes no input 'questoin'. Did you mean 'question'? It takes 'question', 'context'."
    )
    facts = refused.value
    assert (kind, "questoin", ["question", "context"]) == (facts.module, facts.name, facts.known)
    assert isinstance(refused.value, TypeError)
    assert engine.requests == []


@pytest.mark.parametrize("kind", SIGNED)
def test_an_input_that_is_missing_is_told(kind, recorder, called):
    engine, lm = recorder()
    module = SIGNED[kind]("question, context -> answer", lm=lm)
    with pytest.raises(InvalidCall) as refused:
        called(module, question="q")
    assert f"{kind} needs the input 'context' (got 'question')." == str(refused.value)
    with pytest.raises(InvalidCall, match=r"needs the input 'question' \(got none\)\.$"):
        called(module)
    assert engine.requests == []


def test_what_is_compared_is_an_input_too(recorder, called):
    _, lm = recorder()
    module = MultiChainComparison("question -> answer", M=1, lm=lm)
    with pytest.raises(InvalidCall, match=r"needs the input 'completions' \(got 'question'\)"):
        called(module, question="q")
    with pytest.raises(InvalidCall, match=r"no input 'completion'. Did you mean 'completions'\?"):
        called(module, question="q", completion=[])
    assert called(module, question="q", completions=[{"reasoning": "r", "answer": "a"}]).answer


def test_inputs_that_may_be_left_out_may_be_left_out(recorder, called):
    import dspy

    class Asking(dspy.Signature):
        question: str = dspy.InputField()
        hint: str | None = dspy.InputField()
        style: str = dspy.InputField(default="short")
        answer: str = dspy.OutputField()

    engine, lm = recorder()
    assert called(Predict(Asking, lm=lm), question="q").answer == "some answer"
    assert "short" in engine.last.messages[-1].text


def test_what_dspy_lets_a_call_say_can_be_said(recorder, called):
    engine, lm = recorder(next_tool_name="finish", next_tool_args="{}")
    assert called(Predict("question -> answer", lm=lm), question="q", config={"temperature": 0.5}).answer
    assert engine.configs("temperature") == [0.5]
    assert called(Predict("question -> answer", lm=lm), signature="city -> answer", city="Oslo").answer
    assert called(ReAct("question -> answer", tools=[], lm=lm), question="q", max_iters=1).answer


def test_a_module_inside_says_what_the_one_around_it_takes(recorder, called):
    _, lm = recorder()
    inner = repeated(BestOfN)(ChainOfThought("city -> answer", lm=lm))
    module = repeated(Refine)(inner)
    with pytest.raises(InvalidCall, match=r"^Refine takes no input 'question'\. It takes 'city'\.$"):
        called(module, question="q")


def test_a_wrapped_module_takes_what_its_forward_takes(recorder, called):
    import dspy

    _, lm = recorder()
    module = wrap(pipeline(), lm=lm)
    assert called(module, question="q", hint="h").answer == "some answer"
    with pytest.raises(InvalidCall) as refused:
        called(module, questoin="q")
    assert str(refused.value) == (
        "wrap(Pipeline) takes no input 'questoin'. Did you mean 'question'? It takes 'question', 'hint'."
    )
    with pytest.raises(InvalidCall, match=r"^wrap\(Pipeline\) needs the input 'question' \(got 'hint'\)\.$"):
        called(module, hint="h")
    for theirs in (dspy.Predict, dspy.ChainOfThought):
        with pytest.raises(InvalidCall, match="Did you mean 'question'"):
            called(wrap(theirs("question -> answer"), lm=lm), questoin="q")


def test_a_wrapped_module_that_takes_anything_is_given_anything(recorder, called):
    import dspy

    class Anything(dspy.Module):
        def __init__(self):
            super().__init__()
            self.ask = dspy.Predict("question -> answer")

        def forward(self, **inputs):
            return self.ask(question=str(inputs))

        async def aforward(self, **inputs):
            return await self.ask.acall(question=str(inputs))

    engine, lm = recorder()
    called(wrap(Anything(), lm=lm), whatever=1)
    assert "{'whatever': 1}" in engine.last.messages[-1].text


# ---- functions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [shout, shout_later])
def test_an_input_that_a_function_does_not_take_is_refused(function, called):
    module = FunctionModule(function, loudness=2)
    name = function.__name__
    with pytest.raises(InvalidCall) as refused:
        called(module, txt="a")
    assert str(refused.value).startswith(
        f"FunctionModule({name}) takes no input 'txt'. Did you mean 'text'? It takes 'text'"
    )
    with pytest.raises(InvalidCall, match=rf"^FunctionModule\({name}\) needs the input 'text' \(got none\)"):
        called(module)
    with pytest.raises(InvalidCall, match="takes no input 'loudness'"):
        called(module, text="a", loudness=3)


def test_a_function_behind_a_decorator_is_told_by_its_own_names(called):
    @functools.wraps(shout)
    def decorated(*arguments, **named):
        return shout(*arguments, **named)

    with pytest.raises(InvalidCall, match=r"^FunctionModule\(shout\) takes no input 'txt'"):
        called(FunctionModule(decorated), txt="a")


def test_a_type_error_of_the_function_itself_is_its_own(called):
    def broken(text):
        return text + 1

    def broken_inside(text):
        return shout(texxt=text)

    for function in (broken, broken_inside):
        with pytest.raises(TypeError) as raised:
            called(FunctionModule(function), text="a")
        assert not isinstance(raised.value, InvalidCall)


def test_a_function_written_in_c_is_called_as_it_is(called):
    with pytest.raises(TypeError) as raised:
        called(FunctionModule(max), text="a")
    assert not isinstance(raised.value, InvalidCall)
    assert called(FunctionModule(dict), text="a") == {"text": "a"}


def test_a_setting_that_a_function_does_not_take_is_refused_when_the_module_is_made():
    with pytest.raises(InvalidDeclaration) as refused:
        FunctionModule(shout, loudnes=3)
    assert str(refused.value) == "FunctionModule(shout) takes no setting 'loudnes'. Did you mean 'loudness'?"
    assert (refused.value.name, refused.value.known) == ("loudnes", ["text", "loudness", "mark"])
    FunctionModule(shout, mark="?")
    FunctionModule(lambda **inputs: inputs, anything=3)
    FunctionModule(functools.partial(shout, loudness=3), mark="?")
    FunctionModule(max, key=len)


# ---- inputs without a name ---------------------------------------------------------------------------


class Own(Module):
    def call(self, inputs, settings):
        return inputs


class Asking(Program):
    step = defvariable("module", initial="late", constraints={"choices": ["late"]})


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (
            lambda: Predict("question, context -> answer"),
            "in step(question=…, context=…) (got 'What is OTP?').",
        ),
        (lambda: FunctionModule(shout, mark="?"), "in step(text=…, loudness=…) (got 'What is OTP?')."),
        (Own, "Own() takes inputs by name, as in step(name=…) (got 'What is OTP?')."),
        (lambda: wrap(pipeline()), "as in step(question=…, hint=…) (got 'What is OTP?')."),
    ],
)
def test_an_input_without_a_name_is_refused(module, sentence):
    with Session() as session:
        session_modules(session)["late"] = module()
        bound = session_modules(session)["late"]
        ways = (
            lambda: bound("What is OTP?"),
            lambda: bound("What is OTP?", context="c"),
            lambda: module()("What is OTP?"),
            lambda: asyncio.run(bound.acall("What is OTP?")),
            lambda: Asking.bind(session).step("What is OTP?"),
        )
        for call in ways:
            with pytest.raises(InvalidCall) as refused:
                call()
            assert str(refused.value).endswith(sentence)


def test_a_module_that_is_registered_later_is_called_like_any_other():
    with Session() as session:
        step = Asking.bind(session).step
        session_modules(session)["late"] = shout
        assert step(text="a") == "a!" == asyncio.run(step.acall(text="a"))
        with pytest.raises(InvalidCall, match=r"takes inputs by name"):
            step("a")


# ---- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"temperature": "hot"}, "temperature must be a number (got 'hot')."),
        ({"temperature": True}, "temperature must be a number (got True)."),
        ({"top_p": [1]}, "top_p must be a number (got [1])."),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1 (got 0)."),
        ({"max_tokens": 1.5}, "max_tokens must be a whole number of at least 1 (got 1.5)."),
        ({"n": "2"}, "n must be a whole number of at least 1 (got '2')."),
        ({"seed": "x"}, "seed must be a whole number (got 'x')."),
        ({"rollout_id": 0.5}, "rollout_id must be a whole number (got 0.5)."),
        ({"cache": 1}, "cache must be True or False (got 1)."),
        ({"logprobs": "all"}, "logprobs must be a whole number, True or False (got 'all')."),
        ({"stop": ["a", 1]}, "stop must be a text or a list of texts (got ['a', 1])."),
        ({"user": 5}, "user must be a text (got 5)."),
        ({"logit_bias": "x"}, "logit_bias must be a mapping (got 'x')."),
    ],
)
def test_a_setting_of_the_wrong_type_is_refused_when_the_module_is_made(setting, sentence):
    with pytest.raises(InvalidValue) as refused:
        Predict("question -> answer", **setting)
    assert (sentence, next(iter(setting))) == (str(refused.value), refused.value.name)


def test_a_setting_of_the_wrong_type_that_a_variable_gives_is_refused_by_the_call(recorder, called):
    class Daring(Program):
        temperature = defvariable(Text(), initial="hot")
        top_p = defvariable(Float(), initial=0.5)

    engine, lm = recorder()
    with Session() as session:
        program = Daring.bind(session)
        program.step = Predict("question -> answer", temperature=Daring.temperature, lm=lm)
        with pytest.raises(InvalidValue, match=r"^temperature must be a number \(got 'hot'\)\.$"):
            called(program.step, question="q")
    assert engine.requests == []


def test_an_unknown_setting_of_a_wrapped_module_names_its_class():
    with pytest.raises(InvalidDeclaration) as refused:
        wrap(pipeline(), temperture=1)
    assert "wrap(Pipeline) takes no setting 'temperture'. Did you mean 'temperature'?" == str(refused.value)


# ---- classes and names -------------------------------------------------------------------------------


def test_a_class_in_place_of_a_module_is_told_to_make_one(recorder):
    import dspy

    ways = (
        lambda: wrap(dspy.Predict),
        lambda: repeated(BestOfN)(dspy.Predict),
        lambda: session_modules(session).update(step=dspy.Predict),
        lambda: Asking.bind(session).modules.update(step=dspy.Predict),
    )
    with Session() as session:
        for way in ways:
            with pytest.raises(InvalidDeclaration) as refused:
                way()
            assert str(refused.value).endswith(" It is a class: make one, Predict(…).")


def test_modules_show_what_they_are():
    with Session("shown", store="memory://shown") as session:
        program = Asking.bind(session)
        assert repr(program.modules) == "<Modules of Asking: {}>"
        program.modules["ask"] = Predict("question -> answer", temperature=0.5)
        session_modules(session)["late"] = shout
        shown = "<Modules of session 'shown': {'late': FunctionModule(shout)}>"
        assert shown == repr(session_modules(session))
        assert repr(program.modules) == (
            "<Modules of Asking: {'ask': Predict('question -> answer', temperature=0.5), "
            "'late': FunctionModule(shout)}>"
        )


def test_executing_an_unknown_module_says_how_to_register_one():
    with Session("shown", store="memory://shown") as session:
        Asking.bind(session).modules["Predict"] = shout
        with pytest.raises(LookupError) as refused:
            execute("Predict", {"text": "a"}, session=session)
    assert str(refused.value) == (
        "session 'shown' has no module 'Predict'; none is registered. Register it: Predict.create(…, "
        "store_as='Predict', session=session). What a program has in self.modules is only its own."
    )
