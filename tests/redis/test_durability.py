"""What survives the death of a server, and that what does not is said."""

from __future__ import annotations

import os
import threading

import pytest
from redis_servers import start_redis

from dspex import DurabilityUnknown, Integer, Session, StoreUnavailable
from dspex.stores.redis import RedisStore, install

SOAK = bool(os.environ.get("DSPEX_SOAK"))
KILLS = 100 if SOAK else 5
AOF = ("appendonly yes", "appendfsync everysec")


def _write_until_killed(server, session, watcher, seconds):
    """Set until the server is killed; the last value that was acknowledged."""
    acknowledged = [watcher.get("n")]
    killer = threading.Timer(seconds, server.kill)
    killer.start()
    try:
        while True:
            value = acknowledged[-1] + 1
            session.set("n", value)
            acknowledged.append(value)
    except StoreUnavailable:
        return acknowledged[-1], value
    finally:
        killer.join(10)


@pytest.mark.timeout(600)
def test_what_was_acknowledged_as_fsynced_survives_kill_9(own, stores, eventually):
    server = own(*AOF)
    store = stores(f"{server.url}?durability=fsynced&deadline=1.5")
    lost = 0
    with Session("kept", store=store) as session, Session("kept", store=stores(server.url)) as watcher:
        session.register("n", Integer(), initial=0)
        watcher.snapshot()
        epoch = session.revision.epoch
        for _ in range(KILLS):
            before = session.get("n")
            acknowledged, sent = _write_until_killed(server, session, watcher, 1.2)
            assert acknowledged > before
            server.start()
            eventually(lambda: store.status == "LIVE", "contact again")
            session.snapshot()
            lost += session.get("n") < acknowledged
            assert session.get("n") in (acknowledged, sent)
            eventually(lambda: watcher.revision == session.revision, "the watcher has the same")
        assert (lost, epoch, 0) == (0, session.revision.epoch, session.ledger.resets)


@pytest.mark.timeout(600)
def test_what_a_server_in_memory_forgets_is_told_as_another_history(own, stores, eventually):
    server = own()
    store = stores(f"{server.url}?deadline=0.5")
    lost = 0
    with Session("gone", store=store) as session, Session("gone", store=stores(server.url)) as watcher:
        session.register("n", Integer(), initial=0)
        watcher.snapshot()
        told = []
        watcher.watch("n", told.append)
        every = watcher.watch("n", lambda _: None, mode="all")
        for number in range(KILLS):
            epoch = watcher.revision.epoch
            acknowledged, _ = _write_until_killed(server, session, watcher, 0.1)
            server.start()
            eventually(lambda epoch=epoch: watcher.revision.epoch != epoch, "another history")
            eventually(lambda: watcher.revision == session.revision, "both are in it")
            lost += acknowledged - watcher.get("n")
            assert (number + 1, 0) == (watcher.ledger.resets, watcher.get("n"))
            eventually(lambda: told[-1].new == 0, "the watcher was told that it is the initial value again")
            eventually(lambda: _may_set(session), "the variables are declared again")
            eventually(lambda: watcher.get("n") == 1, "and go on")
            session.set("n", 0)
        assert lost > 0
        eventually(lambda: every.closed, "who wants every change is told that there is none")


def _may_set(session):
    try:
        return session.set("n", 1)
    except StoreUnavailable:
        return False


def test_a_server_that_comes_back_without_its_newest_commits_begins_another_history(own, stores, eventually):
    """As after a failover: revision 3 is there again, but it is another one."""
    server = own()
    with (
        Session("forked", store=stores(server.url)) as session,
        Session("forked", store=stores(server.url)) as other,
    ):
        session.register("n", Integer(), initial=0)
        other.snapshot()
        session.set("n", 1)
        copy = {key: server.call("DUMP", key) for key in server.call("KEYS", "dx:{forked}:*")}
        epoch = session.set("n", 2).epoch
        session.set("n", 3)
        eventually(lambda: other.get("n") == 3, "all have it")
        with server.client() as admin, admin.pipeline() as pipe:
            for key, data in copy.items():
                pipe.restore(key, 0, data, replace=True)
            pipe.execute()
        eventually(lambda: session.revision.epoch != epoch, "the history has another name")
        eventually(lambda: other.revision == session.revision, "for all")
        assert (1, 1) == (session.get("n"), other.get("n"))
        for value in (7, 8, 9):
            session.set("n", value)
        eventually(lambda: other.get("n") == 9, "it goes on")
        assert session.revision.rev == 4


def test_a_history_that_was_cut_and_went_on_is_noticed_by_its_nonce(own, stores, eventually):
    server = own()
    with Session("cut", store=stores(server.url)) as session:
        session.register("n", Integer(), initial=0)
        session.set("n", 1)
        keys = server.call("KEYS", "dx:{cut}:*")
        copy_head = server.call("HGET", "dx:{cut}:v", "")
        copy = {key: server.call("DUMP", key) for key in keys}
        epoch = session.set("n", 2).epoch
        server.freeze()
        server.thaw()
        with server.client() as admin, admin.pipeline() as pipe:
            for key, data in copy.items():
                pipe.restore(key, 0, data, replace=True)
            # What another client, which knew nothing of revision 2, committed in its place.
            record = admin.hget("dx:{cut}:v", "n").replace(b"1 1 ", b"2 2 ", 1)
            pipe.hset("dx:{cut}:v", "n", record)
            head = copy_head.split()
            pipe.hset("dx:{cut}:v", "", b" ".join([head[0], b"2", b"12345", *head[3:]]))
            pipe.execute()
        eventually(lambda: session.revision.epoch != epoch, "the history has another name")
        assert session.record("n").version == 2


def test_a_durability_that_is_not_reached_is_said(own, stores):
    server = own()
    with Session("alone", store=stores(f"{server.url}?durability=replicated:1&deadline=0.3")) as session:
        with pytest.raises(DurabilityUnknown) as caught:
            session.register("n", Integer(), initial=0)
        assert caught.value.durability == "replicated:1"
        with pytest.raises(DurabilityUnknown):
            session.set("n", 1)
        assert session.get("n") == 1  # it was made


def test_a_durability_that_the_server_cannot_give_is_refused(own, stores):
    server = own()
    with (
        Session("alone", store=stores(f"{server.url}?durability=fsynced&deadline=2")) as session,
        pytest.raises(StoreUnavailable, match="cannot make commits as durable as 'fsynced'"),
    ):
        session.register("n", Integer(), initial=0)


def test_what_was_made_is_there_however_little_the_server_promises(own, stores):
    server = own()
    with Session("alone", store=stores(server.url)) as session:
        session.register("n", Integer(), initial=0)
    with Session("alone", store=stores(f"{server.url}?durability=fsynced&deadline=2")) as session:
        with pytest.raises(DurabilityUnknown) as caught:
            session.set("n", 7)
        assert caught.value.op
        assert session.get("n") == 7


def test_who_installs_where_nobody_is_is_told():
    with pytest.raises(StoreUnavailable, match=r"no contact with the server at redis://127\.0\.0\.1:1"):
        install("redis://127.0.0.1:1?deadline=0.3")


def test_an_old_redis_has_no_waitaof_and_says_so(own, stores):
    server = own(*AOF, start=start_redis)
    with (
        Session("alone", store=stores(f"{server.url}?durability=fsynced&deadline=2")) as session,
        pytest.raises(StoreUnavailable, match="cannot make commits as durable as 'fsynced'"),
    ):
        session.register("n", Integer(), initial=0)


def test_commits_wait_for_a_replica(own, stores, eventually):
    first = own(tcp=True)
    second = own(f"replicaof 127.0.0.1 {first.port}", "repl-diskless-sync-delay 0", tcp=True)
    eventually(lambda: second.call("ROLE")[3] == b"connected", "the replica follows")
    with Session("two", store=stores(f"{first.url}?durability=replicated:1")) as session:
        session.register("n", Integer(), initial=0)
        session.set("n", 5)
        assert second.call("HGET", "dx:{two}:v", "").split()[1] == b"1"


def test_a_replica_is_no_store(own, stores, eventually):
    first = own(tcp=True)
    second = own(f"replicaof 127.0.0.1 {first.port}", "repl-diskless-sync-delay 0", tcp=True)
    eventually(lambda: second.call("ROLE")[3] == b"connected", "the replica follows")
    with pytest.raises(StoreUnavailable, match="is a replica"):
        stores(f"{second.url}?deadline=0.3").open("s")


def test_a_primary_that_is_demoted_is_left(own, stores, eventually):
    first, second = own(tcp=True), own("repl-diskless-sync-delay 0", tcp=True)
    store = stores(f"{first.url}?deadline=0.5&max-staleness=1")
    with Session("demoted", store=store) as session:
        session.register("n", Integer(), initial=0)
        session.set("n", 1)
        first.call("REPLICAOF", "127.0.0.1", str(second.port))
        eventually(lambda: store.status == "STALE", "it is stale")
        with pytest.raises(StoreUnavailable):
            session.set("n", 2)
        first.call("REPLICAOF", "NO", "ONE")
        eventually(lambda: store.status == "LIVE", "it is the primary again")
        session.snapshot()


def test_a_store_is_of_its_url():
    assert RedisStore("redis://localhost:1").status == "STALE"
