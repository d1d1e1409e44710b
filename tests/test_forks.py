"""Forks: sessions that start as another one is, and stay apart."""

import gc
import tracemalloc

import pytest

from dspex import Claimed, InvalidValue, Session, UnknownSession, UnknownVariable, VersionConflict


def test_a_fork_starts_as_its_parent_is(session):
    session.set("n", 3)
    with session.fork() as fork:
        assert dict(session.snapshot()) == dict(fork.snapshot())
        assert (1, session) == (fork.record("n").version, fork.parent)


def test_a_fork_may_start_with_values_of_its_own(session):
    with session.fork({"n": 1, "temperature": 0.1}) as fork:
        assert (
            fork.get("n"),
            fork.get("temperature"),
            session.get("n"),
            session.get("temperature"),
        ) == (1, 0.1, 0, 0.7)


def test_a_fork_with_a_value_that_is_refused_is_not_made(session):
    with pytest.raises(InvalidValue):
        session.fork({"temperature": 9.0})


@pytest.mark.parametrize("sets_before", [0, 1, 3])
@pytest.mark.parametrize("sets_in_fork", [0, 1, 3])
def test_neither_sees_what_the_other_sets(session, sets_before, sets_in_fork):
    for value in range(sets_before):
        session.set("n", value)
    before = session.get("n")
    with session.fork() as fork:
        for value in range(sets_in_fork):
            fork.set("a", 10 + value)
            assert session.get("a") == 0
        own = fork.get("a")
        for value in range(3):
            session.update({"n": 100 + value, "a": 200 + value, "b": 300})
            assert (before, own, 0) == (fork.get("n"), fork.get("a"), fork.get("b"))
        assert {"n": before, "a": own, "b": 0}.items() <= dict(fork.snapshot()).items()


def test_versions_go_on_from_those_of_the_parent(session):
    session.set("n", 1)
    with session.fork() as fork:
        assert (fork.set("n", 2).version, session.record("n").version) == (2, 1)


def test_watchers_hear_of_their_own_session_only(session):
    parent, child = [], []
    with session.fork() as fork:
        session.watch("n", lambda change: parent.append(change.new))
        fork.watch("n", lambda change: child.append(change.new))
        session.set("n", 1)
        fork.set("n", 2)
    assert (parent, child) == ([1], [2])


def test_forks_nest(session):
    with session.fork({"a": 1}) as child, child.fork({"b": 2}) as grandchild:
        child.set("n", 5)
        assert (grandchild.get("a"), grandchild.get("b"), grandchild.get("n")) == (1, 2, 0)
        grandchild.commit_to_parent()
        assert (child.get("a"), child.get("b"), child.get("n")) == (1, 2, 5)
        assert (session.get("a"), session.get("b"), session.get("n")) == (0, 0, 0)
        child.commit_to_parent()
        assert (session.get("a"), session.get("b"), session.get("n")) == (1, 2, 5)


def test_a_fork_may_register_what_its_parent_does_not_have(session):
    with session.fork() as fork:
        fork.register("own", int, initial=1)
        fork.set("own", 2)
        assert (fork.get("own"), session.get("own", None)) == (2, None)
        session.register("own", str, initial="mine")
        assert (fork.get("own"), session.get("own")) == (2, "mine")


def test_a_parent_may_register_after_the_fork(session):
    with session.fork() as fork:
        session.register("late", int, initial=1)
        with pytest.raises(UnknownVariable):
            fork.get("late")


def test_the_history_of_a_fork_is_its_own(session):
    session.set("n", 1)
    with session.fork() as fork:
        fork.set("n", 2)
        fork.set("n", 3)
        session.set("n", 4)
        assert (
            [change.new for change in fork.history("n")],
            [change.new for change in session.history("n")],
        ) == ([2, 3], [1, 4])


def test_a_fork_can_go_back_to_where_it_began(session):
    session.set("n", 7)
    with session.fork() as fork:
        fork.tag("start")
        fork.set("n", 8)
        fork.set("n", 9)
        fork.rollback("n", 1)
        assert fork.get("n") == 7
        fork.set("n", 10)
        fork.rollback(to="start")
        assert fork.get("n") == 7


def test_closing_the_parent_leaves_the_fork(session):
    fork = session.fork({"n": 1})
    session.close()
    fork.set("n", 2)
    assert (fork.get("n"), fork.get("temperature")) == (2, 0.7)
    fork.close()


def test_closing_a_fork_leaves_the_parent(session):
    session.fork({"n": 1}).close()
    assert session.get("n") == 0


def test_a_fork_is_not_in_the_store(session, store):
    with session.fork({"n": 1}):
        assert [info.id for info in store.sessions()] == ["demo"]


def test_a_fork_is_free_of_the_claims_of_its_parent(session):
    claim = session.claim(["n"], owner="tuner", ttl=60)
    with session.fork() as fork:
        fork.set("n", 1)
        with pytest.raises(Claimed):
            fork.commit_to_parent()
        with claim:
            fork.commit_to_parent()
    assert session.get("n") == 1


# ---- commit_to_parent --------------------------------------------------------------------------------


def test_all_that_the_fork_set_comes_in_one_commit(session):
    seen = []
    session.watch("*", lambda change: seen.append((change.name, change.new, change.rev, change.source)))
    with session.fork() as fork:
        fork.set("a", 1)
        fork.set("a", 2)
        fork.set("b", 3)
        receipt = fork.commit_to_parent(metadata={"trial": 4}, source="tuner")
    assert sorted(seen) == [("a", 2, 1, "tuner"), ("b", 3, 1, "tuner")]
    assert receipt.revision == session.revision
    assert session.record("a").metadata == {"trial": 4}


def test_only_the_names_that_are_asked_for_come(session):
    with session.fork({"a": 1, "b": 2}) as fork:
        fork.commit_to_parent(["a"])
    assert (session.get("a"), session.get("b")) == (1, 0)


def test_a_fork_that_set_nothing_commits_nothing(session, state):
    before = state(session)
    with session.fork() as fork:
        assert fork.commit_to_parent().changes == ()
    assert before == state(session)


def test_what_somebody_set_in_the_parent_since_is_a_conflict(session, state):
    with session.fork({"a": 1, "b": 2}) as fork:
        session.set("a", 9)
        before = state(session)
        with pytest.raises(VersionConflict) as refused:
            fork.commit_to_parent()
        assert str(refused.value) == (
            "'a' in session 'demo' is at version 1, not 0: someone set it since. Read it again and retry."
        )
        assert before == state(session)
        fork.commit_to_parent(["b"])
        assert (session.get("a"), session.get("b")) == (9, 2)


def test_what_somebody_set_beside_it_is_none(session):
    with session.fork({"a": 1}) as fork:
        session.set("b", 9)
        fork.commit_to_parent()
    assert (session.get("a"), session.get("b")) == (1, 9)


def test_force_goes_over_a_conflict(session):
    with session.fork({"a": 1}) as fork:
        session.set("a", 9)
        fork.commit_to_parent(force=True)
    assert (session.get("a"), session.record("a").version) == (1, 2)


def test_what_the_fork_itself_committed_is_no_conflict(session):
    with session.fork() as fork:
        fork.set("a", 1)
        fork.commit_to_parent()
        fork.set("a", 2)
        fork.commit_to_parent()
    assert session.get("a") == 2


def test_names_that_nobody_has_cannot_be_committed(session, state):
    before = state(session)
    with session.fork({"a": 1}) as fork, pytest.raises(UnknownVariable):
        fork.commit_to_parent(["a", "nowhere"])
    assert before == state(session)


def test_a_session_that_is_no_fork_has_no_parent(session):
    with pytest.raises(UnknownSession) as refused:
        session.commit_to_parent()
    assert str(refused.value) == "session 'demo' is not a fork: it has no parent to commit to."
    assert session.parent is None


def test_many_values_of_a_fork_come_in_one_commit(session):
    names = [f"v{number}" for number in range(400)]
    for name in names:
        session.register(name, int, initial=0)
    with session.fork() as fork:
        for name in names:
            fork.set(name, 1)
        fork.commit_to_parent()
    assert {1} == {session.get(name) for name in names}
    assert session.revision.rev == 1


# ---- many --------------------------------------------------------------------------------------------


def test_64_forks_in_threads_stay_apart(session, together):
    session.set("n", -1)

    def trial(number):
        with session.fork({"a": number}) as fork:
            for step in range(100):
                fork.set("n", number * 1_000 + step)
                fork.update({"b": step, "temperature": number / 64})
                assert (number * 1_000 + step, number) == (fork.get("n"), fork.get("a"))
                assert (step, number / 64) == (fork.get("b"), fork.get("temperature"))
            return fork.get("n"), len(fork.history("n"))

    results = together(*(lambda number=number: trial(number) for number in range(64)))
    assert [(number * 1_000 + 99, 100) for number in range(64)] == results
    assert (session.get("n"), session.get("a"), session.get("b")) == (-1, 0, 0)


def test_forks_leave_nothing_behind(session):
    def trial():
        with session.fork({"a": 1}) as fork:
            fork.watch("n", lambda _: None)
            fork.set("n", 1)
            fork.set("n", 2)

    for _ in range(10):
        trial()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(500):
            trial()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 50_000


def test_private_forks_of_a_private_session_work():
    with Session() as session:
        session.register("n", int, initial=0)
        with session.fork({"n": 1}) as fork:
            assert (session.get("n"), fork.get("n")) == (0, 1)
            assert session.id != fork.id


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        (
            {"temperature": 9},
            InvalidValue,
            "temperature must be at most 1.5 (got 9.0) in a fork of session 'demo'.",
        ),
        ({"nowhere": 1}, UnknownVariable, "a fork of session 'demo' has no variable 'nowhere'."),
    ],
)
def test_a_fork_that_cannot_begin_is_refused_by_the_name_that_the_caller_knows(
    session, values, error, sentence
):
    with pytest.raises(error) as refused:
        session.fork(values)
    assert str(refused.value) == sentence
    assert "private" not in str(refused.value.facts)


@pytest.mark.parametrize("names", [3, "a", b"a"])
def test_what_is_given_back_is_a_list_of_names(session, names):
    with session.fork({"a": 1}) as fork, pytest.raises(InvalidValue) as refused:
        fork.commit_to_parent(names)
    assert str(refused.value) == f"names must be a list of names (got {names!r})."


def test_what_a_fork_sets_while_it_gives_back_is_given_the_next_time(session):
    with session.fork({"a": 1}) as fork:
        session.watch("a", lambda change: fork.set("a", 99) if change.value == 1 else None)
        fork.commit_to_parent()
        fork.commit_to_parent()
    assert 99 == session.get("a")


def test_giving_back_is_a_commit_of_its_own_inside_a_batch_too(session):
    with session.fork({"a": 1}) as fork:
        with pytest.raises(ZeroDivisionError), session.batch():
            fork.commit_to_parent()
            raise ZeroDivisionError
        fork.set("a", 2)
        fork.commit_to_parent()
    assert 2 == session.get("a")


def test_a_fork_that_sets_name_after_name_stays_small_and_keeps_their_order(session):
    with session.fork() as fork:
        assert (0, 0) == (fork.get("b"), fork.get("a"))
        fork.set("a", 1)
        fork.set("b", 2)
        assert ["a", "b"] == [change.name for change in fork.history()]
        assert fork.ledger._log is None
