"""What may be assigned on a bound program, and what a name that is almost a variable's does."""

import asyncio
import logging

import pytest

from dspex import (
    DspexError,
    Float,
    InvalidAssignment,
    ModuleChoice,
    Program,
    Session,
    defprogram,
    defvariable,
    errors,
)


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    budget = defvariable(int, initial=5)
    max_tokens = defvariable(int, initial=100)
    model = defvariable(ModuleChoice("slow", "fast"), initial="slow")
    budegt = None

    def init(self):
        self.modules["slow"] = self.modules["fast"] = lambda: 1
        self.temprature = "an attribute of its own since init()"

    def forward(self, work):
        return work(self)


class Team(Program):
    agent = defprogram(Agent)

    def forward(self, work):
        return work(self)


@pytest.fixture
def session():
    with Session("assigning", store="memory://assigning") as opened:
        yield opened


@pytest.fixture
def agent(session):
    return Agent.bind(session)


def assign(name, value):
    return lambda program: setattr(program, name, value)


# ---- pinned programs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        lambda session, work: work(Agent.bind(session).pinned()),
        lambda session, work: Agent.run(work, session=session, pin=True),
        lambda session, work: Agent.record(work, session=session, pin=True),
        lambda session, work: asyncio.run(Agent.arun(work, session=session, pin=True)),
        lambda session, work: Agent.run(work, session=session, pin=True, timeout=30),
    ],
    ids=["pinned", "run", "record", "arun", "timeout"],
)
@pytest.mark.parametrize(("name", "value"), [("temperature", 0.1), ("temperature", "hot"), ("model", "fast")])
def test_a_variable_of_a_pinned_program_cannot_be_set(session, state, how, name, value):
    live = Agent.bind(session)
    before, revision = state(session), session.revision
    with pytest.raises(InvalidAssignment) as refused:
        how(session, assign(name, value))
    assert str(refused.value) == (
        f"Agent.{name} cannot be set: the program is pinned at revision {revision}. Set it in the session: "
        f"session.set('{name}', …)."
    )
    assert (name, revision, "assigning") == (
        refused.value.name,
        refused.value.revision,
        refused.value.session,
    )
    assert before == state(session)
    assert (0.7, "slow") == (live.temperature, session.get("model"))


def test_a_program_inside_a_pinned_one_is_pinned_too(session, state):
    team = Team.bind(session)
    before = state(session)
    with pytest.raises(InvalidAssignment, match=r"session\.set\('agent\.temperature', …\)"):
        team.pinned().agent.temperature = 0.1
    assert before == state(session)


def test_a_pinned_run_may_set_in_the_session_and_does_not_read_it(session):
    def work(program):
        program.session.set("temperature", 0.1)
        return program.temperature

    assert (0.7, 0.1) == (Agent.run(work, session=session, pin=True), session.get("temperature"))


def test_the_refusal_is_what_python_raises_for_frozen_attributes(agent):
    with pytest.raises(AttributeError) as refused:
        agent.pinned().temperature = 0.1
    assert isinstance(refused.value, DspexError)


def test_a_pinned_program_keeps_attributes_of_its_own(agent):
    pinned = agent.pinned()
    pinned.cache = {}
    assert (pinned.cache, hasattr(agent, "cache")) == ({}, False)


# ---- names that are almost a variable's --------------------------------------------------------------


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("budgt", "budget"),
        ("bugdet", "budget"),
        ("budgeet", "budget"),
        ("temperture", "temperature"),
        ("tempearture", "temperature"),
        ("max_tokns", "max_tokens"),
        ("maxtokens", "max_tokens"),
        ("maxTokens", "max_tokens"),
    ],
)
@pytest.mark.parametrize("pinned", [False, True])
def test_a_slip_of_a_variable_does_not_become_an_attribute(agent, slip, meant, pinned):
    program = agent.pinned() if pinned else agent
    with pytest.raises(InvalidAssignment) as refused:
        setattr(program, slip, 3)
    assert str(refused.value) == (
        f"Agent has no variable '{slip}'. Did you mean '{meant}'? An attribute of that name needs a first "
        f"value, in init() or in the class: {slip} = None."
    )
    assert (slip, meant) == (refused.value.name, refused.value.near)
    assert isinstance(refused.value, AttributeError)
    assert not hasattr(program, slip)


@pytest.mark.parametrize(
    "name",
    [
        "cache",
        "temperatures",
        "temp",
        "temperature_",
        "_temprature",
        "_budgt",
        "model_",
        "models",
        "modes",
        "modal",
        "budgets",
        "budgeted",
        "budget_2",
        "budget2",
        "max_token",
        "min_tokens",
        "max_takens",
        "max_tokens_used",
        "tokens",
        "agent",
    ],
)
def test_other_names_are_attributes_of_its_own(agent, name):
    for _ in range(2):
        setattr(agent, name, 3)
    assert getattr(agent, name) == 3
    assert agent.run(lambda program: (assign(name, 4)(program), getattr(program, name))[1]) == 4


@pytest.mark.parametrize("name", ["temprature", "budegt"])
def test_a_name_that_has_a_first_value_stays_assignable(agent, name):
    for program in (agent, agent.pinned()):
        setattr(program, name, 3)
        assert getattr(program, name) == 3


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("content", "context"),
        ("top_p", "top_k"),
        ("x_1", "x_2"),
        ("step_1", "step_10"),
        ("votes", "voters"),
        ("stats", "status"),
        ("stats", "states"),
        ("scores", "scorers"),
        ("retrieved", "retriever"),
        ("plan", "plane"),
        ("form", "from"),
        ("cost", "cot"),
        ("vec12d", "vec2d"),
        ("layer12end", "layer21end"),
        ("item_ids", "items_ids"),
        ("k", "K"),
        ("", "budget"),
        ("trai_l", "trail"),
    ],
)
def test_names_that_may_both_be_meant_are_no_slips(name, variable):
    expected = "trail" if name == "trai_l" else None
    assert expected == errors.slip_of(name, [variable])
    assert errors.slip_of(variable, [name]) == (name if expected else None)


def test_a_name_is_compared_with_the_variables_once_for_each_class(session, monkeypatch):
    class Fresh(Agent):
        pass

    compared = []
    monkeypatch.setattr(errors, "slip_of", lambda name, _: compared.append(name))
    for program in (Fresh.bind(session), Fresh.bind(session)):
        for value in range(3):
            program.cache = value
    assert compared == ["temprature", "cache"]


# ---- reading -----------------------------------------------------------------------------------------


class Reading(Program):
    temperature = defvariable(float, initial=0.7)

    def forward(self):
        return self.temprature


def test_a_misspelt_read_is_an_attribute_error_whose_note_has_the_near_name(session, caplog):
    with pytest.raises(AttributeError) as raised:
        Reading.run(session=session)
    assert [f"in Reading on session 'assigning' at revision {session.revision}"] == raised.value.__notes__[:1]
    assert raised.value.__notes__[1:] == ["Reading has no variable 'temprature'. Did you mean 'temperature'?"]
    logging.getLogger("mine").error("failed", exc_info=raised.value)
    assert "Did you mean 'temperature'?" in caplog.text


def test_a_misspelt_read_that_nobody_catches_is_printed_with_the_near_name(script):
    said = script(
        "import subprocess, sys\n"
        "source = '''\n"
        "from dspex import Program, Session, defvariable\n"
        "class Agent(Program):\n"
        "    temperature = defvariable(float, initial=0.7)\n"
        "with Session() as session:\n"
        "    Agent.bind(session).temprature\n"
        "'''\n"
        "print(subprocess.run([sys.executable, '-c', source], capture_output=True, text=True).stderr)\n"
    )
    assert "'Agent' object has no attribute 'temprature'. Did you mean: 'temperature'?" in said


def test_an_attribute_error_about_something_else_has_no_such_note(session):
    with pytest.raises(AttributeError) as raised:
        Agent.run(lambda _: "text".temperture, session=session)
    assert len(raised.value.__notes__) == 1
