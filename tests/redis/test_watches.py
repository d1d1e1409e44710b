"""What is published is a hint: whatever is lost of it, every copy becomes what the server has."""

from __future__ import annotations

import os
import random
import threading
from functools import partial

import pytest
from linear import Op, linearizable
from proxy import Proxy
from validators import check

from dspex import Integer, Session, Text, errors
from dspex.commits import Commit, Declaration, Write
from dspex.stores.base import HISTORY

SOAK = bool(os.environ.get("DSPEX_SOAK"))
NAMES = [f"v{number}" for number in range(50)]
SETS = 100_000 if SOAK else 4_000
CUTS = 200 if SOAK else 12


def declared(store, id="torture"):
    session = Session(id, store=store, source="writer")
    session.ledger.commit(Commit(declare=tuple(Declaration(name, Integer(), 0) for name in NAMES)))
    return session


class Naive(threading.Thread):
    """What a client is that believes in pub/sub: it subscribes, and subscribes again when it was cut off."""

    def __init__(self, server, channel):
        super().__init__(daemon=True)
        self.server = server
        self.channel = channel
        self.heard = 0
        self.last = {}
        self.stop = threading.Event()
        self.ready = threading.Event()

    def run(self):
        import redis

        with self.server.client() as client:
            while not self.stop.is_set():
                try:
                    with client.pubsub(ignore_subscribe_messages=False) as channel:
                        channel.ssubscribe(self.channel)
                        while not self.stop.is_set():
                            message = channel.get_sharded_message(timeout=0.05)
                            if message and message["type"] == "ssubscribe":
                                self.ready.set()
                            elif message and message["type"] == "smessage":
                                self.heard += 1
                                name = message["data"].split(b" ", 5)[5].split(b":")[1].rstrip(b"0123456789")
                                self.last[name] = message["data"]
                except (redis.ConnectionError, redis.TimeoutError, OSError):
                    continue


@pytest.mark.timeout(600)
def test_after_many_disconnects_nothing_is_stale_and_nothing_went_back(own, stores, eventually):
    server = own()
    with declared(stores(server.url)) as writer:
        copies = [Session("torture", store=stores(server.url)) for _ in range(2)]
        streams = [[] for _ in copies]
        watches = [
            copy.watch("*", stream.append, mode="all") for copy, stream in zip(copies, streams, strict=True)
        ]
        naive = Naive(server, "dx:{torture}:c")
        naive.start()
        assert naive.ready.wait(30)
        truth = {}
        cut_at = set(random.Random(5).sample(range(SETS), CUTS))
        with server.client() as admin:
            for number in range(SETS):
                change = writer.set(NAMES[number % 50], number)
                truth[change.epoch, change.rev] = {change.name: (change.value, change.version)}
                if number in cut_at:
                    admin.client_kill_filter(_type="pubsub")
                if number % 400 == 0:  # who is further behind than the log goes back is told so, not all
                    eventually(
                        lambda: all(
                            writer.revision.rev - copy.revision.rev < HISTORY // 2 for copy in copies
                        ),
                        "no copy is too far behind",
                    )
        for copy in copies:
            eventually(lambda copy=copy: copy.revision == writer.revision, "the copy has all")
            assert {name: writer.get(name) for name in NAMES} == {name: copy.get(name) for name in NAMES}
        assert [watch.closed for watch in watches] == [False, False]
        for copy, stream in zip(copies, streams, strict=True):
            eventually(lambda stream=stream: len(stream) == SETS, "every change was told")
            check(stream, truth)
            copy.close()
        naive.stop.set()
        naive.join(10)
        # The test does cut: who believes in pub/sub has lost something, and ends with values that are not so.
        assert 0 < naive.heard < SETS
        assert naive.last != {name: writer.get(name) for name in NAMES}


def test_a_hint_that_was_lost_is_found_by_the_poll(own, stores, demo, eventually):
    server = own()
    writer, reader = demo(stores(server.url)), demo(stores(server.url))
    ledger = reader.ledger
    ledger.peer._channels.clear()  # it hears, and believes that it is not meant
    writer.set("n", 1)
    eventually(lambda: reader.get("n") == 1, "the poll has found it")


def test_a_copy_that_is_far_behind_begins_with_what_is_there(own, stores, demo, tmp_path, eventually):
    server = own()
    with Proxy(server.path, str(tmp_path / "proxy")) as proxy:
        writer, reader = demo(stores(server.url)), demo(stores(f"redis+unix://{proxy.listen}"))
        every, newest = reader.watch("n", print, mode="all"), []
        reader.watch("n", newest.append)
        proxy.refuse = True
        proxy.reset()
        for value in range(1, 4_000):
            writer.set("n", value)
        proxy.refuse = False
        eventually(lambda: reader.revision == writer.revision, "the copy has all")
        eventually(lambda: [change.value for change in newest] == [3_999], "the newest change was told")
        eventually(lambda: every.closed, "who wants every change is told that some are missing")
        assert isinstance(every.last_error, errors.LimitExceeded)
        reader.close()


@pytest.mark.timeout(300)
def test_histories_are_linearizable_while_connections_break(own, stores, together):
    server = own()
    histories = 50 if SOAK else 8
    with server.client() as admin:
        clients = [stores(server.url) for _ in range(4)]
        for seed in range(histories):
            sessions = [Session(f"linear{seed}", store=store) for store in clients]
            sessions[0].register("x", Integer(), initial=0)
            for session in sessions:
                session.snapshot()
            history = []
            stop = threading.Event()

            def cut(stop=stop):
                while not stop.wait(0.02):
                    admin.client_kill_filter(_type="normal")
                    admin.client_kill_filter(_type="pubsub")

            def work(index, session, seed=seed, history=history):
                _work(random.Random(100 * seed + index), index, session, history, 60)

            cutter = threading.Thread(target=cut, daemon=True)
            cutter.start()
            try:
                together(*(partial(work, index, session) for index, session in enumerate(sessions)))
            finally:
                stop.set()
                cutter.join(10)
            assert linearizable(history, 0), f"seed {seed}"
            for session in sessions:
                session.close()


def _work(rng, index, session, history, count):
    import time

    now = time.monotonic
    for number in range(count):
        value = index * 1_000_000 + number + 1
        begin = now()
        match rng.randrange(3):
            case 0:
                seen = session.snapshot()["x"]
                history.append(Op("read", "x", seen, begin, now()))
            case 1:
                try:
                    session.set("x", value)
                    history.append(Op("write", "x", value, begin, now()))
                except errors.StoreUnavailable:
                    history.append(Op("write", "x", value, begin, now(), maybe=True))
            case 2:
                record = session.snapshot().records["x"]
                begin = now()
                try:
                    session.set("x", value, expect=record.version)
                    history.append(Op("swap", "x", value, begin, now(), expected=record.value))
                except errors.VersionConflict:
                    history.append(Op("swap", "x", value, begin, now(), expected=record.value, ok=False))


def test_no_swap_of_many_clients_is_lost(own, stores, together):
    server = own()
    clients, times = (32, 1_000) if SOAK else (8, 40)
    sessions = [Session("swaps", store=stores(server.url)) for _ in range(clients)]
    sessions[0].register("x", Integer(), initial=0)
    for session in sessions:
        session.snapshot()

    def work(session):
        for _ in range(times):
            session.swap("x", lambda value: value + 1)

    together(*(partial(work, session) for session in sessions), deadline=300)
    assert {clients * times} == {session.snapshot()["x"] for session in sessions}
    for session in sessions:
        session.close()


def test_pairs_that_are_set_together_are_never_seen_apart(own, stores, busy, eventually):
    server = own()
    writer, reader = (Session("pairs", store=stores(server.url)) for _ in range(2))
    with writer, reader:
        writer.ledger.commit(Commit(declare=tuple(Declaration(name, Integer(), 0) for name in "ab")))
        reader.snapshot()
        seen, torn = {}, []

        def told(change):
            seen.setdefault(change.rev, set()).add(change.value)

        reader.watch("*", told, mode="all")

        def look():
            snapshot = reader.snapshot()
            if snapshot["a"] != snapshot["b"]:
                torn.append(snapshot)

        rounds = 50_000 if SOAK else 400
        with server.client() as admin, busy(look):
            for value in range(1, rounds):
                writer.update({"a": value, "b": value})
                if value % 100 == 0:
                    admin.client_kill_filter(_type="pubsub")
        eventually(lambda: len(seen) == rounds - 1, "all was told")
        assert torn == []
        assert {1} == {len(values) for values in seen.values()}


def test_a_commit_whose_answer_is_lost_is_made_once(own, stores, tmp_path, eventually):
    server = own()
    with Proxy(server.path, str(tmp_path / "proxy")) as proxy:
        through = Session("once", store=stores(f"redis+unix://{proxy.listen}"))
        through.register("n", Integer(), initial=0)
        stop = threading.Event()

        def lose():
            for _ in range(1_000 if SOAK else 40):
                stop.wait(0.01)
                proxy.drop_down = True
                stop.wait(0.004)
                proxy.drop_down = False
                proxy.reset()

        loser = threading.Thread(target=lose, daemon=True)
        loser.start()
        revs = []
        while loser.is_alive():
            revs.append(through.set("n", len(revs)).rev)
        proxy.heal()
        rounds = len(revs)
        assert list(range(1, rounds + 1)) == revs
        through.close()
    with Session("once", store=stores(server.url)) as beneath:
        assert (rounds, rounds) == (beneath.record("n").version, beneath.revision.rev)


def test_the_outcome_of_a_commit_that_got_no_answer_can_be_found_out(own, stores, tmp_path):
    server = own()
    with Proxy(server.path, str(tmp_path / "proxy")) as proxy:
        session = Session("unknown", store=stores(f"redis+unix://{proxy.listen}?deadline=0.5"))
        session.register("n", Integer(), initial=0)
        session.set("n", 1)
        proxy.drop_down = True
        with pytest.raises(errors.DspexError) as caught:
            session.set("n", 2)
        assert isinstance(caught.value, errors.StoreUnavailable | errors.DeadlineExceeded)
        proxy.heal()
        receipt = session.ledger.commit(Commit((Write("n", 2),), op=caught.value.op))
        assert (2, 2) == (receipt.rev, session.record("n").version)
        session.close()


def test_a_connection_that_is_dead_without_a_word_is_noticed(own, stores, tmp_path, eventually):
    server = own()
    with Proxy(server.path, str(tmp_path / "proxy")) as proxy:
        reader = Session("half", store=stores(f"redis+unix://{proxy.listen}"))
        reader.register("n", Integer(), initial=0)
        eventually(lambda: reader.ledger.status == "LIVE", "live")
        proxy.half_open()
        eventually(lambda: reader.ledger.status == "STALE", "stale")
        with Session("half", store=stores(server.url)) as writer:
            writer.set("n", 7)
        proxy.heal()
        eventually(lambda: reader.get("n") == 7 and reader.ledger.status == "LIVE", "live again")
        reader.close()


def test_values_that_are_too_old_are_not_read(own, stores, eventually):
    server = own()
    session = Session("old", store=stores(f"{server.url}?max-staleness=0.3"))
    session.register("n", Integer(), initial=0)
    server.freeze()
    try:
        eventually(lambda: _refused(errors.StaleRead, lambda: session.get("n")), "it says so")
    finally:
        server.thaw()
    eventually(lambda: not _refused(errors.StaleRead, lambda: session.get("n")), "it is read again")
    session.close()


def _refused(error, call):
    try:
        call()
    except error:
        return True
    return False


def test_a_callback_that_waits_does_not_hold_up_others(own, stores, demo, eventually):
    server = own()
    writer, store = stores(server.url), stores(server.url)
    one, other = demo(store, "one"), demo(store, "other")
    gate, told = threading.Event(), []
    one.watch("n", lambda _: gate.wait(30))
    other.watch("n", told.append)
    with Session("one", store=writer) as first, Session("other", store=writer) as second:
        first.set("n", 1)
        second.set("n", 2)
        eventually(lambda: [change.value for change in told] == [2], "the other was told")
    gate.set()


def test_nor_does_one_whose_hint_came_together_with_theirs(own, stores, demo, eventually, monkeypatch):
    server = own()
    writer, store = stores(server.url), stores(server.url)
    watched, told = [demo(store, f"s{number}") for number in range(5)], []
    gate, frames = threading.Event(), []

    def tell(change):
        told.append(change.value)
        gate.wait(30)

    for session in watched:
        session.watch("n", tell)

    def keep(_ledger, data, *_, **__):
        frames.append(data)
        raise errors.StoreUnavailable("kept for later")

    for number, session in enumerate(watched):
        with Session(session.id, store=writer) as other, monkeypatch.context() as patched:
            patched.setattr(type(other.ledger), "_ask", keep)
            with pytest.raises(errors.StoreUnavailable):
                other.set("n", number + 1)
    with server.raw() as wire:
        wire.sendall(b"".join(frames))
        eventually(lambda: sorted(told) == [1, 2, 3, 4, 5], "all were told, though all callbacks wait")
        gate.set()


def test_a_callback_may_set_in_the_thread_that_hears(own, stores, demo, eventually):
    server = own()
    writer, reader = demo(stores(server.url)), demo(stores(server.url))
    reader.watch("n", lambda change: reader.set("a", change.value * 2))
    writer.set("n", 4)
    eventually(lambda: writer.get("a") == 8, "the callback has set")


def test_what_is_larger_than_a_server_sends_to_who_hears_comes_all_the_same(own, stores, demo, eventually):
    server = own("client-output-buffer-limit pubsub 1mb 1mb 1")
    writer = demo(stores(server.url))
    text = "x" * 900_000
    for number in range(8):
        writer.register(f"text{number}", Text(), initial="")
        writer.set(f"text{number}", text)
    reader = demo(stores(server.url))
    assert (reader.get("text7"), reader.ledger.peer.cuts) == (text, 0)
    server.call("CLIENT", "KILL", "TYPE", "pubsub")
    for number in range(8):
        writer.set(f"text{number}", text + "y")
    eventually(lambda: reader.get("text7") == text + "y", "it is up to date")
    assert reader.ledger.peer.cuts == 1
