"""A session of a server, used like any other."""

from __future__ import annotations

import threading

import attrs
import pytest

from dspex import (
    Claimed,
    Float,
    Integer,
    InvalidValue,
    LimitExceeded,
    Program,
    Session,
    SessionClosed,
    Struct,
    Text,
    UnknownRevision,
    UnknownSession,
    UnknownVariable,
    VariableConflict,
    VersionConflict,
    defvariable,
)
from dspex.rpc.share import share


def test_a_value_that_was_set_is_read_at_once_and_by_others_soon(session, server, demo, eventually):
    with Session("demo", store=server.store) as beneath:
        change = session.set("temperature", 0.2, {"why": "test"}, expect=0)
        assert (
            change.value, change.old, change.version, change.rev, change.source, change.metadata
        ) == (0.2, 0.7, 1, 1, "tests", {"why": "test"})  # fmt: skip
        assert session.get("temperature") == beneath.get("temperature") == 0.2
        assert session.record("temperature") == beneath.record("temperature") == change
        beneath.set("temperature", 0.9)
        eventually(lambda: session.get("temperature") == 0.9, "the push")
        assert session.record("temperature") == beneath.record("temperature")


def test_a_callback_has_run_when_set_returns(session):
    told = []
    session.watch("n", told.append)
    for number in range(100):
        change = session.set("n", number)
        assert told[-1] == change
    assert len(told) == 100


def test_a_callback_may_set(session, eventually):
    session.watch("a", lambda change: session.set("b", change.value * 2))
    session.set("a", 21)
    eventually(lambda: session.get("b") == 42, "what the callback set")


def test_a_callback_on_the_change_of_another_may_set(session, server, eventually):
    session.watch("a", lambda change: session.set("b", change.value * 2))
    with Session("demo", store=server.store) as beneath:
        beneath.set("a", 21)
        eventually(lambda: beneath.get("b") == 42, "what the callback set")


def test_a_callback_that_waits_keeps_nobody_waiting(session, server, store, demo, eventually):
    other = demo(store, "other")
    entered, leave = threading.Event(), threading.Event()

    def block(change):
        entered.set()
        leave.wait(30)

    session.watch("a", block)
    with Session("demo", store=server.store) as beneath:
        beneath.set("a", 1)
        assert entered.wait(10)
        try:
            for number in range(20):
                other.set("n", number)
                session.set("n", number)
            beneath.set("b", 7)
            eventually(lambda: session.get("b") == 7, "a push beside a callback that waits")
        finally:
            leave.set()


def test_a_callback_that_waits_does_not_keep_pushes_from_coming(session, server, eventually):
    entered, leave = threading.Event(), threading.Event()

    def block(change):
        if change.value == 100:
            entered.set()
            leave.wait(30)

    session.watch("a", block)
    with Session("demo", store=server.store) as beneath:
        # So many that the one who reads has begun to trust the callbacks.
        for number in range(101):
            beneath.set("a", number)
            eventually(lambda n=number: session.get("a") == n, "the push")
        assert entered.wait(10)
        try:
            beneath.set("b", 7)
            eventually(lambda: session.get("b") == 7, "a push beside a callback that waits", 5)
        finally:
            leave.set()


def test_a_bound_program_reads_what_the_server_pushes(store, server, eventually):
    class Agent(Program):
        temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)

    with Session("agents", store=store) as session, Session("agents", store=server.store) as beneath:
        agent = Agent.bind(session)
        beneath.set("temperature", 0.1)
        eventually(lambda: agent.temperature == 0.1, "the push")
        agent.temperature = 0.3
        assert (beneath.get("temperature"), agent.temperature) == (0.3, 0.3)


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (lambda s: s.set("temperature", 2.0), InvalidValue),
        (lambda s: s.set("temperature", "hot"), InvalidValue),
        (lambda s: s.set("temprature", 0.2), UnknownVariable),
        (lambda s: s.set("n", 1, expect=4), VersionConflict),
        (lambda s: s.set("n", 1, expect=-1), VersionConflict),
        (lambda s: s.set("n", 1, {"key": object()}), InvalidValue),
        (lambda s: s.set("n", 1, {"key": "x" * 20_000}), LimitExceeded),
        (lambda s: s.update({"a": 1, "temperature": 2.0}), InvalidValue),
        (lambda s: s.update({"a": 1, "x": 2}), UnknownVariable),
        (lambda s: s.register("n", Text(), initial=""), VariableConflict),
        (lambda s: s.rollback("n", 7), UnknownRevision),
        (lambda s: s.snapshot("no-tag"), UnknownRevision),
        (lambda s: s.history("x"), UnknownVariable),
        (lambda s: s.tag("no tag"), ValueError),
        (lambda s: s.claim(["x"], owner="me", ttl=1), UnknownVariable),
    ],
)  # fmt: skip
def test_a_refusal_is_the_same_as_in_process(session, server, demo, refused, error):
    here = demo(server.store, "here")
    here.set("a", 5)
    session.set("a", 5)
    sentences = []
    for one in (here, session):
        before = one.revision.rev, dict(one.snapshot())
        with pytest.raises(error) as raised:
            refused(one)
        sentences.append(str(raised.value).replace("'here'", "'demo'"))
        assert before == (one.revision.rev, dict(one.snapshot()))
    assert sentences[0] == sentences[1]


def test_a_claim_holds_against_others(session, server):
    with Session("demo", store=server.store) as beneath:
        with session.claim(["n"], owner="optimizer", ttl=30):
            session.set("n", 1)
            with pytest.raises(Claimed, match="optimizer"):
                beneath.set("n", 2)
        beneath.set("n", 3)
        with beneath.claim(["n"], owner="other", ttl=30), pytest.raises(Claimed, match="other") as raised:
            session.set("n", 4)
        assert raised.value.owner == "other"


def test_history_tags_and_rollback(session):
    session.set("n", 1)
    session.tag("one")
    session.set("n", 2)
    session.update({"n": 3, "a": 3})
    assert [change.value for change in session.history("n")] == [1, 2, 3]
    assert [change.old for change in session.history("n")] == [0, 1, 2]
    assert {label: at.rev for label, at in session.tags.items()} == {"one": 1}
    assert session.snapshot("one")["n"] == 1
    session.rollback(to="one")
    assert (session.get("n"), session.get("a")) == (1, 0)


def test_a_batch_is_one_commit(session, server):
    with Session("demo", store=server.store) as beneath:
        told = []
        beneath.watch("*", told.append)
        with session.batch():
            session.set("a", 1)
            session.set("b", 2)
        assert [(change.name, change.rev) for change in told] == [("a", 1), ("b", 1)]


def test_a_fork_is_an_overlay_here_and_commits_to_the_server(session, server):
    session.set("n", 1)
    fork = session.fork({"n": 5})
    assert (fork.get("n"), session.get("n")) == (5, 1)
    fork.commit_to_parent()
    with Session("demo", store=server.store) as beneath:
        assert beneath.get("n") == 5


def test_a_fork_that_asks_the_server_keeps_no_other_one_waiting(session, monkeypatch):
    other = session.fork()
    snapshot = type(session.ledger).snapshot
    new = iter(["new"])

    def meanwhile(ledger, tag=None):
        found = snapshot(ledger, tag)
        setting = threading.Thread(target=other.set, args=("n", 1), daemon=True)
        setting.start()
        setting.join(10)
        assert other.get("n") == 1
        for name in new:  # what a fork begins with is of one moment
            session.register(name, Integer(), initial=7)
        return found

    monkeypatch.setattr(type(session.ledger), "snapshot", meanwhile)
    assert session.fork().get("new") == 7


def test_what_another_declares_is_known_before_it_is_set(session, server, eventually):
    with Session("demo", store=server.store) as beneath:
        beneath.register("late", Text(), initial="-")
        beneath.set("late", "x")
    eventually(lambda: session.get("late", None) == "x", "the new variable")


@attrs.frozen
class Point:
    x: int
    y: int = 0


def test_a_struct_keeps_its_class_where_the_class_is(store, server, serving, remote):
    with Session("points", store=store) as session:
        session.register("at", Struct(Point), initial=Point(1, 2))
        assert Point(1, 2) == session.get("at")
        session.set("at", Point(3, 4))
        assert Point(3, 4) == session.get("at")
        with Session("points", store=server.store) as beneath:
            assert dict(beneath.get("at")) == {"x": 3, "y": 4}
    with Session("points", store=store) as again:
        assert dict(again.get("at")) == {"x": 3, "y": 4}
        again.register("at", Struct(Point), initial=Point(0))
        assert Point(3, 4) == again.get("at")
        assert Point(3, 4) == again.snapshot()["at"]


def test_a_struct_of_a_process_that_shares_it(remote):
    with Session(source="owner") as session:
        session.register("at", Struct(Point), initial=Point(1, 2))
        with share(session) as shared, Session(shared.id, store=remote(shared.url)) as other:
            other.register("at", Struct(Point), initial=Point(1, 2))
            other.set("at", Point(5, 6))
            assert Point(5, 6) == session.get("at")


def test_a_private_session_is_shared_without_a_copy(remote, eventually):
    with Session() as session:
        session.register("n", Integer(), initial=0)
        with share(session) as shared:
            store = remote(shared.url)
            with Session(shared.id, store=store) as other:
                other.set("n", 5)
                assert session.get("n") == 5
                session.set("n", 6)
                eventually(lambda: other.get("n") == 6, "the push")
            assert [shared.id] == [info.id for info in store.sessions()]
            with pytest.raises(UnknownSession):
                store.open("other")
            with pytest.raises(Exception, match="belongs to the process"):
                store.delete(shared.id)
        session.set("n", 7)


def test_deleting_ends_it_for_everyone(session, store, server, remote, eventually):
    elsewhere = remote(server.url, max_staleness=99)
    with Session("demo", store=elsewhere) as other:
        assert other.ledger.store.link is not store.link
        session.delete()
        eventually(lambda: other.ledger.status == "CLOSED", "the other is told")
        with pytest.raises(SessionClosed):
            other.get("n")
        with pytest.raises(SessionClosed):
            other.set("n", 1)
    with pytest.raises(UnknownSession):
        store.delete("demo")
    assert list(store.sessions()) == []


def test_a_value_larger_than_a_message_is_refused_before_it_is_sent(session):
    for name in "cdefg":
        session.register(name, Text(), initial="")
    with pytest.raises(LimitExceeded, match="Split it"):
        session.update(dict.fromkeys("cdefg", "x" * 1_000_000))
    session.set("note", "x" * 1_000_000)
    assert len(session.get("note")) == 1_000_000


def test_a_large_session_comes_in_parts(session, server, remote):
    for index in range(12):
        session.register(f"t{index}", Text(), initial="")
        session.set(f"t{index}", str(index % 10) * 900_000)
    with Session("demo", store=remote(server.url, max_staleness=99)) as other:
        assert [f"{index % 10}" * 3 for index in range(12)] == [other.get(f"t{i}")[:3] for i in range(12)]
        other.tag("all")
        assert len(other.snapshot("all")["t7"]) == 900_000
        assert list(session.history()) == list(other.history())


def test_a_large_commit_arrives_whole(session, server, eventually):
    """Three values of which two do not fit into one message; the first callback sees all of them."""
    names = ("x", "y", "z")
    for name in names:
        session.register(name, Text(), initial="")
    seen = []
    session.watch("x", lambda change: seen.append((change.rev, [session.get(name)[:1] for name in names])))
    with Session("demo", store=server.store) as beneath:
        for turn in "ab":
            receipt = beneath.update(dict.fromkeys(names, turn * 900_000))
            eventually(lambda r=receipt.rev: seen and seen[-1][0] == r, "the commit")
    assert [values for _, values in seen] == [["a"] * 3, ["b"] * 3]


def test_stores_with_one_address_share_one_connection(server, remote):
    first, second = remote(server.url), remote(server.url)
    assert first.link is second.link
    assert remote(server.url, max_staleness=7).link is not first.link
