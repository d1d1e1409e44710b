"""The store in memory: what the store contract asks of a ledger."""

import sys
import time
import tracemalloc

import pytest

from dspex import (
    Change,
    Float,
    Integer,
    InvalidName,
    InvalidValue,
    Revision,
    Session,
    SessionClosed,
    UnknownRevision,
    UnknownSession,
    UnknownVariable,
    VersionConflict,
    open_store,
    stores,
)
from dspex.commits import ClaimRequest, Commit, Declaration, Write
from dspex.stores import MemoryStore, Store


class Sink:
    """Notes what it is told."""

    def __init__(self):
        self.queue = []
        self.told = []

    def apply(self, changes):
        self.told.append(tuple(changes))
        self.queue.append(True)

    def drain(self):
        self.queue.clear()


DECLARED = (Declaration("n", Integer(), 0), Declaration("t", Float(), 0.5))


@pytest.fixture
def ledger(store):
    ledger = store.open("s")
    ledger.commit(Commit(declare=DECLARED))
    yield ledger
    ledger.close()


def test_memory_urls_are_stores_of_the_process():
    assert open_store("memory://") is open_store("memory://")
    assert open_store("memory://") is not open_store("memory://other")
    store = MemoryStore()
    assert store is open_store(store)
    assert isinstance(store, Store)


def test_declaring_is_no_write(ledger):
    assert ledger.rev == 0
    assert (ledger.records["n"].value, ledger.records["t"].value) == (0, 0.5)
    assert list(ledger.schema.declarations) == ["n", "t"]


def test_a_commit_that_declares_may_set_what_it_declares(store):
    ledger = store.open("s")
    receipt = ledger.commit(Commit((Write("n", 3, 0),), declare=DECLARED))
    assert (ledger.records["n"].value, receipt.rev) == (3, 1)
    ledger.close()


def test_a_commit_that_is_refused_declares_nothing(store):
    ledger = store.open("s")
    for writes in ((Write("n", "x"),), (Write("n", 1, 7),), (Write("m", 1),)):
        with pytest.raises((InvalidValue, VersionConflict, UnknownVariable)):
            ledger.commit(Commit(writes, declare=DECLARED, tag="t"))
    assert (dict(ledger.schema.declarations), ledger.tags, ledger.rev) == ({}, {}, 0)
    ledger.close()


def test_put_does_what_commit_does(store):
    one, two = store.open("one"), store.open("two")
    for ledger in (one, two):
        ledger.commit(Commit(declare=DECLARED))
    for value in range(4):
        one.put("n", value, {"why": 1}, "me", value)
        two.commit(Commit((Write("n", value, value),), source="me", metadata={"why": 1}))
    for mine, theirs in zip(one.history(), two.history(), strict=True):
        for field in ("name", "value", "version", "rev", "source", "metadata", "old"):
            assert getattr(mine, field) == getattr(theirs, field)
    one.close()
    two.close()


def test_a_commit_of_nothing_is_no_revision(ledger):
    receipt = ledger.commit(Commit())
    assert (receipt.rev, receipt.changes, ledger.rev) == (0, (), 0)


def test_all_of_one_request_happens_at_once(ledger):
    request = ClaimRequest(("n",), "me", "token", 60.0)
    receipt = ledger.commit(Commit((Write("n", 1),), claim=request, tag="here", token="token"))
    assert ({"here": receipt.revision}, 1) == (ledger.tags, ledger.snapshot("here")["n"])
    ledger.commit(Commit((Write("n", 2),), token="token", release="token"))
    ledger.put("n", 3)
    assert ledger.records["n"].value == 3


# ---- once --------------------------------------------------------------------------------------------


def test_a_commit_with_an_op_that_was_done_is_answered_as_then(ledger):
    sink = Sink()
    ledger.subscribe(sink)
    first = ledger.commit(Commit((Write("n", 1),), op="op-1"))
    ledger.put("n", 5)
    again = ledger.commit(Commit((Write("n", 1),), op="op-1"))
    assert first == again
    assert (ledger.records["n"].value, ledger.rev, len(sink.told)) == (5, 2, 2)


def test_a_commit_with_an_op_that_was_refused_may_be_tried_again(ledger):
    with pytest.raises(VersionConflict):
        ledger.commit(Commit((Write("n", 1, 7),), op="op-1"))
    assert ledger.commit(Commit((Write("n", 1, 0),), op="op-1")).rev == 1


def test_the_newest_10000_ops_are_remembered(ledger):
    receipts = [ledger.commit(Commit((Write("n", number),), op=str(number))) for number in range(10_001)]
    assert receipts[1] == ledger.commit(Commit((Write("n", 1),), op="1"))
    assert ledger.rev == 10_001
    ledger.commit(Commit((Write("n", 0),), op="0"))
    assert ledger.rev == 10_002


# ---- sinks -------------------------------------------------------------------------------------------


def test_sinks_hear_whole_commits_in_order(ledger):
    sink, other = Sink(), Sink()
    ledger.subscribe(sink)
    ledger.subscribe(other)
    ledger.put("n", 1)
    ledger.commit(Commit((Write("n", 2), Write("t", 0.1))))
    ledger.unsubscribe(other)
    ledger.put("n", 3)
    ledger.unsubscribe(sink)
    ledger.put("n", 4)
    assert [[change.new for change in told] for told in sink.told] == [[1], [2, 0.1], [3]]
    assert [[change.new for change in told] for told in other.told] == [[1], [2, 0.1]]


@pytest.mark.parametrize("leaving", [0, 1, 2])
def test_a_sink_that_leaves_leaves_the_others(ledger, leaving):
    sinks = [Sink() for _ in range(3)]
    for sink in sinks:
        ledger.subscribe(sink)
    ledger.unsubscribe(sinks[leaving])
    ledger.unsubscribe(sinks[leaving])
    ledger.put("n", 1)
    assert [int(number != leaving) for number in range(3)] == [len(sink.told) for sink in sinks]


def test_a_sink_is_drained_when_the_commit_is_done(ledger):
    class Reading(Sink):
        def drain(self):
            super().drain()
            seen.append((ledger.snapshot()["n"], ledger.rev))

    seen = []
    ledger.subscribe(Reading())
    ledger.put("n", 1)
    assert seen == [(1, 1)]


# ---- history -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sets", [0, 1, 2, 5])
def test_history_since_a_revision(ledger, sets):
    for value in range(sets):
        ledger.put("n", value)
    for since in range(sets + 1):
        assert list(range(since, sets)) == [change.new for change in ledger.history(since=since)]


def test_history_since_what_is_forgotten_is_refused(ledger):
    ledger.put("t", 0.1)
    for value in range(10_000):
        ledger.put("n", value)
    with pytest.raises(UnknownRevision) as refused:
        ledger.history(since=0)
    oldest = refused.value.oldest
    assert (
        "the changes of session 's' since revision 0 are not all there any more; the oldest point to "
        "go on from is "
        f"{oldest}. Start from a snapshot."
    ) == str(refused.value)
    changes = ledger.history(since=oldest)
    assert list(range(oldest + 1, 10_002)) == [change.rev for change in changes]
    with pytest.raises(UnknownRevision):
        ledger.history(since=oldest - 1)


def test_what_history_says_is_complete_is(ledger):
    """Commits of several names, cut anywhere: all that follows the oldest point is there."""
    for value in range(12_000):
        if value % 2:
            ledger.put("n", value)
        else:
            ledger.commit(Commit((Write("n", value), Write("t", 0.0))))
        if value % 100 == 99:
            try:
                ledger.history(since=0)
                oldest = 0
            except UnknownRevision as refused:
                oldest = refused.oldest
            changes = ledger.history(since=oldest)
            expected = [rev for rev in range(oldest + 1, ledger.rev + 1) for _ in range(1 + rev % 2)]
            assert expected == [change.rev for change in changes]


# ---- handles -----------------------------------------------------------------------------------------


def test_opening_without_making_finds_only_what_is_there(store, ledger):
    assert ledger is store.open("s", create=False)
    ledger.close()
    with pytest.raises(UnknownSession) as refused:
        store.open("t", create=False)
    assert (str(refused.value), refused.value.session) == ("the store has no session 't'.", "t")


@pytest.mark.parametrize("session_id", ["", "x" * 65, "a b", "ä", "a.b", "a/b", None, 5, "²"])
def test_a_session_id_that_is_none_is_refused(store, session_id):
    with pytest.raises(InvalidName):
        store.open(session_id)
    assert list(store.sessions()) == []


@pytest.mark.parametrize("session_id", ["a", "A-1_b", "x" * 64, "-", "_"])
def test_a_session_id_that_is_one_is_not(store, session_id):
    store.open(session_id).close()


def test_deleting_what_is_not_there_is_refused(store):
    with pytest.raises(UnknownSession):
        store.delete("s")


def test_a_deleted_ledger_refuses_everything(store, ledger):
    ledger.put("n", 1)
    ledger.put("n", 2)
    store.delete("s")
    for call in (
        lambda: ledger.put("n", 3),
        lambda: ledger.commit(Commit((Write("n", 3),))),
        ledger.snapshot,
        ledger.history,
        lambda: ledger.subscribe(Sink()),
        lambda: ledger.records["n"],
        lambda: ledger.tags,
    ):
        with pytest.raises(SessionClosed) as refused:
            call()
        assert str(refused.value) == "session 's' was deleted. Open it again to start anew."
    assert list(store.sessions()) == []


def test_the_last_handle_of_a_deleted_session_does_not_end_the_new_one(store, ledger):
    store.delete("s")
    anew = store.open("s")
    ledger.close()
    assert [info.id for info in store.sessions()] == ["s"]
    anew.close()


def test_stores_have_epochs_of_their_own():
    epochs = {MemoryStore().open("s").epoch for _ in range(10)}
    assert len(epochs) == 10


def test_revisions_of_one_history_can_be_compared():
    assert Revision("a", 2).reaches(Revision("a", 1))
    assert Revision("a", 2).reaches(Revision("a", 2))
    assert not Revision("a", 2).reaches(Revision("a", 3))
    assert not Revision("b", 2).reaches(Revision("a", 1))
    assert str(Revision("a", 2)) == "a:2"


def test_changes_carry_the_time_of_the_store(ledger, monkeypatch):
    before = time.time()
    change = ledger.put("n", 1)
    assert before <= change.time <= time.time()
    assert isinstance(change, Change)


# ---- size --------------------------------------------------------------------------------------------


def size_of(make, count=2_000):
    made = [make() for _ in range(100)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        made.extend(make() for _ in range(count))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for one in made:
        one.close()
    return (after - before) / count


@pytest.mark.skipif(sys.gettrace() is not None, reason="tracing takes memory of its own")
def test_a_fork_with_nothing_of_its_own_is_small():
    with Session() as session:
        for number in range(10):
            session.register(f"v{number}", int, initial=number)
        session.set("v0", 5)
        assert size_of(session.fork) <= 256
        # A record of its own is a value too, and a float of 24 bytes is no small integer.
        assert size_of(lambda: session.fork({"v1": 7})) <= 640


def test_a_store_in_memory_has_no_parameters():
    assert open_store("memory://named") is open_store("memory://named")
    with pytest.raises(InvalidValue) as refused:
        open_store("memory://named?durability=full")
    assert str(refused.value) == (
        "what follows memory:// must be a name alone: a store in memory has no parameters "
        "(got 'memory://named?durability=full')."
    )


def test_a_session_of_its_own_makes_no_store(monkeypatch):
    open_store("memory://")
    monkeypatch.setattr(stores, "MemoryStore", None)
    Session().close()
