"""A connection that breaks: what is promised about it, at a twentieth of the real times."""

from __future__ import annotations

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import attrs
import pytest
from proxy import Proxy
from soak import LIMIT, SOAK, often

from dspex import (
    DeadlineExceeded,
    Integer,
    InvalidValue,
    PermissionDenied,
    Session,
    StaleRead,
    StoreUnavailable,
    UnknownSession,
)
from dspex.commits import Commit, Write
from dspex.rpc import Server
from dspex.rpc.auth import new_token
from dspex.rpc.limits import Timers
from dspex.stores import MemoryStore

pytestmark = pytest.mark.timeout(LIMIT)

QUICK = Timers().divided(20)
SILENCE, HEALED = 16 / 20, 35 / 20
"""When a dead connection must be known, and when all must be well after it: 16 s and 35 s, divided."""

SLACK = 1.0
"""For a busy machine, whose threads do not run when they could."""


@pytest.fixture
def proxied(server, tmp_path):
    with Proxy(server.listen.removeprefix("unix://"), str(tmp_path / "proxy")) as proxy:
        yield proxy


@pytest.fixture
def far(proxied, remote, demo):
    """The session 'demo' through the proxy, which never refuses to be read."""
    # Breaks follow one another faster than in real life: a connection is good sooner, too.
    timers = attrs.evolve(QUICK, good=0.02)
    return demo(remote(proxied.url, max_staleness=math.inf, timers=timers))


def measured(condition, seconds, what):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() < begin + seconds + SLACK, what
        threading.Event().wait(0.002)
    return time.monotonic() - begin


@pytest.mark.parametrize("way", ["half_open", "reset"])
def test_a_dead_connection_is_noticed_and_replaced(far, server, proxied, way):
    with Session("demo", store=server.store) as beneath:
        for turn in range(often(10 if way == "half_open" else 20, 50)):
            _good(far)
            if way == "half_open":
                proxied.half_open()
                measured(lambda: far.ledger.status == "STALE", SILENCE, f"stale in round {turn}")
                beneath.set("n", turn)
                proxied.heal()
            else:
                beneath.set("n", turn)
                proxied.reset()
            measured(lambda r=turn: far.get("n") == r, HEALED, f"converged in round {turn}")
    assert far.ledger.store.link.resyncs == 0


def _good(session):
    """Wait until the connection has been good for long enough that the next attempt is made soon."""
    measured(lambda: session.ledger.status == "LIVE", HEALED, "live")
    begin = time.monotonic()
    measured(lambda: time.monotonic() - begin > 0.03, 0.03, "good")


def test_what_is_declared_while_a_client_is_away_has_its_initial_value(far, server, proxied, eventually):
    with Session("demo", store=server.store) as beneath:
        for name in ("late", "later"):
            proxied.refuse = name == "late"
            proxied.reset()
            beneath.register(name, Integer(), initial=7)
            proxied.refuse = False
            eventually(lambda n=name: n in far.variables, "the declaration")
            assert (far.get(name), far.record(name).version) == (7, 0)


@pytest.mark.skipif(not SOAK, reason="takes a minute a round")
def test_the_same_with_the_times_of_production(serving, remote, demo, tmp_path):
    server = serving(timers=Timers())
    with Proxy(server.listen.removeprefix("unix://"), str(tmp_path / "real")) as proxy:
        session = demo(remote(proxy.url, max_staleness=math.inf, timers=Timers()))
        with Session("demo", store=server.store) as beneath:
            for turn in range(4):
                measured(lambda: session.ledger.status == "LIVE", 35, "live")
                proxy.half_open()
                measured(lambda: session.ledger.status == "STALE", 16, "stale")
                beneath.set("n", turn)
                proxy.heal()
                measured(lambda r=turn: session.get("n") == r, 35, "converged")


@pytest.mark.parametrize("seconds", [0.1, 1, 2, 4, 6, 20])
def test_a_change_during_a_drop_arrives_soon_after_it(far, server, proxied, seconds):
    with Session("demo", store=server.store) as beneath:
        for turn in range(often(3, 30)):
            _good(far)
            proxied.half_open()
            beneath.set("n", turn)
            threading.Event().wait(seconds / 20)
            proxied.heal()
            measured(lambda r=turn: far.get("n") == r, 2, f"converged in round {turn}")
    assert far.ledger.store.link.resyncs == 0


def test_a_stale_value_is_not_read(server, proxied, remote, demo, eventually):
    limit = 0.3
    session = demo(remote(proxied.url, max_staleness=limit))
    proxied.half_open()
    raised = None
    while raised is None:
        age = session.ledger.age()
        try:
            session.get("n")
        except StaleRead as error:
            raised = error
        else:
            assert age < limit + 0.75 + SLACK
    assert raised.age >= limit == raised.max_staleness
    assert session.ledger.status == "STALE"
    proxied.heal()
    eventually(lambda: session.ledger.status == "LIVE", "the connection")
    assert session.get("n") == 0


def test_a_server_that_stops_answering_is_noticed(tmp_path, remote, demo, started):
    session = demo(remote(started.url, max_staleness=math.inf))
    for _ in range(often(3, 10)):
        measured(lambda: session.ledger.status == "LIVE", HEALED, "live")
        os.kill(started.process.pid, signal.SIGSTOP)
        try:
            measured(lambda: session.ledger.status == "STALE", SILENCE, "stale")
        finally:
            os.kill(started.process.pid, signal.SIGCONT)
        session.set("n", 1)


SERVER = """
import sys
from dspex.rpc import serve
from dspex.rpc.limits import Limits, Timers
limits = Limits(commits=1e6, opens=1e6)
timers = Timers().divided(20)
ready = lambda server: print("ready", flush=True)
serve(sys.argv[1], sys.argv[2], timers=timers, limits=limits, ready=ready)
"""


class Started:
    """A server in a process of its own."""

    def __init__(self, folder, store="memory://"):
        folder.mkdir(mode=0o700)
        self.store = store
        self.listen = f"unix://{folder}/s"
        self.url = f"grpc+{self.listen}"
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SERVER, self.store, self.listen],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n", self.process.stderr.read()

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out + err


@pytest.fixture
def started(tmp_path):
    server = Started(tmp_path / "started")
    yield server
    if server.process.returncode is None:
        server.end(signal.SIGKILL)


def test_a_server_that_was_killed_is_found_again_and_begins_anew(started, remote, demo, eventually):
    session = demo(remote(started.url, max_staleness=math.inf))
    told = []
    session.watch("n", told.append)
    for turn in range(often(3, 20)):
        session.set("n", turn + 100)
        epoch = session.revision.epoch
        started.end(signal.SIGKILL)
        measured(lambda: session.ledger.status == "STALE", 0.5, "stale")
        started.start()
        measured(lambda: session.ledger.status == "LIVE", HEALED, "live again")
        # The values were in the memory of the server that is no more; the variables are declared again.
        assert session.revision.epoch != epoch
        assert session.get("n") == 0
        eventually(lambda t=turn: _sets(session, "n", t), "the declaration arrives")
        assert turn == session.get("n")


def _sets(session, name, value):
    try:
        session.set(name, value)
    except LookupError:
        return False
    return True


def test_no_acknowledged_commit_is_lost_with_a_server_that_is_killed(tmp_path, remote, demo):
    """Four threads commit while the server is killed and started again, and never notice."""
    kills = often(6, 1_000)
    path = tmp_path / "killed.db"
    started = Started(tmp_path / "killed", f"sqlite:///{path}")
    chance = random.Random(7)
    timers = attrs.evolve(QUICK, deadline=30.0, backoff=(0.005, 0.05))
    session = demo(remote(started.url, max_staleness=math.inf, timers=timers))
    stop, acked, failed = threading.Event(), {}, []

    def work(name):
        value = 0
        try:
            while not stop.is_set():
                value += 1
                acked[name] = value, session.set(name, value).rev
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("n", "a", "b")]
    try:
        epoch = session.revision.epoch
        for thread in threads:
            thread.start()
        for kill in range(kills):
            before = dict(acked)
            measured(lambda b=before: failed or all(acked.get(n) != b.get(n) for n in "nab"), 30, "commits")
            threading.Event().wait(chance.uniform(0, 0.03))
            started.end(signal.SIGKILL)
            held = dict(acked)
            with sqlite3.connect(path) as beneath:
                assert beneath.execute("PRAGMA integrity_check").fetchone() == ("ok",), kill
            beneath.close()
            with Session("demo", store=f"sqlite:///{path}") as found:
                assert found.revision.epoch == epoch
                for name, (value, rev) in held.items():
                    assert found.get(name) >= value, (kill, name)
                    assert found.revision.rev >= rev, kill
            started.start()
        stop.set()
        for thread in threads:
            thread.join(40)
        assert failed == []
        assert session.revision.rev == sum(value for value, _ in acked.values())
        assert {name: value for name, (value, _) in acked.items()} == {n: session.get(n) for n in "nab"}
    finally:
        stop.set()
        started.end(signal.SIGTERM)


def test_a_server_ends_gracefully_and_its_clients_go_on(tmp_path, remote, demo):
    """What was begun is answered, nothing is printed, and the clients go on with the next server."""
    started = Started(tmp_path / "drained", f"sqlite:///{tmp_path}/drained.db?durability=fast")
    timers = attrs.evolve(QUICK, deadline=30.0, backoff=(0.005, 0.05))
    session = demo(remote(started.url, max_staleness=math.inf, timers=timers))
    other = remote(started.url, timers=timers, max_staleness=1e6)
    watchers = [demo(other) for _ in range(4)]
    told = []
    watchers[0].watch("n", lambda change: told.append(change.rev), mode="all")
    try:
        for _ in range(often(3, 100)):
            stop, failed = threading.Event(), []

            def work(stop=stop, failed=failed):
                while not stop.is_set():
                    try:
                        session.swap("n", lambda n: n + 1)
                    except Exception as error:
                        failed.append(error)
                        return

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            measured(lambda b=session.revision.rev: session.revision.rev > b + 20, 20, "commits")
            begin = time.monotonic()
            code, printed = started.end(signal.SIGTERM)
            took = time.monotonic() - begin
            started.start()
            stop.set()
            for thread in threads:
                thread.join(40)
            assert (code, printed, failed) == (0, "", [])
            assert took < 6
        rev = session.revision.rev
        assert session.get("n") == rev
        measured(lambda: told[-1:] == [rev], 10, "the last change")
        assert told == list(range(1, rev + 1))
    finally:
        started.end(signal.SIGTERM)


def test_many_clients_come_back_after_a_restart(proxied, remote):
    links = [remote(proxied.url, max_staleness=1_000 + index) for index in range(often(40, 250))]
    sessions = [Session(f"s{index}", store=store) for index, store in enumerate(links)]
    try:
        for session in sessions:
            session.register("n", Integer(), initial=0)
        before = proxied.opened
        proxied.times.clear()
        begin = time.monotonic()
        proxied.reset()
        for session in sessions:
            measured(lambda s=session: s.ledger.status == "LIVE", often(HEALED, 35), "all are back")
            session.set("n", 1)
        assert time.monotonic() - begin < often(HEALED + 2 * SLACK, 35)
        assert proxied.opened - before <= 2 * len(links)
    finally:
        for session in sessions:
            session.close()


def test_an_address_where_nobody_listens(tmp_path, remote):
    store = remote(f"grpc+unix://{tmp_path}/nobody?deadline=0.3")
    with pytest.raises(StoreUnavailable, match="no contact"):
        Session("demo", store=store)
    with Server(MemoryStore(), f"unix://{tmp_path}/nobody"):
        Session("demo", store=store).close()


def test_a_call_that_gets_no_answer_says_so_and_names_its_commit(far, proxied, server):
    proxied.drop_down = True
    begin = time.monotonic()
    store = far.ledger.store
    object.__setattr__(store._address.timers, "deadline", 0.2)
    try:
        with pytest.raises((DeadlineExceeded, StoreUnavailable)) as raised:
            far.set("n", 5)
    finally:
        object.__setattr__(store._address.timers, "deadline", 5.0)
        proxied.drop_down = False
        proxied.reset()
    assert time.monotonic() - begin < 0.2 + SLACK
    again = far.ledger.commit(Commit((Write("n", 5),), op=raised.value.op))
    assert far.get("n") == 5
    with Session("demo", store=server.store) as beneath:
        assert [change.value for change in beneath.history("n")] == [5]
        assert again.rev == beneath.revision.rev


def test_a_final_answer_is_not_asked_for_again(serving, remote, tmp_path):
    _, token = new_token("*=read,watch,set")
    strict = serving(tokens=[token])
    with Proxy(strict.listen.removeprefix("unix://"), str(tmp_path / "strict")) as proxy:
        store = remote(proxy.url, token="x" * 43)
        for _ in range(2):
            with pytest.raises(PermissionDenied, match="token"):
                store.open("demo")
            assert store.status == "CLOSED"
        assert proxy.opened == 1


def test_a_server_that_speaks_another_protocol_is_not_asked_again(server, proxied, remote, monkeypatch):
    monkeypatch.setattr("dspex.rpc.calls.PROTOCOL", 2)
    store = remote(proxied.url)
    for _ in range(2):
        with pytest.raises(InvalidValue, match="hello must be protocol 2"):
            store.open("demo")
    assert (store.status, proxied.opened) == ("CLOSED", 1)


def test_a_connection_that_nobody_uses_is_let_go_and_comes_back(server, remote, demo, eventually):
    store = remote(server.url)
    with Session("demo", store=store) as session:
        session.register("n", Integer(), initial=0)
    link = store.link
    eventually(lambda: not link.running, "its threads end")
    with Session("demo", store=store) as session:
        session.set("n", 3)
        assert session.get("n") == 3


def test_closing_a_session_that_was_never_found(tmp_path, store):
    with pytest.raises(UnknownSession):
        store.open("not-there", create=False)
    assert store.link.ledgers == {}
