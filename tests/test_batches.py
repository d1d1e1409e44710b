"""Batches: many sets, one commit."""

import asyncio
import contextvars

import pytest

from dspex import (
    Claimed,
    Integer,
    InvalidCall,
    InvalidDeclaration,
    InvalidValue,
    Program,
    Session,
    UnknownVariable,
    VersionConflict,
    batches,
    defvariable,
)


class Pair(Program):
    a = defvariable(Integer(), initial=0)
    b = defvariable(Integer(), initial=0)


def test_a_batch_is_underway_until_its_end(session):
    before = set(batches.underway)
    with pytest.raises(InvalidValue), session.batch() as batch:
        assert {*before, id(batch)} == batches.underway
        session.set("a", "one")
    assert before == batches.underway


def test_a_batch_is_one_commit_at_its_end(session):
    seen = []
    session.watch("*", lambda change: seen.append((change.name, change.new, change.rev)))
    with session.batch({"why": "pair"}, source="me") as batch:
        session.set("a", 1)
        session.set("b", 2)
        session.set("a", 3)
        assert (session.get("a"), session.get("b"), seen, session.revision.rev) == (0, 0, [], 0)
        assert batch.receipt is None
    assert seen == [("a", 3, 1), ("b", 2, 1)]
    assert session.revision == batch.receipt.revision
    assert (
        session.record("a").source,
        session.record("a").metadata,
        session.record("a").version,
    ) == ("me", {"why": "pair"}, 1)


def test_an_exception_drops_the_batch(session, state):
    before = state(session)
    with pytest.raises(ZeroDivisionError), session.batch() as batch:
        session.set("a", 1)
        raise ZeroDivisionError
    assert before == state(session)
    assert batch.receipt is None
    session.set("a", 2)
    assert session.get("a") == 2


def test_a_value_that_is_refused_raises_at_its_own_line(session):
    with session.batch():
        session.set("a", 1)
        with pytest.raises(InvalidValue) as refused:
            session.set("temperature", 2.0)
        with pytest.raises(UnknownVariable):
            session.set("nowhere", 1)
    assert str(refused.value) == "temperature must be at most 1.5 (got 2.0) in session 'demo'."
    assert (session.get("a"), session.get("temperature")) == (1, 0.7)


def test_what_set_gives_inside_is_provisional(session):
    with session.batch():
        change = session.set("temperature", 1)
        assert (change.new, change.old, change.version, change.rev) == (1.0, 0.7, 1, 0)


def test_an_empty_batch_commits_nothing(session, state):
    before = state(session)
    with session.batch() as batch:
        pass
    assert before == state(session)
    assert batch.receipt is None


def test_a_batch_inside_a_batch_joins_it(session):
    with session.batch():
        session.set("a", 1)
        with session.batch() as inner:
            session.set("b", 2)
        assert ((session.get("a"), session.get("b")), inner.receipt) == ((0, 0), None)
        session.set("n", 3)
    assert (session.get("a"), session.get("b"), session.get("n"), session.revision.rev) == (1, 2, 3, 1)


def test_batches_of_two_sessions_do_not_mix(session):
    with Session() as other:
        other.register("n", int, initial=0)
        with session.batch():
            session.set("n", 1)
            with other.batch():
                other.set("n", 2)
                session.set("a", 3)
            assert (other.get("n"), session.get("n"), session.get("a")) == (2, 0, 0)
            other.set("n", 4)
            assert other.get("n") == 4
        assert (session.get("n"), session.get("a"), session.revision.rev) == (1, 3, 1)


def test_another_handle_is_not_in_the_batch(session, store):
    with Session("demo", store=store) as other, session.batch():
        session.set("a", 1)
        other.set("b", 2)
        assert (session.get("a"), session.get("b")) == (0, 2)


def test_other_threads_are_not_in_the_batch(session, together):
    with session.batch():
        session.set("a", 1)
        together(lambda: session.set("b", 2))
        assert (session.get("a"), session.get("b")) == (0, 2)
    assert (session.get("a"), session.get("b")) == (1, 2)


def test_other_tasks_are_not_in_the_batch(session):
    async def main():
        entered, done = asyncio.Event(), asyncio.Event()

        async def batching():
            async with session.batch():
                await session.aset("a", 1)
                entered.set()
                await done.wait()

        task = asyncio.create_task(batching())
        await entered.wait()
        await session.aset("b", 2)
        seen = session.get("a"), session.get("b")
        done.set()
        await task
        return seen

    assert asyncio.run(main()) == (0, 2)
    assert (session.get("a"), session.get("b")) == (1, 2)


def test_what_outlives_a_batch_is_not_in_it(session, together):
    """A task that was started inside a block still sets when another batch is open somewhere."""
    with session.batch():
        session.set("a", 1)
        context = contextvars.copy_context()
    with session.batch():
        together(lambda: context.run(session.set, "b", 5))
        assert session.get("b") == 5
    assert (session.get("a"), session.get("b")) == (1, 5)


def test_update_waits_for_the_end_of_the_batch_too(session):
    with session.batch():
        session.update({"a": 1, "b": 2})
        assert (session.get("a"), session.get("b")) == (0, 0)
        session.set("n", 3)
    assert (session.get("a"), session.get("b"), session.get("n"), session.revision.rev) == (1, 2, 3, 1)


def test_swaps_in_one_batch_add_up(session):
    with session.batch():
        for _ in range(3):
            session.swap("n", lambda n: n + 1)
    assert (session.get("n"), session.revision.rev) == (3, 1)


def test_what_a_bound_program_sets_joins_the_batch(session):
    pair = Pair.bind(session)
    with session.batch():
        pair.a = 1
        pair.b = 2
        assert (pair.a, pair.b) == (0, 0)
    assert (pair.a, pair.b, session.revision.rev) == (1, 2, 1)


def test_what_is_expected_is_looked_at_when_the_batch_ends(session, store):
    with Session("demo", store=store) as other:
        with pytest.raises(VersionConflict), session.batch():
            session.set("a", 1, expect=0)
            session.set("b", 1)
            other.set("a", 9)
        assert (session.get("a"), session.get("b")) == (9, 0)
        with session.batch():
            session.set("a", 1, expect=1)
    assert session.get("a") == 1


def test_setting_a_name_again_still_expects_what_was_expected(session):
    session.set("a", 5)
    with pytest.raises(VersionConflict), session.batch():
        session.set("a", 1, expect=0)
        session.set("a", 2)
    assert session.get("a") == 5


def test_the_last_words_of_each_set_are_kept(session):
    with session.batch({"run": 1}):
        session.set("a", 1, {"why": "first"}, source="me")
        session.set("b", 1, {"who": "you"})
    record = session.record("a")
    assert (record.source, record.metadata) == ("me", {"run": 1, "why": "first", "who": "you"})


def test_a_batch_may_set_every_variable_that_a_session_may_have():
    with Session() as session:
        names = [f"v{number}" for number in range(1_000)]
        for name in names:
            session.register(name, int, initial=0)
        with session.batch():
            for name in names:
                session.set(name, 1)
        assert ({1}, 1) == ({session.get(name) for name in names}, session.revision.rev)


def test_pairs_set_in_batches_are_never_torn(session, busy, switching):
    seen = []
    session.watch("*", seen.append, mode="all")
    count = iter(range(10**9))

    def write():
        value = next(count)
        with session.batch():
            session.set("a", value)
            session.set("b", value)

    with busy(write):
        for _ in range(2_000):
            snapshot = session.snapshot()
            assert snapshot["a"] == snapshot["b"]
    assert ["a", "b"] * (len(seen) // 2) == [change.name for change in seen]
    assert [change.rev for change in seen[::2]] == [change.rev for change in seen[1::2]]


def test_a_session_that_is_closed_inside_the_block_refuses_the_batch(session, store):
    with Session("demo", store=store) as other:
        with pytest.raises(Exception, match="this handle of session 'demo' is closed"), session.batch():
            session.set("a", 1)
            session.close()
        assert other.get("a") == 0


def test_an_update_that_is_refused_leaves_nothing_in_the_batch(session):
    with session.batch():
        with pytest.raises(InvalidValue):
            session.update({"a": 1, "n": "no number"})
        session.set("b", 2)
    assert (0, 2) == (session.get("a"), session.get("b"))


def test_a_batch_can_be_used_again_and_is_empty_then(session):
    batch = session.batch()
    with batch:
        session.set("a", 1)
    session.set("a", 5)
    with session.batch(), batch:
        session.set("b", 2)
    assert (5, 2, 3) == (session.get("a"), session.get("b"), session.revision.rev)


def test_a_batch_that_is_open_cannot_be_opened_again(session):
    with session.batch() as batch, pytest.raises(InvalidDeclaration), batch:
        pass


def test_an_inner_batch_that_fails_drops_only_itself(session):
    with session.batch():
        session.set("a", 1)
        with pytest.raises(ZeroDivisionError), session.batch():
            session.set("b", 2)
            raise ZeroDivisionError
    assert (1, 0) == (session.get("a"), session.get("b"))


def test_the_author_of_an_inner_batch_is_the_author_of_its_values(session):
    with session.batch(source="outer"):
        session.set("a", 1)
        with session.batch(source="inner"):
            session.set("b", 2)
    assert ("outer", "inner") == (session.record("a").source, session.record("b").source)


def test_of_its_first_use_a_batch_keeps_nothing(session):
    batch = session.batch({"why": "each time"})
    claim = session.claim(["a"], owner="me", ttl=60)
    with batch:
        claim.set("a", 1, {"first": True})
    assert {"why": "each time", "first": True} == session.record("a").metadata
    with batch:
        session.set("b", 2)
    assert {"why": "each time"} == session.record("b").metadata
    with pytest.raises(Claimed), batch:
        session.set("a", 3)
    with batch:
        pass
    assert batch.receipt is None


def test_a_swap_in_a_batch_keeps_what_is_expected(session, state):
    session.set("a", 1)
    before = state(session)
    with pytest.raises(VersionConflict), session.batch():
        session.set("a", 2, expect=0)
        with session.batch():
            session.swap("a", lambda a: a + 1)
    assert before == state(session)


def test_a_batch_has_the_right_of_one_claim(session):
    first, second = (session.claim([name], owner="me", ttl=60) for name in "ab")
    with session.batch() as batch:
        first.set("a", 1)
        with pytest.raises(InvalidCall) as refused:
            second.set("b", 1)
    assert str(refused.value) == (
        "a batch of session 'demo' commits with the right of one claim (got two). Claim all the names "
        "together, or make a batch for each."
    )
    assert ["a"] == [change.name for change in batch.receipt.changes]
    with first, session.claim(["a"], owner="me", ttl=60) as inner, session.batch():
        inner.set("a", 2)
        first.set("a", 3)
    assert session.get("a") == 3
