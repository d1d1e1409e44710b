"""How much a server lets its clients do."""

from __future__ import annotations

import attrs
import pytest

from dspex import Choice, LimitExceeded, Session, Text, errors
from dspex.commits import Commit
from dspex.rpc.limits import Limits


def test_each_limit_at_its_edge(serving, remote, eventually):
    limits = Limits(
        sessions=3, links=2, watches=2, commits=5, opens=1e6, session_bytes=20_000, value_bytes=30_000
    )
    server = serving(limits=limits)
    first = remote(server.url)
    sessions = [first.open(f"s{index}") for index in range(2)]
    with pytest.raises(LimitExceeded, match="watch 2 sessions"):
        first.open("s2")
    second = remote(server.url, max_staleness=99)
    second.open("s2")
    with pytest.raises(LimitExceeded, match="3 sessions"):
        second.open("s3")
    third = remote(server.url, max_staleness=98)
    with pytest.raises((LimitExceeded, errors.StoreUnavailable), match="2 open streams"):
        _short(third).open("s0")
    with pytest.raises(LimitExceeded, match="more than 5 a second") as raised:
        _tag_often(sessions[0])
    assert 0 < raised.value.retry_after < 1


def _tag_often(ledger):
    for number in range(20):
        ledger.commit(Commit(tag=f"t{number}"))


def _short(store):
    store._address = attrs.evolve(store._address, timers=attrs.evolve(store._address.timers, deadline=0.5))
    return store


def test_the_values_of_a_session_and_of_a_server_are_bounded(serving, remote):
    server = serving(limits=Limits(session_bytes=20_000, value_bytes=30_000, commits=1e6))
    store = remote(server.url)
    first, second = Session("one", store=store), Session("two", store=store)
    for session in (first, second):
        for name in "abc":
            session.register(name, Text(), initial="")
    first.set("a", "x" * 12_000)
    with pytest.raises(LimitExceeded, match="session 'one' would take"):
        first.set("b", "x" * 12_000)
    second.set("a", "x" * 12_000)
    with pytest.raises(LimitExceeded, match="this server would take"):
        second.set("b", "x" * 7_000)
    first.set("a", "small")
    second.set("b", "x" * 7_000)
    first.close()
    second.close()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_what_is_refused_takes_no_room(serving, remote, tmp_path, kind):
    url = {"memory": "memory://room", "sqlite": f"sqlite:///{tmp_path}/room.db"}[kind]
    server = serving(url, limits=Limits(session_bytes=20_000, value_bytes=30_000, commits=1e6))
    with Session("one", store=remote(server.url)) as session:
        for name in "abc":
            session.register(name, Text(), initial="")
        for _ in range(2):
            for name in "abc":
                with pytest.raises(errors.VersionConflict):
                    session.set(name, "x" * 12_000, expect=7)
        session.set("a", "x" * 12_000)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_initial_values_take_room_too(serving, remote, tmp_path, kind):
    url = {"memory": "memory://room", "sqlite": f"sqlite:///{tmp_path}/room.db"}[kind]
    server = serving(url, limits=Limits(session_bytes=20_000, value_bytes=30_000, commits=1e6))
    with Session("one", store=remote(server.url)) as session:
        session.register("a", Text(), initial="x" * 12_000)
        with pytest.raises(LimitExceeded, match="session 'one' would take"):
            session.register("b", Text(), initial="x" * 12_000)
        assert list(session.variables) == ["a"]
        session.set("a", "small")  # what it was declared with stays
        with pytest.raises(LimitExceeded, match="session 'one' would take"):
            session.register("b", Text(), initial="x" * 12_000)
        session.register("a", Text(), initial="x" * 12_000)


def test_what_a_session_was_declared_with_takes_room_when_it_is_opened_again(serving, remote, tmp_path):
    url = f"sqlite:///{tmp_path}/room.db"
    with Session("one", store=url) as session:
        session.register("a", Choice("x" * 6_000, "y" * 6_000, "small"), initial="small")
        session.register("b", Text(), initial="")
    server = serving(url, limits=Limits(session_bytes=20_000, value_bytes=30_000, commits=1e6))
    with Session("one", store=remote(server.url)) as session:
        with pytest.raises(LimitExceeded, match="session 'one' would take"):
            session.set("b", "x" * 12_000)
        session.set("b", "x" * 6_000)
