"""Schemas: what a session declares, shared by all sessions that declare the same."""

import gc
from weakref import ref

import pytest

from dspex import (
    Choice,
    Float,
    Integer,
    InvalidDeclaration,
    LimitExceeded,
    Program,
    Session,
    VariableConflict,
    defvariable,
)
from dspex.commits import Commit, Condition, Declaration, Schema
from dspex.wire import pack_declaration, pack_plain, unpack_declaration, unpack_plain


def declared(name, kind=None, initial=0):
    return Declaration(name, kind or Integer(), initial)


def test_sessions_that_declare_the_same_share_one_schema():
    empty, one, two = Schema({}), declared("a"), declared("b")
    assert empty.extended((one, two)) is empty.extended((one, two))
    assert empty.extended((one,)).extended((two,)) is empty.extended((one,)).extended((two,))
    assert empty.extended(()) is empty


def test_saying_again_what_is_known_is_the_same_schema():
    known = Schema({}).extended((declared("a"), declared("b")))
    assert known.extended((declared("b"), declared("a"))) is known


def test_a_schema_is_found_only_by_declarations_that_it_keeps_alive():
    """It is found by their identities, and those of objects that are gone are given to others."""
    known = Schema({}).extended((declared("a"),))
    again, new = declared("a"), declared("b")
    both = known.extended((again, new))
    assert both.declarations["a"] is not again
    assert known.extended((again, new)) is not both
    kept, alone = ref(new), known.extended((new,))
    assert known.extended((new,)) is alone
    del new, both
    gc.collect()
    assert kept() is alone.declarations["b"]


def test_two_kinds_for_one_name_in_one_commit_are_refused(session, state):
    before = state(session)
    with pytest.raises(VariableConflict) as refused:
        session.ledger.commit(Commit(declare=(declared("x"), declared("x", Float(), 0.0))))
    assert str(refused.value) == (
        "'x' is Integer() in Session.register() but Float() in Session.register(). Give one of them another "
        "name, or run them in sessions of their own."
    )
    assert before == state(session)


def test_the_same_name_twice_with_one_kind_is_declared_once():
    with Session() as session:
        session.ledger.commit(Commit(declare=(declared("x", None, 1), declared("x", None, 2))))
        assert {"x": 1} == dict(session.snapshot())


@pytest.mark.parametrize("tunable", ["no", 0, None])
def test_tunable_is_yes_or_no_here_and_over_a_wire(tunable):
    sentence = rf"^tunable of 'n' must be True or False \(got {tunable!r}\)\.$"
    with pytest.raises(InvalidDeclaration, match=sentence):
        Declaration("n", Integer(), 0, tunable=tunable)
    fields = unpack_plain(pack_declaration(declared("n")))
    fields[5] = tunable
    with pytest.raises(InvalidDeclaration, match=sentence):
        unpack_declaration(pack_plain(fields))


def test_a_kind_that_is_too_large_to_travel_is_declared_nowhere(session, state):
    before = state(session)
    with pytest.raises(LimitExceeded) as refused:
        session.register("q", Choice(*range(20_000)), initial=0)
    assert str(refused.value) == (
        "the kind of 'q': value has 20000 items in one list or mapping; the limit is 10000."
    )
    assert before == state(session)
    session.register("q", Choice(*range(10_000)), initial=0)


def test_a_program_with_a_kind_that_is_too_large_is_bound_nowhere(session):
    class Wide(Program):
        q = defvariable(Choice(*range(20_000)), initial=0)

    with pytest.raises(LimitExceeded, match=r"^the kind of 'q': value has 20000 items"):
        Wide.bind(session)


def test_a_condition_travels_too():
    with pytest.raises(LimitExceeded, match=r"^when= of 'n': value has 20000 items"):
        Declaration("n", Integer(), 0, when=Condition("m", tuple(range(20_000))))


def test_a_condition_of_what_cannot_travel_is_refused():
    with pytest.raises(InvalidDeclaration, match=r"^when= of 'n' must be"):
        Declaration("n", Integer(), 0, when=Condition("m", (object(),)))
