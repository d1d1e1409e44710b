"""Changes as iterators: what is told, where it goes on, how it ends."""

import gc
import threading

import pytest

from dspex import (
    Change,
    DeadlineExceeded,
    InvalidCall,
    InvalidValue,
    LimitExceeded,
    Revision,
    Session,
    Snapshot,
    UnknownVariable,
    streams,
)

OPENS = 2_000

LONGEST = f"at most {threading.TIMEOUT_MAX:.0f}"
WAITS = [("a", "0 or more"), (-1, "0 or more"), (float("nan"), "0 or more"), (float("inf"), LONGEST)]


def taken(stream, count):
    return [stream.next(timeout=30) for _ in range(count)]


def test_an_iterator_gives_the_changes_from_now_on(session):
    session.set("n", 1)
    with session.changes("n", mode="all") as changes:
        session.set("n", 2)
        session.set("a", 9)
        session.set("n", 3)
        assert [change.new for change in taken(changes, 2)] == [2, 3]


def test_a_jump_in_history_before_the_first_commit_ends_who_wants_every_change(session):
    with session.changes("n", mode="all") as every, session.changes("n") as latest:
        session.ledger._sink.lost(7, {"n"})
        session.set("n", 2)
        with pytest.raises(LimitExceeded):
            every.next(timeout=30)
        assert latest.next(timeout=30).new == 2


def test_an_iterator_can_be_used_in_a_for_loop(session):
    changes = session.changes(mode="all")
    for value in range(5):
        session.set("n", value)
    changes.close()
    assert [change.new for change in changes] == [0, 1, 2, 3, 4]


def test_mode_latest_gives_the_newest_change_of_each_name(session):
    with session.changes() as changes:
        for value in range(10):
            session.update({"a": value, "b": -value})
        session.set("a", 100)
        assert {change.name: change.new for change in taken(changes, 2)} == {"a": 100, "b": -9}
        with pytest.raises(DeadlineExceeded):
            changes.next(timeout=0.01)


def test_waiting_for_a_change_ends_with_the_deadline(session):
    with session.changes("n") as changes, pytest.raises(DeadlineExceeded) as late:
        changes.next(timeout=0.01)
    assert (str(late.value), late.value.seconds) == ("no change came within 0.01 s.", 0.01)
    assert isinstance(late.value, TimeoutError)


@pytest.mark.parametrize(("timeout", "expected"), WAITS)
def test_nobody_waits_for_what_is_no_time(session, timeout, expected):
    with session.changes("n") as changes, pytest.raises(InvalidValue) as refused:
        changes.next(timeout=timeout)
    assert str(refused.value) == f"timeout must be {expected} seconds (got {timeout!r})."


def test_a_look_waits_no_time(session):
    with session.changes("n") as changes:
        with pytest.raises(DeadlineExceeded):
            changes.next(timeout=0)
        session.set("n", 1)
        assert 1 == changes.next(timeout=0).new


@pytest.mark.parametrize("rev", ["1", 1.0, True, -1])
def test_what_is_no_revision_cannot_be_resumed_from(session, rev):
    with pytest.raises(InvalidValue) as refused:
        session.changes("n", since=Revision(session.revision.epoch, rev))
    assert str(refused.value) == f"since.rev must be an integer from 0 (got {rev!r})."


def test_who_waits_is_woken_by_the_change(session, together):
    ready = threading.Event()

    def read():
        with session.changes("n") as changes:
            ready.set()
            return changes.next(timeout=30).new

    def write():
        assert ready.wait(30)
        session.set("n", 5)

    assert together(read, write) == [5, None]


@pytest.mark.parametrize("end", ["iterator", "session"])
def test_who_waits_is_woken_by_the_end(session, together, end):
    changes = session.changes("n")
    ready = threading.Event()

    def read():
        ready.set()
        return list(changes)

    def close():
        assert ready.wait(30)
        (changes if end == "iterator" else session).close()

    assert together(read, close) == [[], None]


def test_an_iterator_ends_when_its_session_is_deleted_by_another_handle(session, store):
    with Session("demo", store=store) as other:
        changes = session.changes("n")
        other.delete()
        with pytest.raises(StopIteration):
            changes.next(timeout=0.1)


def test_what_was_told_before_the_end_is_still_read(session):
    changes = session.changes("n", mode="all")
    session.set("n", 1)
    session.close()
    assert [change.new for change in changes] == [1]


def test_a_closed_iterator_watches_no_more(session):
    changes = session.changes("n")
    changes.close()
    session.set("n", 1)
    assert list(changes) == []
    assert list(session.signal("n").receivers_for(session)) == []


def test_who_reads_too_slowly_in_mode_all_is_told_so(session, monkeypatch):
    monkeypatch.setattr(streams, "BUFFER", 10)
    changes = session.changes("n", mode="all")
    for value in range(20):
        session.set("n", value)
    assert list(range(10)) == [change.new for change in taken(changes, 10)]
    with pytest.raises(LimitExceeded) as refused:
        changes.next(timeout=1)
    assert str(refused.value) == (
        "the watcher of 'n' fell 10 changes behind and was closed. Watch with mode='latest', or do the slow "
        "part elsewhere."
    )
    assert list(session.signal("n").receivers_for(session)) == []


def test_who_reads_slowly_in_mode_latest_is_never_closed(session, monkeypatch):
    monkeypatch.setattr(streams, "BUFFER", 10)
    with session.changes("n") as changes:
        for value in range(100):
            session.set("n", value)
        assert changes.next(timeout=1).new == 99


def test_an_unknown_name_or_mode_opens_nothing(session):
    with pytest.raises(UnknownVariable):
        session.changes("nowhere")
    with pytest.raises(InvalidValue) as refused:
        session.changes("n", mode="newest")
    assert str(refused.value) == "mode must be one of 'latest', 'all' (got 'newest')."
    assert list(session.signal("n").receivers_for(session)) == []


# ---- going on from a revision -----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["all", "latest"])
def test_an_iterator_goes_on_from_a_revision(session, mode):
    session.set("n", 1)
    seen = session.revision
    session.set("n", 2)
    session.set("a", 1)
    session.set("n", 3)
    with session.changes("n", mode=mode, since=seen) as changes:
        session.set("n", 4)
        told = []
        while not told or told[-1] != 4:
            told.append(changes.next(timeout=1).new)
    assert sorted(set(told)) == told
    if mode == "all":
        assert told == [2, 3, 4]


def test_nothing_is_told_when_nothing_was_missed(session):
    session.set("n", 1)
    with session.changes("n", mode="all", since=session.revision) as changes:
        session.set("n", 2)
        assert [change.new for change in taken(changes, 1)] == [2]


def test_what_is_no_longer_in_the_history_begins_with_a_snapshot(session):
    session.set("n", -1)
    seen = session.revision
    for value in range(10_000):
        session.set("n", value)
    with session.changes("n", mode="all", since=seen) as changes:
        session.set("n", -2)
        snapshot, change = taken(changes, 2)
    assert (Snapshot, Change) == (type(snapshot), type(change))
    assert (snapshot["n"], change.new) == (9_999, -2)
    assert snapshot.revision.rev + 1 == change.rev


def test_another_epoch_begins_with_a_snapshot(session):
    session.set("n", 1)
    with session.changes("n", since=Revision("another", 1)) as changes:
        session.set("n", 2)
        snapshot, change = taken(changes, 2)
    assert (snapshot["n"], change.new) == (1, 2)


def test_a_revision_of_another_session_begins_with_a_snapshot(session):
    with session.fork() as fork, Session() as one, Session() as two:
        for other in (one, two):
            other.register("n", int, initial=0)
        for value in range(3):
            session.set("n", value)
            one.set("n", value)
        for value in range(5):
            fork.set("n", -value)
            two.set("n", -value)
        for mine, revision in ((session, fork.revision), (one, two.revision), (two, one.revision)):
            with mine.changes("n", since=revision) as changes:
                assert isinstance(changes.next(timeout=1), Snapshot)


def test_a_revision_of_the_session_that_had_this_id_before_begins_with_a_snapshot(store):
    with Session("again", store=store) as first:
        first.register("n", int, initial=0)
        for value in range(3):
            first.set("n", value)
        seen = first.revision
        first.delete()
    with Session("again", store=store) as second:
        second.register("n", int, initial=0)
        for value in range(5):
            second.set("n", value)
        with second.changes("n", since=seen) as changes:
            assert isinstance(changes.next(timeout=1), Snapshot)


def test_a_revision_that_is_yet_to_come_begins_with_a_snapshot(session):
    session.set("n", 1)
    ahead = Revision(session.revision.epoch, 100)
    with session.changes("n", mode="all", since=ahead) as changes:
        session.set("n", 2)
        snapshot, change = (changes.next(timeout=1) for _ in range(2))
    assert (snapshot["n"], change.new) == (1, 2)


@pytest.mark.parametrize("mode", ["all", "latest"])
def test_nothing_is_missed_or_told_twice_whenever_an_iterator_is_opened(session, busy, switching, mode):
    count = iter(range(1, 10**9))
    session.set("n", 0)
    session.set("n", 0)
    # `n` is always the revision less 2, so that a value says which commit it is of.
    with busy(lambda: session.set("n", next(count))):
        for turn in range(OPENS):
            seen = session.revision
            while turn % 3 and session.revision == seen:
                pass
            with session.changes("n", mode=mode, since=seen) as changes:
                told = taken(changes, 3)
            last = seen.rev
            for change in told:
                if isinstance(change, Snapshot):
                    last = change.revision.rev
                    assert last - 2 == change["n"]
                    continue
                assert change.rev - 2 == change.new
                if mode == "all":
                    assert last + 1 == change.rev
                else:
                    assert last < change.rev
                last = change.rev


def test_a_reader_that_comes_back_misses_nothing(session, together):
    """A reader that hangs up and goes on from where it was, beside a writer, has seen every commit once."""
    commits = 5_000
    seen = []

    def write():
        for value in range(1, commits + 1):
            session.set("n", value)
            session.set("a", value)

    def read():
        revision = Revision(session.revision.epoch, 0)
        while not seen or seen[-1] != commits:
            with session.changes("n", mode="all", since=revision) as changes:
                for _ in range(min(7, commits - len(seen))):
                    change = changes.next(timeout=30)
                    if isinstance(change, Snapshot):
                        assert seen == list(range(1, len(seen) + 1))
                        seen.extend(range(len(seen) + 1, change["n"] + 1))
                        revision = change.revision
                        break
                    seen.append(change.new)
                    revision = change.revision

    together(write, read)
    assert list(range(1, commits + 1)) == seen


def test_an_iterator_that_everybody_drops_is_told_nothing_more(session):
    for _ in range(10):
        stream = session.changes("n")
        del stream
    gc.collect()
    assert [] == list(session.signal("n").receivers_for(session))


def test_what_wakes_a_reader_for_nothing_does_not_give_it_more_time(session, monkeypatch):
    changes = session.changes()
    now = [0.0]
    monkeypatch.setattr(streams.time, "monotonic", lambda: now[0])
    waited = []

    def wait(seconds):
        waited.append(seconds)
        now[0] += 0.2
        return seconds > 0

    monkeypatch.setattr(changes._arrived, "wait", wait)
    with pytest.raises(DeadlineExceeded):
        changes.next(timeout=0.5)
    assert [0.5, 0.3, 0.1, 0.0] == [round(one, 6) for one in waited]


def test_an_async_iterator_needs_a_loop(session):
    with pytest.raises(InvalidCall) as refused:
        session.achanges()
    assert str(refused.value) == "achanges() needs a running event loop: call it in an async function."
    gc.collect()  # and nothing is said of what was half made
