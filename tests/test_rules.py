"""Rules of a program: which values may not come together."""

import pytest

from dspex import (
    Choice,
    Float,
    Integer,
    InvalidDeclaration,
    InvalidValue,
    ModuleChoice,
    Program,
    RuleBroken,
    Session,
    SessionClosed,
    UnknownVariable,
    VersionConflict,
    defprogram,
    defvariable,
    rule,
)
from dspex.rules import Values
from dspex.stores import MemoryStore


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    strategy = defvariable(ModuleChoice("Predict", "ReAct"), initial="Predict")
    note = defvariable(str, initial="")

    @rule
    def a_cool_head(self):
        if self.strategy == "ReAct" and self.temperature > 1.0:
            return "ReAct needs a temperature of at most 1.0."
        return None


@pytest.fixture
def live(store):
    with Session("demo", store=store, source="tests") as session:
        Agent.bind(session)
        session.set("temperature", 1.4)
        yield session


WAYS = {
    "set": lambda session: session.set("strategy", "ReAct"),
    "update": lambda session: session.update({"strategy": "ReAct", "note": "why"}),
    "swap": lambda session: session.swap("strategy", lambda _: "ReAct"),
    "assignment": lambda session: setattr(Agent.bind(session), "strategy", "ReAct"),
    "fork": lambda session: session.fork({"strategy": "ReAct"}),
    "fork of a fork": lambda session: session.fork().fork({"strategy": "ReAct"}),
    "claim": lambda session: session.claim(["strategy"], owner="me", ttl=9).set("strategy", "ReAct"),
}


def test_a_rule_is_a_method():
    with pytest.raises(InvalidDeclaration) as refused:
        rule(3)
    assert str(refused.value) == "rule() takes a method of a Program (got 3)."


@pytest.mark.parametrize("way", WAYS)
def test_a_forbidden_combination_is_refused_whichever_way_it_is_set(live, state, way):
    before = state(live)
    with pytest.raises(RuleBroken, match=r"ReAct needs a temperature of at most 1.0"):
        WAYS[way](live)
    assert before == state(live)


def test_a_batch_is_judged_as_a_whole(live):
    with live.batch():
        live.set("strategy", "ReAct")
        live.set("temperature", 0.5)
    assert ("ReAct", 0.5) == (live.get("strategy"), live.get("temperature"))
    with pytest.raises(RuleBroken), live.batch():
        live.set("note", "x")
        live.set("temperature", 1.2)
    assert ("", 0.5) == (live.get("note"), live.get("temperature"))


def test_a_fork_cannot_bring_home_what_its_parent_must_not_have(live):
    live.set("temperature", 0.5)
    fork = live.fork({"strategy": "ReAct"})
    live.set("temperature", 1.4)
    with pytest.raises(RuleBroken):
        fork.commit_to_parent()
    assert "Predict" == live.get("strategy")


def test_a_rollback_is_judged_too(live):
    live.set("temperature", 0.5)
    live.set("strategy", "ReAct")
    with pytest.raises(RuleBroken):
        live.rollback("temperature", 1)


def test_every_handle_of_the_process_is_held_to_the_rules_and_so_is_a_later_one(live, store):
    with Session("demo", store=store) as other, pytest.raises(RuleBroken):
        other.set("strategy", "ReAct")


def test_the_refusal_says_which_rule_and_where(live):
    with pytest.raises(RuleBroken) as refused:
        live.set("strategy", "ReAct")
    assert "Agent.a_cool_head" in refused.value.rule
    assert "demo" == refused.value.session
    assert str(refused.value).startswith("ReAct needs a temperature of at most 1.0.")


def test_what_was_broken_before_the_program_came_does_not_hinder_other_commits(store):
    with Session("demo", store=store) as session:
        session.register("temperature", Float(min=0.0, max=1.5), initial=1.4)
        session.register("strategy", ModuleChoice("Predict", "ReAct"), initial="ReAct")
        Agent.bind(session)
        session.set("note", "still possible")
        session.set("temperature", 0.5)
        with pytest.raises(RuleBroken):
            session.set("temperature", 1.2)


def test_the_checks_of_values_and_versions_are_as_without_rules(live):
    with pytest.raises(InvalidValue, match=r"temperature must be at most 1.5"):
        live.set("temperature", 9.0)
    with pytest.raises(VersionConflict):
        live.set("temperature", 0.1, expect=7)
    with pytest.raises(UnknownVariable, match="Did you mean 'temperature'"):
        live.set("temprature", 0.1)


def test_rules_of_programs_inside_see_the_names_of_their_own_program():
    class Inner(Program):
        low = defvariable(Integer(), initial=0)
        high = defvariable(Integer(), initial=9)

        @rule
        def in_order(self):
            return None if self.low <= self.high else "low must not be above high"

    class Outer(Program):
        inner = defprogram(Inner)
        most = defvariable(Integer(), initial=9)

        @rule
        def bounded(self):
            return "inner.high is above most" if self.inner.high > self.most else None

    with Session() as session:
        Outer.bind(session)
        with pytest.raises(RuleBroken, match="low must not be above high"):
            session.set("inner.low", 10)
        with pytest.raises(RuleBroken, match=r"inner.high is above most"):
            session.set("inner.high", 10)


def test_a_subclass_has_the_rules_of_its_parents_and_may_take_one_back():
    class Child(Agent):
        pass

    class Free(Agent):
        a_cool_head = None

    for cls, refused in ((Child, True), (Free, False)):
        with Session() as session:
            cls.bind(session)
            if refused:
                with pytest.raises(RuleBroken):
                    session.update({"strategy": "ReAct", "temperature": 1.2})
            else:
                session.update({"strategy": "ReAct", "temperature": 1.2})


def test_initial_values_that_break_a_rule_are_no_program():
    with pytest.raises(InvalidDeclaration, match=r"the initial values break the rule .*: no"):

        class Broken(Program):
            x = defvariable(int, initial=1)

            @rule
            def never(self):
                return "no" if self.x == 1 else None


def test_a_rule_returns_a_sentence_or_none():
    with pytest.raises(InvalidDeclaration, match="must return a sentence or None"):

        class Odd(Program):
            x = defvariable(int, initial=1)

            @rule
            def odd(self):
                return self.x > 5


def test_a_rule_that_names_no_variable_is_told_the_near_one():
    with pytest.raises(UnknownVariable, match="Did you mean 'temperature'"):

        class Typo(Program):
            temperature = defvariable(Float(), initial=0.0)

            @rule
            def typo(self):
                return self.temprature


class Pair(Program):
    a = defvariable(Choice(0, 1), initial=0)
    b = defvariable(Choice(0, 1), initial=0)

    @rule
    def not_both(self):
        return "not both" if self.a and self.b else None


def test_commits_at_the_same_time_never_make_a_forbidden_combination(together, switching):
    seen = []
    with Session("raced", store=MemoryStore()) as session:
        Pair.bind(session)
        session.watch("*", lambda _: seen.append((session.get("a"), session.get("b"))))

        def toggle(name):
            for value in (1, 0) * 300:
                try:
                    session.set(name, value)
                except RuleBroken:
                    continue

        together(lambda: toggle("a"), lambda: toggle("b"))
        for records in _states(session):
            assert records != (1, 1)
        assert (1, 0) in seen or (0, 1) in seen


def _states(session):
    """Every state that the session was in, as far as its history goes."""
    now = {"a": session.get("a"), "b": session.get("b")}
    yield now["a"], now["b"]
    for change in reversed(session.history()):
        now[change.name] = change.old
        yield now["a"], now["b"]


def test_a_commit_between_the_judgement_and_the_commit_is_judged_again():
    between = []

    class Meddled(Program):
        a = defvariable(Choice(0, 1), initial=0)
        b = defvariable(Choice(0, 1), initial=0)

        @rule
        def not_both(self):
            both = self.a and self.b
            if between:
                between.pop()()
            return "not both" if both else None

    with Session() as session:
        Meddled.bind(session)
        between.append(lambda: session.set("b", 1))
        with pytest.raises(RuleBroken):
            session.set("a", 1)
        assert (0, 1) == (session.get("a"), session.get("b"))


def test_a_closed_session_says_so_also_to_a_program_with_rules(store):
    session = Session("demo", store=store)
    Agent.bind(session)
    session.close()
    with pytest.raises(SessionClosed, match="this handle of session 'demo' is closed"):
        Agent.bind(session)


def test_a_rule_may_ask_whether_there_is_a_value():
    values = Values({"a": 1, "b.c": 2})
    assert (hasattr(values, "a"), hasattr(values, "z"), getattr(values, "z", 3)) == (True, False, 3)
    with pytest.raises(AttributeError, match="has no variable 'z'"):
        _ = values.z
