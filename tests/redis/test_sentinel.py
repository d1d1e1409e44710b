"""Failovers by a real Sentinel, and a real cluster."""

from __future__ import annotations

import os
import threading
import time

import pytest
from redis_servers import Server, free_port, valkey_binary

from dspex import Integer, Session, StoreUnavailable, errors
from dspex.stores.redis_url import Timing

SOAK = bool(os.environ.get("DSPEX_SOAK"))
FAILOVERS = 30 if SOAK else 2
PACE = Timing(deadline=20.0, poll=0.2, silence=1.0, backoff=(0.02, 0.3))


@pytest.fixture
def watched(tmp_path, eventually):
    """A primary, a replica, and a Sentinel that watches both."""
    binary = valkey_binary()
    settings = (
        "repl-diskless-sync-delay 0",
        "appendonly yes",
        "min-replicas-to-write 1",
        "min-replicas-max-lag 10",
    )
    first = Server(binary, tmp_path / "first", *settings, tcp=True).start()
    second = Server(
        binary, tmp_path / "second", *settings, f"replicaof 127.0.0.1 {first.port}", tcp=True
    ).start()
    eventually(lambda: second.call("ROLE")[3] == b"connected", "the replica follows")
    port = free_port()
    sentinel = Server(
        binary,
        tmp_path / "sentinel",
        f"sentinel monitor prod 127.0.0.1 {first.port} 1",
        # Never by itself: on a busy machine it takes servers for dead that are not, again and again.
        "sentinel down-after-milliseconds prod 600000",
        "sentinel failover-timeout prod 2000",
        port=port,
        args=("--sentinel",),
    )
    # The settings of the other servers are none of a Sentinel.
    (tmp_path / "sentinel").mkdir(exist_ok=True)
    (tmp_path / "sentinel" / "conf").write_text(
        "\n".join(
            [f"port {port}", "bind 127.0.0.1", f"dir {tmp_path}/sentinel", "logfile log", *sentinel.settings]
        )
        + "\n"
    )
    sentinel.start()
    eventually(lambda: sentinel.call("SENTINEL", "REPLICAS", "prod"), "the Sentinel knows the replica")
    yield sentinel, [first, second]
    for one in (sentinel, first, second):
        one.stop()


@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("level", ["memory", "fsynced", "replicated:1"])
def test_after_failovers_every_copy_is_what_the_new_primary_has(watched, stores, eventually, level, capsys):
    sentinel, (primary, replica) = watched
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}?service=prod"
    total, cut, slowest = 0, 0, 0.0
    with (
        Session("ha", store=stores(f"{url}&durability={level}", timing=PACE)) as writer,
        Session("ha", store=stores(url, timing=PACE)) as watcher,
    ):
        writer.register("n", Integer(), initial=0)
        watcher.snapshot()
        for _ in range(FAILOVERS):
            epoch, acknowledged = writer.revision.epoch, []
            stop = threading.Event()

            def write(stop=stop, acknowledged=acknowledged):
                while not stop.is_set():
                    try:
                        acknowledged.append(writer.swap("n", lambda value: value + 1))
                    except errors.DspexError:
                        stop.wait(0.01)

            thread = threading.Thread(target=write, daemon=True)
            thread.start()
            eventually(lambda acknowledged=acknowledged: len(acknowledged) > 20, "it sets")
            primary.kill()
            eventually(lambda: _fails_over(sentinel), "the Sentinel promotes the replica")
            eventually(lambda replica=replica: _is_primary(replica), "the replica was promoted")
            begin = time.monotonic()
            eventually(lambda replica=replica: _same(watcher, replica), "the watcher has what it has")
            slowest = max(slowest, time.monotonic() - begin)
            with primary.folder.joinpath("conf").open("a") as conf:
                conf.write(f"replicaof 127.0.0.1 {replica.port}\n")
            primary.start()
            eventually(lambda one=primary: one.call("ROLE")[0] == b"slave", "the old primary follows")
            eventually(lambda one=primary: _follows(one), "and is up to date")
            before = len(acknowledged)
            eventually(lambda a=acknowledged, b=before: len(a) > b + 5, "it sets again")
            stop.set()
            thread.join(30)
            writer.snapshot()
            with Session("ha", store=stores(f"redis://127.0.0.1:{replica.port}")) as fresh:
                eventually(lambda fresh=fresh: _held(watcher) == _held(fresh), "the watcher holds that")
                assert _held(writer) == _held(fresh)
            cut += writer.revision.epoch != epoch
            total += len(acknowledged)
            assert writer.get("n") == writer.record("n").version
            eventually(
                lambda: any(
                    b"slave" in _flags(one) and b"down" not in _flags(one)
                    for one in sentinel.call("SENTINEL", "REPLICAS", "prod")
                ),
                "the Sentinel sees it",
            )
            primary, replica = replica, primary
        eventually(lambda: watcher.revision == writer.revision, "both copies are the same")
        assert slowest <= 5
        # Commits of unknown outcome may have been made beside those that were acknowledged.
        lost = max(0, total - writer.get("n"))
        assert lost == 0 or level != "replicated:1"
    with capsys.disabled():
        print(  # noqa: T201 - a number that is to be reported
            f"\n{level}: {FAILOVERS} failovers, {cut} of which cut the history; {lost} of {total} "
            f"acknowledged commits lost; slowest watcher {slowest:.2f} s"
        )


def _fails_over(sentinel):
    import redis

    try:
        sentinel.call("SENTINEL", "FAILOVER", "prod")
    except redis.ResponseError as error:
        return "INPROG" in str(error)
    return True


def _flags(replica):
    told = replica if isinstance(replica, dict) else dict(zip(replica[::2], replica[1::2], strict=True))
    flags = told.get("flags", told.get(b"flags", b""))
    return flags if isinstance(flags, bytes) else str(flags).encode()


def _is_primary(server):
    return server.call("ROLE")[0] == b"master"


def _held(session):
    records = session.snapshot().records.values()
    return session.revision, [(one.name, one.value, one.version) for one in records]


def _same(watcher, server):
    epoch, rev, *_ = server.call("HGET", "dx:{ha}:v", "").split()
    at = watcher.revision
    return watcher.ledger.status == "LIVE" and at.epoch == epoch.decode() and at.rev >= int(rev)


def test_a_service_that_no_sentinel_knows_is_an_error_within_the_deadline(watched, stores):
    sentinel, _ = watched
    with pytest.raises(StoreUnavailable, match="no Sentinel"):
        stores(f"redis+sentinel://127.0.0.1:{sentinel.port}?service=other&deadline=0.5").open("s")


@pytest.fixture
def cluster(tmp_path, eventually):
    """Three primaries of a cluster."""
    binary = valkey_binary()
    nodes = []
    for number in range(3):
        port = _port_of_a_cluster()
        nodes.append(
            Server(
                binary,
                tmp_path / f"c{number}",
                "cluster-enabled yes",
                "cluster-config-file nodes.conf",
                "cluster-node-timeout 2000",
                port=port,
            ).start()
        )
    for number, one in enumerate(nodes):
        one.call("CLUSTER", "ADDSLOTSRANGE", 16384 * number // 3, 16384 * (number + 1) // 3 - 1)
        one.call("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
    for one in nodes:
        eventually(lambda one=one: b"cluster_state:ok" in _info(one), "the cluster is whole")
        eventually(lambda one=one: len(one.call("CLUSTER", "SLOTS")) == 3, "all are known")
    yield nodes
    for one in nodes:
        one.stop()


def _info(one):
    told = one.call("CLUSTER", "INFO")
    return told if isinstance(told, bytes) else str(told).encode().replace(b"': '", b":")


def _port_of_a_cluster():
    while True:
        port = free_port()
        if port < 55_000:  # the bus has the port 10,000 above
            return port


def test_sessions_of_a_cluster_are_spread_over_it(cluster, stores, eventually):
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    store, other = stores(url), stores(url)
    sessions = [Session(f"s{number}", store=store) for number in range(12)]
    twins = [Session(f"s{number}", store=other) for number in range(12)]
    for number, session in enumerate(sessions):
        session.register("n", Integer(), initial=0)
        session.set("n", number)
    for number, twin in enumerate(twins):
        eventually(lambda n=number, t=twin: "n" in t.variables and t.get("n") == n, "it was pushed")
    assert [f"s{number}" for number in range(12)] == sorted(
        (one.id for one in store.sessions()), key=lambda one: int(one[1:])
    )
    assert all(one.call("DBSIZE") > 0 for one in cluster)
    sessions[0].delete()
    assert len(store.sessions()) == 11
    for session in (*sessions[1:], *twins):
        session.close()


def test_a_session_whose_slot_moves_is_followed(cluster, stores, eventually):
    url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
    session, twin = (Session("moving", store=stores(url)) for _ in range(2))
    session.register("n", Integer(), initial=0)
    session.set("n", 1)
    slot = cluster[0].call("CLUSTER", "KEYSLOT", "dx:{moving}:v")
    source = cluster[slot * 3 // 16384]
    target = next(one for one in cluster if one is not source)
    ids = {one: _text(one.call("CLUSTER", "MYID")) for one in (source, target)}
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    keys = source.call("CLUSTER", "GETKEYSINSLOT", slot, 100)
    source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for one in (target, source, *(one for one in cluster if one not in (source, target))):
        one.call("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
    assert session.set("n", 2).rev == 2
    eventually(lambda: twin.get("n") == 2, "the other heard, from the server that has it now")
    session.close()
    twin.close()


def _text(told):
    return told.decode() if isinstance(told, bytes) else told


def _follows(server):
    role = server.call("ROLE")
    return role[0] == b"slave" and role[3] == b"connected"
