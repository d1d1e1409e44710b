"""Claims: keeping others off some variables for a while."""

import contextvars
import time
import types
from contextlib import ExitStack
from threading import TIMEOUT_MAX

import pytest

from dspex import (
    Claimed,
    InvalidDeclaration,
    InvalidName,
    InvalidValue,
    LimitExceeded,
    Session,
    SessionClosed,
    UnknownVariable,
)


@pytest.fixture
def clock(monkeypatch):
    """The clock by which claims run out."""
    turned = types.SimpleNamespace(now=1_000.0)
    monkeypatch.setattr(time, "monotonic", lambda: turned.now)
    return turned


def refused(call):
    with pytest.raises(Claimed) as caught:
        call()
    return caught.value


def test_a_claimed_variable_is_set_by_its_owner_only(session, state):
    claim = session.claim(["n"], owner="tuner", ttl=30)
    before = state(session)
    error = refused(lambda: session.set("n", 1))
    assert str(error) == (
        "'n' in session 'demo' is claimed by 'tuner' for another 30 s. Wait, or ask its owner to release it. "
        "If you are the owner: claim.set(…), or set in its block."
    )
    assert (error.name, error.session, error.owner) == ("n", "demo", "tuner")
    assert before == state(session)
    claim.set("n", 2)
    assert session.get("n") == 2


def test_a_claim_shows_what_it_is(session):
    claim = session.claim(["n", "a"], owner="tuner", ttl=2.5)
    assert repr(claim) == "<Claim on 'n', 'a' by 'tuner' in session 'demo', 2.5 s>"


def test_every_way_to_set_is_refused(session, state):
    session.set("n", 1)
    session.tag("one")
    session.set("n", 2)
    session.claim(["n"], owner="tuner", ttl=30)
    before = state(session)

    def batch():
        with session.batch():
            session.set("a", 1)
            session.set("n", 1)

    def swap():
        session.swap("n", lambda n: n + 1)

    for call in (
        batch,
        swap,
        lambda: session.update({"a": 1, "n": 1}),
        lambda: session.rollback("n", 1),
        lambda: session.rollback(to="one"),
        lambda: session.set("n", 1, expect=2),
    ):
        refused(call)
        assert before == state(session)


def test_a_claim_is_against_other_handles_too(session, store):
    with Session("demo", store=store) as other:
        session.claim(["n"], owner="tuner", ttl=30)
        refused(lambda: other.set("n", 1))


def test_other_names_are_free(session):
    session.claim(["n"], owner="tuner", ttl=30)
    session.set("a", 1)
    assert session.get("a") == 1


def test_everything_that_reads_goes_on(session):
    session.claim(["n"], owner="tuner", ttl=30)
    session.tag("now")
    assert (session.get("n"), session.snapshot()["n"], list(session.history("n"))) == (0, 0, [])


def test_in_the_block_every_set_of_this_thread_has_the_right(session):
    with session.claim(["n", "a"], owner="tuner", ttl=30) as claim:
        session.set("n", 1)
        session.update({"n": 2, "a": 1, "b": 1})
        session.swap("n", lambda n: n + 1)
        with session.batch():
            session.set("n", session.get("n") + 1)
        session.rollback("a", 0)
        claim.update({"n": 5})
    assert (session.get("n"), session.get("a"), session.get("b")) == (5, 0, 1)


def test_in_the_block_of_one_claim_another_may_be_entered(session):
    with session.claim(["a"], owner="outer", ttl=30), session.claim(["b"], owner="inner", ttl=30):
        session.set("b", 1)
        session.set("a", 1)
        session.update({"a": 2, "b": 2})
    assert (session.get("a"), session.get("b")) == (2, 2)


def test_a_claim_inside_one_on_the_same_name_leaves_it_when_it_ends(session, together):
    def by_another():
        (error,) = together(lambda: refused(lambda: session.set("n", 9)))
        return error.owner

    with session.claim(["n"], owner="outer", ttl=30):
        with session.claim(["n"], owner="inner", ttl=30):
            session.set("n", 1)
            assert by_another() == "inner"
        assert by_another() == "outer"
        session.set("n", 2)
    session.set("n", 3)


def test_a_claim_inside_another_leaves_it_when_its_time_is_over(session, clock, together):
    with session.claim(["n"], owner="outer", ttl=30), session.claim(["n"], owner="inner", ttl=10):
        clock.now += 20
        session.set("n", 1)
        (error,) = together(lambda: refused(lambda: session.set("n", 9)))
        assert error.owner == "outer"


def test_a_claim_outlives_the_one_that_it_was_made_in(session, clock):
    with session.claim(["n"], owner="outer", ttl=10):
        inner = session.claim(["n"], owner="inner", ttl=30)
        clock.now += 20
    assert refused(lambda: session.set("n", 1)).owner == "inner"
    inner.set("n", 2)
    inner.release()
    session.set("n", 3)


def test_who_makes_a_claim_inside_another_keeps_its_own_right(session):
    with session.claim(["n"], owner="outer", ttl=30) as outer:
        session.claim(["n"], owner="inner", ttl=30)
        session.set("n", 1)
        outer.set("n", 2)
        outer.renew()
    assert refused(lambda: session.set("n", 3)).owner == "inner"


def test_two_claims_inside_one_do_not_stand_side_by_side(session):
    with session.claim(["n"], owner="outer", ttl=30):
        session.claim(["n"], owner="first", ttl=30)
        assert refused(lambda: session.claim(["n"], owner="second", ttl=30)).owner == "first"


def test_claims_do_not_nest_without_end(session):
    with ExitStack() as blocks:
        for _ in range(16):
            blocks.enter_context(session.claim(["n"], owner="tuner", ttl=30))
        with pytest.raises(LimitExceeded, match="nested 16 deep: is this a loop"):
            session.claim(["n"], owner="tuner", ttl=30)
    session.set("n", 1)


def test_another_thread_does_not_have_the_right(session, together):
    with session.claim(["n"], owner="tuner", ttl=30):
        (error,) = together(lambda: refused(lambda: session.set("n", 1)))
    assert error.owner == "tuner"


def test_the_right_goes_with_the_context(session, together):
    with session.claim(["n"], owner="tuner", ttl=30):
        context = contextvars.copy_context()
        together(lambda: context.run(session.set, "n", 1))
    assert session.get("n") == 1


def test_another_handle_in_the_block_does_not_have_the_right(session, store):
    with Session("demo", store=store) as other, session.claim(["n"], owner="tuner", ttl=30):
        refused(lambda: other.set("n", 1))


def test_leaving_the_block_releases(session):
    with session.claim(["n"], owner="tuner", ttl=30):
        pass
    session.set("n", 1)
    with pytest.raises(ZeroDivisionError), session.claim(["n"], owner="tuner", ttl=30):
        raise ZeroDivisionError
    session.set("n", 2)
    assert session.get("n") == 2


def test_a_released_claim_is_over(session):
    claim = session.claim(["n"], owner="tuner", ttl=30)
    claim.release()
    session.set("n", 1)
    assert session.get("n") == 1


def test_a_claim_ends_with_its_time(session, clock):
    session.claim(["n"], owner="tuner", ttl=30)
    clock.now += 29.9
    refused(lambda: session.set("n", 1))
    clock.now += 0.2
    session.set("n", 1)
    assert session.get("n") == 1


def test_renewing_starts_the_time_again(session, clock):
    claim = session.claim(["n"], owner="tuner", ttl=30)
    clock.now += 20
    claim.renew()
    clock.now += 20
    refused(lambda: session.set("n", 1))
    clock.now += 20
    session.set("n", 1)
    assert session.get("n") == 1


def test_a_claim_that_is_over_cannot_be_renewed_once_another_has_it(session, clock):
    first = session.claim(["n", "a"], owner="first", ttl=30)
    clock.now += 40
    session.claim(["n"], owner="second", ttl=30)
    assert refused(first.renew).owner == "second"
    assert refused(lambda: first.set("n", 1)).owner == "second"
    session.set("a", 1)


def test_two_claims_on_one_name_do_not_stand_side_by_side(session, state):
    session.claim(["n"], owner="first", ttl=30)
    before = state(session)
    assert refused(lambda: session.claim(["a", "n"], owner="second", ttl=30)).owner == "first"
    session.set("a", 1)
    assert before != state(session)


def test_releasing_leaves_the_claims_of_others(session, clock):
    first = session.claim(["n"], owner="first", ttl=30)
    clock.now += 40
    session.claim(["n"], owner="second", ttl=30)
    first.release()
    assert refused(lambda: session.set("n", 1)).owner == "second"


def test_what_is_set_through_a_claim_is_signed_by_its_owner(session):
    claim = session.claim(["n"], owner="tuner", ttl=30)
    assert claim.set("n", 1).source == "tuner"
    assert claim.set("n", 2, {"why": "best"}, source="me").source == "me"
    assert session.record("n").metadata == {"why": "best"}


def test_a_claim_says_what_it_is(session):
    claim = session.claim(["n", "a"], owner="tuner", ttl=30)
    assert (("n", "a"), "tuner", session) == (claim.names, claim.owner, claim.session)


def test_the_token_of_a_claim_is_not_shown(session):
    claim = session.claim(["n"], owner="tuner", ttl=30)
    assert claim.request.token not in repr(claim)


def test_claiming_is_no_commit_that_anyone_is_told_of(session):
    seen = []
    session.watch("*", seen.append)
    before = session.revision
    with session.claim(["n"], owner="tuner", ttl=30):
        pass
    assert ([], before) == (seen, session.revision)


def test_a_closed_session_does_not_fail_at_the_end_of_the_block(session):
    with session.claim(["n"], owner="tuner", ttl=30):
        session.close()
    assert session.closed


def test_what_the_block_raises_is_not_hidden_by_a_release_that_fails(session, store):
    with pytest.raises(ZeroDivisionError), session.claim(["n"], owner="tuner", ttl=30):
        Session("demo", store=store).delete()
        raise ZeroDivisionError
    with pytest.raises(SessionClosed):
        session.get("n")


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), True, "1", None])
def test_a_claim_needs_a_time(session, ttl):
    with pytest.raises(InvalidValue) as caught:
        session.claim(["n"], owner="tuner", ttl=ttl)
    assert f"ttl must be more than 0 seconds (got {ttl!r}) in session 'demo'." == str(caught.value)
    session.set("n", 1)


@pytest.mark.parametrize(("ttl", "shown"), [(float("inf"), "inf"), (10**400, "an integer of 1329 bits")])
def test_a_claim_has_an_end(session, ttl, shown):
    with pytest.raises(InvalidValue) as caught:
        session.claim(["n"], owner="tuner", ttl=ttl)
    sentence = f"ttl must be at most {TIMEOUT_MAX:.0f} seconds (got {shown}) in session 'demo'."
    assert sentence == str(caught.value)
    session.set("n", 1)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "names must be at least one name (got none) in session 'demo'."),
        ("n", "names must be a list of names (got 'n')."),
        (3, "names must be a list of names (got 3)."),
        (None, "names must be a list of names (got None)."),
    ],
)
def test_a_claim_needs_names(session, names, sentence):
    with pytest.raises(InvalidValue) as caught:
        session.claim(names, owner="tuner", ttl=30)
    assert sentence == str(caught.value)


def test_a_claim_has_each_name_once(session):
    with session.claim(["n", "a"] * 50_000, owner="tuner", ttl=30) as claim:
        assert ("n", "a") == claim.names


def test_what_is_no_name_cannot_be_claimed(session):
    with pytest.raises(UnknownVariable, match=r"has no variable \['n'\]"):
        session.claim([["n"], ["n"]], owner="tuner", ttl=30)


def test_a_claim_needs_names_that_are_there(session):
    with pytest.raises(UnknownVariable):
        session.claim(["n", "nowhere"], owner="tuner", ttl=30)
    session.set("n", 1)


def test_a_claim_needs_an_owner_with_a_name(session):
    with pytest.raises(InvalidName):
        session.claim(["n"], owner="the tuner", ttl=30)
    session.set("n", 1)


def test_the_block_of_a_claim_is_entered_once(session):
    claim = session.claim(["a"], owner="me", ttl=60)
    with pytest.raises(InvalidDeclaration) as refused, claim, claim:
        pass
    assert str(refused.value) == (
        "the block of this claim is open already; make another one: session.claim(…)."
    )
    with claim:  # it is over, but that is no other one's claim
        session.set("a", 1)
