"""Those who use a session go along when it moves."""

import asyncio
import itertools
import threading
import time

import attrs
import pytest
from moving_tools import KINDS, demo

from dspex import (
    Program,
    Struct,
    Text,
    defvariable,
    placing,
)


class Agent(Program):
    n = defvariable(int, initial=0)
    a = defvariable(int, initial=0)
    b = defvariable(int, initial=0)

    def forward(self):
        return self.n


WAYS = [("memory", "sqlite", "memory")]
if "remote memory" in KINDS:
    WAYS += [("memory", "remote memory", "memory"), ("remote sqlite", "remote memory", "sqlite")]


@pytest.mark.parametrize("ways", WAYS, ids=" to ".join)
def test_writers_and_watchers_go_along_without_a_gap(place, opens, ways, eventually, busy):
    first, *others = map(place, ways)
    session = demo(opens, first)
    agent = Agent.bind(session)
    told, newest, bound, made = [], {}, [], itertools.count()
    session.watch("*", lambda change: told.append((change.rev, change.name, change.version)), mode="all")
    session.watch("n", lambda change: newest.update(n=change.value))
    iterated = []
    stream = session.changes("n", mode="all")
    listener = threading.Thread(target=lambda: iterated.extend(stream), daemon=True)
    listener.start()
    lowest = [0]

    def swap():
        session.swap("n", lambda n: n + 1)
        next(made)

    def pair():
        session.update({"a": session.get("a") + 1, "b": session.get("a") + 1})

    def read():
        now = session.get("n"), session.record("n").value, agent.n, session.snapshot()["n"]
        assert min(now) >= lowest[0]
        lowest[0] = max(lowest[0], now[0])

    def bind():
        bound[:] = [Agent(session), *bound[:4]]

    with busy(swap, swap, pair, read, bind):
        for other in others:
            before = session.revision.rev
            eventually(lambda at=before: session.revision.rev > at + 50, "commits before the move")
            session.move_to(other)
    done = next(made)
    last = session.set("n", session.get("n") + 1)
    eventually(lambda: iterated and iterated[-1].rev == last.rev, "the iterator told of the last change")
    stream.close()
    listener.join(30)
    assert last.value == done + 1
    assert [rev for rev, group in itertools.groupby(told, lambda one: one[0])] == [*range(1, last.rev + 1)]
    assert [change.value for change in iterated] == [*range(1, last.value + 1)]
    assert newest["n"] == last.value
    for program in (agent, *bound):
        assert (program.n, program.a, program.b) == (last.value, session.get("a"), session.get("a"))


def test_a_change_that_waits_to_be_told_is_told_after_the_move(place, opens, eventually):
    session = demo(opens, place("memory"))
    told, go = [], threading.Event()

    def slow(change):
        told.append(change.value)
        go.wait(30)

    session.watch("n", slow)
    session.watch("a", lambda change: told.append(change.name))
    writer = threading.Thread(target=session.set, args=("n", 1))
    writer.start()
    eventually(lambda: told == [1], "the first change is being told")
    session.set("n", 2)
    session.set("a", 1)  # so that the change of n is not the last that waits
    session.move_to(place("sqlite"))
    go.set()
    writer.join(30)
    assert told == [1, 2, "a"]


@pytest.mark.skipif("remote memory" not in KINDS, reason="needs grpc")
def test_what_is_still_on_its_way_from_a_server_is_told_too(place, opens, eventually):
    store = place("remote memory")
    session = demo(opens, store)
    session.register("word", Text(), initial="")
    told = []
    session.watch("word", lambda change: told.append(change.rev), mode="all")
    beneath = opens("demo", store=store.beneath)
    for value in range(60):
        beneath.set("word", str(value) * 50_000)
    session.move_to(place("memory"))
    eventually(lambda: len(told) >= 60, "all is told")
    assert told == [*range(1, 61)]


def test_claims_batches_forks_and_resumed_iterators_go_along(place, opens):
    source, target = place("memory"), place("sqlite")
    session = demo(opens, source)
    at = session.set("n", 1).revision
    fork = session.fork({"a": 5})
    with session.claim(["t"], owner="tuner", ttl=600), session.batch():
        session.set("t", 0.1)
        session.set("b", 2)
        session.move_to(target)
        assert session.get("b") == 0
    assert (session.get("t"), session.get("b")) == (0.1, 2)
    fork.commit_to_parent()
    fork.close()
    assert session.get("a") == 5
    with session.changes(since=at) as stream:
        assert {next(stream).name for _ in range(3)} == {"a", "b", "t"}
    session.set("t", 0.2)  # the claim ended with its block


def test_a_claim_lasts_as_long_as_it_would_have(place, opens):
    session = demo(opens, place("memory"))
    claim = session.claim(["t"], owner="tuner", ttl=100)
    session.move_to(place("sqlite"))
    session.move_to(place("memory"))
    ((name, held),) = session.ledger.export().claims
    assert (name, held.token) == ("t", claim.request.token)
    assert 50 < held.until - time.monotonic() <= 100


@attrs.frozen
class Settings:
    rate: float


@pytest.mark.parametrize("kind", KINDS)
def test_an_instance_of_your_class_is_one_after_the_move(place, opens, kind):
    session = demo(opens, place("memory"))
    session.register("settings", Struct(Settings), initial=Settings(0.5))
    session.set("settings", Settings(0.25))
    session.tag("quarter")
    session.move_to(place(kind))
    assert session.get("settings") == Settings(0.25)
    assert session.history("settings")[0].old == Settings(0.5)
    assert session.snapshot("quarter")["settings"] == Settings(0.25)


def test_a_private_session_becomes_one_that_lasts(place, opens):
    target = place("sqlite")
    session = opens()
    session.register("n", int, initial=0)
    session.set("n", 7)
    session.move_to(target, as_id="kept")
    session.close()
    assert opens("kept", store=target).get("n") == 7


def test_a_program_that_is_bound_meanwhile_does_not_stop_the_move(place, opens, monkeypatch):
    class Late(Program):
        more = defvariable(int, initial=0)

        def init(self):
            self.session.set("more", 1)

        def forward(self):
            return self.more

    session, target = demo(opens, place("memory")), place("sqlite")
    restore, runs = type(target).restore, []
    binder = threading.Thread(target=lambda: runs.append(Late.run(session=session)))

    def binds(store, *words):
        binder.start()
        binder.join(0.1)  # as far as it comes
        return restore(store, *words)

    monkeypatch.setattr(type(target), "restore", binds)
    begin = time.monotonic()
    session.move_to(target)
    binder.join(30)
    assert (runs, session.get("more")) == ([1], 1)
    assert time.monotonic() - begin < placing.PATIENCE


async def _moves(session, target):
    async def sets():
        for value in range(1, 101):
            await session.aset("n", value)
            await asyncio.sleep(0)

    await asyncio.gather(session.amove_to(target), sets())


def test_a_loop_goes_on_while_its_session_moves(place, opens):
    session, target = demo(opens, place("memory")), place("sqlite")
    asyncio.run(_moves(session, target))
    assert [change.value for change in session.history("n")] == [*range(1, 101)]
    assert [info.id for info in target.sessions()] == ["demo"]
