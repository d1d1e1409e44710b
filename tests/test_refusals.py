"""What is refused at once, in words that say what to do, and what leaves everything as it was."""

import sys
from typing import Literal

import pytest

from dspex import (
    Choice,
    DeadlineExceeded,
    Integer,
    InvalidDeclaration,
    InvalidValue,
    MissingExtra,
    ModuleChoice,
    Program,
    Session,
    UnknownVariable,
    defprogram,
    defvariable,
    runs,
)
from dspex.deadlines import check, within
from dspex.errors import DspexError
from dspex.kinds import Embedding
from dspex.wire import pack_error, unpack_error


class Inner(Program):
    k = defvariable(int, initial=3)

    def forward(self):
        return self.k


class Agent(Program):
    n = defvariable(int, initial=0)
    inside = defprogram(Inner)

    def helper(self):
        return "helped"

    def forward(self):
        return self.n


async def later(*_, **__):
    return None


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda session: session.update([("n", 1)]), "values must be values by name (got [('n', 1)])"),
        (lambda session: session.fork([1]), "values must be values by name (got [1])"),
        (lambda session: session.changes("n", since=3), "since must be a Revision (got 3)"),
        (lambda session: session.watch("n", 3), "the watcher must be a function (got 3)"),
    ],
)
def test_an_argument_of_another_type_is_told_and_changes_nothing(session, state, call, sentence):
    before = state(session)
    with pytest.raises(InvalidValue) as refused:
        call(session)
    assert sentence in str(refused.value)
    assert before == state(session)


def test_a_signal_takes_no_async_receiver(session):
    with pytest.raises(InvalidDeclaration) as refused:
        session.signal("n").connect(later)
    assert str(refused.value).endswith("is async and a signal does not await. Use session.watch(name, fn).")
    assert not session.signal("n").receivers


def test_what_has_an_odd_shape_is_shown_as_it_is(session):
    class Odd:
        shape = (2,)

        def __repr__(self):
            return "an odd thing"

    with pytest.raises(InvalidValue, match=r"^n must be an integer \(got an odd thing\)"):
        session.set("n", Odd())


def test_an_array_without_numpy_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(MissingExtra) as missing:
        Embedding(2).check([1.0, 2.0])
    assert (missing.value.extra, str(missing.value)) == (
        "arrays",
        "Array kinds need the extra 'arrays': pip install 'dspex[arrays]', or '.[arrays]' in a clone.",
    )


def test_nothing_begins_when_no_time_is_left():
    with within(60):
        check("a call")
    with within(0), pytest.raises(DeadlineExceeded) as refused:
        check("a call")
    assert (str(refused.value), refused.value.what) == ("no time was left to begin a call.", "a call")


def test_a_fact_that_cannot_travel_is_left_out_of_an_error():
    facts = {"given": object(), "number": 2**70, "text": "\ud800", "name": "n"}
    error = unpack_error(pack_error(InvalidDeclaration("no such thing.", **facts)))
    assert (InvalidDeclaration, "no such thing.", {"name": "n"}) == (type(error), str(error), error.facts)


def test_an_annotation_must_say_what_the_kind_says():
    class Right(Program):
        step: object = defvariable(ModuleChoice("slow", "fast"), initial="slow")
        mode: Literal["a", "b"] = defvariable(Choice("a", "b"), initial="a")

    assert set(Right.variables) == {"step", "mode"}
    with pytest.raises(InvalidDeclaration, match="step"):

        class Text(Program):
            step: str = defvariable(ModuleChoice("slow", "fast"), initial="slow")

    with pytest.raises(InvalidDeclaration, match="mode"):

        class Less(Program):
            mode: Literal["a"] = defvariable(Choice("a", "b"), initial="a")


def test_a_program_has_no_attribute_of_its_class_for_good(session):
    agent = Agent.bind(session)
    with pytest.raises(DspexError):
        agent.session = session
    agent.mine = 5
    del agent.mine
    assert not hasattr(agent, "mine")
    assert agent.session is session


def test_what_is_no_declaration_can_be_taken_off_a_class():
    class Short(Agent):
        extra = 1

    del Short.extra
    assert not hasattr(Short, "extra")
    with pytest.raises(InvalidDeclaration, match=r"^Short\.n is a declaration and stays\.$"):
        del Short.n


def test_a_snapshot_from_before_a_variable_was_declared_pins_no_program(session):
    before = session.snapshot()
    session.register("k", Integer(), initial=1)
    agent = Inner.bind(session)
    with pytest.raises(UnknownVariable, match="'k'"):
        agent.pinned(before)
    assert agent.k == 1


@pytest.mark.parametrize("which", ["pinned", "inside"])
def test_a_pool_runs_no_program_that_is_here_only(session, which):
    agent = Agent.bind(session)
    here = {"pinned": agent.pinned(), "inside": agent.inside}[which]
    with pytest.raises(InvalidDeclaration) as refused:
        runs.elsewhere(here, None, (), None)
    assert str(refused.value) == f"{here!r} is here only: a pool runs programs of sessions, by class."
    assert runs.elsewhere(agent, None, (), None) == (Agent, session)


def test_an_attribute_that_is_near_nothing_is_told_without_a_guess(session):
    class Lost(Program):
        n = defvariable(int, initial=0)

        def forward(self):
            return self.zzzzzzzz

    with pytest.raises(AttributeError) as raised:
        Lost.run(session=session)
    assert raised.value.__notes__ == [f"in Lost on session 'demo' at revision {session.revision}"]


def test_a_watcher_that_interrupts_is_heard_after_all_were_told(session):
    seen = []

    def interrupt(change):
        raise KeyboardInterrupt

    session.watch("n", interrupt)
    session.watch("n", seen.append)
    with pytest.raises(KeyboardInterrupt):
        session.set("n", 1)
    assert (1, [1]) == (session.get("n"), [change.new for change in seen])
    session.watch("a", seen.append)
    session.set("a", 2)
    assert seen[-1].new == 2


def test_a_program_that_is_bound_while_others_watch_is_pushed_to(session):
    seen = []
    session.watch("n", seen.append)
    session.set("n", 1)
    inner = Inner.bind(session)
    session.set("k", 9)
    assert (9, 1) == (inner.k, len(seen))


def test_a_watcher_of_what_a_watcher_set_may_claim(session):
    made = []

    def claim(_):
        made.append(session.claim(["a"], owner="watcher", ttl=60))

    session.watch("n", lambda change: session.set("b", change.new))
    session.watch("b", claim)
    session.set("n", 1)
    assert [one.owner for one in made] == ["watcher"]
    made[0].release()
    session.set("a", 1)


async def _failing_batch(session):
    async with session.batch():
        session.set("n", 5)
        raise LookupError


def test_an_awaited_batch_that_fails_commits_nothing(session, state):
    import asyncio

    before = state(session)
    with pytest.raises(LookupError):
        asyncio.run(_failing_batch(session))
    assert before == state(session)


def test_a_module_of_another_program_reads_the_values_of_the_one_that_it_is_given_to():
    class Asking(Program):
        step = defvariable(ModuleChoice("echo"), initial="echo")
        k = defvariable(int, initial=3)

        def init(self):
            from dspex.modules import FunctionModule

            self.ask = FunctionModule(lambda k: k, k=Asking.k)

    with Session() as one, Session() as other:
        first, second = Asking.bind(one), Asking.bind(other)
        other.set("k", 7)
        second.ask = first.ask
        assert (3, 7) == (first.ask(), second.ask())


def test_the_tools_of_a_program_are_those_of_its_session(session):
    from dspex.tools import tools_of

    agent = Agent.bind(session)
    assert list(agent.tools) == list(tools_of(session))


def test_watches_that_were_told_already_end_with_a_session_that_is_deleted(store, session):
    with Session("demo", store=store) as other, other.changes("n") as changes:
        watch = other.watch("n", list)
        session.set("n", 1)
        assert next(changes).new == 1
        store.delete("demo")
        assert list(changes) == []
        assert watch.closed
