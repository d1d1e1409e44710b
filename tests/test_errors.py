"""Every refusal: its class, its sentence, its facts; and that it changes nothing."""

import math
import pickle

import pytest

from dspex import (
    Claimed,
    DspexError,
    Float,
    Integer,
    InvalidName,
    InvalidValue,
    LimitExceeded,
    ModuleChoice,
    Program,
    Secret,
    Session,
    SessionClosed,
    StoreUnavailable,
    Text,
    UnknownModule,
    UnknownRevision,
    UnknownSession,
    UnknownVariable,
    VariableConflict,
    VersionConflict,
    defvariable,
    errors,
    open_store,
)
from dspex.modules.base import Modules, execute, session_modules
from dspex.stores import SCHEMES

HUGE = 10**400
MIB = 1024 * 1024


class Step(Program):
    step = defvariable(ModuleChoice("Predict", "Other"), initial="Predict")

    def forward(self):
        return self.step()


@pytest.fixture
def session(session):
    session.register("flag", bool, initial=False)
    session.register("word", Text(max_length=5), initial="")
    session.register("key", Secret(max_length=12), initial="sesame open")
    session.set("n", 1)
    return session


def value(name, given, expected, shown):
    """A row for a value that its kind refuses."""
    sentence = f"{name} must be {expected} (got {shown}) in session 'demo'."
    facts = {"name": name, "session": "demo", "expected": expected, "given": shown}
    refused = lambda s: s.set(name, given), InvalidValue, sentence, facts
    return pytest.param(refused, id=f"{name} = {shown}"[:40])


def row(case, call, error, sentence, /, **facts):
    return pytest.param((call, error, sentence, facts), id=case)


ROWS = [
    value("temperature", "warm", "a float", "'warm'"),
    value("temperature", None, "a float", "None"),
    value("temperature", True, "a float", "True"),
    value("temperature", 2.0, "at most 1.5", "2.0"),
    value("temperature", -0.1, "at least 0.0", "-0.1"),
    value("temperature", math.nan, "a finite number", "nan"),
    value("temperature", math.inf, "a finite number", "inf"),
    value("temperature", -math.inf, "a finite number", "-inf"),
    value("temperature", HUGE, "a finite number", f"an integer of {HUGE.bit_length()} bits"),
    value("n", True, "an integer", "True"),
    value("n", "7", "an integer", "'7'"),
    value("n", 1.5, "a whole number", "1.5"),
    value("n", math.nan, "a whole number", "nan"),
    value("n", 2**63, "a 64-bit integer", "9223372036854775808"),
    value("n", HUGE, "a 64-bit integer", f"an integer of {HUGE.bit_length()} bits"),
    value("flag", 1, "True or False", "1"),
    value("note", 7, "text", "7"),
    value("note", "a\ud800b", "valid UTF-8 text", "'a\\ud800b'"),
    value("word", "toolong", "at most 5 characters long", "'toolong'"),
    value("word", "x\n\x1b[31m", "at most 5 characters long", "'x\\n\\x1b[31m'"),
    value("key", 12345678, "text", "'•••'"),
    value("key", "correct horse battery", "at most 12 characters long", "'•••'"),
    row(
        "an unknown name",
        lambda s: s.set("temprature", 1.0),
        UnknownVariable,
        "session 'demo' has no variable 'temprature'. Did you mean 'temperature'?",
        name="temprature",
        owner="session 'demo'",
    ),
    row(
        "an unknown name that is like no other",
        lambda s: s.get("zzz"),
        UnknownVariable,
        "session 'demo' has no variable 'zzz'.",
        name="zzz",
    ),
    row(
        "an unknown name of an update",
        lambda s: s.update({"n": 5, "aa": 1}),
        UnknownVariable,
        "session 'demo' has no variable 'aa'. Did you mean 'a'?",
    ),
    row(
        "an unknown name of a snapshot",
        lambda s: s.snapshot()["aa"],
        UnknownVariable,
        "the snapshot of session 'demo' has no variable 'aa'. Did you mean 'a'?",
    ),
    row(
        "a value of an update",
        lambda s: s.update({"n": 5, "temperature": 2.0}),
        InvalidValue,
        "temperature must be at most 1.5 (got 2.0) in session 'demo'.",
        name="temperature",
    ),
    row(
        "a stale expect",
        lambda s: s.set("n", 5, expect=0),
        VersionConflict,
        "'n' in session 'demo' is at version 1, not 0: someone set it since. Read it again and retry.",
        name="n",
        session="demo",
        version=1,
        expected=0,
    ),
    row(
        "a stale expect of an update",
        lambda s: s.update({"a": 5, "n": 5}, expect={"n": 0}),
        VersionConflict,
        "'n' in session 'demo' is at version 1, not 0: someone set it since. Read it again and retry.",
    ),
    row(
        "an expect of what is not set",
        lambda s: s.update({"a": 5}, expect={"n": 1}),
        InvalidValue,
        "expect must be versions of names that are set (got 'n').",
    ),
    row(
        "a value over 1 MiB",
        lambda s: s.set("note", "x" * (MIB + 1)),
        LimitExceeded,
        "note: value is at least 1048577 bytes; the limit is 1048576. Keep it elsewhere and store "
        "where it is. In "
        "session 'demo'.",
        name="note",
        size=MIB + 1,
        limit=MIB,
    ),
    row(
        "metadata over 16 KiB",
        lambda s: s.set("n", 5, {"why": "x" * 20_000}),
        LimitExceeded,
        "metadata takes 20008 bytes; the limit is 16384.",
        limit=16384,
    ),
    row(
        "a name of bad letters",
        lambda s: s.register("two words", int, initial=0),
        InvalidName,
        "a name must match [A-Za-z_][A-Za-z0-9_.-]{0,127} (got 'two words').",
        name="two words",
    ),
    row(
        "another kind for a name",
        lambda s: s.register("n", Float(), initial=0),
        VariableConflict,
        "'n' is Integer() in Session.register() but Float() in Session.register(). Give one of them "
        "another name, "
        "or run them in sessions of their own.",
        name="n",
        owners=("Session.register()", "Session.register()"),
    ),
    row(
        "too many variables",
        lambda s: s.register("one_more", int, initial=0),
        LimitExceeded,
        "a session may have 1000 variables (got 1001) in session 'demo'.",
        limit=1000,
    ),
    row(
        "too many writes",
        lambda s: s.update(dict.fromkeys((f"v{number}" for number in range(1_001)), 0)),
        LimitExceeded,
        "a commit may hold 1000 writes (got 1001) in session 'demo'. Split it.",
        limit=1000,
    ),
    row(
        "a version that never was",
        lambda s: s.rollback("n", 9),
        UnknownRevision,
        "'n' in session 'demo' has no version 9 to go back to; known are 0 to 1.",
        name="n",
        session="demo",
        version=9,
    ),
    row(
        "a tag that never was",
        lambda s: s.rollback(to="best"),
        UnknownRevision,
        "session 'demo' has no tag 'best'.",
        session="demo",
        tag="best",
    ),
    row(
        "no parent",
        lambda s: s.commit_to_parent(),
        UnknownSession,
        "session 'demo' is not a fork: it has no parent to commit to.",
        session="demo",
    ),
    row(
        "a mode that is none",
        lambda s: s.watch("n", print, mode="some"),
        InvalidValue,
        "mode must be one of 'latest', 'all' (got 'some').",
    ),
    row(
        "a store of an unknown scheme",
        lambda _: open_store("riak://host"),
        StoreUnavailable,
        "no store has the scheme of 'riak://host'; known are "
        + ", ".join(f"{one}://" for one in SCHEMES)
        + ".",
        url="riak://host",
    ),
    row(
        "a session id that is none",
        lambda _: Session("two words"),
        InvalidName,
        "a session id must be 1 to 64 letters, digits, '_' or '-' (got 'two words').",
        name="two words",
    ),
    row(
        "a module that is not there",
        lambda s: execute("Predict", {}, session=s),
        UnknownModule,
        "session 'demo' has no module 'Predict'; none is registered. Register it: Predict.create(…, "
        "store_as='Predict', session=session). What a program has in self.modules is only its own.",
        name="Predict",
        known=[],
    ),
    row(
        "a name where nothing is declared",
        lambda _: Session("empty").set("n", 1),
        UnknownVariable,
        "session 'empty' has no variable 'n': nothing is declared there yet. Bind a program to it, or "
        "register() a variable.",
        name="n",
        owner="session 'empty'",
    ),
    row(
        "something else for a session",
        lambda _: Step.bind("demo"),
        InvalidValue,
        "session must be a Session (got 'demo').",
        name="session",
    ),
]


@pytest.mark.parametrize("row", ROWS)
def test_a_refusal_says_what_it_should_and_changes_nothing(session, state, row):
    call, error, sentence, facts = row
    if "1000 variables" in sentence:
        for number in range(992):
            session.register(f"v{number}", int, initial=0)
    seen = []
    session.watch("*", seen.append)
    before = state(session)
    with pytest.raises(DspexError) as refused:
        call(session)
    assert (error, sentence) == (type(refused.value), str(refused.value))
    assert facts == {name: getattr(refused.value, name) for name in facts}
    assert facts.items() <= refused.value.facts.items()
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    assert (before, []) == (state(session), seen)


@pytest.mark.parametrize(
    "metadata", [{1: 2}, {"x": object()}, {"x": {1, 2}}, 5, "text", [1], {"x": 2**70}, {"x": "\ud800"}]
)
def test_metadata_that_is_not_plain_is_refused(session, state, metadata):
    before = state(session)
    with pytest.raises(InvalidValue, match=r"^metadata must be "):
        session.set("n", 5, metadata)
    assert before == state(session)


@pytest.mark.parametrize(
    "name", ["", "1st", "a b", "ä", "x" * 129, "a/b", "a\n", "-a", ".a", None, 5, b"n", ["n"]]
)
def test_a_name_that_is_none_cannot_be_registered(session, state, name):
    before = state(session)
    with pytest.raises(InvalidName) as refused:
        session.register(name, int, initial=0)
    assert f"(got {errors.shown(name, 60)})." in str(refused.value)
    assert before == state(session)


@pytest.mark.parametrize("name", ["a", "_", "Z9", "a.b-c_d", "x" * 128])
def test_a_name_that_is_one_can(session, name):
    session.register(name + "z" * (len(name) < 100), int, initial=4)
    assert session.get(name + "z" * (len(name) < 100)) == 4


@pytest.mark.parametrize("name", [None, 5, ["n"]])
@pytest.mark.parametrize(
    "verb",
    [
        lambda s, name: s.get(name),
        lambda s, name: s.record(name),
        lambda s, name: s.set(name, 1),
        lambda s, name: s.swap(name, lambda n: n),
        lambda s, name: s.history(name) if name is not None else s.get(name),
        lambda s, name: s.watch(name, print),
        lambda s, name: s.claim([name], owner="me", ttl=1),
    ],
    ids=["get", "record", "set", "swap", "history", "watch", "claim"],
)
def test_what_is_no_name_at_all_is_an_unknown_one(session, state, verb, name):
    before = state(session)
    with pytest.raises((UnknownVariable, InvalidName)):
        verb(session, name)
    assert before == state(session)


def test_a_sentence_about_an_endless_name_is_short(session):
    for name in ("x" * 1_000_000, "line\nbreak\x1b[31m"):
        with pytest.raises(UnknownVariable) as refused:
            session.get(name)
        assert len(str(refused.value)) < 500
        assert str(refused.value).isprintable()


def test_a_module_that_is_not_registered_is_named_with_those_that_are(session):
    session_modules(session)["Predictt"] = lambda: 1
    with pytest.raises(UnknownModule) as refused:
        Step.run(session=session)
    assert str(refused.value) == (
        "Step has no module 'Predict'; registered are 'Predictt'. Did you mean 'Predictt'? Put it "
        "there in init(): "
        "self.modules['Predict'] = …"
    )
    assert (refused.value.name, refused.value.known) == ("Predict", ["Predictt"])
    assert isinstance(session_modules(session), Modules)


def test_each_error_has_its_code_and_its_builtin():
    builtin = {
        InvalidValue: ValueError,
        InvalidName: ValueError,
        errors.InvalidAssignment: AttributeError,
        errors.InvalidCall: TypeError,
        errors.WouldBlock: RuntimeError,
        UnknownVariable: LookupError,
        UnknownSession: LookupError,
        UnknownModule: LookupError,
        UnknownRevision: LookupError,
        errors.DeadlineExceeded: TimeoutError,
        errors.MissingExtra: ImportError,
    }
    for error, parent in builtin.items():
        assert issubclass(error, parent)
    codes = [getattr(errors, name).code for name in errors.__all__]
    assert sorted(set(codes)) == sorted(codes)
    for code, error in DspexError.by_code.items():
        assert (code, True) == (error.code, issubclass(error, DspexError))
    assert {getattr(errors, name) for name in errors.__all__} == {DspexError, *DspexError.by_code.values()}


def test_an_error_survives_a_pickle(session):
    with pytest.raises(VersionConflict) as refused:
        session.set("n", 5, expect=0)
    again = pickle.loads(pickle.dumps(refused.value))
    assert (VersionConflict, str(refused.value), 1) == (type(again), str(again), again.version)
    again = pickle.loads(pickle.dumps(errors.InvalidAssignment("no", name="n", near="m")))
    assert ("no", "n", "m") == (str(again), again.name, again.near)


def test_errors_of_closed_and_claimed_sessions_have_their_facts(session):
    session.claim(["n"], owner="tuner", ttl=60)
    with pytest.raises(Claimed) as claimed:
        session.set("n", 5)
    assert (claimed.value.code, claimed.value.owner) == ("CLAIMED", "tuner")
    session.close()
    with pytest.raises(SessionClosed) as closed:
        session.set("n", 5)
    assert (closed.value.code, closed.value.session) == ("SESSION_CLOSED", "demo")


def test_integers_of_other_types_are_not_refused(session):
    session.register("m", Integer(), initial=0)
    session.set("m", 3.0)
    assert (3, int) == (session.get("m"), type(session.get("m")))
