"""What watchers of a server are told: in order, once, whole, nothing missed, whoever is slow."""

from __future__ import annotations

import math
import random
import threading
import time
from bisect import bisect
from operator import itemgetter

import attrs
import grpc
import pytest
from proxy import Proxy
from soak import LIMIT, often
from validators import Reset, check

from dspex import Integer, Session
from dspex.records import Snapshot
from dspex.rpc._generated import dspex_pb2 as pb
from dspex.rpc.extra import SERVICE
from dspex.rpc.limits import Timers
from dspex.stores import base

pytestmark = pytest.mark.timeout(LIMIT)

QUICK = attrs.evolve(Timers().divided(20), good=0.02)
NAMES = tuple("abcdefghij")
SLACK = 1.0
"""Seconds for a busy machine, whose threads do not run when they could."""


class Recorder:
    """A sink that keeps what it is told, with a reset wherever the copy went another way."""

    def __init__(self, ledger):
        self.queue = ()
        self.stream = []
        self.jumped = False
        self.ledger = ledger
        ledger.subscribe(self)
        self.stream.append(self._reset())

    def _reset(self):
        values = {name: (record.value, record.version) for name, record in self.ledger.live.items()}
        return Reset(self.ledger.epoch, self.ledger.rev, values)

    def apply(self, changes):
        if self.jumped:
            self.jumped = False
            self.stream.append(self._reset())
        else:
            self.stream.extend(changes)

    def lost(self, rev, names):
        self.jumped = True

    def drain(self):
        pass


class Truth:
    """A sink beneath the server that keeps what happened."""

    def __init__(self, ledger):
        self.queue = ()
        self.commits = {}
        ledger.subscribe(self)

    def apply(self, changes):
        for change in changes:
            at = self.commits.setdefault((change.epoch, change.rev), {})
            at[change.name] = change.value, change.version

    def drain(self):
        pass


@pytest.fixture
def beneath(server):
    with Session("w", store=server.store) as session:
        for name in NAMES:
            session.register(name, Integer(), initial=0)
        yield session


@pytest.fixture
def proxied(server, tmp_path):
    with Proxy(server.listen.removeprefix("unix://"), str(tmp_path / "proxy")) as proxy:
        yield proxy


def writer(session, count, seed, stop=None):
    chance = random.Random(seed)
    for number in range(count):
        if stop is not None and stop.is_set():
            return
        if number % 10 == 0:
            session.update(dict.fromkeys(chance.sample(NAMES, 2), number))
        else:
            session.set(chance.choice(NAMES), number)
        if number % 40 == 0:
            time.sleep(0)  # gives the interpreter away, waits for nothing


def same(session, beneath):
    here, there = session.ledger.live, beneath.snapshot().records
    return {n: (r.value, r.version) for n, r in here.items()} == {
        n: (r.value, r.version) for n, r in there.items()
    }


def test_six_promises_under_disconnects(beneath, proxied, remote, together, eventually):
    sets, watching, cuts = often((12_000, 8, 20), (100_000, 20, 200))
    truth = Truth(beneath.ledger)
    watchers = [
        Session("w", store=remote(proxied.url, max_staleness=1e6 + index, timers=QUICK))
        for index in range(watching)
    ]
    recorders = [Recorder(session.ledger) for session in watchers]
    stop = threading.Event()

    def cut():
        for _ in range(cuts):
            if stop.wait(0.05):
                return
            proxied.reset()

    def write(seed):
        writer(beneath, sets // 4, seed)
        cutter.join(LIMIT)
        writer(beneath, 10, seed)

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        together(*(lambda s=seed: write(s) for seed in range(4)), deadline=LIMIT)
    finally:
        stop.set()
        cutter.join(20)
    begin = time.monotonic()
    for session in watchers:
        eventually(lambda s=session: same(s, beneath), "every watcher equals the truth")
    assert time.monotonic() - begin < 2 + SLACK
    for session, recorder in zip(watchers, recorders, strict=True):
        check(recorder.stream, truth.commits)
        assert session.ledger.store.link.resyncs == 0
        session.close()
    assert proxied.opened > len(watchers) + cuts / 2


def test_a_watch_resumes_from_any_revision(beneath, server, store):
    for number in range(300):
        beneath.set("a", number)
    head = beneath.revision
    chance = random.Random(2)
    with Session("w", store=store) as session:
        for number in range(1_000, 1_000 + often(300, 5_000)):
            offset = chance.randrange(-100, 101)
            since = attrs.evolve(head, rev=max(0, head.rev + offset))
            stream = session.changes("a", since=since)
            beneath.set("a", number)
            told = []
            for one in stream:
                told.append(one)
                last = one["a"] if isinstance(one, Snapshot) else one.value
                if last == number:
                    break
            stream.close()
            if offset <= 0 and since.rev >= beneath.ledger.history()[0].rev:
                assert [c.rev for c in told] == list(range(since.rev + 1, beneath.revision.rev + 1))
            head = beneath.revision


def test_nothing_is_missed_between_snapshot_and_events(beneath, server, remote):
    truth = Truth(beneath.ledger)
    stop = threading.Event()
    session = Session("w", store=remote(server.url, max_staleness=1e6))
    thread = threading.Thread(target=writer, args=(session, 10**9, 3, stop))
    store = remote(server.url)
    recorders = []
    thread.start()
    try:
        for _ in range(often(300, 5_000)):
            ledger = store.open("w")
            recorder = Recorder(ledger)
            ledger.sync()
            recorder.ledger.unsubscribe(recorder)
            recorders.append(recorder)
            ledger.close()
    finally:
        stop.set()
        thread.join(20)
        session.close()
    last = {name: [(0, (0, 0))] for name in NAMES}
    at = {}
    for (epoch, rev), values in truth.commits.items():
        at[rev] = (epoch, rev), values
        for name, value in values.items():
            last[name].append((rev, value))
    for recorder in recorders:
        first = recorder.stream[0]
        end = recorder.stream[-1].rev
        check(recorder.stream, dict(at[rev] for rev in range(first.rev + 1, end + 1)))
        for name, value in first.values.items():
            assert value == last[name][bisect(last[name], first.rev, key=itemgetter(0)) - 1][1]


@pytest.fixture
def forgetful(monkeypatch):
    """A store that keeps eight changes."""
    monkeypatch.setattr(base, "HISTORY", 8)
    monkeypatch.setattr("dspex.stores.log.LENGTH", 24)
    monkeypatch.setattr("dspex.rpc.hubs.HISTORY", 8)


@pytest.mark.usefixtures("forgetful")
def test_what_is_too_old_is_said(beneath, server):
    """Each of 2,000 resumes is told exactly what was since, or gets a snapshot that says why."""
    truth = Truth(beneath.ledger)
    writer(beneath, 600, 1)
    chance = random.Random(4)
    starts = {pb.START_RESUMED: 0, pb.START_COMPACTED: 0}
    with grpc.insecure_channel(server.listen.replace("unix://", "unix:")) as channel:
        subscribe = channel.unary_stream(f"/{SERVICE}/Subscribe")
        for number in range(2_000):
            head = beneath.revision
            since = head.rev - (chance.randrange(12) if number % 2 else chance.randrange(500))
            request = pb.SubscribeRequest(session="w", resume=pb.Revision(epoch=head.epoch, rev=since))
            stream = subscribe(request.SerializeToString(), timeout=30)
            items = _items(stream)
            opened = next(items).opened
            starts[opened.start] += 1
            if opened.start == pb.START_COMPACTED:
                assert opened.rev == head.rev
                newest = {one.name: (_value(one), one.version) for one in opened.records}
                assert newest == {r.name: (r.value, r.version) for r in beneath.snapshot().records.values()}
            else:
                rev, told = since, {}
                while rev < head.rev:
                    event = next(items).event
                    assert (event.prev, event.coalesced) == (rev, False)
                    rev = event.rev
                    told[head.epoch, rev] = {one.name: (_value(one), one.version) for one in event.changes}
                assert told == {at: truth.commits[at] for at in told}
                assert len(told) == head.rev - since
            stream.cancel()
            if number % 20 == 0:
                writer(beneath, chance.randrange(4), number)
    assert min(starts.values()) > 400


def _items(stream):
    for data in stream:
        yield from pb.Down.FromString(data).items


def _value(change):
    from dspex.wire import unpack_plain

    return unpack_plain(change.value)


@pytest.mark.usefixtures("forgetful")
def test_a_client_that_was_away_too_long_begins_with_a_snapshot(beneath, proxied, remote, eventually):
    truth = Truth(beneath.ledger)
    session = Session("w", store=remote(proxied.url, max_staleness=math.inf, timers=QUICK))
    recorder = Recorder(session.ledger)
    chance = random.Random(4)
    for away in (0, 1, 3, 8, 30, 100) * often(1, 10):
        eventually(lambda: session.ledger.status == "LIVE", "live")
        proxied.refuse = True
        proxied.reset()
        writer(beneath, away, chance.random())
        proxied.refuse = False
        eventually(lambda: same(session, beneath), "the watcher equals the truth")
    check(recorder.stream, truth.commits)
    assert any(isinstance(one, Reset) for one in recorder.stream[1:])
    session.close()
