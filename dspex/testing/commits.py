"""The part of the store contract that is about commits: what happens, what is refused, what is once."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest

from dspex import errors
from dspex.commits import ClaimRequest, Commit, Declaration, Write
from dspex.kinds import Float, Integer, Text
from dspex.session import Session
from dspex.stores import base
from dspex.testing.tools import Opens, now, refused, together, until

__all__ = ["CommitContract"]

BAD: dict[str, Commit] = {
    "a value that its kind refuses": Commit((Write("a", 1), Write("t", 1.6))),
    "an unknown variable": Commit((Write("a", 1), Write("nowhere", 1))),
    "a version that is not there": Commit((Write("a", 1), Write("b", 1, 7))),
    "a version below zero": Commit((Write("a", 1, -1),)),
    "another kind for a name": Commit((Write("a", 1),), declare=(Declaration("b", Text(), ""),)),
    "metadata that cannot travel": Commit((Write("a", 1),), metadata={"why": object()}),
    "metadata of more than 16 KiB": Commit((Write("a", 1),), metadata={"why": "x" * 20_000}),
    "a label that is no name": Commit((Write("a", 1),), tag="no name"),
    "more writes than one commit holds": Commit(tuple(Write("a", i) for i in range(base.BATCH + 1))),
    "a claim on what is not there": Commit(claim=ClaimRequest(("a", "nowhere"), "me", "token", 60.0)),
    "what somebody else has claimed": Commit((Write("a", 1), Write("claimed", 1))),
    "a claim on what is claimed": Commit(claim=ClaimRequest(("a", "claimed"), "me", "token", 60.0)),
    "more variables than a session may have": Commit(
        declare=tuple(Declaration(f"v{i}", Integer(), 0) for i in range(base.NAMES))
    ),
}


class CommitContract:
    """See `StoreContract`."""

    # ---- one commit -------------------------------------------------------------------------------

    def test_a_variable_begins_with_its_initial_value_at_version_0(self, session: Session) -> None:
        record = session.record("t")
        assert (record.value, record.version, record.rev) == (0.7, 0, 0)

    def test_a_commit_says_what_it_did(self, session: Session) -> None:
        session.set("a", 1)
        receipt = session.update({"a": 2, "b": 3}, {"why": ["x", 1]}, source="me")
        assert session.revision == receipt.revision
        assert [(one.name, one.old, one.new, one.version, one.rev) for one in receipt.changes] == [
            ("a", 1, 2, 2, 2),
            ("b", 0, 3, 1, 2),
        ]
        assert {"me"} == {one.source for one in receipt.changes}
        assert receipt.changes[0].metadata == {"why": ("x", 1)}

    def test_what_was_committed_is_there_when_commit_returns(self, session: Session) -> None:
        for value in range(20):
            change = session.set("a", value)
            assert (value, change.version) == (session.get("a"), session.record("a").version)

    def test_every_commit_that_writes_adds_one_to_the_revision(self, session: Session) -> None:
        before = session.revision.rev
        session.set("a", 1)
        session.update({"a": 1, "b": 1})
        session.tag("here")
        assert before + 2 == session.revision.rev

    def test_an_update_of_nothing_changes_nothing(self, session: Session) -> None:
        before = now(session)
        assert session.update({}).changes == ()
        assert before == now(session)

    def test_one_commit_may_declare_write_and_label(self, session: Session) -> None:
        receipt = session.ledger.commit(
            Commit((Write("later", 5),), declare=(Declaration("later", Integer(), 4),), tag="begun")
        )
        assert tuple(getattr(receipt.changes[0], field) for field in ("old", "value", "version")) == (4, 5, 1)
        assert session.snapshot("begun")["later"] == 5

    def test_a_commit_holds_as_many_writes_as_it_may(self, session: Session) -> None:
        names = [f"v{i}" for i in range(min(base.BATCH, base.NAMES - 3))]
        session.ledger.commit(Commit(declare=tuple(Declaration(name, Integer(), 0) for name in names)))
        session.update(dict.fromkeys(names, 1))
        assert {1} == {session.get(name) for name in names}

    def test_each_write_of_a_commit_may_have_its_own_source(self, session: Session) -> None:
        commit = Commit((Write("a", 1, None, "you"), Write("b", 1)), source="me")
        assert [one.source for one in session.ledger.commit(commit).changes] == ["you", "me"]

    @pytest.mark.parametrize("bad", BAD)
    def test_what_is_refused_leaves_everything_as_it_was(self, session: Session, bad: str) -> None:
        session.register("claimed", Integer(), initial=0)
        session.set("b", 2)
        session.claim(["claimed"], owner="other", ttl=600)
        before = now(session)
        told: list[object] = []
        session.watch("*", told.append)
        with pytest.raises(errors.DspexError) as caught:
            session.ledger.commit(BAD[bad])
        assert type(caught.value) is not errors.DspexError
        assert (before, []) == (now(session), told)
        assert session.set("a", 3).value == 3

    # ---- versions ---------------------------------------------------------------------------------

    def test_a_write_happens_only_at_the_version_it_expects(self, session: Session) -> None:
        session.set("a", 1, expect=0)
        with pytest.raises(errors.VersionConflict) as caught:
            session.set("a", 2, expect=0)
        assert (caught.value.facts["version"], caught.value.facts["expected"]) == (1, 0)
        assert session.set("a", 2, expect=1).version == 2

    @pytest.mark.parametrize("version", [True, 1.0, "1", [1]])
    def test_what_is_no_version_is_not_expected(self, session: Session, version: Any) -> None:
        session.set("a", 1)
        with pytest.raises(errors.InvalidValue) as caught:
            session.set("a", 2, expect=version)
        assert str(caught.value).startswith("expect must be a version of 'a', an integer (got ")
        with pytest.raises(errors.InvalidValue):
            session.update({"a": 2, "b": 2}, expect={"a": version})
        assert (session.get("a"), session.record("a").version) == (1, 1)

    def test_of_writers_that_expect_the_same_version_one_wins(self, opens: Opens) -> None:
        handles = [opens("race") for _ in range(4)]
        handles[0].register("a", Integer(), initial=0)
        for version in range(25):
            lost = together(
                *(
                    partial(refused, errors.VersionConflict, partial(handle.set, "a", mine, expect=version))
                    for mine, handle in enumerate(handles)
                )
            )
            assert lost.count(False) == 1
            assert {lost.index(False)} == {handle.get("a") for handle in handles}

    def test_no_swap_is_lost(self, opens: Opens) -> None:
        threads, times = 8, 50
        handles = [opens("swaps") for _ in range(threads)]
        handles[0].register("a", Integer(), initial=0)

        def work(handle: Session) -> None:
            for _ in range(times):
                handle.swap("a", lambda value: value + 1)

        together(*(partial(work, handle) for handle in handles))
        record = handles[0].record("a")
        assert (threads * times, threads * times) == (record.value, record.version)

    def test_what_is_set_together_is_seen_together(self, opens: Opens) -> None:
        writer, reader = opens("pairs"), opens("pairs")
        for name in ("a", "b"):
            writer.register(name, Integer(), initial=0)
        torn: list[object] = []
        pair: dict[str, Any] = {}
        stop = threading.Event()

        def told(change: Any) -> None:
            pair.setdefault(change.rev, set()).add(change.value)
            if len(pair[change.rev]) > 1:
                torn.append(change)

        reader.watch("*", told, mode="all")

        def look() -> None:
            while not stop.is_set():
                seen = reader.snapshot()
                if seen["a"] != seen["b"]:
                    torn.append(seen)
                if set(seen.records) >= {"a", "b"} and seen.records["a"].rev != seen.records["b"].rev:
                    torn.append(seen)

        def write() -> None:
            try:
                for value in range(1, 151):
                    writer.update({"a": value, "b": value})
            finally:
                stop.set()

        together(look, write)
        assert torn == []
        until(lambda: len(pair) == 150, "every pair was told")

    # ---- once -------------------------------------------------------------------------------------

    def test_a_commit_that_is_tried_again_is_made_once(self, session: Session) -> None:
        commit = Commit((Write("a", 1), Write("b", 2)), op="op-1", source="me", metadata={"n": 1})
        first = session.ledger.commit(commit)
        session.set("a", 5)
        before = now(session)
        again = session.ledger.commit(commit)
        assert (first.epoch, first.rev, first.changes) == (again.epoch, again.rev, again.changes)
        assert before == now(session)

    def test_a_commit_that_is_tried_again_meanwhile_is_made_once(self, opens: Opens) -> None:
        handles = [opens("once") for _ in range(4)]
        handles[0].register("a", Integer(), initial=0)
        for number in range(20):
            commit = Commit((Write("a", number),), op=f"op-{number}")
            receipts = together(*(partial(handle.ledger.commit, commit) for handle in handles))
            assert len({receipt.rev for receipt in receipts}) == 1
        assert (handles[0].record("a").version, handles[0].revision.rev) == (20, 20)

    def test_a_commit_that_was_refused_may_be_tried_again(self, session: Session) -> None:
        with pytest.raises(errors.VersionConflict):
            session.ledger.commit(Commit((Write("a", 1, 1),), op="op"))
        assert session.ledger.commit(Commit((Write("a", 1, 0),), op="op")).changes[0].version == 1

    def test_an_op_of_a_commit_that_writes_nothing_is_once_too(self, session: Session) -> None:
        commit = Commit(tag="here", op="op")
        first = session.ledger.commit(commit)
        session.set("a", 1)
        assert first == session.ledger.commit(commit)
        assert first.rev == session.tags["here"].rev

    # ---- declarations -----------------------------------------------------------------------------

    def test_declaring_again_changes_nothing(self, session: Session) -> None:
        session.set("t", 0.2)
        before = now(session)
        session.register("t", Float(min=0.0, max=1.5), initial=0.9)
        assert before == now(session)

    def test_a_name_keeps_its_kind(self, session: Session) -> None:
        with pytest.raises(errors.VariableConflict):
            session.register("t", Float(min=0.0, max=2.0), initial=0.7)
        with pytest.raises(errors.InvalidValue):
            session.set("t", 1.9)

    def test_declarations_of_one_handle_are_those_of_all(self, opens: Opens) -> None:
        first, second = opens("both"), opens("both")
        first.register("t", Float(min=0.0), initial=0.5, description="how bold")
        assert (second.get("t"), second.variables["t"].description) == (0.5, "how bold")
        assert list(first.variables) == list(second.variables)

    def test_a_session_has_as_many_variables_as_it_may(self, session: Session) -> None:
        free = base.NAMES - len(session.variables)
        session.ledger.commit(Commit(declare=tuple(Declaration(f"v{i}", Integer(), i) for i in range(free))))
        assert (base.NAMES, free - 1) == (len(session.variables), session.get(f"v{free - 1}"))
        with pytest.raises(errors.LimitExceeded):
            session.register("more", Integer(), initial=0)

    def test_a_commit_happens_only_at_the_versions_that_it_is_given(self, session: Session) -> None:
        session.set("a", 1)
        before = now(session)
        for given in (("a", 0), ("a", 2), ("b", 1)):
            with pytest.raises(errors.VersionConflict):
                session.ledger.commit(Commit((Write("t", 1.0),), given=(given,)))
        with pytest.raises(errors.UnknownVariable):
            session.ledger.commit(Commit((Write("t", 1.0),), given=(("nowhere", 0),)))
        assert before == now(session)
        receipt = session.ledger.commit(Commit((Write("t", 1.0),), given=(("a", 1), ("b", 0))))
        assert [(change.name, change.value) for change in receipt.changes] == [("t", 1.0)]

    # ---- claims -----------------------------------------------------------------------------------

    def test_only_the_bearer_of_a_claim_sets_what_is_claimed(self, opens: Opens) -> None:
        mine, other = opens("claims"), opens("claims")
        for name in ("a", "b"):
            mine.register(name, Integer(), initial=0)
        claim = mine.claim(["a"], owner="tuner", ttl=600)
        for setting in (partial(other.set, "a", 1), partial(other.update, {"a": 1, "b": 1})):
            with pytest.raises(errors.Claimed) as caught:
                setting()
            assert caught.value.facts["owner"] == "tuner"
        claim.set("a", 2)
        other.set("b", 3)
        assert (other.get("a"), mine.get("b")) == (2, 3)

    def test_a_claim_that_is_released_is_over(self, opens: Opens) -> None:
        mine, other = opens("claims"), opens("claims")
        mine.register("a", Integer(), initial=0)
        claim = mine.claim(["a"], owner="tuner", ttl=600)
        claim.release()
        assert other.set("a", 1).version == 1
        other.claim(["a"], owner="other", ttl=600)
        with pytest.raises(errors.Claimed):
            claim.set("a", 2)

    def test_a_claim_ends_when_its_time_is_over(self, session: Session) -> None:
        session.claim(["a"], owner="tuner", ttl=0.2)
        assert refused(errors.Claimed, lambda: session.set("a", 1))
        until(lambda: not refused(errors.Claimed, lambda: session.set("a", 1)), "the claim is over")

    def test_a_claim_that_is_renewed_goes_on(self, session: Session) -> None:
        claim = session.claim(["a"], owner="tuner", ttl=600)
        claim.renew()
        assert refused(errors.Claimed, lambda: session.set("a", 1))

    def test_claims_on_one_name_end_one_by_one(self, opens: Opens) -> None:
        mine, other = opens("claims"), opens("claims")
        mine.register("a", Integer(), initial=0)
        with mine.claim(["a"], owner="outer", ttl=600):
            with mine.claim(["a"], owner="inner", ttl=600):
                mine.set("a", 1)
                assert refused(errors.Claimed, lambda: other.set("a", 9))
            assert refused(errors.Claimed, lambda: other.set("a", 9))
            assert refused(errors.Claimed, lambda: other.claim(["a"], owner="other", ttl=600))
            mine.set("a", 2)
        assert other.set("a", 3).old == 2

    # ---- labels -----------------------------------------------------------------------------------

    def test_a_label_keeps_the_values_of_its_revision(self, session: Session) -> None:
        session.set("a", 1)
        at = session.tag("good")
        session.update({"a": 2, "t": 0.1})
        session.register("later", Integer(), initial=0)
        then = session.snapshot("good")
        assert (at, 1, 0.7) == (then.revision, then["a"], then["t"])
        assert "later" not in then
        assert {"good": at} == session.tags

    def test_a_label_moves(self, session: Session) -> None:
        session.tag("good")
        session.set("a", 1)
        session.tag("good")
        session.set("a", 2)
        assert session.snapshot("good")["a"] == 1

    def test_a_label_that_was_not_given_is_refused(self, session: Session) -> None:
        session.tag("good")
        with pytest.raises(errors.UnknownRevision, match="Did you mean 'good'"):
            session.snapshot("god")

    def test_a_session_goes_back_to_a_label(self, session: Session) -> None:
        session.update({"a": 1, "b": 1})
        session.tag("good")
        session.update({"a": 2, "t": 0.1})
        session.rollback(to="good")
        assert tuple(session.get(name) for name in ("a", "b", "t")) == (1, 1, 0.7)
        assert {name: session.record(name).version for name in ("a", "b", "t")} == {"a": 3, "b": 1, "t": 2}
