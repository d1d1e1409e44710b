"""Random operations on a session, compared after each step with a plain model of what it promises."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dspex import (
    Claimed,
    Float,
    Integer,
    InvalidValue,
    Program,
    Session,
    UnknownRevision,
    UnknownVariable,
    VariableConflict,
    VersionConflict,
    defvariable,
)
from dspex.stores import MemoryStore

pytestmark = pytest.mark.timeout(110)

BOUND = ("x", "y", "t")
LATER = ("p", "q")
LABELS = ("one", "two")


class Entry(NamedTuple):
    """One change of the model."""

    name: str
    old: Any
    value: Any
    version: int
    rev: int
    source: str | None


class Knobs(Program):
    x = defvariable(Integer(min=-100, max=100), initial=0)
    y = defvariable(Integer(min=-100, max=100), initial=1)
    t = defvariable(Float(min=0.0, max=1.0), initial=0.5)


INITIAL = {"x": 0, "y": 1, "t": 0.5}

names = st.sampled_from((*BOUND, *LATER))
numbers = st.integers(-120, 120)
sources = st.sampled_from((None, "me", "you"))


class Model:
    """What a session should be: dicts and lists."""

    def __init__(self, start=None):
        self.values = dict(start.values) if start else dict(INITIAL)
        self.versions = dict(start.versions) if start else dict.fromkeys(INITIAL, 0)
        self.rev = start.rev if start else 0
        self.start = dict(self.values), dict(self.versions)
        self.history = []
        self.tags = {}
        self.claims = {}

    def valid(self, name, value):
        return (0.0 <= value <= 1.0) if name == "t" else (-100 <= value <= 100 and value == int(value))

    def write(self, values, source):
        if not values:
            return
        self.rev += 1
        for name, value in values.items():
            old = self.values[name]
            self.versions[name] += 1
            self.values[name] = value
            self.history.append(Entry(name, old, value, self.versions[name], self.rev, source))

    def at(self, name, version):
        """The value at a version; KeyError when there is none to know of."""
        known = {entry.version: entry.value for entry in self.history if entry.name == name}
        for entry in self.history:
            if entry.name == name:
                known.setdefault(entry.version - 1, entry.old)
        known.setdefault(self.versions[name], self.values[name])
        return known[version]

    def own(self):
        return [name for name in self.values if self.versions[name] != self.start[1].get(name, 0)]


class Side:
    """A session, its model, a program bound to it, and what two watchers have seen."""

    def __init__(self, session, model):
        self.session = session
        self.model = model
        self.program = Knobs.bind(session)
        self.all, self.latest = [], {}
        session.watch("*", self.all.append, mode="all")
        session.watch("*", lambda change: self.latest.update({change.name: change.new}))
        self.seen_before = len(model.history)
        self.claims = {}


class Sessions(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.store = MemoryStore()
        root = Session("root", store=self.store, source="handle")
        self.sides = [Side(root, Model())]
        self.stranger = Session("root", store=self.store, source="handle")

    def teardown(self):
        for side in self.sides:
            side.session.close()
        self.stranger.close()

    @property
    def side(self):
        """The innermost fork."""
        return self.sides[-1]

    def attempt(self, values, act, source="handle", expect=None, claimed=frozenset()):
        """Do what must happen, or be refused for the reason that the model knows."""
        model = self.side.model
        reason = None
        if any(name not in model.values for name in values):
            reason = UnknownVariable
        elif not all(model.valid(name, value) for name, value in values.items()):
            reason = InvalidValue
        elif any(name in model.claims and name not in claimed for name in values):
            reason = Claimed
        elif any(model.versions[name] != version for name, version in (expect or {}).items()):
            reason = VersionConflict
        if reason is None:
            act()
            model.write(values, source)
            return
        with pytest.raises((UnknownVariable, InvalidValue, Claimed, VersionConflict)):
            act()

    # ---- the operations --------------------------------------------------------------------------

    @rule(name=names, value=numbers, source=sources)
    def set(self, name, value, source):
        value = value / 100 if name == "t" else value
        self.attempt(
            {name: value}, lambda: self.side.session.set(name, value, source=source), source or "handle"
        )

    @rule(name=st.sampled_from(BOUND), value=numbers)
    def assign_on_the_program(self, name, value):
        value = value / 100 if name == "t" else value
        self.attempt({name: value}, lambda: setattr(self.side.program, name, value), "Knobs")

    @rule(name=names, value=numbers, off=st.integers(-1, 1))
    def set_expecting(self, name, value, off):
        value = value / 100 if name == "t" else value
        version = self.side.model.versions.get(name, 0) + off
        self.attempt(
            {name: value},
            lambda: self.side.session.set(name, value, expect=version),
            expect={name: version},
        )

    @rule(values=st.dictionaries(names, numbers, max_size=5), source=sources)
    def update(self, values, source):
        values = {name: value / 100 if name == "t" else value for name, value in values.items()}
        self.attempt(values, lambda: self.side.session.update(values, source=source), source or "handle")

    @rule(writes=st.lists(st.tuples(names, numbers), max_size=5), drop=st.booleans())
    def batch(self, writes, drop):
        session, model = self.side.session, self.side.model
        writes = [(name, value / 100 if name == "t" else value) for name, value in writes]
        good = [(n, v) for n, v in writes if n in model.values and model.valid(n, v)]

        def act():
            with session.batch():
                for name, value in writes:
                    try:
                        session.set(name, value)
                    except (UnknownVariable, InvalidValue):
                        assert (name, value) not in good
                if drop:
                    raise ZeroDivisionError

        if drop:
            with pytest.raises(ZeroDivisionError):
                act()
        else:
            self.attempt(dict(good), act)

    @rule(name=names, more=st.integers(-3, 3))
    def swap(self, name, more):
        model = self.side.model
        more = more / 10 if name == "t" else more
        value = model.values.get(name, 0) + more
        self.attempt({name: value}, lambda: self.side.session.swap(name, lambda now: now + more))

    @rule(name=names, back=st.integers(-1, 6))
    def rollback(self, name, back):
        session, model = self.side.session, self.side.model
        version = model.versions.get(name, 0) - back
        try:
            value = model.at(name, version)
        except KeyError:
            with pytest.raises((UnknownRevision, UnknownVariable)):
                session.rollback(name, version)
            return
        self.attempt({name: value}, lambda: session.rollback(name, version))

    @rule(label=st.sampled_from(LABELS))
    def tag(self, label):
        model = self.side.model
        self.side.session.tag(label)
        model.tags[label] = dict(model.values), dict(model.versions), model.rev

    @rule(label=st.sampled_from(LABELS))
    def rollback_to_a_tag(self, label):
        session, model = self.side.session, self.side.model
        if label not in model.tags:
            with pytest.raises(UnknownRevision):
                session.rollback(to=label)
            return
        values, versions, _ = model.tags[label]
        changed = {name: value for name, value in values.items() if versions[name] != model.versions[name]}
        self.attempt(changed, lambda: session.rollback(to=label))

    @rule(name=st.sampled_from(LATER), same=st.booleans())
    def register(self, name, same):
        session, model = self.side.session, self.side.model
        if name not in model.values:
            session.register(name, Integer(min=-100, max=100), initial=7)
            model.values[name], model.versions[name] = 7, 0
            model.start[0][name], model.start[1][name] = 7, 0
        elif same:
            session.register(name, Integer(min=-100, max=100), initial=9)
        else:
            with pytest.raises(VariableConflict):
                session.register(name, Integer(min=-100, max=99), initial=7)

    # ---- claims ----------------------------------------------------------------------------------

    @rule(names=st.sets(st.sampled_from(BOUND), min_size=1), owner=st.sampled_from(("tuner", "pilot")))
    def claim(self, names, owner):
        side = self.side
        if side.model.claims.keys() & names:
            with pytest.raises(Claimed):
                side.session.claim(sorted(names), owner=owner, ttl=3_600)
            return
        claim = side.session.claim(sorted(names), owner=owner, ttl=3_600)
        side.model.claims.update(dict.fromkeys(names, claim))

    @precondition(lambda self: self.side.model.claims)
    @rule(value=numbers, inside=st.booleans(), data=st.data())
    def set_with_a_claim(self, value, inside, data):
        session, claims = self.side.session, self.side.model.claims
        name = data.draw(st.sampled_from(sorted(claims)))
        value = value / 100 if name == "t" else value
        claim = claims[name]
        if not inside:
            self.attempt({name: value}, lambda: claim.set(name, value), claim.owner, claimed=claim.names)
            return

        def act():
            with claim:
                session.set(name, value)

        valid = self.side.model.valid(name, value)
        self.attempt({name: value}, act, claimed=claim.names)
        assert valid == (session.get(name) == value) or not valid
        self.forget(claim)

    @precondition(lambda self: self.side.model.claims)
    @rule(data=st.data())
    def release(self, data):
        claims = self.side.model.claims
        claim = claims[data.draw(st.sampled_from(sorted(claims)))]
        claim.release()
        self.forget(claim)

    def forget(self, claim):
        claims = self.side.model.claims
        for name in [name for name, held in claims.items() if held is claim]:
            del claims[name]

    # ---- forks -----------------------------------------------------------------------------------

    @precondition(lambda self: len(self.sides) < 4)
    @rule(value=st.none() | st.integers(-100, 100))
    def fork(self, value):
        session = self.side.session.fork(None if value is None else {"x": value})
        model = Model(self.side.model)
        if value is not None:
            model.write({"x": value}, "handle")
        self.sides.append(Side(session, model))

    @precondition(lambda self: len(self.sides) > 1)
    @rule(force=st.booleans(), some=st.booleans())
    def commit_to_parent_and_close(self, force, some):
        child = self.sides.pop()
        model = child.model
        own = model.own()
        own = own[:1] if some else own
        values = {name: model.values[name] for name in own}
        expect = {} if force else {name: model.start[1][name] for name in own}
        self.attempt(
            values,
            lambda: child.session.commit_to_parent(own if some else None, force=force),
            expect=expect,
        )
        child.session.close()

    @precondition(lambda self: len(self.sides) > 1)
    @rule()
    def close_the_fork(self):
        side = self.sides.pop()
        side.session.close()
        assert side.model.values.items() >= {n: getattr(side.program, n) for n in BOUND}.items()

    # ---- what must hold after each step ----------------------------------------------------------

    @invariant()
    def every_session_is_as_its_model_says(self):
        for side in self.sides:
            session, model = side.session, side.model
            snapshot = session.snapshot()
            assert model.values == dict(snapshot)
            assert model.values == {name: session.get(name) for name in model.values}
            assert model.versions == {name: session.record(name).version for name in model.values}
            assert model.rev == session.revision.rev == snapshot.revision.rev
            history = [
                Entry(one.name, one.old, one.new, one.version, one.rev, one.source)
                for one in session.history()
            ]
            assert model.history == history
            assert {label: rev for label, (_, _, rev) in model.tags.items()} == {
                label: revision.rev for label, revision in session.tags.items()
            }

    @invariant()
    def every_program_and_watcher_knows_it(self):
        for side in self.sides:
            model = side.model
            assert {name: model.values[name] for name in BOUND} == {
                name: getattr(side.program, name) for name in BOUND
            }
            told = model.history[side.seen_before :]
            assert [(entry.name, entry.value, entry.rev) for entry in told] == [
                (change.name, change.new, change.rev) for change in side.all
            ]
            assert {entry.name: entry.value for entry in told} == side.latest

    @invariant()
    def other_handles_see_the_same(self):
        assert self.sides[0].model.values == dict(self.stranger.snapshot())
        pinned = self.side.program.pinned()
        assert self.side.program.x == pinned.x


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    database=None,
)
