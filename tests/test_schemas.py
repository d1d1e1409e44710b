"""Schemas: what a session declares, shared by all sessions that declare the same."""

import gc
from weakref import ref

import pytest

from dspex import Float, Integer, Session, VariableConflict
from dspex.commits import Commit, Declaration, Schema


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
