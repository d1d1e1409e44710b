"""Sessions that come to a server and leave it: lost answers, dead ends, and what nobody should send."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import threading
from contextlib import suppress

import attrs
import pytest
from proxy import Proxy

from dspex import (
    DspexError,
    Integer,
    InvalidDeclaration,
    InvalidValue,
    LimitExceeded,
    Session,
    SessionExists,
    SessionMoved,
    SessionMoving,
    StoreUnavailable,
    Text,
    UnknownSession,
    moving,
    open_store,
)
from dspex.rpc import holds
from dspex.rpc._generated import dspex_pb2 as pb
from dspex.rpc.holds import RemoteHold
from dspex.rpc.limits import Limits, Timers
from dspex.stores import MemoryStore
from dspex.stores.movable import MemoryHold
from dspex.stores.pieces import digest, pieces_of

QUICK = Timers().divided(20)
TOKEN = "a token that is long enough"


@pytest.fixture
def proxied(server, tmp_path):
    with Proxy(server.listen.removeprefix("unix://"), str(tmp_path / "proxy")) as proxy:
        yield proxy


@pytest.fixture
def here():
    """The session 'demo' of this process, with some history."""
    with Session("demo", store=MemoryStore(), source="tests") as session:
        session.register("n", Integer(), initial=0)
        session.register("word", Text(), initial="")
        for value in range(5):
            session.update({"n": value, "word": "x" * value}, {"why": value})
        session.tag("five")
        yield session


def moved(verb):
    with suppress(SessionMoved):
        verb()
        return False
    return True


# ---- who has it open -----------------------------------------------------------------------------------


def test_clients_of_a_session_that_moves_hear_where_it_went(server, remote, demo, eventually):
    session, other = demo(remote(server.url)), demo(remote(server.url))
    beneath = Session("demo", store=server.store)
    ended = []
    other.watch("n", print).ended = lambda: ended.append(True)
    target = MemoryStore()
    session.move_to(target, as_id="there")
    eventually(lambda: moved(lambda: other.get("n")), "the other handle hears of it")
    for verb in (
        lambda: other.set("n", 1),
        beneath.snapshot,
        lambda: Session("demo", store=remote(server.url)),
    ):
        with pytest.raises(SessionMoved, match="as 'there'") as error:
            verb()
        assert (error.value.session, error.value.session_id) == ("demo", "there")
    assert ended == [True]
    assert session.set("n", 1).rev == 1
    beneath.close()


def test_a_client_that_was_away_hears_of_the_move_when_it_comes_back(
    server, proxied, remote, demo, eventually
):
    away = demo(remote(proxied.url, timers=attrs.evolve(QUICK, good=0.02), max_staleness=math.inf))
    session = demo(remote(server.url))
    proxied.refuse = True
    proxied.reset()
    session.move_to(MemoryStore())
    proxied.heal()
    eventually(lambda: moved(lambda: away.get("n")), "the one who was away hears of it")


def test_clients_of_a_shared_session_hear_where_it_went(here, remote, eventually):
    with here.share(timers=QUICK) as share, Session(share.id, store=remote(share.url)) as client:
        assert client.get("n") == 4
        here.move_to(MemoryStore())
        eventually(lambda: moved(lambda: client.get("n")), "the client hears of it")
    assert here.set("n", 5).version == 6


def test_a_commit_of_another_client_waits_for_a_session_that_is_held(server, remote, demo):
    session, other = demo(remote(server.url)), demo(remote(server.url))
    hold = session.ledger.hold()
    with pytest.raises(SessionMoving):
        other.ledger.put("n", 1)
    with pytest.raises(SessionMoving):
        other.ledger.hold()
    done = []
    threads = [threading.Thread(target=lambda: done.append(other.set("n", 1)))]
    threads += [threading.Thread(target=lambda: done.append(session.tag("later")))]
    for thread in threads:
        thread.start()
    assert (done, other.get("n")) == ([], 0)
    hold.release()
    hold.release()
    for thread in threads:
        thread.join(30)
    assert (len(done), session.snapshot()["n"]) == (2, 1)


def test_a_session_goes_on_when_the_one_who_held_it_is_gone(serving, remote, demo, eventually):
    server = serving(timers=attrs.evolve(QUICK, hold=0.1, bookmark=0.02))
    session = demo(remote(server.url))
    hold = session.ledger.hold()
    assert session.set("n", 1).rev == 1  # waits until the server has forgotten
    with pytest.raises(
        StoreUnavailable, match="was not held back all the time: it stays where it is"
    ) as error:
        hold.forward("memory://x", "demo")
    assert not hasattr(error.value, "unknown")
    assert session.set("n", 2).rev == 2


def test_a_server_that_stops_lets_go_of_what_it_held(here, remote):
    with here.share(timers=QUICK) as share, Session(share.id, store=remote(share.url)) as client:
        client.ledger.hold()
        with pytest.raises(SessionMoving):
            here.ledger.put("n", 9)
    assert here.ledger.put("n", 9).value == 9


# ---- lost answers --------------------------------------------------------------------------------------


def test_answers_that_are_lost_on_the_way_in_change_nothing(server, proxied, remote, here, monkeypatch):
    store = remote(proxied.url, timers=attrs.evolve(QUICK, good=0.02))
    store.sessions()
    restore, made = MemoryStore.restore, []

    def loses_the_answer(self, *words):
        made.append(hold := restore(self, *words))
        proxied.reset()
        return hold

    monkeypatch.setattr(MemoryStore, "restore", loses_the_answer)
    before = digest(here.ledger.export())
    here.move_to(store)
    assert len(made) == 1
    assert digest(here.ledger.export()) == before
    assert here.set("n", 5).rev == 6
    with Session("demo", store=server.store) as beneath:
        assert beneath.get("n") == 5


def test_those_who_stay_behind_are_told_where_a_session_went(here, server, remote):
    with Session("demo", store=here.ledger.store) as other:
        here.move_to(remote(server.url))
        with pytest.raises(SessionMoved) as moved:
            other.get("n")
        assert moved.value.url == server.url


def test_answers_that_are_lost_on_the_way_out_change_nothing(server, proxied, remote, demo, monkeypatch):
    session = demo(remote(proxied.url, timers=attrs.evolve(QUICK, good=0.02), max_staleness=math.inf))
    session.set("n", 1)
    forward, hold, asked = MemoryHold.forward, MemoryHold.__init__, []

    def loses_the_answer(self, *words):
        forward(self, *words)
        asked.append("forward")
        proxied.reset()

    def loses_another(self, *words):
        hold(self, *words)
        asked.append("hold")
        proxied.reset()

    monkeypatch.setattr(MemoryHold, "forward", loses_the_answer)
    monkeypatch.setattr(MemoryHold, "__init__", loses_another)
    target = MemoryStore()
    session.move_to(target)
    assert asked == ["hold", "hold", "forward"]  # the second one is that of the target
    assert session.set("n", 2).rev == 2
    assert server.store.sessions() == []


def test_a_target_that_cannot_be_reached_any_more_leaves_the_session_where_it_is(
    server, proxied, remote, here, monkeypatch
):
    store = remote(proxied.url, timers=attrs.evolve(QUICK, deadline=0.1))
    store.sessions()
    told = []
    here.watch("n", lambda change: told.append(change.value))
    ask = holds._ask

    def breaks(link, what, request):
        if what == "restore":
            proxied.refuse = True
            proxied.reset()
        return ask(link, what, request)

    monkeypatch.setattr(holds, "_ask", breaks)
    with pytest.raises(StoreUnavailable, match="no contact with the server"):
        here.move_to(store)
    assert server.store.sessions() == []
    assert here.set("n", 5).version == 6
    assert told == [5]


def test_a_source_that_cannot_be_asked_whether_it_let_go_costs_nothing(
    proxied, remote, demo, monkeypatch, eventually
):
    store = remote(proxied.url, max_staleness=math.inf)
    session = demo(store)
    session.set("n", 1)
    store.link.address = attrs.evolve(store.link.address, timers=attrs.evolve(QUICK, deadline=0.1, good=0.02))
    forward = MemoryHold.forward

    def breaks(self, *words):
        forward(self, *words)
        proxied.refuse = True
        proxied.reset()

    monkeypatch.setattr(MemoryHold, "forward", breaks)
    target = MemoryStore()
    with pytest.raises(
        StoreUnavailable, match="Whether session 'demo' has ended there is not known"
    ) as error:
        session.move_to(target)
    assert "The copy in the other store was kept" in error.value.__notes__[0]
    proxied.heal()
    # A source that was quick to come back has said that it is over, and the handle is in the copy.
    heard = lambda: session.ledger.store is target or moved(lambda: session.get("n"))  # noqa: E731
    eventually(heard, "the handle hears that it had")
    with Session("demo", store=target) as kept:
        assert kept.set("n", 2).version == 2


SERVE = """
import sys
from dspex.rpc import Server
from dspex.stores import open_store
Server(open_store(sys.argv[1]), sys.argv[2]).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05])
def test_a_target_that_is_killed_has_the_whole_session_or_nothing(tmp_path, remote, here, delay):
    url, listen = f"sqlite:///{tmp_path}/target.db?durability=fast", f"unix://{tmp_path}/s"
    for value in range(2_000):
        here.update({"n": value, "word": str(value)})
    before = digest(here.ledger.export())
    command = [sys.executable, "-c", SERVE, url, listen]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout.readline() == b"ready\n"
        store = remote(f"grpc+{listen}", timers=attrs.evolve(QUICK, deadline=0.2))
        store.sessions()
        killer = threading.Timer(delay, server.kill)
        killer.start()
        try:
            here.move_to(store)
        except StoreUnavailable:
            stayed = True
            assert digest(here.ledger.export()) == before
            assert here.set("n", 0).version == 2_006
        else:
            stayed = False
        killer.join()
    target = open_store(url)
    assert stayed or [info.id for info in target.sessions()] == ["demo"]
    for info in target.sessions():  # also when only the answer was lost
        with Session(info.id, store=target) as there:
            assert digest(there.ledger.export()) == before
    target.close()


# ---- what nobody should send ---------------------------------------------------------------------------


def restoring(store, pieces, *, session="arrived", token=TOKEN, part=0, more=False):
    request = pb.RestoreRequest(session=session, token=token, part=part, pieces=pieces, more=more)
    return store.link.ask("restore", request)[-1].digest


def test_a_session_comes_in_parts_each_once(store, here):
    pieces = pieces_of(here.ledger.export())
    for part, piece in enumerate(pieces):
        for _ in range(2):
            made = restoring(store, [piece], part=part, more=part < len(pieces) - 1)
    assert made == digest(here.ledger.export())
    with Session("arrived", store=store) as arrived:
        assert arrived.revision == here.revision
        store.link.ask("hold", pb.HoldRequest(session="arrived", token=TOKEN, step=pb.STEP_RELEASE))
        assert arrived.set("n", 9).version == 6
    with pytest.raises(SessionExists):
        restoring(store, pieces)


@pytest.mark.parametrize(
    "case",
    [
        ({"part": 1}, StoreUnavailable, "not all parts have come before this one. Begin again"),
        ({"token": "short"}, InvalidValue, "token must be 16 to 1024 characters"),
        ({"token": "x" * 1025}, InvalidValue, "token must be 16 to 1024 characters"),
        ({"session": "a/b"}, DspexError, "a session id must be"),
        ({"pieces": []}, InvalidValue, "an export must be pieces"),
        ({"pieces": [b"\xc1"]}, InvalidValue, "piece 1 must be a piece of an export"),
    ],
)
def test_parts_that_make_no_session_are_refused(server, store, here, case):
    words, error, sentence = case
    words = {"pieces": pieces_of(here.ledger.export()), **words}
    with pytest.raises(error, match=sentence):
        restoring(store, **words)
    assert server.store.sessions() == []


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"session_bytes": 7_000}, "the values of session 'arrived' would take more than 7000 bytes"),
        ({"session_bytes": 5_000}, "takes more than the 10000 bytes that this server has for it"),
        ({"value_bytes": 7_000}, "takes more than|the values of this server would take more than 7000 bytes"),
        ({"sessions": 0}, "this server has 0 sessions, which is its limit"),
    ],
)
def test_a_session_that_is_too_large_for_a_server_is_refused(serving, remote, here, limits, sentence):
    server = serving(limits=Limits(**limits))
    here.set("word", "x" * 10_000)
    with pytest.raises(LimitExceeded, match=sentence):
        here.move_to(remote(server.url), as_id="arrived")
    assert server.store.sessions() == []
    assert here.set("n", 9).version == 6


def test_a_kind_that_a_server_does_not_take_does_not_come_in_by_a_move(server, store, here):
    here.register("slow", Text(pattern="(a+)+b"), initial="ab")
    with pytest.raises(InvalidDeclaration, match="could keep a server busy for very long"):
        here.move_to(store)
    assert server.store.sessions() == []


def test_anything_else_gets_a_typed_answer(server, store, here, demo):
    beside = demo(store)
    pieces = pieces_of(here.ledger.export())
    chance = random.Random(7)
    for number in range(300):
        wrong = list(pieces)
        for _ in range(chance.randint(1, 3)):
            index = chance.randrange(len(wrong))
            data = bytearray(wrong[index] or b"\x90")
            data[chance.randrange(len(data))] = chance.choice(
                [0, 1, 0x7F, 0xC0, 0xCB, 0xFF, chance.randrange(256)]
            )
            wrong[index] = bytes(data[: chance.choice([len(data), len(data), chance.randrange(len(data))])])
        if chance.random() < 0.3:
            wrong.insert(chance.randrange(len(wrong)), chance.choice(wrong))
        if chance.random() < 0.2:
            del wrong[chance.randrange(len(wrong))]
        token = f"{number:>20}"
        refusal = ""
        try:
            restoring(store, wrong, token=token)
        except DspexError as error:
            refusal = str(error)
        assert "failed to answer" not in refusal
        assert ("arrived" in [info.id for info in server.store.sessions()]) is not bool(refusal)
        store.link.ask("hold", pb.HoldRequest(session="arrived", token=token, step=pb.STEP_DROP))
    assert beside.set("n", 1).version == 1


def test_a_hold_is_only_of_use_to_who_has_its_token(server, store, demo):
    session = demo(store)
    session.ledger.hold()

    def ask(step, **words):
        store.link.ask("hold", pb.HoldRequest(session="demo", token=TOKEN, step=step, **words))

    ask(pb.STEP_RELEASE)
    ask(pb.STEP_DROP)
    with pytest.raises(StoreUnavailable, match="was not held back all the time"):
        ask(pb.STEP_FORWARD, url="memory://x", there="demo")
    for words in ({}, {"url": "memory://x"}, {"url": "x" * 1025, "there": "demo"}):
        with pytest.raises(InvalidValue, match="must be 1 to 1024 characters"):
            ask(pb.STEP_FORWARD, **words)
    for step in (pb.STEP_UNSPECIFIED, 99):
        with pytest.raises(InvalidValue, match="step must be one of those"):
            ask(step)
    with pytest.raises(SessionMoving):
        session.ledger.put("n", 1)


def test_only_what_was_restored_can_be_dropped(server, store, demo):
    session = demo(store)
    held = session.ledger.hold()
    assert isinstance(held, RemoteHold)
    held.drop()
    assert [info.id for info in server.store.sessions()] == ["demo"]
    held.release()
    assert session.set("n", 1).version == 1


def test_an_export_that_is_not_there_is_none(store):
    with pytest.raises(UnknownSession):
        moving.copy("nobody", store, MemoryStore())
