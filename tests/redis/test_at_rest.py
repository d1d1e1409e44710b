"""Keys on a server that are not what a store has written, and what a store leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from elapsing import elapsed

from dspex import Integer, Session, StoreUnavailable
from dspex.stores.redis import install


@pytest.mark.parametrize("part", ["v", "l", "d"])
def test_keys_of_another_program_are_refused(own, stores, part):
    server = own()
    store = stores(f"{server.url}?deadline=0.5")
    with Session("foreign", store=store) as session:
        session.register("n", Integer(), initial=0)
    if part != "v":
        server.call("DEL", f"dx:{{foreign}}:{part}")
    server.call("SET", f"dx:{{foreign}}:{part}", "a text")  # whatever was there
    with (
        elapsed(at_most=3),
        pytest.raises(StoreUnavailable) as caught,
        Session("foreign", store=store) as session,
    ):
        session.register("n", Integer(), initial=0)
        session.set("n", 1)
    assert "another program" in str(caught.value) or "cannot be read" in str(caught.value)


def test_values_that_are_none_are_said_where_they_are_read(own, stores, eventually):
    server = own()
    session = Session("corrupt", store=stores(server.url))
    session.register("n", Integer(), initial=0)
    session.set("n", 1)
    good = server.call("HGET", "dx:{corrupt}:v", "n")
    for bad in (b"", b"1 1", b"x y z \xff", good[:-1] + b"\xa1x"):
        server.call("HSET", "dx:{corrupt}:v", "n", bad)
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            stores(server.url).open("corrupt")
    server.call("HSET", "dx:{corrupt}:v", "n", good)
    # A copy that was good before shows that it cannot follow, and goes on when it can again.
    server.call("XADD", "dx:{corrupt}:l", "2-5", "n", "2 2 1.0 \xff", "-", "")
    head = server.call("HGET", "dx:{corrupt}:v", "").split()
    server.call("HSET", "dx:{corrupt}:v", "", b" ".join([head[0], b"2", b"5", *head[3:]]))

    def says():
        try:
            session.get("n")
        except StoreUnavailable as error:
            return session.ledger.status == "STALE" and "cannot be read" in str(error)
        return False

    eventually(says, "it says so")
    server.call("XDEL", "dx:{corrupt}:l", "2-5")
    server.call("XADD", "dx:{corrupt}:l", "3-6", "n", good.replace(b"1 1", b"3 3", 1), "-", good)
    server.call("HSET", "dx:{corrupt}:v", "n", good.replace(b"1 1", b"3 3", 1))
    server.call("HSET", "dx:{corrupt}:v", "", b" ".join([head[0], b"3", b"6", *head[3:]]))
    eventually(lambda: session.ledger.status == "LIVE" and session.get("n") == 1, "it goes on")
    session.close()


@pytest.mark.parametrize("head", ["", "nothing", "e x 0 0 0 0 0 3072 0 0 0 0 1.0"])
def test_a_head_that_is_none_is_said_once_and_not_asked_for_in_a_loop(own, stores, eventually, caplog, head):
    server = own()
    store = stores(server.url)
    session = Session("head", store=store)
    session.register("n", Integer(), initial=0)
    session.set("n", 1)
    good = server.call("HGET", "dx:{head}:v", "")
    server.call("HSET", "dx:{head}:v", "", head)
    calls = _calls(server)
    for refused in (
        lambda: stores(server.url).open("head"),
        lambda: stores(server.url).open("head", create=False),
        lambda: session.set("n", 2),
        session.snapshot,
        session.history,
        session.ledger.export,
        session.ledger.hold,
        store.sessions,
    ):
        with (
            elapsed(at_most=3),
            pytest.raises(StoreUnavailable, match=r"session 'head' at .* cannot be read"),
        ):
            refused()
    assert _calls(server) - calls < 40
    eventually(lambda: session.ledger.status == "STALE", "it shows that it cannot follow")
    server.call("HSET", "dx:{head}:v", "", good)
    eventually(lambda: session.ledger.status == "LIVE" and session.get("n") == 1, "it goes on")
    server.call("HSET", "dx:{head}:v", "", head)
    store.delete("head")
    assert store.sessions() == []
    eventually(lambda: session.ledger.status == "CLOSED", "it has ended")
    session.close()
    assert [] == [record.message for record in caplog.records]


def _calls(server):
    """How often functions were called."""
    with server.client() as client:
        return client.info("commandstats")["cmdstat_fcall"]["calls"]


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
def test_what_is_closed_keeps_no_files_open(own, stores):
    server = own()

    def use():
        install(server.url)
        store = stores(server.url)
        with Session("files", store=store) as session:
            session.register("n", Integer(), initial=0)
        link = store.link
        store.close()
        link.close()
        return len(list(Path("/proc/self/fd").iterdir()))

    before = use()
    assert [use() for _ in range(10)][-1] < before + 10
