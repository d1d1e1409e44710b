"""Bound programs: plain attributes that the session keeps up to date."""

import copy
import gc
import pickle
import threading
import weakref

import pytest

from dspex import (
    Float,
    Integer,
    InvalidAssignment,
    InvalidCall,
    InvalidValue,
    ModuleChoice,
    Program,
    Secret,
    Session,
    SessionClosed,
    UnknownModule,
    VariableConflict,
    defprogram,
    defvariable,
)
from dspex.modules import FunctionModule


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    top_k = defvariable(Integer(min=1), initial=5)

    def init(self):
        self.made = getattr(self, "made", 0) + 1

    def forward(self, *inputs, **named):
        return self.temperature, inputs, named


class Retriever(Program):
    k = defvariable(int, initial=3)

    def forward(self):
        return self.k


class Research(Program):
    depth = defvariable(int, initial=1)
    first = defprogram(Retriever)
    second = defprogram(Retriever)

    def forward(self):
        return self.depth, self.first(), self.second()


class Chooser(Program):
    step = defvariable(ModuleChoice("slow", "fast"), initial="slow")

    def init(self):
        self.modules["slow"] = lambda x: f"slow {x}"
        self.modules["fast"] = lambda x: f"fast {x}"

    def forward(self, x):
        return self.step(x=x)


@pytest.fixture
def session():
    with Session() as opened:
        yield opened


@pytest.fixture
def agent(session):
    return Agent.bind(session)


def test_a_bound_program_has_the_values_of_its_session(session):
    session.register("temperature", Float(min=0.0, max=1.5), initial=0.2)
    session.set("temperature", 0.3)
    agent = Agent.bind(session)
    assert (0.3, 5, session) == (agent.temperature, agent.top_k, agent.session)


def test_a_commit_is_seen_at_once(session, agent):
    session.set("temperature", 0.1)
    assert agent.temperature == 0.1
    session.update({"temperature": 0.2, "top_k": 9})
    assert (agent.temperature, agent.top_k) == (0.2, 9)
    session.rollback("temperature", 1)
    assert agent.temperature == 0.1


def test_all_programs_of_a_session_are_kept_up_to_date(session):
    agents = [Agent.bind(session) for _ in range(3)]
    session.set("temperature", 0.1)
    assert [agent.temperature for agent in agents] == [0.1] * 3


def test_programs_of_another_handle_are_too(store):
    with Session("s", store=store) as one, Session("s", store=store) as two:
        agents = Agent.bind(one), Agent.bind(two)
        one.set("temperature", 0.1)
        two.set("top_k", 7)
        assert [(agent.temperature, agent.top_k) for agent in agents] == [(0.1, 7)] * 2


def test_a_program_does_not_outlive_its_last_reference(session):
    agent = Agent.bind(session)
    gone = weakref.ref(agent)
    session.set("temperature", 0.1)
    del agent
    gc.collect()
    assert gone() is None
    session.set("temperature", 0.2)


def test_assigning_is_a_checked_set(session, agent):
    agent.temperature = 1
    record = session.record("temperature")
    assert (agent.temperature, record.value, record.source) == (1.0, 1.0, "Agent")
    with pytest.raises(InvalidValue) as refused:
        agent.temperature = 2.0
    assert f"temperature must be at most 1.5 (got 2.0) in session '{session.id}'." == str(refused.value)
    assert (agent.temperature, session.record("temperature").version) == (1.0, 1)


def test_other_attributes_are_the_programs_own(session, agent):
    agent.note = "mine"
    assert (agent.note, session.get("note", None)) == ("mine", None)


def test_a_program_inside_cannot_be_assigned(session):
    research = Research.bind(session)
    with pytest.raises(InvalidAssignment) as refused:
        research.first = None
    assert str(refused.value) == "Research.first is a program and cannot be assigned; set its variables."


@pytest.mark.parametrize("name", ["temperature", "session"])
def test_a_variable_cannot_be_deleted(agent, name):
    with pytest.raises(InvalidAssignment):
        delattr(agent, name)
    assert (agent.temperature, agent.session is not None) == (0.7, True)


def test_init_ran_once_for_each_bound_program(session):
    assert [Agent.bind(session).made, Agent(session).made] == [1, 1]
    Agent.run(session=session)
    assert session.attachment(Agent, lambda: None).made == 1


def test_init_sees_session_and_values(session):
    seen = []

    class Curious(Agent):
        def init(self):
            seen.append((self.session, self.temperature))

    Curious.bind(session)
    assert [(session, 0.7)] == seen


def test_a_program_without_a_session_has_a_private_one():
    one, two = Agent(), Agent()
    one.temperature = 0.1
    assert (one.temperature, two.temperature) == (0.1, 0.7)
    one.session.close()
    two.session.close()


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (lambda _: Agent(temperature=0.3), "temperature=…"),
        (lambda session: Agent(session, 0.3), "0.3"),
        (lambda session: Agent(session, "x", top_k=1), "'x', top_k=…"),
    ],
)
def test_values_are_not_given_to_the_class(session, make, given):
    with pytest.raises(InvalidCall) as refused:
        make(session)
    assert str(refused.value) == (
        f"Agent(session) binds a program and takes no values (got {given}). Set them in the session or on "
        "the bound program; inputs go to run(…)."
    )
    assert isinstance(refused.value, TypeError)
    assert session.revision.rev == 0


@pytest.mark.parametrize("make", [Agent, Agent.bind, lambda given: Agent.run(session=given)])
def test_a_program_is_bound_to_a_session_only(make):
    with pytest.raises(InvalidValue) as refused:
        make("What is OTP?")
    assert str(refused.value) == "session must be a Session (got 'What is OTP?')."


def test_instances_are_instances_of_their_class(session, agent):
    assert isinstance(agent, Agent)
    assert (Agent.__name__, Agent.__qualname__, Agent.__module__) == (
        type(agent).__name__,
        type(agent).__qualname__,
        type(agent).__module__,
    )
    assert f"<Agent bound to session '{session.id}'>" == repr(agent)
    assert f"<Agent pinned at {session.revision} to session '{session.id}'>" == repr(agent.pinned())


def test_super_works(session):
    class Child(Agent):
        def forward(self, *inputs, **named):
            return ("child", super().forward(*inputs, **named)[0])

    assert Child.run(session=session) == ("child", 0.7)


# ---- programs in programs ----------------------------------------------------------------------------


def test_the_variables_of_a_program_inside_have_its_prefix(session):
    research = Research.bind(session)
    session.update({"depth": 2, "first.k": 10, "second.k": 20})
    assert research() == (2, 10, 20)
    assert (research.first.k, research.second.k) == (10, 20)
    assert session is research.first.session
    research.first.k = 11
    assert (session.get("first.k"), session.record("first.k").source) == (11, "Retriever")


def test_a_pinned_program_has_pinned_programs_inside(session):
    research = Research.bind(session)
    pinned = research.pinned()
    session.update({"depth": 2, "first.k": 10, "second.k": 20})
    assert (pinned(), research()) == ((1, 3, 3), (2, 10, 20))


def test_programs_that_declare_the_same_share_it(session):
    class Other(Program):
        temperature = defvariable(Float(min=0.0, max=1.5), initial=0.1)

    agent, other = Agent.bind(session), Other.bind(session)
    assert other.temperature == 0.7
    other.temperature = 0.2
    assert agent.temperature == 0.2


def test_programs_that_do_not_agree_conflict_and_both_are_named(session, state):
    class Other(Program):
        temperature = defvariable(Float(min=0.0, max=1.0), initial=0.1)

    agent = Agent.bind(session)
    before = state(session)
    with pytest.raises(VariableConflict) as refused:
        Other.bind(session)
    assert str(refused.value) == (
        "'temperature' is Float(min=0.0, max=1.5) in Agent but Float(min=0.0, max=1.0) in Other. "
        "Give one of them "
        "another name, or run them in sessions of their own."
    )
    assert (refused.value.name, refused.value.owners) == ("temperature", ("Agent", "Other"))
    assert before == state(session)
    assert agent.temperature == 0.7


def test_a_program_and_a_registered_variable_may_conflict_too(session):
    session.register("temperature", int, initial=0)
    with pytest.raises(VariableConflict, match=r"is Integer\(\) in Session.register\(\) but .* in Agent"):
        Agent.bind(session)


# ---- copies ------------------------------------------------------------------------------------------


def look_at(agent):
    copy.copy(agent)
    copy.deepcopy(agent)
    vars(agent)
    dir(agent)
    agent.__dict__["other"] = 1
    agent.pinned()


def test_a_copy_is_pinned(session, agent):
    copies = copy.copy(agent), copy.deepcopy(agent), agent.pinned()
    session.set("temperature", 0.1)
    assert [one.temperature for one in copies] == [0.7] * 3
    assert agent.temperature == 0.1


def test_a_pin_may_be_of_an_older_revision(session, agent):
    snapshot = session.snapshot()
    session.set("temperature", 0.1)
    assert (agent.pinned(snapshot).temperature, agent.temperature) == (0.7, 0.1)


def test_a_copy_of_a_pinned_program_is_pinned_to_the_same(session, agent):
    pinned = agent.pinned()
    session.set("temperature", 0.1)
    assert copy.copy(pinned).temperature == 0.7


def test_who_looks_at_a_program_does_not_stop_it_from_living(session, agent):
    look_at(agent)
    session.set("temperature", 0.1)
    look_at(agent)
    session.set("temperature", 0.2)
    assert (agent.temperature, agent.other) == (0.2, 1)
    assert "temperature" not in vars(agent)


def test_a_variable_is_listed_by_dir(agent):
    assert {"temperature", "top_k", "forward", "run"} <= set(dir(agent))


def test_a_pinned_program_has_the_attributes_of_the_live_one(agent):
    agent.note = "mine"
    pinned = agent.pinned()
    pinned.note = "its own"
    assert (agent.note, pinned.note, pinned.made) == ("mine", "its own", 1)


def test_a_deep_copy_has_its_own_attributes_and_shares_session_and_modules(session):
    class Noting(Program):
        inner = defprogram(Agent)

        def init(self):
            self.notes = {"seen": [1]}
            self.inner.notes = [1]
            self.step = FunctionModule(lambda x, k: x * k, k=Agent.top_k)
            self.steps = [self.step]
            self.owner = [self, self.inner, self.session]

    live = Noting.bind(session)
    copied, shallow = copy.deepcopy(live), copy.copy(live)
    for program, again in ((live, copied), (live.inner, copied.inner)):
        assert program.notes == again.notes
        assert program.notes is not again.notes
    copied.notes["seen"].append(2)
    assert ({"seen": [1]}, live.notes) == (live.notes, shallow.notes)
    assert [copied, copied.inner, session] == copied.owner
    assert [live, live.inner, session] == live.owner
    assert live.step.module is copied.step.module is copied.steps[0].module


def test_the_modules_of_a_deep_copy_read_its_values(session):
    class Noting(Agent):
        def init(self):
            self.step = FunctionModule(lambda x, k: x * k, k=Noting.top_k)
            self.steps = [self.step]

    live = Noting.bind(session)
    copied = copy.deepcopy(live)
    session.set("top_k", 7)
    assert (21, 21) == (live.step(x=3), live.steps[0](x=3))
    assert (15, 15) == (copied.step(x=3), copied.steps[0](x=3))


def test_what_cannot_be_copied_deep_is_refused_by_what_it_is(agent):
    agent.lock = threading.Lock()
    assert agent.lock is copy.copy(agent).lock
    with pytest.raises(TypeError, match="lock"):
        copy.deepcopy(agent)


def test_a_program_is_not_pickled(agent):
    with pytest.raises(TypeError, match="a bound program cannot be pickled; bind its class again"):
        pickle.dumps(agent)


# ---- modules -----------------------------------------------------------------------------------------


def test_a_module_choice_reads_as_the_module(session):
    chooser = Chooser.bind(session)
    assert chooser(1) == "slow 1"
    session.set("step", "fast")
    assert (chooser.step(x=2), session.get("step")) == ("fast 2", "fast")


def test_a_pinned_program_keeps_its_choice(session):
    pinned = Chooser.bind(session).pinned()
    session.set("step", "fast")
    assert pinned.step(x=1) == "slow 1"


def test_a_module_that_is_not_registered_is_refused_when_it_is_called(session):
    class Forgetful(Program):
        step = defvariable(ModuleChoice("Predict", "Other"), initial="Predict")

        def init(self):
            self.modules["Predictt"] = lambda: 1

    program = Forgetful.bind(session)
    assert repr(program.step) == "<module 'Predict', not registered yet>"
    with pytest.raises(UnknownModule) as refused:
        program.step()
    assert str(refused.value) == (
        "Forgetful has no module 'Predict'; registered are 'Predictt'. Did you mean 'Predictt'? Put "
        "it there in "
        "init(): self.modules['Predict'] = …"
    )
    program.modules["Predict"] = lambda: 2
    assert program.step() == 2


# ---- the end -----------------------------------------------------------------------------------------


def test_a_program_keeps_its_last_values_when_its_session_is_closed(session, agent):
    session.set("temperature", 0.1)
    session.close()
    assert (agent.temperature, agent.top_k) == (0.1, 5)
    with pytest.raises(SessionClosed):
        agent.temperature = 0.2
    with pytest.raises(SessionClosed):
        Agent.bind(session)


def test_a_program_on_a_fork_follows_the_fork(session, agent):
    with session.fork({"temperature": 0.1}) as fork:
        forked = Agent.bind(fork)
        session.set("temperature", 0.9)
        fork.set("top_k", 8)
        assert (
            (forked.temperature, forked.top_k),
            (agent.temperature, agent.top_k),
        ) == ((0.1, 8), (0.9, 5))


def test_a_secret_is_not_shown_by_class_or_program(session):
    class Caller(Program):
        key = defvariable(Secret(), initial="hunter22")

    caller = Caller.bind(session)
    assert caller.key == "hunter22"
    assert "hunter22" not in f"{caller!r} {Caller.key!r} {Caller.variables!r} {caller.pinned()!r}"
