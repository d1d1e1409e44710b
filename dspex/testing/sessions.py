"""The part of the store contract that is about sessions: handles, history, sinks, and what is durable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

import pytest

from dspex import errors
from dspex.changes import Change
from dspex.commits import ClaimRequest, Commit, Declaration, Write
from dspex.kinds import Float, Integer, Text
from dspex.records import Revision, Snapshot
from dspex.session import Session
from dspex.stores import Store, base
from dspex.testing.tools import Opens, now, refused, together, until

__all__ = ["Recorder", "SessionContract"]


class Recorder:
    """A sink that writes down what it hears, and what the ledger looked like then."""

    def __init__(self, session: Session) -> None:
        self.ledger = session.ledger
        self.heard: list[Change] = []
        self.seen: list[tuple[int, Any]] = []
        self.drained: list[int] = []
        self.ended = 0
        self.queue: list[Change] = []

    def apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.heard.append(change)
            self.queue.append(change)
            self.seen.append((self.ledger.rev, self.ledger.records[change.name].value))

    def lost(self, rev: int, names: Collection[str]) -> None:
        raise AssertionError(f"{sorted(names)} jumped to revision {rev}")

    def drain(self) -> None:
        while self.queue:
            self.drained.append(self.queue.pop(0).rev)

    def end(self) -> None:
        self.ended += 1

    def has_heard(self, count: int) -> bool:
        return len(self.heard) >= count


class SessionContract:
    """See `StoreContract`."""

    # ---- snapshots --------------------------------------------------------------------------------

    def test_a_snapshot_never_changes(self, session: Session) -> None:
        session.set("a", 1)
        snapshot = session.snapshot()
        before = dict(snapshot), snapshot.revision
        session.update({"a": 2, "b": 3})
        session.register("later", Integer(), initial=0)
        assert before == (dict(snapshot), snapshot.revision)

    def test_a_snapshot_is_one_revision(self, opens: Opens) -> None:
        writer, reader = opens("cuts"), opens("cuts")
        for name in ("a", "b"):
            writer.register(name, Integer(), initial=0)
        stop = threading.Event()

        def write() -> None:
            try:
                for value in range(100):
                    writer.set("a", value)
                    writer.set("b", value)
            finally:
                stop.set()

        def look() -> list[Snapshot]:
            seen = []
            while not stop.is_set():
                seen.append(reader.snapshot())
            return seen

        _, seen = together(write, look)
        for snapshot in seen or ():
            revs = {record.rev for record in snapshot.records.values()}
            assert max(revs) == snapshot.revision.rev
            assert snapshot["a"] - snapshot["b"] in (0, 1)

    # ---- history ----------------------------------------------------------------------------------

    def test_history_is_every_change_oldest_first(self, session: Session) -> None:
        changes = [session.set("a", 1), session.set("b", 1), session.set("a", 2)]
        changes += session.update({"b": 2, "a": 3}).changes
        assert changes == list(session.history())
        assert [change for change in changes if change.name == "a"] == list(session.history("a"))

    def test_history_goes_on_from_a_revision(self, session: Session) -> None:
        for value in range(10):
            session.set("a", value)
        ledger = session.ledger
        for since in range(11):
            assert list(range(since + 1, 11)) == [change.rev for change in ledger.history(since=since)]
        assert list(ledger.history(since=10)) == []

    def test_history_of_an_unknown_name_is_refused(self, session: Session) -> None:
        with pytest.raises(errors.UnknownVariable):
            session.history("nowhere")

    def test_history_is_bounded_and_says_what_it_forgot(self, session: Session) -> None:
        session.set("b", 1)
        batch = 200
        names = [f"v{i}" for i in range(batch)]
        session.ledger.commit(Commit(declare=tuple(Declaration(name, Integer(), 0) for name in names)))
        for value in range(30):
            session.update(dict.fromkeys(names, value))
        kept = session.history()
        assert base.HISTORY <= len(kept) < 30 * batch
        assert session.history("b")[-1].value == 1
        with pytest.raises(errors.UnknownRevision) as caught:
            session.ledger.history(since=0)
        oldest = caught.value.facts["oldest"]
        assert list(range(oldest + 1, session.revision.rev + 1)) == sorted(
            {change.rev for change in session.ledger.history(since=oldest)}
        )

    def test_history_is_bounded_by_size_too(self, session: Session) -> None:
        session.register("large", Text(), initial="")
        for number in range(24):
            session.set("large", str(number % 10) * 700_000)
        assert sum(len(change.value) for change in session.history("large")) <= base.HISTORY_BYTES
        assert session.get("large")[0] == "3"

    def test_a_stream_goes_on_from_where_it_was(self, session: Session) -> None:
        first = session.set("a", 1)
        for value in range(2, 6):
            session.set("a", value)
        with session.changes("a", mode="all", since=first.revision) as stream:
            session.set("a", 6)
            got = [stream.next(timeout=30) for _ in range(5)]
        assert [one.value for one in got if isinstance(one, Change)] == [2, 3, 4, 5, 6]

    def test_a_stream_from_another_history_begins_with_a_snapshot(self, session: Session) -> None:
        session.set("a", 1)
        with session.changes("a", mode="all", since=Revision("0" * 32, 0)) as stream:
            first = stream.next(timeout=30)
        assert isinstance(first, Snapshot)
        assert first["a"] == 1

    # ---- sinks ------------------------------------------------------------------------------------

    def test_a_sink_hears_what_is_already_so(self, session: Session) -> None:
        sink = Recorder(session)
        session.ledger.subscribe(sink)
        receipts = [session.ledger.commit(Commit((Write("a", n), Write("b", n)))) for n in range(5)]
        session.ledger.unsubscribe(sink)
        session.set("a", 9)
        assert [change for receipt in receipts for change in receipt.changes] == sink.heard
        assert [(one.rev, one.value) for one in sink.heard] == sink.seen
        assert [one.rev for one in sink.heard] == sink.drained

    def test_every_sink_hears_every_commit_in_order(self, opens: Opens) -> None:
        threads, times = 4, 40
        handles = [opens("sinks") for _ in range(threads)]
        handles[0].register("a", Integer(), initial=0)
        sinks = [Recorder(handle) for handle in handles]
        for sink, handle in zip(sinks, handles, strict=True):
            handle.ledger.subscribe(sink)

        def work(handle: Session) -> None:
            for value in range(times):
                handle.set("a", value)

        together(*(partial(work, handle) for handle in handles))
        for sink in sinks:
            until(partial(sink.has_heard, threads * times), "all is heard")
            assert list(range(1, threads * times + 1)) == [change.rev for change in sink.heard]

    def test_a_sink_that_is_subscribed_twice_hears_once(self, session: Session) -> None:
        sinks = [Recorder(session), Recorder(session)]
        assert [session.ledger.subscribe(sink) for sink in (*sinks, *sinks)] == [True, True, False, False]
        session.set("a", 1)
        assert [len(sink.heard) for sink in sinks] == [1, 1]

    def test_a_sink_that_takes_the_place_of_another_is_drained_at_once(self, session: Session) -> None:
        taking = Recorder(session)

        class Giving(Recorder):
            def apply(self, changes: Iterable[Change]) -> None:
                taking.apply(changes)
                self.ledger.subscribe(taking)
                self.ledger.unsubscribe(self)

        set_it, update_it = partial(session.set, "a", 1), partial(session.update, {"a": 1})
        for commit in (set_it, update_it, set_it, set_it):
            session.ledger.subscribe(Giving(session))
            commit()
            assert taking.drained[-1] == session.revision.rev
            session.ledger.unsubscribe(taking)

    def test_a_watcher_may_set(self, session: Session) -> None:
        session.watch("a", lambda change: session.set("b", change.value * 2))
        session.set("a", 4)
        until(lambda: session.get("b") == 8, "the watcher has set")

    # ---- handles ----------------------------------------------------------------------------------

    def test_handles_of_one_session_share_it(self, opens: Opens) -> None:
        first, second = opens("shared"), opens("shared")
        first.register("a", Integer(), initial=0)
        told: list[int] = []
        second.watch("a", lambda change: told.append(change.value))
        first.set("a", 1)
        second.swap("a", lambda value: value + 1)
        until(lambda: told == [1, 2], "both sets were told")
        until(lambda: now(first) == now(second), "both are the same")

    def test_sessions_are_apart(self, opens: Opens) -> None:
        one, other = opens("one"), opens("other")
        for session in (one, other):
            session.register("a", Integer(), initial=0)
        one.set("a", 1)
        one.claim(["a"], owner="me", ttl=600)
        assert (one.get("a"), other.get("a"), other.revision.rev) == (1, 0, 0)
        assert one.revision.epoch != other.revision.epoch
        assert other.set("a", 2).value == 2

    def test_a_fork_is_apart(self, session: Session) -> None:
        session.set("a", 1)
        fork = session.fork({"b": 5})
        session.set("a", 2)
        assert (fork.get("a"), fork.get("b"), session.get("b")) == (1, 5, 0)
        fork.commit_to_parent()
        assert (session.get("a"), session.get("b")) == (2, 5)

    def test_a_closed_handle_says_so_and_the_others_go_on(self, opens: Opens) -> None:
        first, second = opens("closing"), opens("closing")
        first.register("a", Integer(), initial=0)
        first.close()
        first.close()
        calls: tuple[Callable[[], object], ...] = (
            lambda: first.set("a", 1),
            lambda: first.get("a"),
            first.snapshot,
            first.history,
        )
        assert all(refused(errors.SessionClosed, call) for call in calls)
        assert second.set("a", 1).version == 1

    def test_the_sessions_of_a_store_are_listed(self, store: Store, opens: Opens) -> None:
        assert list(store.sessions()) == []
        second, first = opens("b-2"), opens("a-1")
        first.register("a", Integer(), initial=0)
        first.set("a", 1)
        listed = list(store.sessions())
        assert [("a-1", first.revision, 1), ("b-2", second.revision, 0)] == [
            (one.id, one.revision, one.variables) for one in listed
        ]
        assert listed[0].created >= listed[1].created > 1_700_000_000

    def test_a_session_that_is_not_there_is_refused(self, store: Store, opens: Opens) -> None:
        opens("contract")
        for call in (
            lambda: store.open("contrast", create=False),
            lambda: store.delete("contrast"),
        ):
            with pytest.raises(errors.UnknownSession, match="Did you mean 'contract'"):
                call()

    @pytest.mark.parametrize("bad", ["", "a b", "../x", "x" * 65, "é", "a\0", "a\n", "a/b", "%", "x;y"])
    def test_an_id_that_is_none_is_refused(self, store: Store, bad: str) -> None:
        with pytest.raises(errors.InvalidName):
            store.open(bad)
        assert list(store.sessions()) == []

    def test_a_deleted_session_is_gone_for_everyone(self, store: Store, opens: Opens) -> None:
        first, second = opens("doomed"), opens("doomed")
        first.register("a", Integer(), initial=0)
        first.set("a", 1)
        first.tag("good")
        sink = Recorder(second)
        second.ledger.subscribe(sink)
        epoch = first.revision.epoch
        store.delete("doomed")
        until(lambda: sink.ended == 1, "the sink heard the end")
        for session in (first, second):
            calls: tuple[Callable[[], object], ...] = (
                partial(session.get, "a"),
                partial(session.set, "a", 2),
                session.snapshot,
                session.history,
            )
            for call in calls:
                until(partial(refused, errors.SessionClosed, call), "it says so")
        assert list(store.sessions()) == []
        again = opens("doomed")
        assert (dict(again.variables), again.revision.rev, again.tags) == ({}, 0, {})
        assert epoch != again.revision.epoch

    def test_a_store_may_be_closed_twice(self, store: Store) -> None:
        store.close()
        store.close()

    def test_what_is_no_label_and_no_version_leads_nowhere(self, session: Session) -> None:
        labels: tuple[Any, ...] = ("nope", [], 3)
        for label in labels:
            with pytest.raises(errors.UnknownRevision) as raised:
                session.snapshot(label)
            assert f"session 'contract' has no tag {label!r}." == str(raised.value)
        version: Any = "1"
        with pytest.raises(errors.InvalidValue, match=r"^version must be a version of 'a', an integer"):
            session.rollback("a", version)

    # ---- what outlives the store object ------------------------------------------------------------

    def test_everything_is_there_after_opening_again(
        self, session: Session, reopen: Callable[[], Store], opens: Opens
    ) -> None:
        session.update({"a": 1, "t": 0.25}, {"why": {"deep": [1, None]}}, source="me")
        session.tag("good")
        session.set("a", 2)
        session.register("note", Text(), initial="", description="words")
        session.set("note", "\0 and more")
        before = now(session)
        session.close()
        again = opens("contract", reopen())
        assert before == now(again)
        assert again.variables["note"].description == "words"
        change = again.set("a", 3)
        assert (2, 3, before[0].rev + 1) == (change.old, change.version, change.rev)
        again.rollback(to="good")
        assert again.get("a") == 1

    def test_claims_hold_after_opening_again(
        self, session: Session, reopen: Callable[[], Store], opens: Opens
    ) -> None:
        claim = session.claim(["a"], owner="tuner", ttl=600)
        over = session.claim(["b"], owner="tuner", ttl=600)
        over.release()
        session.close()
        again = opens("contract", reopen())
        with pytest.raises(errors.Claimed) as caught:
            again.set("a", 1)
        assert caught.value.facts["owner"] == "tuner"
        again.set("b", 1)
        again.ledger.commit(Commit((Write("a", 2),), token=claim.request.token))
        again.ledger.commit(Commit(release=claim.request.token))
        assert again.set("a", 3).value == 3

    def test_nested_claims_hold_after_opening_again(
        self, session: Session, reopen: Callable[[], Store], opens: Opens
    ) -> None:
        outer = session.claim(["a"], owner="outer", ttl=600).request
        inner = ClaimRequest(("a",), "inner", f"{outer.token}/inner", 600.0)
        session.ledger.commit(Commit(claim=inner))
        session.close()
        again = opens("contract", reopen())
        for value, token in enumerate((inner.token, outer.token), 1):
            again.ledger.commit(Commit((Write("a", value),), token=token))
            again.ledger.commit(Commit(release=token))
            assert (value == 1) is refused(errors.Claimed, lambda: again.set("a", 9))
        assert again.get("a") == 9

    def test_a_commit_that_is_tried_again_after_opening_again_is_made_once(
        self, session: Session, reopen: Callable[[], Store], opens: Opens
    ) -> None:
        session.set("a", 1)
        commit = Commit((Write("a", 2), Write("b", 3)), op="op-1", source="me", metadata={"why": "x"})
        label = Commit(tag="here", op="op-2")
        first, labelled = session.ledger.commit(commit), session.ledger.commit(label)
        session.set("a", 4)
        before = now(session)
        session.close()
        again = opens("contract", reopen())
        assert (first, labelled) == (again.ledger.commit(commit), again.ledger.commit(label))
        assert before == now(again)

    def test_a_stream_goes_on_after_opening_again(
        self, session: Session, reopen: Callable[[], Store], opens: Opens
    ) -> None:
        seen = session.set("a", 1).revision
        session.set("a", 2)
        session.close()
        again = opens("contract", reopen())
        again.set("a", 3)
        with again.changes("a", mode="all", since=seen) as stream:
            got = [stream.next(timeout=30) for _ in range(2)]
        assert [one.value for one in got if isinstance(one, Change)] == [2, 3]

    def test_history_stays_bounded_over_many_openings(
        self, session: Session, reopen: Callable[[], Store], opens: Opens
    ) -> None:
        names = [f"v{i}" for i in range(250)]
        session.set("b", 7)
        session.ledger.commit(Commit(declare=tuple(Declaration(name, Integer(), 0) for name in names)))
        before = now(session)
        session.close()
        for opening in range(4):
            with Session("contract", store=reopen()) as again:
                for value in range(8):
                    again.update(dict.fromkeys(names, opening * 10 + value))
                before = now(again)
            assert len(before[2]) < base.HISTORY_PER_NAME * 253 + 3 * base.HISTORY
        last = opens("contract", reopen())
        after = now(last)
        # What is due to be forgotten may be there on one side only.
        assert before[2][-base.HISTORY :] == after[2][-base.HISTORY :]
        for name in names:
            kept = [
                [change for change in history if change.name == name][-base.HISTORY_PER_NAME :]
                for history in (before[2], after[2])
            ]
            assert len(kept[0]) == base.HISTORY_PER_NAME
            assert kept[0] == kept[1]
        assert (before[:2], before[3:]) == (after[:2], after[3:])
        assert [change.value for change in last.history("b")] == [7]

    def test_deleted_is_deleted_after_opening_again(
        self, session: Session, reopen: Callable[[], Store], opens: Opens
    ) -> None:
        session.set("a", 1)
        session.delete()
        store = reopen()
        assert list(store.sessions()) == []
        assert dict(opens("contract", store).variables) == {}

    def test_a_kind_that_was_declared_again_goes_on(
        self, session: Session, reopen: Callable[[], Store], opens: Opens
    ) -> None:
        session.set("t", 0.3)
        session.close()
        again = opens("contract", reopen())
        again.register("t", Float(min=0.0, max=1.5), initial=0.9)
        assert (again.get("t"), again.record("t").version) == (0.3, 1)
        with pytest.raises(errors.VariableConflict):
            again.register("t", Float(min=0.0, max=9.0), initial=0.9)
