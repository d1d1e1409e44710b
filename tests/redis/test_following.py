"""What a copy does when the server is not what it was a moment ago, before anybody has told it."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import ExitStack

import attrs
import pytest

from dspex import SessionMoved, SessionMoving, StoreUnavailable, VersionConflict, errors
from dspex.commits import Commit, Write
from dspex.stores import MemoryStore, redis_moving
from dspex.stores.redis import install
from dspex.stores.redis_url import Timing
from dspex.stores.redis_wire import LIBRARY, Wire

SELDOM = attrs.evolve(Timing().divided(20), poll=60.0)
"""Nobody asks by himself what is new: what a call does not find out, nobody does."""


def lose(server, keys):
    """Give the server what *keys* were, as after a failover to a replica that was behind."""
    with server.client() as admin, admin.pipeline() as pipe:
        for key, data in keys.items():
            pipe.restore(key, 0, data, replace=True)
        pipe.execute()


def kept(server):
    return {key: server.call("DUMP", key) for key in server.call("KEYS", "dx:{demo}:*")}


def libraries(server):
    return [one[b"library_name"] for one in server.call("FUNCTION", "LIST")]


# ---- histories that end ------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["set", "history", "tag", "hold"])
def test_a_server_that_lost_everything_begins_another_history_at_the_next_call(
    own, stores, demo, verb, eventually
):
    server = own()
    store = stores(server.url, timing=SELDOM)
    session, twin = demo(store), demo(store)
    first, second = [], []
    session.watch("n", lambda change: first.append(change.value))
    twin.watch("n", lambda change: second.append(change.value))
    epoch = session.set("n", 1).epoch
    eventually(lambda: (first, second) == ([1], [1]), "both were told")
    server.flush()
    if verb == "set":
        assert (session.set("n", 5).rev, session.revision.rev) == (1, 1)
    elif verb == "history":
        assert list(session.history()) == []
    elif verb == "tag":
        with pytest.raises(errors.UnknownRevision):
            session.snapshot("good")
    else:
        hold = session.ledger.hold()
        with pytest.raises(SessionMoving):
            twin.ledger.put("n", 1)
        hold.release()
    assert session.revision.epoch != epoch
    assert session.get("n") == twin.get("n") == (5 if verb == "set" else 0)
    eventually(lambda: first[-1] == second[-1] == session.get("n"), "both were told of what there is now")


def test_a_version_of_a_history_that_was_lost_does_not_count(valkey, url, stores, demo):
    session = demo(stores(url, timing=SELDOM))
    session.set("n", 1)
    before = kept(valkey)
    epoch = session.set("n", 2).epoch
    lose(valkey, before)
    with pytest.raises(VersionConflict, match="has lost commits on its server") as caught:
        session.set("n", 3, expect=2)
    assert caught.value.name == "n"
    assert (session.get("n"), session.revision.epoch != epoch) == (1, True)
    assert session.set("n", 3, expect=1).version == 2


def test_a_set_that_expects_nothing_goes_on_in_the_history_that_is_there(valkey, url, stores, demo):
    session = demo(stores(url, timing=SELDOM))
    session.set("n", 1)
    before = kept(valkey)
    epoch = session.set("n", 2).epoch
    lose(valkey, before)
    change = session.set("n", 3)
    assert (change.rev, change.version, change.epoch != epoch) == (2, 2, True)


def test_a_commit_that_is_asked_for_again_is_known_when_its_history_is_forgotten(valkey, url, stores, demo):
    commit = Commit((Write("n", 1), Write("a", 2, source="you")), op="op", source="me")
    first = demo(stores(url)).ledger.commit(commit)
    valkey.call("XTRIM", "dx:{demo}:l", "MAXLEN", 0)
    again = demo(stores(url)).ledger.commit(commit)
    assert first.revision == again.revision
    assert [(one.name, one.value, one.version, one.source, one.time) for one in first.changes] == [
        (one.name, one.value, one.version, one.source, one.time) for one in again.changes
    ]


# ---- limits that the server keeps ----------------------------------------------------------------------


def test_labels_have_a_limit(url, stores, demo):
    session = demo(stores(url))
    for number in range(256):
        session.tag(f"t{number}")
    with pytest.raises(errors.LimitExceeded, match="256"):
        session.tag("more")
    session.tag("t7")  # that is there already
    assert len(session.tags) == 256


def test_claims_within_claims_have_a_limit(url, stores, demo):
    session = demo(stores(url))
    with ExitStack() as blocks:
        made = [blocks.enter_context(session.claim(["n"], owner="me", ttl=60)) for _ in range(16)]
        with pytest.raises(errors.LimitExceeded, match="16"):
            session.claim(["n"], owner="me", ttl=60)
        assert made[-1].set("n", 1).rev == 1
    assert session.set("n", 2).rev == 2


# ---- what cannot be read -------------------------------------------------------------------------------


def test_what_cannot_be_read_is_said_by_who_asks_for_it(valkey, url, stores, demo):
    session = demo(stores(url, timing=SELDOM))
    session.set("n", 1)
    session.tag("good")
    valkey.call("HSET", "dx:{demo}:t:good", "n", b"1 1 1.0 \xff")
    for asks in (lambda: session.snapshot("good"), session.ledger.export):
        with pytest.raises(StoreUnavailable, match=r"session 'demo' at .* cannot be read"):
            asks()
    valkey.call("XADD", "dx:{demo}:l", "2-5", "n", "2 2 1.0 \xff", "-", "")
    with pytest.raises(StoreUnavailable, match=r"session 'demo' at .* cannot be read"):
        session.history()
    assert (session.get("n"), session.ledger.status) == (1, "LIVE")  # what it has is right
    head = valkey.call("HGET", "dx:{demo}:v", "").split()
    valkey.call("HSET", "dx:{demo}:v", "", b" ".join([head[0], b"2", b"5", *head[3:]]))
    with pytest.raises(StoreUnavailable, match=r"session 'demo' at .* cannot be read"):
        session.snapshot()
    assert session.ledger.status == "STALE"


@pytest.mark.parametrize("body", [b"garbage", b"1:n9:1 2", b"1:n11:2 1 1.0 \xff\xff\xff"])
def test_a_hint_that_nobody_can_read_is_passed_over(own, stores, demo, eventually, body):
    server = own()
    session, other = demo(stores(server.url, timing=SELDOM)), demo(stores(server.url))
    told = []
    session.watch("n", lambda change: told.append((change.rev, change.value)), mode="all")
    epoch, resyncs = session.revision.epoch.encode(), session.ledger.peer.resyncs
    server.call("SPUBLISH", "dx:{demo}:c", b"%b %b %b" % (b"x", epoch, b"1 7 5 " + body))
    eventually(lambda: session.ledger.peer.resyncs > resyncs, "it was heard, and the log was asked")
    other.set("n", 3)
    eventually(lambda: told == [(1, 3)], "what is there was told")
    assert session.ledger.peer.cuts == 0


def test_what_is_no_hint_at_all_costs_a_connection_and_nothing_else(own, stores, demo, eventually, caplog):
    server = own()
    session = demo(stores(server.url))
    peer = session.ledger.peer
    server.call("SPUBLISH", "dx:{demo}:c", "junk")
    eventually(lambda: peer.cuts == 1 and session.ledger.status == "LIVE", "it is there again")
    assert "was not understood" in caplog.text
    assert session.set("n", 1).rev == 1


# ---- servers that change -------------------------------------------------------------------------------


def test_a_server_that_lost_its_functions_is_given_them_again(own, stores, demo):
    server = own()
    session = demo(stores(server.url, timing=SELDOM))
    server.call("FUNCTION", "FLUSH")
    assert session.set("n", 1).rev == 1
    assert libraries(server) == [LIBRARY.encode()]


def test_a_commit_to_a_server_that_was_demoted_a_moment_ago_is_refused(own, stores, demo, eventually):
    server = own(tcp=True)
    session = demo(stores(f"{server.url}?deadline=0.3", timing=attrs.evolve(SELDOM, deadline=0.3)))
    server.call("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable, match=r"READONLY|is a replica"):
        session.set("n", 1)
    eventually(lambda: session.ledger.status == "STALE", "it is stale")
    server.call("REPLICAOF", "NO", "ONE")
    eventually(lambda: session.ledger.status == "LIVE", "it is the primary again")
    assert session.set("n", 2).rev == 1


def test_a_server_that_has_gone_holds_nothing(own, stores, demo):
    server = own()
    session = demo(stores(f"{server.url}?deadline=0.2"))
    server.kill()
    with pytest.raises(StoreUnavailable, match="no contact with the server"):
        session.ledger.hold()


def test_who_is_not_told_that_a_session_has_ended_finds_out(own, stores, demo, monkeypatch, eventually):
    server = own()
    session = demo(stores(f"{server.url}?deadline=0.3"))
    session.set("n", 1)
    target, right = MemoryStore(), redis_moving.RedisHold._is_forwarded
    forward = redis_moving.RedisHold.forward

    def frozen(hold, *words):
        server.freeze()
        forward(hold, *words)

    def late(hold, error):
        server.thaw()
        eventually(lambda: server.call("EXISTS", "dx:{demo}:m"), "it has done what it was told")
        return right(hold, error)

    monkeypatch.setattr(redis_moving.RedisHold, "forward", frozen)
    monkeypatch.setattr(redis_moving.RedisHold, "_is_forwarded", late)
    session.move_to(target)
    assert (session.get("n"), session.ledger.store) == (1, target)
    with pytest.raises(SessionMoved):
        stores(server.url).open("demo")


def test_a_caller_that_is_interrupted_while_it_waits_disturbs_nobody(own, stores, demo, eventually):
    server = own()
    session, main = demo(stores(server.url, timing=SELDOM)), threading.main_thread().ident

    def interrupted(*_):
        raise KeyboardInterrupt

    def interrupt():
        eventually(lambda: _runs(main, Wire.receive), "the other waits for an answer")
        signal.pthread_kill(main, signal.SIGUSR1)

    interrupting = threading.Thread(target=interrupt, daemon=True)
    before = signal.signal(signal.SIGUSR1, interrupted)
    server.freeze()
    try:
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            session.set("n", 1)
    finally:
        server.thaw()
        interrupting.join(30)
        signal.signal(signal.SIGUSR1, before)
    eventually(lambda: server.call("HGET", "dx:{demo}:v", "").split()[1] == b"1", "it was made all the same")
    assert session.set("n", 2).rev == 2
    assert [change.value for change in session.history("n")] == [1, 2]


def _runs(thread, function):
    """Whether *thread* is in *function*."""
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return frame is not None


# ---- clusters ------------------------------------------------------------------------------------------


@pytest.fixture
def alone(own):
    """The only server of a cluster, which has no slots yet."""
    from redis_servers import free_port

    port = free_port()
    while port >= 55_000:  # the bus has the port 10,000 above
        port = free_port()
    return own("cluster-enabled yes", "cluster-config-file nodes.conf", port=port)


def test_a_cluster_that_cannot_say_who_has_a_session_says_so(alone, stores):
    store = stores(f"redis+cluster://127.0.0.1:1,127.0.0.1:{alone.port}?deadline=0.5")
    with pytest.raises(StoreUnavailable, match="says who has what"):
        store.open("s")
    slot = alone.call("CLUSTER", "KEYSLOT", "dx:{s}:v")
    alone.call("CLUSTER", "ADDSLOTS", (slot + 1) % 16384)
    with pytest.raises(StoreUnavailable, match=f"has slot {slot}"):
        store.open("s")
    assert store.status == "STALE"


def test_the_library_is_put_into_every_server_of_a_cluster(alone):
    alone.call("CLUSTER", "ADDSLOTS", 7)
    install(f"redis+cluster://127.0.0.1:{alone.port}")
    assert libraries(alone) == [LIBRARY.encode()]


def test_a_server_that_is_none_of_a_cluster_is_refused(own, stores):
    server = own(tcp=True)
    with pytest.raises(StoreUnavailable, match=r"is not one of a cluster: .*cluster support disabled"):
        stores(f"redis+cluster://127.0.0.1:{server.port}").open("s")


def test_a_server_of_a_cluster_that_has_gone_is_an_error_within_the_deadline(alone, stores):
    store = stores(f"redis+cluster://127.0.0.1:{alone.port}?deadline=0.3")
    slot = alone.call("CLUSTER", "KEYSLOT", "dx:{s}:v")
    alone.call("CLUSTER", "ADDSLOTS", slot)
    assert store.link.peer_of("s").address == ("127.0.0.1", alone.port)
    alone.kill()
    with pytest.raises(StoreUnavailable):
        store.open("s")


# ---- Sentinels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_what_is_no_sentinel_is_said_to_be_none(own, stores, scheme):
    server = own(tcp=True)
    with pytest.raises(StoreUnavailable, match="no Sentinel"):
        stores(f"{scheme}+sentinel://127.0.0.1:{server.port}?service=main&deadline=0.3").open("s")


# ---- the end -------------------------------------------------------------------------------------------


def test_a_store_that_was_closed_says_so(url, stores, demo):
    store = stores(url)
    session = demo(store)
    ledger = session.ledger
    assert (ledger.status, store.status, 0 <= ledger.age() < 30) == ("LIVE", "LIVE", True)
    session.close()
    assert (ledger.status, store.status) == ("CLOSED", "LIVE")
    for _ in range(2):
        store.close()
    assert store.status == "CLOSED"
    with pytest.raises(StoreUnavailable, match=r"was closed. Open another one"):
        store.open("demo")


def test_a_callback_may_close_what_called_it(url, stores, demo, eventually):
    store, closed = stores(url), []
    session, other = demo(store), demo(stores(url))

    def close(_change):
        session.close()
        store.close()
        closed.append(store.status)

    link = store.link
    session.watch("n", close)
    other.set("n", 1)
    eventually(lambda: closed == ["CLOSED"], "it was closed")
    eventually(lambda: not link.peers[None]._threads, "and its threads have ended")


def test_a_copy_that_may_be_old_still_says_what_it_has(own, stores, demo, eventually):
    server = own()
    session = demo(stores(server.url))
    names = set(session.ledger.records)
    server.kill()
    eventually(lambda: session.ledger.status == "STALE", "it is stale")
    records = session.ledger.records
    assert (set(records), len(records)) == (names, len(names))


# ---- the command ---------------------------------------------------------------------------------------


def test_the_command_of_an_administrator(own, script):
    server = own()
    said = script(
        """
import runpy, sys

def command(*words):
    sys.argv[1:] = words
    runpy.run_module("dspex.stores.redis", run_name="__main__", alter_sys=True)

url = sys.argv[1]
command("acl", "app")
command("install", url)
try:
    command("instal", url)
except SystemExit as error:
    print(error)
""",
        server.url,
    )
    acl, usage = said.splitlines()
    assert acl.startswith("ACL SETUSER app on >PASSWORD resetkeys resetchannels ~dx:* &dx:* -@all ")
    assert usage == "usage: python -m dspex.stores.redis install URL | acl [USER]"
    assert libraries(server) == [LIBRARY.encode()]
