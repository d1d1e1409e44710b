"""A session as a document: the same when it comes back, without secrets, and refused where it is wrong."""

import json
import math
from contextlib import ExitStack, suppress

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dspex import (
    Choice,
    Claimed,
    DspexError,
    Integer,
    InvalidDeclaration,
    InvalidName,
    InvalidValue,
    LimitExceeded,
    ListOf,
    Program,
    Secret,
    Session,
    SessionExists,
    Struct,
    VariableConflict,
    defvariable,
)
from dspex.moving import export_session, import_session
from dspex.stores import MemoryStore, base
from dspex.stores.assembling import unpacked
from dspex.stores.pieces import digest, pieces_of
from dspex.testing.values import VALUES, bits

CASES = sorted(name for name, case in VALUES.items() if not case.refused and name != "secret")


@pytest.fixture
def opens():
    """What is opened or imported, closed at the end."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def session(session):
    session.set("n", 1, {"why": "first"})
    session.tag("begin")
    session.update({"n": 2, "temperature": 0.25}, source="someone else")
    return session


@pytest.fixture
def imports(opens):
    """Import a document into a store of its own."""

    def make(document, **words):
        imported = import_session(document, MemoryStore(), **words)
        opens(imported.session)
        return imported

    return make


def changed(document, *path, to):
    """*document* with another value at *path*; without it if that is an ellipsis."""
    plain = json.loads(document)
    at = plain
    for key in path[:-1]:
        at = at[key]
    if to is ...:
        del at[path[-1]]
    else:
        at[path[-1]] = to
    return json.dumps(plain)


# ---- there and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_value_comes_back_bit_for_bit(opens, imports, case):
    if case.startswith(("embedding", "tensor")):
        pytest.importorskip("numpy")
    kind, value, initial = VALUES[case].kind(), VALUES[case].value(), VALUES[case].initial
    session = opens(Session())
    session.register("value", kind, initial=initial)
    session.register("untouched", kind, initial=value)
    session.set("value", value)
    session.tag("here")
    session.set("value", initial)
    back = imports(export_session(session, history=True)).session
    for name in ("value", "untouched"):  # whoever has the class of a struct declares it
        assert back.variables[name].kind.describe() == kind.describe()
    mine = back.variables["value"].kind
    stored, first = (bits(mine, mine.load(kind.dump(kind.check(one)))) for one in (value, initial))
    assert bits(mine, back.get("value")) == first
    assert bits(mine, back.get("untouched")) == stored
    assert bits(mine, back.snapshot("here")["value"]) == stored
    assert [(bits(mine, one.old), bits(mine, one.new)) for one in back.history("value")] == [
        (first, stored),
        (stored, first),
    ]


def test_all_of_a_session_comes_back_in_a_history_of_its_own(session, imports):
    document = export_session(session, history=True)
    back = imports(document).session
    epoch = session.revision.epoch

    assert back.revision.epoch != epoch
    assert back.revision.rev == session.revision.rev
    first, second = (pieces_of(one.ledger.export()) for one in (session, back))
    assert first[1:] == second[1:]
    assert json.loads(export_session(back, history=True)) == {
        **json.loads(document),
        "epoch": back.revision.epoch,
    }


def test_without_history_the_rest_is_the_same(session, imports):
    back = imports(export_session(session)).session
    assert dict(back.snapshot()) == dict(session.snapshot())
    assert dict(back.snapshot("begin")) == dict(session.snapshot("begin"))
    assert back.history() == []
    assert back.set("n", 3).version == session.record("n").version + 1
    with back.changes(since=session.revision) as changes:
        assert dict(next(changes)) == dict(back.snapshot())


def test_a_document_is_for_people(session):
    document = export_session(session)
    assert document.endswith("}\n")
    assert json.loads(document)["variables"]["temperature"] == {
        "kind": {"kind": "float", "min": 0.0, "max": 1.5},
        "initial": 0.7,
        "value": 0.25,
        "version": 1,
        "rev": 2,
        "time": session.record("temperature").time,
        "source": "someone else",
    }
    assert '"value": 0.25' in document


@pytest.mark.parametrize("rev", [0, 3])
def test_what_a_person_leaves_out_has_a_sensible_value(imports, rev):
    kind = {"kind": "float", "max": 1.5}
    document = {"dspex": 1, "session": "written", "epoch": "none", "rev": rev}
    document["variables"] = {
        "temperature": {"kind": kind, "initial": 1},
        "top": {"kind": kind, "initial": 1, "value": 0.5},
    }
    imported = imports(json.dumps(document))
    record = imported.session.record("top")
    assert (imported.session.id, imported.revision.rev) == ("written", rev or 1)
    assert imported.session.get("temperature") == 1.0
    assert (record.value, record.version, record.rev, record.source) == (0.5, 1, rev or 1, None)


# ---- secrets -----------------------------------------------------------------------------------------


CANARY = "canary-4711"


@pytest.mark.parametrize("history", [False, True])
def test_secrets_and_claims_are_not_in_a_document(session, imports, history):
    session.register("key", Secret(), initial=f"{CANARY}-0", description="for the service")
    session.register("keys", ListOf(Secret()), initial=[f"{CANARY}-1"])
    session.set("key", f"{CANARY}-2")
    session.tag("with_key")
    session.update({"key": f"{CANARY}-3", "keys": [f"{CANARY}-4"], "n": 7})
    session.set("key", f"{CANARY}-5")
    claim = session.claim(["a"], owner="someone", ttl=60)
    document = export_session(session, history=history)
    assert CANARY not in document
    assert claim.request.token not in document
    imported = imports(document)
    assert imported.secrets == ("key", "keys")
    assert set(session.variables) - set(imported.session.variables) == {"key", "keys"}
    assert imported.session.get("n") == 7
    assert imported.session.revision.rev == session.revision.rev
    assert "key" not in imported.session.snapshot("with_key")
    assert [change.value for change in imported.session.history("n")] == ([1, 2, 7] if history else [])
    imported.session.register("key", Secret(), initial="")  # who has it declares and sets it
    imported.session.set("a", 1)


def test_a_secret_that_a_person_writes_into_a_document_is_taken(session, imports):
    session.register("key", Secret(), initial="old")
    document = export_session(session)
    document = changed(document, "variables", "key", "initial", to="")
    imported = imports(changed(document, "variables", "key", "value", to="new"))
    assert (imported.secrets, imported.session.get("key")) == ((), "new")


def test_a_secret_of_an_open_session_stays_as_it_is(session, opens):
    session.register("key", Secret(), initial="old")
    document = export_session(session)
    session.set("key", "new")
    imported = import_session(document, session)
    assert (imported.secrets, session.get("key")) == (("key",), "new")


# ---- into an open session ----------------------------------------------------------------------------


def test_what_differs_is_set_in_one_commit(session, opens):
    document = export_session(session)
    for path, value in (
        (("n", "value"), 3),
        (("note", "value"), "new"),
        (("a", "kind"), {"kind": "integer"}),
    ):
        document = changed(document, "variables", *path, to=value)
    document = changed(
        document, "variables", "more", to={"kind": {"kind": "integer"}, "initial": 0, "value": 1}
    )
    document = changed(document, "variables", "less", to={"kind": {"kind": "integer"}, "initial": 5})
    told = []
    session.watch("*", lambda change: told.append((change.name, change.value, change.version, change.rev)))
    before = session.revision.rev
    imported = import_session(document, session)
    assert imported.session is session
    assert told == [("n", 3, 3, before + 1), ("note", "new", 1, before + 1), ("more", 1, 1, before + 1)]
    assert session.get("less") == 5
    assert session.record("n").metadata == {"import": f"demo@{session.revision.epoch}:{before}"}
    assert import_session(document, session).revision.rev == before + 1


def test_a_variable_that_is_unset_in_a_document_goes_back_to_its_initial_value(session):
    document = export_session(session)
    session.set("a", 5)
    import_session(document, session)
    assert (session.get("a"), session.record("a").version) == (0, 2)


@attrs.frozen
class Settings:
    rate: float


def test_your_class_stays_yours(session):
    session.register("settings", Struct(Settings), initial=Settings(0.5))
    document = export_session(session)
    import_session(changed(document, "variables", "settings", "value", to={"rate": 0.25}), session)
    assert session.get("settings") == Settings(0.25)


def test_what_is_tuned_and_when_it_matters_comes_back(session, imports):
    class Agent(Program):
        mode = defvariable(Choice("fast", "slow"), initial="fast", tunable=False)
        depth = defvariable(Integer(min=1), initial=3, when=(mode, "slow"))

    Agent.bind(session)
    there = imports(export_session(session)).session.variables
    assert (there["mode"].tunable, there["depth"].tunable) == (False, True)
    assert there["depth"].when == session.variables["depth"].when


def test_what_a_claim_is_on_is_not_set(session, state):
    document = changed(export_session(session), "variables", "n", "value", to=9)
    with session.fork() as other:
        other.claim(["n"], owner="someone", ttl=60)
        before = state(other)
        with pytest.raises(Claimed):
            import_session(document, other)
        assert state(other) == before


def test_another_kind_is_a_conflict_and_nothing_is_set(session, state):
    document = changed(export_session(session), "variables", "n", "kind", to={"kind": "integer", "max": 9})
    document = changed(document, "variables", "a", "value", to=9)
    before = state(session)
    with pytest.raises(VariableConflict, match="'n' is"):
        import_session(document, session)
    assert state(session) == before


def test_an_open_session_has_its_id_already(session):
    with pytest.raises(TypeError, match="as_id"):
        import_session(export_session(session), session, as_id="other")


# ---- what is refused ---------------------------------------------------------------------------------


V = "variables"
RECORD = {"value": 1, "version": 1, "rev": 1}
WRONG = [
    ((V, "n", "value"), "x", "variables.n.value must be an integer (got 'x')."),
    ((V, "temperature", "value"), 2.0, "variables.temperature.value must be at most 1.5 (got 2.0)."),
    ((V, "temperature", "initial"), -1, "variables.temperature.initial must be at least 0.0 (got -1.0)."),
    ((V, "n", "value"), ..., "variables.n must be an object with 'value' (got one without)."),
    ((V, "n", "version"), 0, "variables.n.version must be from 1 (got 0)."),
    ((V, "n", "version"), 2**63, "variables.n.version must be from 1 (got 9223372036854775808)."),
    ((V, "n", "version"), True, "variables.n.version must be of type int (got one of type bool)."),
    ((V, "n", "rev"), 3, "variables.n.rev must be from 1 to 2 (got 3)."),
    ((V, "n", "time"), "now", "variables.n.time must be of type float (got one of type str)."),
    ((V, "n", "source"), "x" * 257, "variables.n.source must be text of at most 256 characters"),
    ((V, "n", "metadata"), [1], "variables.n.metadata must be a mapping (got [1])."),
    ((V, "n", "metadata"), {"a": 2**64}, "variables.n.metadata must be"),
    ((V, "n", "metadata"), {"a": "x" * 17_000}, "variables.n.metadata: metadata takes 17"),
    ((V, "n", "value:msgpack"), "AQ==", "variables.n.value:msgpack must be left out where there is 'value'"),
    ((V, "n", "metadata:msgpack"), "no base64!", "variables.n.metadata:msgpack must be base64 (got 'no bas"),
    ((V, "n", "kind"), {"kind": "intger"}, "variables.n.kind: There is no kind 'intger'. Did you mean"),
    ((V, "n", "kind"), {"kind": "integer", "mix": 1}, "variables.n.kind: Integer has no constraint 'mix'."),
    ((V, "n", "kind"), 7, "variables.n.kind: A kind's description must be a mapping with 'kind' (got 7)."),
    ((V, "n", "kind"), ..., "variables.n must be an object with 'kind' (got one without)."),
    ((V, "n", "intial"), 7, "variables.n has a field that nobody reads, 'intial'. Did you mean 'initial'?"),
    ((V, "n"), 7, "variables.n must be of type object (got one of type int)."),
    ((V, "a/b"), {"kind": {"kind": "integer"}, "initial": 0}, "variables.a/b: a name must match"),
    ((V,), [], "variables must be of type object (got one of type array)."),
    (("rev",), 1, "variables.temperature.rev must be from 1 to 1 (got 2)."),
    (("rev",), -1, "rev must be from 0 (got -1)."),
    (("rev",), 2**70, "rev must be"),
    (("dspex",), 2, "dspex must be 1, which this dspex reads (got 2)."),
    (("session",), "a/b", "session: a session id must be 1 to 64"),
    (("epoch",), ..., "the document must be an object with 'epoch' (got one without)."),
    (("tags", "a b"), {"rev": 1}, "tags.a b: a name must match"),
    (("tags", "begin", "rev"), 9, "tags.begin.rev must be from 0 to 2 (got 9)."),
    (("tags", "begin", "rev"), 0, "tags.begin must be of versions that there were at revision 0 (got n: 1)."),
    (("tags", "begin", "unset"), ["tempo"], "tags.begin must be of variables that are declared"),
    (("tags", "begin", V, "n", "version"), 2, "tags.begin.variables.n must be what is said of version 2"),
    (("tags", "begin", V, "m"), RECORD, "tags.begin.variables.m must be of a variable that is declared"),
    (("history", "start"), 3, "start must be from 0 to 2 (got 3)."),
    (("history", "changes", 0, "name"), "m", "history.changes[0] must be of a variable that is declared"),
    (("history", "changes", 1, "value"), 5, "history.changes[1] must be what is said of version 2 elsewhere"),
    (("history", "changes", 1, "old"), 5, "history.changes[1].old must be the value before (got 5)."),
    (("history", "changes", 0), ..., "version 1 of 'n' must be in the history, which has all after"),
    (("history", "changes", 1), ..., "history.changes[0] must be version 2 of 'n': the history of a"),
    (("history", "changes", 2), ..., "version 1 of 'temperature' must be in the history"),
    (("history", "changes", 0, "rev"), 2, "history.changes[0] must be what is said of version 1 elsewhere"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "sentence"), WRONG, ids=[str(number) for number in range(len(WRONG))]
)
def test_a_document_that_is_wrong_is_refused_with_the_path(session, state, path, value, sentence):
    document = changed(export_session(session, history=path[0] == "history"), *path, to=value)
    store, before = MemoryStore(), state(session)
    for target in (store, session):
        with pytest.raises((InvalidValue, InvalidName, InvalidDeclaration, LimitExceeded)) as error:
            import_session(document, target)
        assert str(error.value).startswith(sentence)
    assert store.sessions() == []
    assert state(session) == before


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("", "line 1, column 1 of the document must be JSON (Expecting value) (got '')."),
        ("{\n", "line 2, column 1 of the document must be JSON (Expecting property name"),
        ('{\n  "dspex": 1,\n  oops\n}', "line 3, column 3 of the document must be JSON (Expecting"),
        (b"\xff\xfe\xff", "byte 2 of the document must be UTF-8 (got truncated data)."),
        (b'{"dspex": "\xff"}', "byte 11 of the document must be UTF-8"),
        ('{"dspex": NaN}', "the document must be JSON, which has no such number (got NaN)."),
        ('{"dspex": 1e999}', "the document must be JSON, which has no such number (got 1e999)."),
        ('{"dspex": ' + "9" * 5_000 + "}", "the document must be JSON"),
        ("[" * 100_000, "the document must be JSON"),
        ('{"dspex": 1, "dspex": 1}', "the document must be an object in which no name comes twice"),
        ("7", "the document must be of type object (got one of type int)."),
        ("null", "the document must be of type object (got one of type null)."),
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused_with_the_line(document, sentence):
    store = MemoryStore()
    with pytest.raises(InvalidValue) as error:
        import_session(document, store)
    assert str(error.value).startswith(sentence)
    assert store.sessions() == []


def test_too_much_of_anything_is_refused(session, monkeypatch):
    document = export_session(session)
    for limit, sentence in (("NAMES", "may have 2 variables"), ("TAGS", "may have 0")):
        with monkeypatch.context() as patch:
            patch.setattr(base, limit, 2 if limit == "NAMES" else 0)
            with pytest.raises(LimitExceeded, match=sentence):
                import_session(document, MemoryStore())


def test_an_id_that_is_taken_is_refused(session, store, imports):
    document = export_session(session)
    with pytest.raises(SessionExists):
        import_session(document, store)
    assert imports(document, as_id="other").session.id == "other"


# ---- anything ----------------------------------------------------------------------------------------


def plain():
    leaves = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3)
    leaves |= st.sampled_from([2**63, "integer", "AQ==", math.inf])
    return st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
    )


@pytest.fixture
def text(session):
    return export_session(session, history=True)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_in_a_document_it_is_a_session_or_refused(text, data):
    document = json.loads(text)
    for _ in range(data.draw(st.integers(1, 3))):
        at = document
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(at[key], dict | list) or not at[key] or data.draw(st.integers(0, 3)) == 0:
                at[key] = data.draw(plain())
                break
            at = at[key]
    with suppress(DspexError):
        import_session(json.dumps(document), MemoryStore()).session.close()


@pytest.fixture
def whole(session):
    session.claim(["a"], owner="someone", ttl=60)
    return pieces_of(session.ledger.export())


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_in_the_pieces_of_an_export_it_is_one_or_refused(whole, data):
    pieces = list(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        index = data.draw(st.integers(0, len(pieces) - 1))
        piece = bytearray(pieces[index])
        at = data.draw(st.integers(0, len(piece)))
        piece[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        pieces[index] = bytes(piece)
    if data.draw(st.booleans()):
        pieces.insert(data.draw(st.integers(0, len(pieces))), data.draw(st.sampled_from(pieces)))
    with suppress(DspexError):
        export = unpacked(pieces)
        assert digest(unpacked(pieces_of(export))) == digest(export)


@pytest.mark.parametrize("document", [3, None, ["{}"], {}])
def test_what_is_no_text_is_no_document(session, document):
    with pytest.raises(InvalidValue, match="the document must be JSON, as str or bytes"):
        import_session(document, session)
