"""A copy that goes over commits which nobody can tell any more, and watchers that want all of them."""

from __future__ import annotations

import math

import pytest
from proxy import Proxy

from dspex import LimitExceeded, Session
from dspex.stores import base


@pytest.fixture
def proxied(server, tmp_path):
    with Proxy(server.listen.removeprefix("unix://"), str(tmp_path / "proxy")) as proxy:
        yield proxy


def test_who_wants_every_change_is_told_that_some_are_missing(
    server, proxied, remote, demo, *, monkeypatch, eventually
):
    monkeypatch.setattr(base, "HISTORY", 8)
    monkeypatch.setattr("dspex.stores.log.LENGTH", 24)
    session = demo(remote(proxied.url, max_staleness=math.inf))
    every = session.watch("n", print, mode="all")
    newest = []
    session.watch("n", newest.append)
    with Session("demo", store=server.store) as beneath:
        proxied.refuse = True
        proxied.reset()
        for number in range(1, 200):
            beneath.set("n", number)
        proxied.refuse = False
        eventually(lambda: newest and newest[-1].value == 199, "the newest change")
        eventually(lambda: every.closed, "the watch of all changes is closed")
    assert isinstance(every.last_error, LimitExceeded)
    assert len(newest) == 1


def test_a_watch_goes_on_in_another_history(tmp_path, serving, remote, demo, eventually):
    listen = f"unix://{tmp_path}/again"
    first = serving(listen=listen)
    session = demo(remote(first.url, max_staleness=math.inf))
    for number in range(50):
        session.set("n", number)
    told = []
    session.watch("n", told.append)
    first.stop(0)
    serving(listen=listen)
    eventually(lambda: session.ledger.status == "LIVE" and session.revision.rev < 50, "another history")
    eventually(lambda: [change.value for change in told] == [0], "the value that it begins with")
    eventually(lambda: session.variables and _may_set(session), "the variables are declared again")
    eventually(lambda: told[-1].value == 7, "a change in the other history")


def _may_set(session):
    try:
        session.set("n", 7)
    except LookupError:
        return False
    return True


class Recorder:
    """A sink that writes down revisions, and those that it was told are missing."""

    queue = False

    def __init__(self, told):
        self.told = told

    def apply(self, changes):
        self.told.append([change.rev for change in changes])

    def lost(self, rev, names):
        self.told.append((rev, names))


def _copy():
    """A copy at revision 3, which nobody keeps up to date but the test."""
    from dspex import Integer
    from dspex.rpc import messages
    from dspex.rpc.address import Address
    from dspex.rpc.extra import pb
    from dspex.rpc.link import Link
    from dspex.rpc.remote import RemoteLedger
    from dspex.stores import MemoryStore

    source = Session("s", store=MemoryStore())
    source.register("n", Integer(), initial=0)
    for number in range(10):
        source.set("n", number)
    changes = source.history()
    copy = RemoteLedger(Link(Address.parse("grpc+unix:///nowhere")), None, "s", create=True)
    copy.handles = 1
    (opened,) = messages.opened(
        "s",
        1,
        pb.START_SNAPSHOT,
        (source.revision.epoch, 3),
        schema=source.ledger.schema,
        records=changes[2:3],
    )
    assert copy.opened(opened)

    def event(*revs, prev):
        told = [changes[rev - 1] for rev in revs]
        (frame,) = messages.events(source.ledger.schema, 1, prev, revs[-1], told)
        return pb.Down.FromString(frame).items[0].event

    return copy, event


def test_an_event_that_comes_again_changes_nothing():
    copy, event = _copy()
    assert (copy.event(event(4, prev=3)), copy.rev) == (False, 4)
    for again in (4, 3, 1):
        assert (copy.event(event(again, prev=again - 1)), copy.rev) == (False, 4)
    assert copy.records["n"].value == 3


def test_an_event_for_several_commits_says_which_names_it_tells_the_newest_of():
    copy, event = _copy()
    told = []
    assert copy.subscribe(Recorder(told))
    together = event(6, prev=3)
    together.coalesced = True
    copy.event(together)
    copy.event(event(7, prev=6))
    assert told == [(6, {"n"}), [6], [7]]


def test_a_commit_that_a_client_told_of_first_is_told_once():
    copy, event = _copy()
    told = []
    watching = Recorder(told)
    assert copy.subscribe(watching)
    epoch = copy.epoch
    assert copy.foretold(epoch, event(4, prev=3).SerializeToString())
    assert (copy.rev, copy.records["n"].value, told) == (4, 3, [[4]])
    assert copy.foretold(epoch, event(4, prev=3).SerializeToString())
    assert (copy.event(event(4, prev=3)), told) == (False, [[4]])
    together = event(4, 6, prev=3)
    together.coalesced = True
    copy.event(together)
    assert told == [[4], (6, {"n"}), [6]]


def test_what_a_client_tells_of_is_not_applied_out_of_its_turn():
    copy, event = _copy()
    epoch = copy.epoch
    assert not copy.foretold(epoch, event(5, prev=4).SerializeToString())
    assert not copy.foretold("another", event(4, prev=3).SerializeToString())
    unknown = event(4, prev=3)
    unknown.changes[0].name = "m"
    assert not copy.foretold(epoch, unknown.SerializeToString())
    copy._link.opening.add("s")  # what the server answers may be older
    assert not copy.foretold(epoch, event(4, prev=3).SerializeToString())
    assert (copy.rev, copy.records["n"].value) == (3, 2)


def test_an_event_after_a_gap_is_not_applied():
    copy, event = _copy()
    assert copy.event(event(6, prev=5)) is None
    assert (copy.rev, copy.records["n"].value) == (3, 2)


def test_a_checksum_that_differs_is_noticed():
    from dspex.rpc import messages
    from dspex.rpc.extra import pb

    copy, _ = _copy()
    right = messages.digest(copy.records.values())
    assert copy.agrees(pb.Bookmark(rev=3, digest=right))
    assert copy.agrees(pb.Bookmark(rev=2, digest=right + 1))
    assert not copy.agrees(pb.Bookmark(rev=3, digest=right ^ 1))
    assert not copy.agrees(pb.Bookmark(rev=4, digest=right))


def _reply(name, *, more):
    from dspex.rpc.extra import pb

    return pb.Item(id=5, history=pb.HistoryReply(epoch="e", changes=[pb.Change(name=name)], more=more))


def test_parts_of_an_answer_that_a_lost_connection_gave_are_not_taken_twice():
    from dspex.rpc.address import Address
    from dspex.rpc.link import Link
    from dspex.rpc.pending import Pending

    link = Link(Address.parse("grpc://127.0.0.1:1"))
    asked = link.pending[5] = Pending("history", b"")
    link._answered(_reply("one", more=True), "history", [])
    link.lost(None)
    link._answered(_reply("one", more=True), "history", [])
    link._answered(_reply("two", more=False), "history", [])
    assert [change.name for reply in asked.result for change in reply.changes] == ["one", "two"]


def test_parts_of_a_session_that_a_lost_connection_gave_are_none_of_the_next():
    from dspex.rpc.extra import pb

    copy, _ = _copy()
    link, declared = copy._link, copy.schema.declarations
    link.ledgers[copy.id] = copy
    old = pb.Change(name="n", value=b"\xcd\x02\x9a", version=9, rev=9)
    begun = pb.Opened(session="s", channel=1, epoch=copy.epoch, rev=9, start=pb.START_SNAPSHOT, more=True)
    begun.records.append(old)
    assert not copy.opened(begun)
    link.lost(None)
    assert copy.opened(
        pb.Opened(session="s", channel=1, epoch="another", rev=0, start=pb.START_OTHER_EPOCH, more=False)
    )
    assert (copy.epoch, copy.records["n"].value, set(declared)) == ("another", 0, {"n"})
