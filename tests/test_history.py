"""History, tags and rollback."""

import pytest

from dspex import (
    InvalidCall,
    InvalidName,
    InvalidValue,
    LimitExceeded,
    Session,
    Text,
    UnknownRevision,
    UnknownVariable,
)
from dspex.stores import base


def values(changes):
    return [change.new for change in changes]


def test_nothing_happened_before_the_first_set(session):
    assert (list(session.history()), list(session.history("n"))) == ([], [])


@pytest.mark.parametrize("sets", [1, 2, 50])
def test_history_is_what_was_set_oldest_first(session, sets):
    for value in range(sets):
        session.update({"n": value, "a": -value})
    session.set("b", 1)
    assert list(range(sets)) == values(session.history("n"))
    assert [*(name for _ in range(sets) for name in ("n", "a")), "b"] == [
        change.name for change in session.history()
    ]
    assert [0, *range(sets - 1)] == [change.old for change in session.history("n")]


def test_history_that_was_handed_out_stays_as_it_is(session):
    session.set("n", 1)
    history = session.history("n")
    session.set("n", 2)
    session.set("n", 3)
    assert values(history) == [1]


def test_there_is_no_history_of_an_unknown_name(session):
    with pytest.raises(UnknownVariable):
        session.history("nowhere")


def test_the_newest_1024_changes_are_kept(session):
    for value in range(20_000):
        session.set("n", value)
    kept = values(session.history())
    assert list(range(20_000 - len(kept), 20_000)) == kept
    assert base.HISTORY == 1_024 <= len(kept) <= 4 * 1_024


def test_at_least_16_changes_of_each_name_are_kept(session):
    for value in range(40):
        session.update({"a": value, "b": -value})
    session.set("temperature", 0.1)
    for value in range(20_000):
        session.set("n", value)
    assert list(range(24, 40)) == values(session.history("a"))[-16:]
    assert [-value for value in range(24, 40)] == values(session.history("b"))[-16:]
    assert values(session.history("temperature")) == [0.1]
    assert len(session.history()) <= 4 * 1_024 + 64


def test_history_is_bounded_however_many_names_a_commit_has(session):
    names = [f"v{number}" for number in range(200)]
    for name in names:
        session.register(name, int, initial=0)
    longest = 0
    for value in range(600):
        session.update(dict.fromkeys(names, value))
        longest = max(longest, len(session.history()) if value % 50 == 49 else 0)
    assert longest <= 4 * base.HISTORY + base.HISTORY_PER_NAME * 205


def test_large_values_do_not_fill_the_memory(session):
    session.register("text", Text(), initial="")
    session.set("n", 1)
    for number in range(200):
        session.set("text", f"{number:06}" + "x" * 500_000)
    kept = values(session.history("text"))
    assert 1 <= len(kept) <= base.HISTORY_BYTES // 500_000
    assert f"{199:06}" == kept[-1][:6]
    assert [int(text[:6]) for text in kept] == list(range(200 - len(kept), 200))
    assert kept[-1] == session.get("text")


def test_what_was_forgotten_of_large_values_is_said(session):
    session.register("text", Text(), initial="")
    for number in range(100):
        session.set("text", f"{number:06}" + "x" * 500_000)
    with pytest.raises(UnknownRevision) as refused:
        session.rollback("text", 3)
    oldest = session.history("text")[0].version - 1
    assert f"'text' in session 'demo' has no version 3 to go back to; known are {oldest} to 100." == str(
        refused.value
    )
    assert (refused.value.name, refused.value.session, refused.value.version) == ("text", "demo", 3)


# ---- rollback ----------------------------------------------------------------------------------------


def test_rollback_goes_back_to_each_version(session):
    for value in (10, 20, 30):
        session.set("n", value)
    for version, value in ((1, 10), (3, 30), (0, 0), (2, 20)):
        session.rollback("n", version)
        assert value == session.get("n")


def test_rollback_is_a_commit_like_any_other(session):
    seen = []
    session.set("n", 10)
    session.watch("n", seen.append)
    receipt = session.rollback("n", 0, source="me")
    (change,) = seen
    assert (
        change.new,
        change.old,
        change.version,
        change.rev,
        change.source,
        change.metadata,
    ) == (0, 10, 2, 2, "me", {"rollback": 0})
    assert receipt.changes == (change,)
    assert values(session.history("n")) == [10, 0]


def test_rollback_to_version_0_of_what_nobody_set(session):
    session.rollback("n", 0)
    assert (session.get("n"), session.record("n").version) == (0, 1)


@pytest.mark.parametrize("version", [2, 100, -1])
def test_a_version_that_is_not_there_is_refused(session, state, version):
    session.set("n", 5)
    before = state(session)
    with pytest.raises(UnknownRevision) as refused:
        session.rollback("n", version)
    assert f"'n' in session 'demo' has no version {version} to go back to; known are 0 to 1." == str(
        refused.value
    )
    assert before == state(session)


def test_a_version_that_is_no_longer_in_the_history_is_refused(session, state):
    for value in range(10_000):
        session.set("n", value)
    before = state(session)
    oldest = session.history("n")[0].version
    with pytest.raises(UnknownRevision):
        session.rollback("n", oldest - 2)
    assert before == state(session)
    session.rollback("n", oldest - 1)
    assert oldest - 2 == session.get("n")


def test_rollback_of_an_unknown_name_is_refused(session):
    with pytest.raises(UnknownVariable):
        session.rollback("nowhere", 0)


@pytest.mark.parametrize(
    ("args", "keywords"),
    [((), {}), (("n",), {}), (("n", 1), {"to": "t"}), ((None, 1), {}), (("n",), {"to": "t"})],
)
def test_rollback_takes_a_name_and_a_version_or_a_label(session, args, keywords):
    with pytest.raises(InvalidCall, match="takes a name and a version, or to=label"):
        session.rollback(*args, **keywords)


# ---- tags --------------------------------------------------------------------------------------------


def test_a_tag_names_the_present_revision(session):
    session.set("n", 1)
    revision = session.tag("good")
    assert session.revision == revision
    session.set("n", 2)
    assert ({"good": revision}, 1) == (session.tags, session.snapshot("good")["n"])


def test_rollback_to_a_tag_sets_everything_in_one_commit(session):
    session.update({"n": 1, "a": 2})
    session.tag("good")
    session.update({"n": 5, "a": 6, "b": 7})
    session.set("n", 8)
    receipt = session.rollback(to="good")
    assert {change.name: change.new for change in receipt.changes} == {"n": 1, "a": 2, "b": 0}
    assert tuple(session.get(name) for name in ("n", "a", "b", "temperature")) == (1, 2, 0, 0.7)
    assert (session.record("n").metadata, session.revision.rev) == ({"rollback": "good"}, 4)


def test_rollback_to_where_we_are_changes_nothing(session, state):
    session.set("n", 1)
    session.tag("here")
    before = state(session)
    assert session.rollback(to="here").changes == ()
    assert before == state(session)


def test_a_tag_lives_longer_than_the_history(session):
    session.set("a", 5)
    session.tag("start")
    for value in range(10_000):
        session.update({"n": value, "a": value})
    session.rollback(to="start")
    assert (session.get("n"), session.get("a")) == (0, 5)


def test_a_tag_can_be_moved(session):
    session.tag("here")
    session.set("n", 1)
    moved = session.tag("here")
    session.set("n", 2)
    session.rollback(to="here")
    assert ({"here": moved}, 1) == (session.tags, session.get("n"))


def test_what_was_registered_after_the_tag_stays(session):
    session.tag("before")
    session.register("later", int, initial=1)
    session.set("later", 2)
    session.set("n", 3)
    session.rollback(to="before")
    assert (session.get("later"), session.get("n")) == (2, 0)


def test_rollback_to_a_tag_of_very_many_names_is_one_commit():
    with Session() as session:
        names = [f"v{number}" for number in range(400)]
        for name in names:
            session.register(name, int, initial=0)
        session.tag("start")
        for name in names:
            session.set(name, 1)
        before = session.revision.rev
        session.rollback(to="start")
        assert ({0}, before + 1) == ({session.get(name) for name in names}, session.revision.rev)


@pytest.mark.parametrize("version", ["1", 1.0, True, [1]])
def test_a_version_to_go_back_to_is_an_integer(session, version):
    session.set("n", 1)
    with pytest.raises(InvalidValue) as refused:
        session.rollback("n", version)
    sentence = f"version must be a version of 'n', an integer (got {version!r}) in session 'demo'."
    assert sentence == str(refused.value)


@pytest.mark.parametrize("verb", [lambda s: s.rollback(to=[]), lambda s: s.snapshot([])])
def test_what_is_no_text_is_no_tag(session, verb):
    with pytest.raises(UnknownRevision) as refused:
        verb(session)
    assert str(refused.value) == "session 'demo' has no tag []."


@pytest.mark.parametrize("verb", ["rollback", "snapshot"])
def test_an_unknown_tag_is_refused_with_the_near_one(session, state, verb):
    session.tag("good")
    before = state(session)
    with pytest.raises(UnknownRevision) as refused:
        session.rollback(to="goood") if verb == "rollback" else session.snapshot("goood")
    assert str(refused.value) == "session 'demo' has no tag 'goood'. Did you mean 'good'?"
    assert before == state(session)


@pytest.mark.parametrize("label", ["", "two words", "1st", "x" * 129, "ä"])
def test_a_tag_has_a_name_like_a_variable(session, state, label):
    before = state(session)
    with pytest.raises(InvalidName):
        session.tag(label)
    assert before == state(session)


def test_handing_out_tags_does_not_let_anyone_change_them(session):
    session.tag("here")
    session.tags.clear()
    assert list(session.tags) == ["here"]


def test_a_session_has_a_bounded_number_of_tags(session):
    for number in range(base.TAGS):
        session.tag(f"t{number}")
    with pytest.raises(LimitExceeded) as refused:
        session.tag("one-more")
    assert str(refused.value) == "a session may have 256 tags in session 'demo'. Move one: tag it again."
    session.tag("t0")
    assert len(session.tags) == base.TAGS
