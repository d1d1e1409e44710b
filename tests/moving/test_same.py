"""A session is the same in another store: moved, or copied."""

import itertools
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moving_tools import KINDS, demo, seen

from dspex import (
    Claimed,
    Integer,
    Session,
    UnknownSession,
    moving,
)
from dspex.testing.values import VALUES

CASES = sorted(name for name, case in VALUES.items() if not case.refused and "1 MiB" not in name)
IDS = (f"moved-{number}" for number in itertools.count())


def operations():
    names = st.sampled_from(["v0", "v1", "v2", "v3"])
    why = st.none() | st.dictionaries(st.text(max_size=3), st.integers(-5, 5) | st.just(-0.0), max_size=2)
    return st.lists(
        st.tuples(st.just("declare"), names, st.sampled_from(CASES))
        | st.tuples(st.just("set"), names, why)
        | st.tuples(st.just("batch"), st.lists(names, min_size=1, unique=True), why)
        | st.tuples(st.just("tag"), st.sampled_from(["good", "bad"]), st.none())
        | st.tuples(st.just("claim"), names, st.none()),
        max_size=25,
    )


def perform(session, steps):
    """Do *steps*, as far as they can be done; gives the claims that were made."""
    cases, turns, claims = {}, itertools.count(1), []

    def value(name):
        return cases[name].initial if next(turns) % 3 == 0 else cases[name].value()

    for what, name, detail in steps:
        if what == "declare" and name not in cases:
            cases[name] = VALUES[detail]
            session.register(name, cases[name].kind(), initial=cases[name].initial, description=detail)
        elif what == "tag":
            session.tag(name)
        elif what == "batch":
            names = [one for one in name if cases.get(one)]
            session.update({one: value(one) for one in names}, detail, source=f"by {len(names)}")
        elif cases.get(name) and what == "set":
            session.set(name, value(name), detail)
        elif cases.get(name) and what == "claim":
            claims.append(session.claim([name], owner="holder", ttl=600))
            cases[name] = None
    return claims


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=operations(), ways=st.lists(st.sampled_from(KINDS), min_size=2, max_size=4))
def test_a_session_is_the_same_wherever_it_moves(places, steps, ways):
    pytest.importorskip("numpy")
    with Session(next(IDS), store=places[ways[0]]) as session:
        claims = perform(session, steps)
        before = seen(session)
        for kind in ways[1:]:
            session.move_to(places[kind], as_id=next(IDS))
            assert seen(session) == before
        for claim in claims:
            (name,) = claim.names
            with pytest.raises(Claimed):
                session.set(name, session.get(name))
            assert claim.set(name, session.get(name)).version == session.record(name).version
            claim.release()
            session.set(name, session.get(name))


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=operations(), ways=st.lists(st.sampled_from(KINDS), min_size=2, max_size=4))
def test_a_copy_is_the_same_in_a_history_of_its_own(places, steps, ways):
    pytest.importorskip("numpy")
    with ExitStack() as stack:
        session = stack.enter_context(Session(next(IDS), store=places[ways[0]]))
        perform(session, steps)
        before, epochs = seen(session), set()
        for origin, target in itertools.pairwise(ways):
            copied = moving.copy(session.id, places[origin], places[target], as_id=next(IDS))
            session = stack.enter_context(copied)
            for name in session.variables:  # the class of a struct is known where it is declared
                declared = next(one for one in before["declared"] if one[0] == name)
                session.register(name, declared[1], initial=session.variables[name].initial)
            after = seen(session)
            assert len(after["epoch"]) == 1
            epochs |= after["epoch"]
            for own in ("epoch", "created"):
                after[own] = before[own]
            assert after == before
        assert len(epochs | before["epoch"]) == len(ways)


def test_a_copy_and_its_original_go_their_ways(place, opens):
    store = place("memory")
    session = demo(opens, store)
    session.set("n", 1)
    with moving.copy("demo", store, store, as_id="other") as copied:
        copied.set("n", 2)
        session.set("n", 3)
        assert (copied.get("n"), session.get("n")) == (2, 3)
        assert copied.revision.epoch != session.revision.epoch
        assert [change.value for change in copied.history("n")] == [1, 2]
        stream = copied.changes("n", since=session.revision)
        assert next(stream)["n"] == 2  # a snapshot: the revision is of another history
        stream.close()


def test_stores_may_be_named_by_their_urls(tmp_path):
    source, target = (f"sqlite:///{tmp_path}/{name}.db?durability=fast" for name in "ab")
    with Session("demo", store=source) as session:
        session.register("n", Integer(), initial=0)
        session.set("n", 7)
    with moving.copy("demo", source, target) as copied:
        assert copied.get("n") == 7
    with Session("demo", store=source) as session:  # nobody has the file any more
        assert session.get("n") == 7


def test_copying_what_is_not_there_makes_nothing(place):
    source, target = place("memory"), place("sqlite")
    with pytest.raises(UnknownSession):
        moving.copy("demo", source, target)
    assert target.sessions() == []
