"""What the clients of a session may rely on: one order, nothing lost, nothing torn, nothing twice."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from contextlib import suppress

import attrs
import pytest
from linear import Op, linearizable
from proxy import Proxy
from soak import LIMIT, often

from dspex import DeadlineExceeded, Integer, Session, StoreUnavailable, VersionConflict
from dspex.commits import Commit, Write
from dspex.rpc.limits import Timers

pytestmark = pytest.mark.timeout(LIMIT)

QUICK = attrs.evolve(Timers().divided(20), good=0.02)
NAMES = ("a", "b", "c")


@pytest.fixture(params=["memory", "sqlite"])
def served(request, serving, tmp_path):
    """A server in front of each store."""
    url = f"sqlite:///{tmp_path}/served.db?durability=fast"
    return serving(url if request.param == "sqlite" else None)


@pytest.fixture
def beneath(server):
    yield from _beneath(server)


def _beneath(server):
    with Session("w", store=server.store) as session:
        for name in NAMES:
            session.register(name, Integer(), initial=0)
        yield session


@pytest.fixture
def proxied(server, tmp_path):
    with Proxy(server.listen.removeprefix("unix://"), str(tmp_path / "proxy")) as proxy:
        yield proxy


def a_client(session, chance, history, numbers, ops):
    """What one client does, with the time of each call. Who is not answered does not know what happened."""
    clock = time.perf_counter
    for _ in range(ops):
        name, number = chance.choice(NAMES), next(numbers)
        what = chance.choice(["read", "write", "swap"])
        record = session.record(name)
        begin = clock()
        try:
            if what == "read":
                value = session.snapshot()[name]
                history.append(Op("read", name, value, begin, clock()))
            elif what == "write":
                session.set(name, number)
                history.append(Op("write", name, number, begin, clock()))
            else:
                with suppress(VersionConflict):
                    session.set(name, number, expect=record.version)
                    history.append(Op("swap", name, number, begin, clock(), record.value))
        except (StoreUnavailable, DeadlineExceeded):
            if what == "write":
                history.append(Op("write", name, number, begin, clock(), maybe=True))
            elif what == "swap":
                history.append(Op("swap", name, number, begin, clock(), record.value, maybe=True))


@pytest.mark.parametrize("way", ["direct", "disconnects"])
def test_what_clients_see_is_linearizable(served, remote, together, tmp_path, *, way):
    histories, ops = often((2, 60), (50, 400))
    upstream = served.listen.removeprefix("unix://")
    for turn in range(histories):
        with Proxy(upstream, str(tmp_path / f"proxy{turn}")) as proxy:
            history, numbers = [], itertools.count(1)
            stop = threading.Event()

            def client(seed, turn=turn, history=history, numbers=numbers, proxy=proxy):
                store = remote(proxy.url, max_staleness=1e6 + seed, timers=QUICK)
                with Session(f"h{turn}", store=store) as session:
                    for name in NAMES:
                        session.register(name, Integer(), initial=0)
                    a_client(session, random.Random(10 * turn + seed), history, numbers, ops)

            def cut(stop=stop, proxy=proxy, history=history):
                seen = 0
                while way == "disconnects" and not stop.wait(0.005):
                    if len(history) > seen + 25:
                        seen = len(history)
                        proxy.reset()

            cutter = threading.Thread(target=cut)
            cutter.start()
            try:
                together(*(lambda s=seed: client(s) for seed in range(5)), deadline=LIMIT)
            finally:
                stop.set()
                cutter.join(20)
            assert len(history) > 2 * ops
            assert linearizable(history, 0), f"history {turn}"


def test_no_swap_is_lost(beneath, server, remote, together):
    swaps = often(30, 1_000)
    stores = [remote(server.url, max_staleness=1e6 + index) for index in range(8)]
    sessions = [Session("w", store=store) for store in stores]

    def work(session):
        for _ in range(swaps):
            session.swap("a", lambda value: value + 1)

    together(*(lambda s=session: work(s) for session in sessions for _ in range(4)), deadline=LIMIT)
    assert beneath.get("a") == 32 * swaps
    for session in sessions:
        session.close()


def test_a_pair_is_never_seen_torn(beneath, server, proxied, remote, together):
    batches, watching = often((4_000, 4), (50_000, 16))
    torn = []
    stop = threading.Event()
    timers = attrs.evolve(QUICK, deadline=60.0)  # of a hundred breaks in a row, on a busy machine

    def watch(index):
        with Session("w", store=remote(proxied.url, max_staleness=1e6 + index, timers=timers)) as session:
            pairs = {}

            def hear(change):
                pair = pairs.setdefault(change.rev, [])
                pair.append(change.value)
                if len(pair) == 2 and len(set(pairs.pop(change.rev))) != 1:
                    torn.append(change)

            session.watch("*", hear)
            while not stop.wait(0.01):
                snapshot = session.snapshot()
                if snapshot["a"] != snapshot["b"]:
                    torn.append(snapshot)

    def write():
        try:
            for number in range(batches):
                beneath.update({"a": number, "b": number})
                if number % 400 == 399:
                    proxied.reset()
                if number % 20 == 0:
                    time.sleep(0)
        finally:
            stop.set()

    together(write, *(lambda i=index: watch(i) for index in range(watching)), deadline=LIMIT)
    assert torn == []


def test_an_own_write_is_never_read_older(proxied, remote, demo, server):
    session = demo(remote(proxied.url))
    with Session("demo", store=server.store) as beneath:
        stop = threading.Event()

        def disturb():
            while not stop.is_set():
                beneath.set("a", random.randrange(100))
                proxied.delay = random.choice([0] * often(3, 30) + [0.002, 0.025])
                stop.wait(0.001)

        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            for number in range(often(300, 50_000)):
                change = session.set("n", number)
                assert number == session.get("n")
                assert session.revision.rev >= change.rev
        finally:
            stop.set()
            thread.join(20)


def test_a_retry_is_not_a_second_write(proxied, remote, demo, server):
    """Of every ten answers three are lost, after the server has done what was asked."""
    sets = often(120, 20_000)
    timers = attrs.evolve(QUICK, deadline=2.0, backoff=(0.005, 0.05))
    session = demo(remote(proxied.url, max_staleness=math.inf, timers=timers))
    chance = random.Random(1)
    lose, resolved = threading.Semaphore(0), 0

    def lose_replies():
        while lose.acquire():
            if stop:
                return
            time.sleep(0.003)  # as long as it takes to arrive
            proxied.drop_down = False
            proxied.reset()

    stop = []
    thread = threading.Thread(target=lose_replies)
    thread.start()
    try:
        with Session("demo", store=server.store) as beneath:
            start = beneath.revision.rev
            for number in range(sets):
                if chance.random() < 0.3:
                    proxied.drop_down = True
                    lose.release()
                try:
                    session.set("n", number)
                except (StoreUnavailable, DeadlineExceeded) as error:
                    receipt = _resolved(session, Commit((Write("n", number),), op=error.op))
                    assert [change.value for change in receipt.changes] == [number]
                    resolved += 1
            assert beneath.revision.rev - start == sets
            assert [change.value for change in beneath.history("n")][-10:] == list(range(sets))[-10:]
            assert session.get("n") == beneath.get("n") == sets - 1
    finally:
        stop.append(True)
        lose.release()
        thread.join(20)
    assert proxied.opened > sets / 10
    assert resolved < sets / 10


def _resolved(session, commit):
    while True:
        with suppress(StoreUnavailable, DeadlineExceeded):
            return session.ledger.commit(commit)
