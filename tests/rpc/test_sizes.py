"""Large values and large answers, over every road that there is."""

from __future__ import annotations

import grpc
import pytest

from dspex import LimitExceeded, Session, Text
from dspex.commits import Commit, Write
from dspex.rpc import status
from dspex.rpc._generated import dspex_pb2 as pb
from dspex.rpc.extra import SERVICE
from dspex.rpc.limits import MESSAGE
from dspex.wire import pack_plain, unpack_plain

MEBIBYTE = 1024 * 1024
TEXT = "é" * (MEBIBYTE // 2 - 20)
"""As much as a value may be, nearly."""


@pytest.fixture
def ask(server):
    """Make unary calls as a client does that has only the .proto: with the limits of gRPC itself."""
    with grpc.insecure_channel(server.listen.replace("unix://", "unix:")) as channel:

        def call(method, request, reply):
            data = channel.unary_unary(f"/{SERVICE}/{method}")(request.SerializeToString(), timeout=20)
            return reply.FromString(data)

        call.channel = channel
        yield call


@pytest.fixture
def full(server):
    """A session with six values of nearly a mebibyte."""
    with Session("full", store=server.store) as session:
        for index in range(6):
            session.register(f"t{index}", Text(), initial="")
            session.set(f"t{index}", f"{index}{TEXT}")
        yield session


def test_a_value_of_a_mebibyte_by_every_road(server, store, demo, ask, eventually):
    session = demo(store)
    told = []
    with Session("demo", store=server.store) as beneath:
        session.watch("note", told.append, mode="all")
        session.set("note", f"1{TEXT}")
        assert beneath.get("note") == session.get("note") == f"1{TEXT}"
        session.update({"note": f"2{TEXT}", "n": 2})
        assert (beneath.get("note"), beneath.get("n")) == (f"2{TEXT}", 2)
        beneath.set("note", f"3{TEXT}")
        eventually(lambda: session.get("note") == f"3{TEXT}", "the push")
    write = pb.Write(name="note", value=pack_plain(f"4{TEXT}"))
    reply = ask("Commit", pb.CommitRequest(session="demo", writes=[write]), pb.CommitReply)
    (change,) = reply.changes
    assert (unpack_plain(change.value), unpack_plain(change.old)) == (f"4{TEXT}", f"3{TEXT}")
    eventually(lambda: len(told) == 4, "all are told")
    assert [(change.new[0], change.old[:1]) for change in told] == [
        ("1", ""), ("2", "1"), ("3", "2"), ("4", "3")
    ]  # fmt: skip
    for method, request, reply in (
        ("Open", pb.OpenRequest(session="demo"), pb.Opened),
        ("Snapshot", pb.SnapshotRequest(session="demo", names=["note"]), pb.SnapshotReply),
    ):
        answer = ask(method, request, reply)
        values = {one.name: unpack_plain(one.value) for one in answer.records}
        assert (values["note"], answer.more) == (f"4{TEXT}", False)
    session.tag("here")
    assert session.snapshot("here")["note"] == f"4{TEXT}"
    assert [change.new[0] for change in session.history("note")] == ["1", "2", "3", "4"]


def test_a_unary_answer_that_is_too_large_says_what_to_do(full, ask):
    for method, request in (
        ("Open", pb.OpenRequest(session="full")),
        ("Snapshot", pb.SnapshotRequest(session="full")),
    ):
        with pytest.raises(grpc.RpcError) as raised:
            ask(method, request, pb.Opened)
        error = status.from_call(raised.value, "here")
        assert (type(error), raised.value.code()) == (LimitExceeded, grpc.StatusCode.RESOURCE_EXHAUSTED)
        assert "Ask for some names" in str(error)
    names = ["t0", "t1", "t2"]
    reply = ask("Snapshot", pb.SnapshotRequest(session="full", names=names), pb.SnapshotReply)
    assert [one.name for one in reply.records] == names


def test_a_history_that_is_too_large_is_had_page_by_page(full, ask):
    pages, since = [], 0
    while True:
        reply = ask("History", pb.HistoryRequest(session="full", since=since), pb.HistoryReply)
        pages.append([change.rev for change in reply.changes])
        since = reply.changes[-1].rev
        if not reply.more:
            break
    assert [rev for page in pages for rev in page] == list(range(1, 7))
    assert len(pages) == 2


def test_a_commit_that_was_made_is_answered_however_large(full, ask, remote, server):
    """Three values replace three, which is six in the answer."""
    writes = [pb.Write(name=f"t{index}", value=pack_plain(f"new {TEXT}")) for index in range(3)]
    reply = ask("Commit", pb.CommitRequest(session="full", writes=writes), pb.CommitReply)
    assert [(one.name, one.version, one.value) for one in reply.changes] == [
        (f"t{index}", 2, b"") for index in range(3)
    ]
    assert full.get("t2") == f"new {TEXT}"


def test_a_commit_of_a_thousand_names_with_reasons_is_answered_on_a_link(server, remote, demo):
    """Each change has the reason: sixteen mebibytes, four times what a message may have."""
    reason = {"why": "x" * 16_000}
    store = remote(server.url)
    with Session("wide", store=store) as session:
        for index in range(1_000):
            session.register(f"v{index}", Text(), initial="")
        writes = tuple(Write(f"v{index}", "a") for index in range(1_000))
        commit = Commit(writes, metadata=reason, op="wide")
        assert session.ledger.commit(commit).rev == 1
        again = session.ledger.commit(commit)  # answered with the changes, as it makes no event
        assert [change.name for change in again.changes] == [f"v{index}" for index in range(1_000)]
        assert all(change.metadata["why"] == reason["why"] for change in again.changes)
        assert len(session.history()) == 1_000
        assert store.status == "LIVE"


def test_many_sessions_are_listed(server, store, ask):
    for index in range(3_000):
        with Session(f"{index:060}", store=server.store):
            pass
        server.store.open(f"s{index:059}")
    assert len(store.sessions()) == 3_000
    reply = ask("ListSessions", pb.ListRequest(), pb.ListReply)
    assert (len(reply.sessions), reply.more) == (3_000, False)


def test_large_answers_to_one_who_does_not_read_wait_unmade(full, server, eventually):
    """A hundred snapshots of six mebibytes are asked for at once, and take the room of a few."""
    import os
    import threading
    from pathlib import Path

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    calls = [pb.Call(id=1, hello=pb.Hello(protocol=1))]
    calls += [pb.Call(id=2 + index, snapshot=pb.SnapshotRequest(session="full")) for index in range(100)]
    options = [("grpc.max_receive_message_length", 2 * MESSAGE)]
    target = server.listen.replace("unix://", "unix:")
    with grpc.insecure_channel(target, options=options) as channel:
        before = resident()
        done = threading.Event()

        def frames():
            yield pb.Up(calls=calls).SerializeToString()
            done.wait(60)

        stream = channel.stream_stream(f"/{SERVICE}/Link")(frames())
        first = next(stream)
        (outbox,) = server._calls.streams
        eventually(lambda: len(outbox._out) >= 99, "all have been asked for")
        assert resident() - before < 100 * MEBIBYTE
        answered = set()
        for data in stream:
            answered |= {
                item.id for item in pb.Down.FromString(data).items if item.id and not item.snapshot.more
            }
            if len(answered) == 100:
                break
        done.set()
        assert pb.Down.FromString(first).items[0].id == 1
        stream.cancel()
