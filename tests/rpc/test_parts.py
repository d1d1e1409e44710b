"""The parts of servers and of clients by themselves, and the calls that a client of dspex never makes."""

from __future__ import annotations

import logging
import signal

import grpc
import pytest

from dspex import (
    Integer,
    InvalidValue,
    LimitExceeded,
    PermissionDenied,
    Session,
    StoreUnavailable,
    Text,
    UnknownSession,
    UnknownVariable,
)
from dspex.commits import Commit
from dspex.rpc import RemoteStore, clock, requests, serve, status
from dspex.rpc._generated import dspex_pb2 as pb
from dspex.rpc.auth import Gate, new_token
from dspex.rpc.extra import SERVICE
from dspex.rpc.framing import PART
from dspex.rpc.limits import Bucket, Limits
from dspex.rpc.patterns import check_patterns, steps
from dspex.rpc.pending import Outgoing, Pending
from dspex.rpc.share import share
from dspex.stores import MemoryStore
from dspex.wire import pack_plain

# ---- words ---------------------------------------------------------------------------------------------


def test_what_a_server_did_not_expect_is_in_its_log_and_not_in_the_answer(caplog):
    answer = status.refused(ZeroDivisionError("a secret"))
    assert (type(answer), str(answer)) == (
        StoreUnavailable,
        "the server failed to answer this call; its log has the reason.",
    )
    assert [record.exc_info[1].args for record in caplog.records] == [("a secret",)]


def test_a_refusal_that_cannot_be_read_is_a_refusal():
    answer = status.unpacked(b"\xc1")
    assert (type(answer), str(answer)) == (
        StoreUnavailable,
        "the server refused, in words that cannot be read.",
    )


@pytest.mark.parametrize("token", ["", "two words", "ä", "a\nb"])
def test_a_token_that_cannot_be_a_header_is_refused(remote, tmp_path, token):
    file = tmp_path / "token"
    file.write_text(token)
    file.chmod(0o600)
    with pytest.raises(InvalidValue, match="one line of visible ASCII"):
        remote(f"grpc+unix:///nowhere?token-file={file}")


def test_a_certificate_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoreUnavailable, match=r"none\.pem cannot be read: No such file"):
        RemoteStore(f"grpc://localhost:1?ca={tmp_path}/none.pem")


def test_a_server_does_not_take_the_place_of_a_file(serving, tmp_path):
    file = tmp_path / "words"
    file.write_text("keep me")
    tmp_path.chmod(0o700)
    with pytest.raises(StoreUnavailable) as refused:
        serving(listen=f"unix://{file}")
    assert (str(refused.value), file.read_text()) == (f"{file} is there and is no socket.", "keep me")


def test_a_server_that_serves_already_goes_on(serving, remote):
    server = serving()
    with server.start() as same:
        assert remote(same.url).sessions() == []


@pytest.mark.parametrize("field", ["token", "release", "op", "claim.token"])
def test_the_words_of_a_commit_are_bounded(field):
    from dspex.rpc.extra import pb

    *inside, last = field.split(".")
    request = pb.CommitRequest(session="demo")
    setattr(request.claim if inside else request, last, "x" * 9)
    requests.check_words(request, 9)
    with pytest.raises(LimitExceeded, match=rf"^{field} has 9 characters; the limit is 8\.$"):
        requests.check_words(request, 8)


def test_a_share_shows_where_it_is_and_of_what():
    with Session() as session, share(session) as one, share(MemoryStore()) as every:
        assert repr(one) == f"<Share {one.url} of session '{session.id}'>"
        assert repr(every) == f"<Share {every.url}>"


def test_a_store_that_was_closed_says_so(server, remote):
    store = remote(server.url)
    store.open("demo").close()
    link = store.link
    assert (store.status, 0 <= store.age() < 60) == ("LIVE", True)
    store.close()
    link.close()
    with pytest.raises(StoreUnavailable, match=r"was closed\. Open another one\.$"):
        store.open("demo")
    assert store.status == "CLOSED"


@pytest.mark.parametrize(
    "make",
    [
        lambda source: requests.put_call(
            1, "demo", Integer(), "n", 1, expect=None, source=source, metadata=None, op="o"
        ),
        lambda source: requests.commit_request("demo", Commit(source=source), {}),
    ],
)
def test_what_no_message_can_hold_is_refused_before_it_is_sent(make):
    with pytest.raises(InvalidValue, match=r"^commit must be what can be sent: .*surrogates"):
        make("\ud800")
    assert make("me")


# ---- parts ---------------------------------------------------------------------------------------------


def test_a_bucket_fills_again_with_time():
    now = [0.0]
    bucket = Bucket(1.0, clock=lambda: now[0])
    for _ in range(2):
        bucket.take("calls")
    with pytest.raises(LimitExceeded, match="calls: more than 1 a second") as refused:
        bucket.take("calls")
    assert refused.value.retry_after == 1.0
    now[0] += 1.0
    bucket.take("calls")
    with pytest.raises(LimitExceeded):
        bucket.take("calls")


def test_a_caller_keeps_its_rights_however_many_sessions_it_asks_for():
    secret, token = new_token("dev-*=read")
    caller = Gate([token], 10).caller([("authorization", f"Bearer {secret}")], "ipv4:1.2.3.4:5")
    for _ in range(2):
        assert all(caller.may("read", f"dev-{number}") for number in range(1_100))
        assert not any(caller.may("read", f"prod-{number}") for number in range(10))


def test_who_tries_tokens_from_many_addresses_finds_none_and_takes_no_room():
    secret, token = new_token("*=read")
    gate = Gate([token], 10)
    for number in range(1_100):
        with pytest.raises(PermissionDenied, match="wants a token"):
            gate.caller([("authorization", "Bearer x")], f"ipv4:10.0.{number // 256}.{number % 256}:5")
    assert len(gate._failed) <= 1_001
    assert gate.caller([("authorization", f"Bearer {secret}")], "ipv4:10.0.0.1:5").may("read", "demo")


def test_a_connection_that_fails_to_be_looked_at_is_logged_and_the_clock_goes_on(caplog):
    state, looked = clock._State(), []

    class Ticking:
        def tick(self):
            state.woken = True
            looked.append(self)
            if len(looked) == 1:
                raise ZeroDivisionError
            state.watched.discard(self)
            return 60.0

    ticking = Ticking()
    state.watched.add(ticking)
    state.thread = object()
    with caplog.at_level(logging.ERROR, "dspex.rpc"):
        clock._run(state)
    assert (looked, state.thread) == ([ticking, ticking], None)
    assert [record.message for record in caplog.records] == ["looking after a connection failed"]


def test_the_clock_asks_the_last_one_when_to_come_back_and_ends_without_any():
    state = clock._State()
    state.thread = object()
    clock._run(state)
    assert state.thread is None


def test_an_answer_that_comes_a_second_time_wakes_nobody():
    pending = Pending("ping", b"")
    pending.finish(1)
    pending.finish(1)
    assert (pending.finished, pending.wait(0)) == (True, True)


def test_what_waits_to_be_sent_goes_out_together_up_to_the_size_of_a_part():
    outgoing = Outgoing()
    for frame in (b"a", b"b", b"x" * PART, b"c", None):
        outgoing.put(frame)
    assert list(outgoing) == [b"ab" + b"x" * PART, b"c"]
    assert list(outgoing) == []


@pytest.mark.parametrize(
    "pattern",
    ["(", "a{4294967296}"],
    ids=["no expression", "no number of repeats"],
)
def test_what_is_no_expression_takes_no_steps(pattern):
    assert steps(pattern, 1_000) == 0
    check_patterns({"kind": "string", "pattern": pattern})  # who makes the kind refuses it


def test_what_an_atomic_group_takes_is_counted():
    assert steps("(?>a*a*)b", 1_000) >= steps("(?>a*)b", 1_000) > 0


def test_the_arms_of_a_condition_are_both_counted():
    one, two = (steps(f"(a)?(?(1){arm}|c)", 1_000) for arm in ("b", ".*.*b"))
    assert one < two < float("inf")


# ---- calls ---------------------------------------------------------------------------------------------


@pytest.fixture
def asked(server):
    """Make calls on one stream of a server, after hello; give the items of the answers."""

    def ask(*calls, of=server):
        calls = (pb.Call(id=1, hello=pb.Hello(protocol=1)), *calls)
        with grpc.insecure_channel(of.listen.replace("unix://", "unix:")) as channel:
            frames = iter([pb.Up(calls=calls).SerializeToString()])
            stream = channel.stream_stream(f"/{SERVICE}/Link")(frames, timeout=20)
            return [item for data in stream for item in pb.Down.FromString(data).items]

    return ask


@pytest.fixture
def unary():
    """Make one call of a server."""

    def call(server, method, message):
        with grpc.insecure_channel(server.listen.replace("unix://", "unix:")) as channel:
            return channel.unary_unary(f"/{SERVICE}/{method}")(message.SerializeToString(), timeout=20)

    return call


def refusals(items):
    return {item.id: status.unpacked(item.error) for item in items if item.WhichOneof("what") == "error"}


def subscribe(id, session="demo"):
    return pb.Call(id=id, subscribe=pb.SubscribeRequest(session=session, create=True))


def put(id, value, **named):
    write = pb.Write(name="n", value=pack_plain(value), **named)
    return pb.Call(id=id, commit=pb.CommitRequest(session="demo", writes=[write], source="caller"))


def test_a_ping_for_a_session_that_the_stream_does_not_watch_is_refused(asked):
    refused = refusals(asked(pb.Call(id=2, ping=pb.Ping(session="demo"))))
    assert (type(refused[2]), str(refused[2])) == (UnknownSession, "session 'demo' is not watched here.")


def test_a_second_subscription_takes_the_place_of_the_first(asked, server, demo):
    demo(server.store)
    opened = [item.id for item in asked(subscribe(2), subscribe(3)) if item.WhichOneof("what") == "opened"]
    assert {2, 3} <= set(opened)


def test_a_write_may_have_an_author_of_its_own(asked, server, demo):
    session = demo(server.store)
    asked(subscribe(2), put(3, 1, source="node"))
    assert (session.get("n"), session.record("n").source) == (1, "node")
    asked(subscribe(2), put(3, 2))
    assert (session.get("n"), session.record("n").source) == (2, "caller")


def test_a_stream_with_more_commits_than_may_run_at_once_has_them_all_made(
    asked, serving, demo, tmp_path, eventually
):
    server = serving(f"sqlite:///{tmp_path}/x.db", limits=Limits(in_flight=1, commits=1e6, opens=1e6))
    session = demo(server.store)
    items = asked(subscribe(2), *(put(number, number) for number in range(3, 9)), of=server)
    assert refusals(items) == {}
    eventually(lambda: (session.get("n"), session.revision.rev) == (8, 6), "all six are there, in order")


def test_a_call_of_its_own_commits_to_a_database_too(serving, unary, demo, tmp_path, eventually):
    server = serving(f"sqlite:///{tmp_path}/x.db", limits=Limits(session_bytes=10_000))
    session = demo(server.store)
    said = pb.CommitReply.FromString(unary(server, "Commit", put(1, 5).commit))
    assert said.rev == 1
    eventually(lambda: session.get("n") == 5, "it is there")
    unknown = pb.CommitRequest(session="demo", writes=[pb.Write(name="nothing", value=pack_plain(1))])
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as raised:
            unary(server, "Commit", unknown)
        assert type(status.from_call(raised.value, "here")) is UnknownVariable


def test_a_session_that_nobody_opened_at_the_server_can_be_deleted(serving, remote, tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    with Session("demo", store=url) as session:
        session.register("n", Integer(), initial=0)
    store = remote(serving(url).url)
    assert [info.id for info in store.sessions()] == ["demo"]
    store.delete("demo")
    assert list(store.sessions()) == []


def test_who_may_not_set_makes_no_session(serving, remote):
    secret, token = new_token("*=read,watch")
    server = serving(tokens=[token])
    store = remote(server.url, token=secret)
    with pytest.raises((UnknownSession, PermissionDenied)):
        store.open("new")
    assert list(server.store.sessions()) == []


def test_serving_ends_with_a_signal_and_gives_the_handlers_back(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    tmp_path.chmod(0o700)
    served = []

    def ready(server):
        served.append(server)
        with Session("demo", store=server.url) as session:
            session.register("note", Text(), initial="kept")
            assert session.get("note") == "kept"
        signal.raise_signal(signal.SIGTERM)

    serve(f"sqlite:///{tmp_path}/x.db", f"unix://{tmp_path}/s", ready=ready, grace=1.0)
    assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    assert not (tmp_path / "s").exists()
    with pytest.raises(StoreUnavailable):
        served[0].store.open("demo")
    with Session("demo", store=f"sqlite:///{tmp_path}/x.db") as session:
        assert session.get("note") == "kept"


def test_a_name_for_a_socket_that_is_too_long_is_told(serving, tmp_path):
    folder = tmp_path / ("x" * 120)
    folder.mkdir(mode=0o700)
    with pytest.raises(StoreUnavailable, match="cannot listen on unix://"):
        serving(listen=f"unix://{folder}/s")
