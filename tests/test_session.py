"""Reading and setting: what a handle gives back."""

import os
import re
import time

import pytest

from dspex import (
    Change,
    Float,
    Integer,
    InvalidValue,
    Record,
    Revision,
    Session,
    SessionClosed,
    Text,
    UnknownVariable,
    VariableConflict,
    VersionConflict,
)


def test_a_variable_has_its_initial_value_at_version_0(session):
    record = session.record("temperature")
    assert (session.get("temperature"), record.version, record.rev) == (0.7, 0, 0)


def test_get_gives_what_was_set(session):
    session.set("temperature", 0.2)
    assert session.get("temperature") == 0.2


def test_the_default_is_only_for_names_that_are_not_there(session):
    session.set("n", 3)
    assert (
        session.get("n", 5),
        session.get("nowhere", None),
        session.get("nowhere", 5),
    ) == (3, None, 5)


def test_a_value_is_stored_as_its_kind_makes_it(session):
    change = session.set("temperature", 1)
    assert (float, float) == (type(change.new), type(session.get("temperature")))


def test_set_gives_the_change(session):
    session.set("n", 4)
    before = time.time()
    change = session.set("n", 5, {"why": "better"}, source="me")
    assert (
        change.name,
        change.old,
        change.new,
        change.value,
        change.version,
        change.rev,
        change.source,
        change.metadata,
    ) == ("n", 4, 5, 5, 2, 2, "me", {"why": "better"})
    assert change.revision == session.revision
    assert before <= change.time <= time.time()


def test_the_record_is_the_newest_change(session):
    change = session.set("n", 5)
    assert isinstance(change, Change)
    assert isinstance(session.record("n"), Record)
    assert change == session.record("n")


def test_every_commit_adds_one_to_the_revision(session):
    epoch, rev = session.revision.epoch, session.revision.rev
    session.set("n", 1)
    session.update({"a": 1, "b": 1})
    session.set("n", 1)
    assert Revision(epoch, rev + 3) == session.revision


def test_versions_count_the_writes_of_one_name(session):
    session.update({"a": 1, "b": 1})
    session.set("a", 1)
    assert {name: session.record(name).version for name in ("a", "b", "n")} == {"a": 2, "b": 1, "n": 0}


def test_the_source_of_the_handle_signs_what_says_nothing_else(session):
    assert (session.set("n", 1).source, session.set("n", 1, source="you").source) == ("tests", "you")


def test_a_handle_without_a_source_signs_with_script_and_process():
    with Session() as session:
        session.register("n", int, initial=0)
        assert re.fullmatch(rf".+\[{os.getpid()}\]", session.set("n", 1).source)


def test_metadata_is_a_copy(session):
    metadata = {"scores": [1]}
    change = session.set("n", 1, metadata)
    metadata["scores"].append(2)
    metadata["more"] = True
    assert list(change.metadata) == ["scores"]
    assert list(change.metadata["scores"]) == [1]
    with pytest.raises(TypeError):
        change.metadata["more"] = 1


def test_what_is_inside_metadata_cannot_be_changed_either(session):
    session.set("n", 1, {"scores": {"best": 1}, "seen": [1]})
    for spoil in (
        lambda metadata: metadata["scores"].update(best=2),
        lambda metadata: metadata["seen"].append(2),
    ):
        with pytest.raises((TypeError, AttributeError)):
            spoil(session.record("n").metadata)
    assert session.record("n").metadata["scores"] == {"best": 1}


def test_update_is_one_commit(session):
    receipt = session.update({"a": 1, "b": 2}, {"why": "pair"}, source="me")
    assert session.revision == receipt.revision
    assert [(change.name, change.new, change.rev, change.source) for change in receipt.changes] == [
        ("a", 1, 1, "me"),
        ("b", 2, 1, "me"),
    ]


def test_update_of_nothing_changes_nothing(session, state):
    before = state(session)
    assert session.update({}).changes == ()
    assert before == state(session)


def test_update_expects_versions(session):
    session.set("a", 1)
    session.update({"a": 2, "b": 2}, expect={"a": 1, "b": 0})
    with pytest.raises(VersionConflict):
        session.update({"a": 3, "b": 3}, expect={"b": 0})
    assert (session.get("a"), session.get("b")) == (2, 2)


def test_set_with_the_right_version_happens(session):
    session.set("n", 1, expect=0)
    session.set("n", 2, expect=1)
    assert session.get("n") == 2


def test_swap_gives_the_change_that_it_made(session):
    session.set("n", 20)
    change = session.swap("n", lambda n: n + 1, {"why": "one more"}, source="me")
    assert (
        change.old,
        change.new,
        change.source,
        change.metadata,
    ) == (20, 21, "me", {"why": "one more"})


def test_swap_calls_again_when_somebody_was_first(session):
    seen = []

    def add_one(n):
        if not seen:
            session.set("n", 10)
        seen.append(n)
        return n + 1

    session.swap("n", add_one)
    assert (seen, session.get("n")) == ([0, 10], 11)


def test_what_fn_of_swap_raises_is_raised_and_nothing_set(session, state):
    before = state(session)
    with pytest.raises(ZeroDivisionError):
        session.swap("n", lambda n: 1 // n)
    assert before == state(session)


def test_swap_of_a_value_that_is_refused_raises(session, state):
    before = state(session)
    with pytest.raises(ValueError):
        session.swap("temperature", lambda _: 9.0)
    assert before == state(session)


def test_check_gives_what_would_be_stored_and_sets_nothing(session, state):
    before = state(session)
    checked = session.check("temperature", 1)
    assert (1.0, float) == (checked, type(checked))
    assert before == state(session)


def test_a_snapshot_is_a_mapping_of_one_revision(session):
    session.update({"a": 1, "b": 2})
    snapshot = session.snapshot()
    session.update({"a": 3, "b": 4})
    assert (snapshot["a"], snapshot["b"], snapshot.revision == session.revision) == (1, 2, False)
    assert dict(snapshot) == {"temperature": 0.7, "n": 0, "a": 1, "b": 2, "note": ""}
    assert ("a" in snapshot, "z" in snapshot, 5) == (True, False, len(snapshot))
    assert snapshot.records["a"].version == 1


@pytest.mark.parametrize("sets", [0, 1, 3])
def test_nobody_can_change_a_snapshot(session, sets):
    for value in range(sets):
        session.set("n", value)
    snapshot = session.snapshot()
    with pytest.raises(TypeError):
        snapshot.records["n"] = None
    assert session.record("n") == session.snapshot().records["n"]


def test_nobody_can_change_the_declarations_of_a_session(session):
    with pytest.raises(TypeError):
        session.variables["n"] = session.variables["temperature"]
    assert Integer() == session.variables["n"].kind


def test_variables_tell_what_is_declared(session):
    declared = session.variables["temperature"]
    assert ("temperature", Float(min=0.0, max=1.5), 0.7) == (
        declared.name,
        declared.kind,
        declared.initial,
    )


@pytest.mark.parametrize(
    ("kind", "constraints"),
    [(Float(min=0.0), None), ("float", {"min": 0.0})],
)
def test_register_takes_a_kind_or_its_name(session, kind, constraints):
    declared = session.register("top_p", kind, initial=1, constraints=constraints, description="nucleus")
    assert (Float(min=0.0), 1.0, "nucleus") == (declared.kind, declared.initial, declared.description)
    assert session.get("top_p") == 1.0


def test_register_takes_a_python_type(session):
    assert Text() == session.register("title", str, initial="").kind


def test_registering_the_same_again_keeps_the_value(session):
    session.set("n", 3)
    session.register("n", Integer(), initial=0)
    assert session.get("n") == 3


def test_registering_another_kind_is_refused(session, state):
    before = state(session)
    with pytest.raises(VariableConflict):
        session.register("n", Integer(min=0), initial=0)
    assert before == state(session)


def test_registering_does_not_touch_the_values_of_others(session):
    for value in (1, 2):
        session.set("n", value)
        session.register(f"after_{value}", int, initial=value)
    assert (session.get("n"), session.get("after_1"), session.get("after_2")) == (2, 1, 2)
    assert [change.new for change in session.history("n")] == [1, 2]


def test_two_private_sessions_share_nothing():
    with Session() as one, Session() as two:
        one.register("n", int, initial=1)
        assert one.id != two.id
        assert two.get("n", 5) == 5


def test_handles_of_one_id_see_the_same_values(session, store):
    with Session("demo", store=store) as other:
        session.set("n", 1)
        other.set("a", 2)
        assert (other.get("n"), session.get("a")) == (1, 2)
        assert session.revision == other.revision


def test_memory_urls_name_stores_of_the_process():
    with Session("urls", store="memory://one") as one, Session("urls", store="memory://two") as two:
        one.register("n", int, initial=1)
        with Session("urls", store="memory://one") as again:
            assert (again.get("n"), two.get("n", None)) == (1, None)


def test_a_session_dies_with_its_last_handle(store):
    one, two = Session("s", store=store), Session("s", store=store)
    one.register("n", int, initial=0)
    one.set("n", 1)
    one.close()
    assert two.get("n") == 1
    two.close()
    with Session("s", store=store) as anew:
        assert dict(anew.variables) == {}


def test_closing_twice_closes_once(store):
    one, two = Session("s", store=store), Session("s", store=store)
    one.close()
    one.close()
    assert [info.id for info in store.sessions()] == ["s"]
    two.close()
    assert list(store.sessions()) == []


CLOSED = {
    "get": lambda s: s.get("n"),
    "get with a default": lambda s: s.get("n", 1),
    "get of an unknown name": lambda s: s.get("nowhere", 1),
    "record": lambda s: s.record("n"),
    "set": lambda s: s.set("n", 1),
    "update": lambda s: s.update({"n": 1}),
    "update of nothing": lambda s: s.update({}),
    "swap": lambda s: s.swap("n", lambda n: n),
    "snapshot": lambda s: s.snapshot(),
    "history": lambda s: s.history(),
    "history of a name": lambda s: s.history("n"),
    "rollback": lambda s: s.rollback("n", 0),
    "rollback to a tag": lambda s: s.rollback(to="t"),
    "tag": lambda s: s.tag("t"),
    "tags": lambda s: s.tags,
    "claim": lambda s: s.claim(["n"], owner="me", ttl=1),
    "register": lambda s: s.register("m", int, initial=0),
    "watch": lambda s: s.watch("n", print),
    "watch of every name": lambda s: s.watch("*", print),
    "signal": lambda s: s.signal("n"),
    "changes": lambda s: s.changes("n"),
    "fork": lambda s: s.fork(),
}


@pytest.mark.parametrize("watched", [False, True], ids=["never watched", "watched before"])
@pytest.mark.parametrize("verb", CLOSED)
def test_a_closed_handle_says_so_whatever_it_is_asked(session, verb, watched):
    if watched:
        session.watch("n", lambda _: None)
    session.close()
    with pytest.raises(SessionClosed) as refused:
        CLOSED[verb](session)
    assert str(refused.value) == "this handle of session 'demo' is closed. Open another one."


@pytest.mark.parametrize("verb", CLOSED)
def test_a_deleted_session_says_so_to_all_its_handles(session, store, verb):
    with Session("demo", store=store) as other:
        session.set("n", 1)
        other.watch("n", lambda _: None)
        session.delete()
        with pytest.raises(SessionClosed) as refused:
            CLOSED[verb](other)
        assert str(refused.value) == "session 'demo' was deleted. Open it again to start anew."


def test_closing_a_handle_leaves_the_others_alone(session, store):
    seen = []
    with Session("demo", store=store) as other:
        other.watch("n", lambda change: seen.append(change.new), mode="all")
        with Session("demo", store=store) as third:
            third.watch("n", lambda _: None)
        session.set("n", 1)
        other.set("n", 2)
    assert seen == [1, 2]


def test_a_closed_handle_tells_its_watchers_nothing(session, store):
    seen = []
    other = Session("demo", store=store)
    watch = other.watch("n", seen.append)
    other.close()
    session.set("n", 1)
    assert (seen, watch.closed) == ([], True)


def test_a_session_that_was_deleted_begins_anew(session, store):
    session.set("n", 1)
    session.delete()
    assert session.closed
    with Session("demo", store=store) as anew:
        assert (dict(anew.variables), anew.revision.rev) == ({}, 0)


def test_a_history_that_begins_anew_is_another_epoch(session, store):
    session.set("n", 1)
    before = session.revision
    session.delete()
    with Session("demo", store=store) as anew:
        assert before.epoch != anew.revision.epoch


def test_a_private_session_can_be_deleted():
    session = Session()
    session.delete()
    assert session.closed


def test_sessions_are_listed_by_their_id(session, store):
    with Session("another", store=store):
        session.set("n", 1)
        infos = store.sessions()
        assert [(info.id, info.variables) for info in infos] == [("another", 0), ("demo", 5)]
        assert session.revision == infos[1].revision
        assert infos[1].created <= time.time()


def test_the_repr_of_a_handle_says_where_it_is(session):
    epoch = session.revision.epoch
    assert f"<Session 'demo' at {epoch}:0, 5 variables>" == repr(session)
    session.close()
    assert repr(session) == "<Session 'demo' closed>"


def test_an_unknown_name_is_a_lookup_error(session):
    with pytest.raises(LookupError):
        session.get("nowhere")
    with pytest.raises(UnknownVariable):
        session.snapshot()["nowhere"]


def test_a_closed_handle_is_told_nothing_more_by_its_store(store):
    with Session("demo", store=store) as stays:
        stays.register("n", int, initial=0)
        with Session("demo", store=store) as goes:
            goes.watch("n", lambda _: None)
            assert stays.ledger._sink is not None
        assert stays.ledger._sink is None


def test_a_session_may_be_closed_in_the_middle_of_a_commit_of_another(store):
    """As the garbage collector may do: the lock that both share is taken by this thread already."""
    other = Session("other", store=store)
    other.register("n", int, initial=0)
    other.watch("n", lambda _: None)

    class Closing:
        queue = ()

        def apply(self, changes):
            other.close()

    with Session("demo", store=store) as session:
        session.register("n", int, initial=0)
        session.ledger.subscribe(Closing())
        session.set("n", 1)
        assert other.closed


def test_an_author_is_text(session):
    for source in (5, ["me"], "x" * 257, "\ud800"):
        with pytest.raises(InvalidValue, match=r"^source must be text of at most 256 characters"):
            session.set("n", 1, source=source)
