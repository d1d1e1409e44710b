"""Servers and clients of the tests."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("grpc")
pytest.importorskip("grpc_health")

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from dspex import Float, Integer, Session, Text
from dspex.rpc import RemoteStore, Server
from dspex.rpc.limits import Limits, Timers
from dspex.stores import MemoryStore

QUICK = Timers(deadline=5.0).divided(20)
"""Twenty times as fast as in production; only calls have as long as ever."""

GENEROUS = Limits(commits=1e6, opens=1e6)


@pytest.fixture
def serving(tmp_path):
    """Start servers of a store; all are stopped at the end."""
    servers = []

    def start(store=None, listen=None, **settings):
        if listen is None:
            folder = tmp_path / f"s{len(servers)}"
            folder.mkdir(mode=0o700)
            listen = f"unix://{folder}/s"
        settings.setdefault("limits", GENEROUS)
        settings.setdefault("timers", QUICK)
        server = Server(MemoryStore() if store is None else store, listen, **settings).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop(1)


@pytest.fixture
def remote():
    """Open stores of servers; all are closed at the end, with their connections."""
    stores = []

    def connect(url, **settings):
        settings.setdefault("timers", QUICK)
        store = RemoteStore(url, **settings)
        stores.append(store)
        return store

    yield connect
    for store in stores:
        if not store._closed:
            link = store.link
            store.close()
            link.close()


@pytest.fixture
def server(serving):
    return serving()


@pytest.fixture
def store(server, remote):
    return remote(server.url)


@pytest.fixture
def demo():
    """Open the session 'demo' of a store with `temperature`, `n`, `a`, `b` and `note`."""
    opened = []

    def open_demo(store, id="demo", **keywords):
        session = Session(id, store=store, **keywords)
        session.register("temperature", Float(min=0.0, max=1.5), initial=0.7)
        for name in ("n", "a", "b"):
            session.register(name, Integer(), initial=0)
        session.register("note", Text(), initial="")
        opened.append(session)
        return session

    yield open_demo
    for session in opened:
        session.close()


@pytest.fixture
def session(store, demo):
    return demo(store, source="tests")


@pytest.fixture
def beside(server, remote, demo):
    """A good client that works while others do not; it must never fail."""
    session = demo(remote(server.url), "good")
    stop, failed, done = threading.Event(), [], [0]

    def work():
        while not stop.wait(0.002):
            try:
                session.set("n", done[0])
                assert session.get("n") == done[0]
                done[0] += 1
            except BaseException as error:
                failed.append(error)
                return

    thread = threading.Thread(target=work)
    thread.start()
    yield done
    stop.set()
    thread.join(20)
    assert (failed, done[0] > 0) == ([], True)
