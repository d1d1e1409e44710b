"""
Whatever comes in, the answer is typed, the server lives on, and a good client beside it notices nothing.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import grpc
import msgspec
import pytest
from hostile import IDS, NAMES
from soak import LIMIT, often

from dspex import Integer, LimitExceeded, Session, errors
from dspex.rpc import requests as read
from dspex.rpc import status
from dspex.rpc._generated import dspex_pb2 as pb
from dspex.rpc.extra import SERVICE
from dspex.rpc.limits import MESSAGE
from dspex.wire import pack_plain, unpack_plain

pytestmark = pytest.mark.timeout(LIMIT)

TYPED = set(status.STATUS.values()) | {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.OK}
BY_METHOD = {
    "Open": pb.OpenRequest,
    "Commit": pb.CommitRequest,
    "Snapshot": pb.SnapshotRequest,
    "History": pb.HistoryRequest,
    "ListSessions": pb.ListRequest,
    "DeleteSession": pb.DeleteRequest,
}


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return pack_plain(value) if levels < 500 else b"\x91" * levels + b"\x01"


VALUES = [
    b"",
    b"\xc1",
    b"\xc4",
    b"\xd9\xff",
    b"\xa2\xff\xfe",
    b"\xdc\xff\xff",
    b"\xdf\xff\xff\xff\xff",
    b"\xc7\x05\x01",
    pack_plain(None),
    pack_plain(True),
    pack_plain(1.0),
    pack_plain(float("nan")),
    pack_plain(float("inf")),
    pack_plain(-0.0),
    pack_plain(2**53 + 1),
    pack_plain(2**63 - 1),
    pack_plain(-(2**63)),
    msgspec.msgpack.encode(2**64 - 1),
    pack_plain("1"),
    pack_plain("a\0b"),
    pack_plain(b"\0\xff"),
    pack_plain([1]),
    pack_plain({"a": 1}),
    pack_plain({"lc": 1, "type": "constructor", "id": ["os", "system"]}),
    b"\x82\xa1a\x01\xa1a\x02",
    b"\x81\x01\x02",
    b"\xd6\xff\x00\x00\x00\x00",
    deep(31),
    deep(32),
    deep(33),
    deep(1_000),
    deep(100_000),
    pack_plain([0] * 100_000),
    pack_plain("x" * (1024 * 1024 - 5)),
    pack_plain("x" * (1024 * 1024 + 1)),
    b"\x01\x01",
]
NUMBERS = [-(2**63), -1, 0, 1, 7, 2**31, 2**53 + 1, 2**63 - 1]
ULONGS = [0, 1, 2**32, 2**63 - 1, 2**64 - 1]
FLOATS = [0.0, -1.0, 1e308, float("nan"), float("inf"), -0.0]


def requests():
    """Well-formed messages with everything in them that should not be, each field by itself."""
    write = pb.Write(name="n", value=pack_plain(1))
    for session in IDS:
        for made in (pb.OpenRequest(session=session), pb.OpenRequest(session=session, create=True)):
            yield "Open", made
        yield "Commit", pb.CommitRequest(session=session, writes=[write])
        yield "Snapshot", pb.SnapshotRequest(session=session)
        yield "History", pb.HistoryRequest(session=session)
        yield "DeleteSession", pb.DeleteRequest(session=session)
    for name in NAMES:
        yield "Commit", pb.CommitRequest(session="demo", writes=[pb.Write(name=name, value=pack_plain(1))])
        yield "Snapshot", pb.SnapshotRequest(session="demo", names=[name])
        yield "Snapshot", pb.SnapshotRequest(session="demo", tag=name)
        yield "History", pb.HistoryRequest(session="demo", name=name)
        for field in ("tag", "source", "token", "release"):
            yield "Commit", pb.CommitRequest(session="demo", **{field: name})
        claim = {"names": ["a"], "owner": "o", "token": "t", "ttl": 0.001}
        for field, bad in (("names", [name]), ("owner", name), ("token", name)):
            yield "Commit", pb.CommitRequest(session="demo", claim=pb.Claim(**{**claim, field: bad}))
        for declared in (
            [name, {"kind": "int"}, 0, "", ""], ["late", {"kind": name}, 0, "", ""],
            ["late", {"kind": "int", name or "?": 1}, 0, "", ""], ["late", name, 0, "", ""],
        ):  # fmt: skip
            yield "Commit", pb.CommitRequest(session="demo", declare=[pack_plain(declared)])
    for ttl in FLOATS:
        claim = pb.Claim(names=["a"], owner="o", token=f"t{ttl}", ttl=ttl)
        yield "Commit", pb.CommitRequest(session="demo", claim=claim)
        yield "Commit", pb.CommitRequest(session="demo", release=f"t{ttl}")
    for value in VALUES:
        for name in ("n", "temperature", "note"):
            yield "Commit", pb.CommitRequest(session="demo", writes=[pb.Write(name=name, value=value)])
        yield "Commit", pb.CommitRequest(session="demo", writes=[write], metadata=value)
        yield "Commit", pb.CommitRequest(session="demo", declare=[value])
        yield (
            "Commit",
            pb.CommitRequest(session="demo", declare=[pack_plain(["v", {"kind": "int"}, 0, "", ""]) + value]),
        )
    for number in NUMBERS:
        yield (
            "Commit",
            pb.CommitRequest(session="demo", writes=[pb.Write(name="n", value=pack_plain(1), expect=number)]),
        )
    for number in ULONGS:
        yield "History", pb.HistoryRequest(session="demo", since=number)
    yield "Commit", pb.CommitRequest(session="demo", writes=[write, write])
    many = [pb.Write(name=f"x{index}", value=b"\x01") for index in range(10_000)]
    yield "Commit", pb.CommitRequest(session="demo", writes=many)
    yield "Commit", pb.CommitRequest(session="demo", declare=[b"\x01"] * 10_000)
    yield "Commit", pb.CommitRequest(session="demo", writes=[write], op="same")
    yield (
        "Commit",
        pb.CommitRequest(session="demo", writes=[pb.Write(name="a", value=pack_plain(2))], op="same"),
    )


def mangled(chance):
    """A message, cut, turned or made up."""
    method = chance.choice(list(BY_METHOD))
    made = BY_METHOD[method](**({} if method == "ListSessions" else {"session": "demo"}))
    if method == "Commit":
        for _ in range(chance.randrange(3)):
            made.writes.add(name=chance.choice(["n", "note", *NAMES[:3]]), value=chance.choice(VALUES[:25]))
        made.source = "someone"
    data = bytearray(made.SerializeToString())
    way = chance.randrange(4)
    if way == 0 and data:
        del data[chance.randrange(len(data)) :]
    elif way == 1:
        for _ in range(1 + len(data) // 10):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
    elif way == 2:
        data += chance.randbytes(chance.randrange(1, 40))
    else:
        data = bytearray(chance.randbytes(chance.randrange(1, 200)))
    return method, bytes(data)


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.listen.replace("unix://", "unix:")) as opened:
        yield opened


def ask(channel, method, data, **keywords):
    """The status, and the error that came with it."""
    try:
        channel.unary_unary(f"/{SERVICE}/{method}")(data, timeout=5, **keywords)
    except grpc.RpcError as error:
        trailer = dict(error.trailing_metadata() or ()).get(status.TRAILER)
        return error.code(), None if trailer is None else status.unpacked(trailer)
    return grpc.StatusCode.OK, None


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_every_field_with_everything_that_is_wrong(server, channel, demo, beside):
    with Session("demo", store=server.store) as beneath:
        demo(server.store)
        asked = 0
        for method, message in requests():
            code, error = ask(channel, method, message.SerializeToString())
            assert code in TYPED, (method, message)
            assert (code is grpc.StatusCode.OK) == (error is None), (method, message)
            if error is not None:
                assert status.status_of(error) is code
                assert len(str(error)) < 2_000
            asked += 1
        assert asked > 500
        demo(server.store)  # what may have been deleted on the way
        assert beneath.closed is False


def test_mangled_messages_on_calls_and_on_the_link(server, channel, demo, beside):
    demo(server.store)
    chance = random.Random(5)
    before = _resident()
    for _ in range(often(1_500, 10_000)):
        method, data = mangled(chance)
        code, _ = ask(channel, method, data)
        assert code in TYPED, (method, data)
    link = channel.stream_stream(f"/{SERVICE}/Link")
    hello = pb.Up(calls=[pb.Call(id=1, hello=pb.Hello(protocol=1))]).SerializeToString()
    for number in range(often(300, 2_000)):
        method, data = mangled(chance)
        frames = [hello, data] if number % 2 else [data]
        stream = link(iter(frames), timeout=5)
        with suppress(grpc.RpcError):
            for answer in stream:
                pb.Down.FromString(answer)
        assert stream.code() in TYPED, frames
    assert _resident() - before < 20 * 1024 * 1024


def _with_unknown(message, path=()):
    """*message* with one field that nobody knows, in itself or in what it has at *path*."""
    made = type(message)()
    made.CopyFrom(message)
    inner = made
    for step in path:
        inner = inner[step] if isinstance(step, int) else getattr(inner, step)
    inner.MergeFromString(b"\xf8\x7f\x01")  # field 2047
    return made.SerializeToString()


@pytest.mark.parametrize("method", BY_METHOD)
def test_a_field_that_a_server_does_not_know_is_refused(server, channel, demo, method):
    demo(server.store)
    message = BY_METHOD[method](**({} if method == "ListSessions" else {"session": "demo"}))
    code, error = ask(channel, method, _with_unknown(message))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error).startswith(f"{BY_METHOD[method].DESCRIPTOR.name} must be fields that this server knows")
    assert "got field 2047" in str(error)


@pytest.mark.parametrize("path", [("writes", 0), ("claim",)])
def test_a_field_that_a_server_does_not_know_is_refused_wherever_it_is(server, channel, demo, path, state):
    session = demo(server.store)
    before = state(session)
    message = pb.CommitRequest(
        session="demo",
        writes=[pb.Write(name="n", value=pack_plain(5))],
        claim=pb.Claim(names=["a"], owner="me", token="t", ttl=5),
    )
    code, error = ask(channel, "Commit", _with_unknown(message, path))
    assert (code, type(error)) == (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidValue)
    assert state(session) == before
    up = pb.Up(calls=[pb.Call(id=1, hello=pb.Hello(protocol=1)), pb.Call(id=2, commit=message)])
    stream = channel.stream_stream(f"/{SERVICE}/Link")(
        iter([_with_unknown(up, ("calls", 1, "commit", *path))]), timeout=5
    )
    with pytest.raises(grpc.RpcError) as raised:
        list(stream)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert state(session) == before


def test_a_claim_is_on_each_name_once_and_on_one_at_least(server, channel, demo):
    session = demo(server.store)
    asked = [pb.Claim(names=names, owner="me", token="t", ttl=5) for names in ([], ["n"] * 50_000)]
    none, many = (pb.CommitRequest(session="demo", claim=claim) for claim in asked)
    code, error = ask(channel, "Commit", none.SerializeToString())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error) == "names must be at least one name (got none) in session 'demo'."
    assert read.commit_of(many, session.ledger.schema).claim.names == ("n",)


def test_a_field_that_is_written_twice_is_no_unknown_one(server, channel, demo):
    session = demo(server.store)
    once = pb.CommitRequest(session="demo", writes=[pb.Write(name="n", value=pack_plain(5))])
    data = pb.CommitRequest(session="other").SerializeToString() + once.SerializeToString()
    assert ask(channel, "Commit", data) == (grpc.StatusCode.OK, None)
    assert session.get("n") == 5


@pytest.mark.parametrize(
    "calls",
    [
        [pb.Call()],
        [pb.Call(id=1)],
        [pb.Call(id=1, ping=pb.Ping())],
        [pb.Call(id=1, hello=pb.Hello(protocol=2))],
        [pb.Call(id=1, hello=pb.Hello(protocol=1)), pb.Call(id=0, ping=pb.Ping())],
        [pb.Call(id=1, hello=pb.Hello(protocol=1)), pb.Call(id=2, leave=pb.Leave(session="nowhere"))],
        [
            pb.Call(id=1, hello=pb.Hello(protocol=1)),
            pb.Call(id=2, subscribe=pb.SubscribeRequest(session="nowhere")),
        ],
        [
            pb.Call(id=1, hello=pb.Hello(protocol=1)),
            pb.Call(id=2, commit=pb.CommitRequest(session="nowhere")),
        ],
    ],
)
def test_calls_out_of_order_get_an_answer_each(channel, calls):
    answers = channel.stream_stream(f"/{SERVICE}/Link")(
        iter([pb.Up(calls=calls).SerializeToString()]), timeout=5
    )
    items = [item for data in answers for item in pb.Down.FromString(data).items]
    answered = [item.id for item in items if item.id or item.error]
    assert sorted(call.id for call in calls) == sorted(answered)


@pytest.mark.parametrize(
    ("resume", "start"),
    [(("other", 0), "START_OTHER_EPOCH"), ((None, 2**63), "START_OTHER_EPOCH"), ((None, 3), "START_RESUMED")],
)
def test_a_resume_from_nowhere_is_a_snapshot_that_says_so(server, channel, demo, resume, start):
    session = demo(server.store)
    for number in range(5):
        session.set("n", number)
    epoch, rev = resume
    request = pb.SubscribeRequest(
        session="demo", resume=pb.Revision(epoch=epoch or session.revision.epoch, rev=rev)
    )
    stream = channel.unary_stream(f"/{SERVICE}/Subscribe")(request.SerializeToString(), timeout=10)
    first = pb.Down.FromString(next(stream)).items
    assert pb.Start.Name(first[0].opened.start) == start
    stream.cancel()


def test_too_much_is_refused_by_size(server, channel, demo, beside):
    demo(server.store)
    big = pb.CommitRequest(session="demo", source="x" * (MESSAGE + 1)).SerializeToString()
    assert ask(channel, "Commit", big)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    heavy = (("x-heavy", "x" * 20_000),)
    assert ask(channel, "ListSessions", b"", metadata=heavy)[0] in TYPED
    long = pb.CommitRequest(session="demo", token="x" * 1_025).SerializeToString()
    code, error = ask(channel, "Commit", long)
    assert (code, type(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, LimitExceeded)


@pytest.mark.parametrize("seconds", [0, 0.001, None])
def test_a_call_may_have_any_deadline(server, channel, demo, beside, seconds):
    demo(server.store)
    for method, made in BY_METHOD.items():
        data = b"" if method == "ListSessions" else made(session="demo").SerializeToString()
        call = channel.unary_unary(f"/{SERVICE}/{method}").future(data, timeout=seconds)
        with suppress(grpc.RpcError):
            call.result(timeout=10)
        assert call.code() in (TYPED if seconds is not None else TYPED - {grpc.StatusCode.DEADLINE_EXCEEDED})


def _descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_connections_of_garbage_and_of_silence(server, beside):
    chance = random.Random(6)
    path = server.listen.removeprefix("unix://")
    before = _descriptors()
    silent = []
    for number in range(often(400, 2_000)):
        with socket.socket(socket.AF_UNIX) as one, suppress(OSError):
            one.settimeout(5)
            one.connect(path)
            if number % 4 == 0:
                one.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + chance.randbytes(60))
            elif number % 4 == 1:
                one.sendall(chance.randbytes(200))
            elif number % 4 == 2:
                one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            if number % 40 == 3:
                silent.append(one.dup())
    done = beside[0]
    deadline = time.monotonic() + 10
    while beside[0] < done + 20:
        assert time.monotonic() < deadline, "the good client stands still"
        threading.Event().wait(0.002)
    for one in silent:
        one.close()
    while _descriptors() > before + 20:
        assert time.monotonic() < deadline, "connections are not closed"
        threading.Event().wait(0.01)


def test_streams_opened_and_cancelled_at_once(channel, server, beside, eventually):
    link = channel.stream_stream(f"/{SERVICE}/Link")
    for _ in range(often(500, 10_000)):
        link(iter([pb.Up().SerializeToString()])).cancel()
    eventually(lambda: len(server._calls.streams) <= 1, "their streams are gone")


def test_the_store_is_unchanged_by_what_it_refuses(server, channel, demo, state):
    session = demo(server.store)
    session.set("n", 1)
    before = state(session)
    for value in VALUES:
        if not _is_an_integer(value):
            request = pb.CommitRequest(
                session="demo",
                writes=[pb.Write(name="a", value=pack_plain(1)), pb.Write(name="n", value=value)],
                tag="no",
            )
            code, _ = ask(channel, "Commit", request.SerializeToString())
            assert code is not grpc.StatusCode.OK, value
    assert state(session) == before


def _is_an_integer(value):
    try:
        return Integer().takes(unpack_plain(value))
    except errors.InvalidValue:
        return False
