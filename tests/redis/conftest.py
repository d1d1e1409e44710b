"""Real servers, stores on them, and sessions; whatever is started is ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("redis")
pytest.importorskip("hiredis")

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from redis_servers import start_redis, start_valkey

from dspex import Float, Integer, Session, Text
from dspex.stores.redis import RedisStore
from dspex.stores.redis_url import Timing

QUICK = Timing(deadline=5.0).divided(20)
"""Twenty times as fast as in production; only calls have as long as ever."""


@pytest.fixture
def script(script, counted):
    """Run Python source in a process of its own, and count the lines that it runs; give what it printed."""
    return script


@pytest.fixture(scope="session")
def valkey(tmp_path_factory):
    """A server for all tests that do it no harm."""
    with start_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(params=["valkey", "redis"], scope="session")
def either(request, tmp_path_factory):
    """The same, of both kinds."""
    start = start_valkey if request.param == "valkey" else start_redis
    with start(tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture
def url(valkey):
    valkey.flush()
    return valkey.url


@pytest.fixture
def own(tmp_path):
    """Start servers of the test's own."""
    servers = []

    def start(*settings, start=start_valkey, **more):
        server = start(tmp_path / f"server{len(servers)}", *settings, **more)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def stores():
    """Open stores, each with connections of its own as if it were another process."""
    opened = []

    def connect(url, **settings):
        settings.setdefault("timing", QUICK)
        # Equal locations share connections; none of these are equal.
        mark = f"max-staleness={30 + len(opened) / 1000 + os.urandom(2)[0] / 1e6}"
        if "max-staleness" not in url:
            url = f"{url}{'&' if '?' in url else '?'}{mark}"
        store = RedisStore(url, **settings)
        opened.append(store)
        return store

    yield connect
    for store in opened:
        if not store._closed:
            link = store.link
            store.close()
            link.close()


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
