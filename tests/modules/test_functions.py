"""Plain functions and own classes as modules, and the names under which modules are found."""

from __future__ import annotations

import asyncio

import pytest

from dspex import (
    Float,
    InvalidDeclaration,
    ModuleChoice,
    Program,
    Session,
    UnknownModule,
    UnknownVariable,
    defvariable,
)
from dspex.modules import FunctionModule, Module, execute


class Shouting(Program):
    loudness = defvariable(Float(min=0.0), initial=2.0)
    how = defvariable(ModuleChoice("plain", "later", "own"), initial="plain")

    def init(self):
        self.modules["plain"] = shout
        self.modules["later"] = FunctionModule(shout_later, loudness=Shouting.loudness)
        self.modules["own"] = Own(loudness=Shouting.loudness)

    def forward(self, text):
        return self.how(text=text)

    async def aforward(self, text):
        return await self.how.acall(text=text)


def shout(text, loudness=1.0):
    return f"{text}{'!' * int(loudness)}"


async def shout_later(text, loudness):
    await asyncio.sleep(0)
    return f"{text}{'?' * int(loudness)}"


class Own(Module):
    def call(self, inputs, settings):
        return f"{inputs['text']}{'.' * int(settings['loudness'])}"


def awaited(text, session):
    return asyncio.run(Shouting.arun(text, session=session))


@pytest.fixture(params=["sync", "async"])
def say(request):
    how = {"sync": lambda text, session: Shouting.run(text, session=session), "async": awaited}
    return how[request.param]


def test_functions_and_classes_are_called_with_inputs_and_settings(say):
    with Session() as session:
        assert say("a", session) == "a!"
        session.set("how", "later")
        assert say("a", session) == "a??"
        session.update({"how": "own", "loudness": 3.0})
        assert say("a", session) == "a..."


def test_modules_of_a_session_are_executed_by_name():
    with Session() as session:
        Shouting.bind(session)
        FunctionModule.create(shout, store_as="shout", session=session, loudness=Shouting.loudness)
        assert execute("shout", {"text": "a"}, session=session) == "a!!"
        session.set("loudness", 4.0)
        assert execute("shout", {"text": "a"}, session=session) == "a!!!!"
        assert Shouting.bind(session).modules["shout"](text="a") == "a!!!!"


def test_a_fork_calls_the_modules_of_its_session_with_its_own_values():
    with Session() as session:
        Shouting.bind(session)
        FunctionModule.create(shout, store_as="shout", session=session, loudness=Shouting.loudness)
        with session.fork({"loudness": 3.0}) as fork, fork.fork() as inner:
            assert execute("shout", {"text": "a"}, session=fork) == "a!!!"
            assert Shouting.bind(inner).modules["shout"](text="a") == "a!!!"
            FunctionModule.create(lambda text: text, store_as="shout", session=fork)
            assert execute("shout", {"text": "a"}, session=inner) == "a"
        assert execute("shout", {"text": "a"}, session=session) == "a!!"


def test_an_unknown_module_is_told_with_the_near_name():
    with Session("demo") as session:
        FunctionModule.create(shout, store_as="shout", session=session)
        with pytest.raises(UnknownModule) as refused:
            execute("shoot", {"text": "a"}, session=session)
    expected = "session 'demo' has no module 'shoot'; registered are 'shout'. Did you mean 'shout'?"
    assert str(refused.value).startswith(expected)


def test_the_modules_of_a_session_are_a_mapping():
    from dspex.modules.base import session_modules

    with Session() as session:
        modules = session_modules(session)
        modules["shout"] = shout
        assert (list(modules), len(modules), "shout" in modules) == (["shout"], 1, True)
        assert modules["shout"] == modules["shout"]
        assert len({modules["shout"], modules["shout"]}) == 1
        assert repr(modules["shout"]) == "<bound FunctionModule(shout)>"
        assert modules.get("other") is None
        del modules["shout"]
        with pytest.raises(UnknownModule, match="none is registered"):
            del modules["shout"]


def test_what_a_function_raises_reaches_the_caller():
    def fail(text):
        raise LookupError(text)

    with pytest.raises(LookupError, match="why"):
        FunctionModule(fail)(text="why")


def test_a_variable_has_no_value_in_a_module_that_is_bound_nowhere():
    with pytest.raises(UnknownVariable, match=r"^Shouting\.loudness has no value here"):
        Own(loudness=Shouting.loudness)(text="a")


def test_what_cannot_be_called_is_no_module():
    with Session() as session, pytest.raises(InvalidDeclaration, match="must be a Module, a DSPy module or"):
        Shouting.bind(session).modules["bad"] = 5


def test_a_dspy_module_is_wrapped_when_it_is_registered():
    import dspy

    with Session() as session:
        program = Shouting.bind(session)
        program.modules["dspy"] = dspy.Predict("question -> answer")
        assert "Predict" in repr(program.modules["dspy"].module)
        assert not isinstance(program.modules["dspy"].module, FunctionModule)


def test_an_async_function_is_called_while_a_loop_runs_in_the_thread():
    async def later(text):
        return text.upper()

    async def main():
        return FunctionModule(later)(text="a")

    assert asyncio.run(main()) == "A"


def test_an_object_with_an_async_call_is_awaited():
    class Later:
        async def __call__(self, text):
            return text.upper()

    module = FunctionModule(Later())
    assert asyncio.run(module.acall({"text": "a"}, {})) == module(text="a") == "A"
