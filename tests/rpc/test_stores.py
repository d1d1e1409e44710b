"""What the store behind a server does is seen by its clients: failures, histories that jump, ends."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import grpc
import pytest

from dspex import InvalidValue, Session, StoreUnavailable
from dspex.errors import SessionMoved
from dspex.rpc import Server
from dspex.rpc._generated import dspex_pb2 as pb
from dspex.rpc.extra import SERVICE
from dspex.rpc.share import share
from dspex.stores import MemoryStore
from dspex.stores.base import Ended

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))
from sqlite_tools import Spy


def test_a_disk_that_fails_is_typed_over_the_wire_and_reads_go_on(
    serving, remote, demo, tmp_path, monkeypatch
):
    spy = Spy().install(monkeypatch)
    server = serving(f"sqlite:///{tmp_path}/failing.db?durability=fast")
    session = demo(remote(server.url))
    other = demo(remote(server.url, max_staleness=1e6))
    told = []
    other.watch("n", told.append, mode="all")
    refused = []
    while len(refused) < 50:
        session.set("n", len(refused))
        spy.fail(len(refused) + 1)
        said = _refusal(session)
        spy.fail(0)
        if said is None:  # that many statements there are not
            break
        refused.append(said)
        assert (session.get("n"), session.snapshot()["n"]) == (len(refused) - 1,) * 2
    assert len(refused) > 3
    assert all("disk I/O error" in sentence for sentence in refused)
    session.set("n", 7)
    other.ledger.sync()
    assert other.get("n") == 7
    assert [change.rev for change in told] == list(range(1, session.revision.rev + 1))
    assert session.ledger.status == "LIVE"


def _refusal(session):
    try:
        session.set("n", -1)
    except StoreUnavailable as error:
        return str(error)
    return None


def test_the_store_of_a_server_is_not_served_again(store, session):
    for again in (lambda: Server(store), lambda: share(session)):
        with pytest.raises(InvalidValue, match="served already"):
            again()


def test_why_a_session_ended_is_told(server, session, eventually):
    error = SessionMoved("it went away.", session="demo")
    with Session("demo", store=server.store) as beneath:
        hub = server._calls.service.hubs["demo"]
        beneath.ledger.records = Ended(lambda: error)
        hub.end()
        eventually(lambda: session.ledger.status == "CLOSED", "the end")
        with pytest.raises(SessionMoved, match="it went away"):
            session.get("n")


@pytest.fixture
def stream(server, session):
    """The session 'demo' as a client sees it that has nothing but the .proto."""
    with grpc.insecure_channel(server.listen.replace("unix://", "unix:")) as channel:
        request = pb.SubscribeRequest(session="demo").SerializeToString()
        stream = channel.unary_stream(f"/{SERVICE}/Subscribe")(request, timeout=20)
        assert pb.Down.FromString(next(stream)).items[0].WhichOneof("what") == "opened"
        yield stream


def _rest(stream):
    return [item for data in stream for item in pb.Down.FromString(data).items]


def test_a_stream_of_one_session_ends_with_it(session, stream):
    session.delete()
    assert _rest(stream)[-1].WhichOneof("what") == "ended"
    assert stream.code() is grpc.StatusCode.OK


def test_a_server_that_stops_says_how_far_each_stream_was_told(server, session, stream):
    for number in range(3):
        session.set("n", number)
    server.stop(5)
    *_, bookmark, last = _rest(stream)
    assert (bookmark.bookmark.rev, last.WhichOneof("what")) == (3, "going_away")
    assert stream.code() is grpc.StatusCode.OK


class Slow(MemoryStore):
    """Takes a while to open a session; counts what is given back."""

    blocking = True

    def __init__(self):
        super().__init__()
        self.entered, self.go = threading.Event(), threading.Event()

    def open(self, session_id, *, create=True):
        self.entered.set()
        assert self.go.wait(30)
        return super().open(session_id, create=create)


def test_a_session_that_a_caller_did_not_wait_for_is_given_back(serving):
    """The call is over, and the server stops, before the store has opened the session."""
    store = Slow()
    server = serving(store)
    with grpc.insecure_channel(server.listen.replace("unix://", "unix:")) as channel:
        request = pb.OpenRequest(session="demo", create=True).SerializeToString()
        call = channel.unary_unary(f"/{SERVICE}/Open").future(request)
        assert store.entered.wait(10)
        call.cancel()
        threading.Timer(0.2, store.go.set).start()
        server.stop(0)
    assert store.sessions() == []
