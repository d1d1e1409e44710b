"""What holds for every kind and every value; a kind without samples fails here."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from itertools import product

import attrs
import hypothesis.strategies as st
import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from dspex.errors import InvalidDeclaration, InvalidValue, LimitExceeded
from dspex.kinds import (
    Boolean,
    Choice,
    Demos,
    Embedding,
    Float,
    Integer,
    Kind,
    ListOf,
    ModuleChoice,
    Prompt,
    Secret,
    Struct,
    Tensor,
    Text,
)


@attrs.frozen
class Limits:
    """How much a step may use."""

    tokens: int = attrs.field(validator=attrs.validators.ge(0))
    share: float = 0.5
    stop: tuple[str, ...] = ()


INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NAMES = st.sampled_from(("q", "a", "é"))
PLAIN = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | TEXT | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FLOAT32 = st.floats(width=32)
SHAPES = st.lists(st.integers(0, 3), max_size=3).map(tuple)


def arrays(dtype):
    return SHAPES.flatmap(
        lambda shape: st.binary(
            min_size=(size := int(np.prod(shape)) * np.dtype(dtype).itemsize), max_size=size
        ).map(lambda data: np.frombuffer(data, dtype).reshape(shape))
    )


SAMPLES = {
    "boolean": [(Boolean(), st.booleans())],
    "choice": [(Choice("a", 1, 1.0, True, None), st.sampled_from(("a", 1, 1.0, True, None)))],
    "demos": [
        (Demos(), st.lists(st.dictionaries(TEXT, PLAIN, max_size=3), max_size=3)),
        (Demos(fields=("q",), max_items=2), st.lists(st.fixed_dictionaries({"q": PLAIN}), max_size=2)),
    ],
    "embedding": [
        (Embedding(), st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9))),
        (Embedding(dimensions=2), st.lists(INT64, min_size=2, max_size=2).map(np.array)),
    ],
    "float": [
        (Float(), st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**100), 2**100)),
        (Float(allow_nan=True), st.floats()),
        (Float(min=0.0, max=1.5), st.floats(0, 1.5)),
        (Float(min=1e-5, log=True), st.floats(1e-5, 1e300)),
        (Float(min=-1, step=0.1), st.integers(0, 10**6).map(lambda steps: -1 + steps * 0.1)),
    ],
    "integer": [
        (Integer(), INT64 | st.integers(-(2**53), 2**53).map(float)),
        (Integer(min=-3, step=4), st.integers(0, 99).map(lambda steps: -3 + 4 * steps)),
    ],
    "list": [
        (ListOf(Float()), st.lists(st.floats(0, 1), max_size=5)),
        (ListOf(ListOf(Secret()), max_items=3), st.lists(st.lists(TEXT, max_size=3), max_size=3)),
        (ListOf(Tensor(dtype="float32")), st.lists(arrays("<f4"), max_size=2)),
        (ListOf(Struct(Limits)), st.lists(st.builds(Limits, tokens=st.integers(0, 9)), max_size=2)),
    ],
    "module": [(ModuleChoice("Predict", "ReAct"), st.sampled_from(("Predict", "ReAct")))],
    "prompt": [
        (Prompt(), TEXT.map(lambda text: text.replace("{", "{{").replace("}", "}}"))),
        (Prompt(placeholders=("q", "a")), st.permutations(("{q}", "{a}", "{{", " ")).map("".join)),
    ],
    "secret": [(Secret(), TEXT), (Secret(min_length=1, max_length=9), st.just("sk-123\0"))],
    "string": [(Text(), TEXT), (Text(pattern="[ab]*", max_length=9), st.text("ab", max_size=9))],
    "struct": [
        (Struct(Limits), st.builds(Limits, INT64.filter(lambda n: n >= 0), st.floats(0, 1), st.tuples(TEXT))),
        (Struct(Limits), st.fixed_dictionaries({"tokens": st.integers(0, 9)}, optional={"share": FLOAT32})),
        (
            Kind.from_description(Struct(Limits).describe()),
            st.fixed_dictionaries({"tokens": INT64}, optional={"stop": st.lists(TEXT)}),
        ),
    ],
    "tensor": [
        (Tensor(), arrays("<f4") | arrays(">f8") | arrays(">i2") | arrays("<c8") | arrays("u1")),
        (Tensor(dtype="float64"), arrays("f4")),
        (
            Tensor(shape=(None, 2), dtype="float16"),
            st.lists(st.tuples(FLOAT32, FLOAT32).map(lambda _: (1, 2.5))).filter(len),
        ),
    ],
}
ALL = [(kind, values) for samples in SAMPLES.values() for kind, values in samples]
KINDS = [kind for kind, _ in ALL]
OURS = [name for name, kind in Kind.registry.items() if kind.__module__.startswith("dspex.")]


def exactly(kind, stored):
    """A stored value as bytes and types: equal where nothing at all differs."""
    return msgspec.msgpack.encode(kind.dump(stored)), types_of(stored)


def types_of(value):
    if isinstance(value, tuple | list):
        return type(value), [types_of(item) for item in value]
    if hasattr(value, "items"):
        return type(value), {key: types_of(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return type(value), value.dtype, value.shape, value.flags.writeable
    return type(value)


@pytest.mark.parametrize("name", OURS)
def test_every_kind_has_samples(name):
    assert all(name == kind.name for kind, _ in SAMPLES[name])
    assert SAMPLES[name]


laws = settings(max_examples=50, deadline=None)  # the machine may be busy: no time is wrong
values = pytest.mark.parametrize(("kind", "values"), ALL, ids=map(repr, KINDS))
kinds = pytest.mark.parametrize("kind", KINDS, ids=map(repr, KINDS))


@values
@laws
@given(data=st.data())
def test_load_gives_back_every_bit_of_what_was_dumped(kind, values, data):
    stored = kind.check(data.draw(values))
    wire = msgspec.msgpack.decode(msgspec.msgpack.encode(kind.dump(stored)))
    assert exactly(kind, stored) == exactly(kind, kind.load(wire))
    assert exactly(kind, stored) == exactly(kind, kind.load(kind.dump(stored)))


@values
@laws
@given(data=st.data())
def test_what_is_stored_is_stored_again_unchanged(kind, values, data):
    stored = kind.check(data.draw(values))
    assert exactly(kind, stored) == exactly(kind, kind.check(stored))


@values
@laws
@given(data=st.data())
def test_a_dump_is_plain_and_no_larger_than_its_size(kind, values, data):
    stored = kind.check(data.draw(values))
    plain = kind.dump(stored)
    assert_plain(plain)
    assert len(msgspec.msgpack.encode(plain)) <= kind.size(stored)


def assert_plain(plain):
    assert plain is None or type(plain) in {bool, int, float, str, bytes, list, dict}
    for part in plain if type(plain) is list else plain.values() if type(plain) is dict else ():
        assert_plain(part)


def outcome(take, hostile):
    """The sentence of a refusal, or what was returned; any other error is one."""
    try:
        return "", take(hostile)
    except (InvalidDeclaration, InvalidValue) as error:
        return str(error), None


@kinds
@laws
@given(plain=PLAIN | st.integers() | st.floats() | st.text(), text=st.text())
def test_hostile_input_is_refused_with_a_sentence_and_nothing_else(kind, plain, text):
    for take, hostile in ((kind.load, plain), (kind.check, plain), (kind.parse, text)):
        refused, stored = outcome(take, hostile)
        assert refused.startswith("value must be ") if refused else kind.takes(stored)


@kinds
@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "1e999", "nan", "\ud800", "", '{"a":'], ids=repr)
def test_hostile_text_is_refused_with_a_sentence_and_nothing_else(kind, text):
    refused, stored = outcome(kind.parse, text)
    assert refused.startswith("value must be ") if refused else kind.takes(stored)


@values
@laws
@given(data=st.data())
def test_a_value_is_shown_in_one_short_line(kind, values, data):
    stored = kind.check(data.draw(values))
    assert len(kind.show(stored)) <= 200
    assert kind.show(stored).isprintable()
    if kind.secret:
        assert kind.show(stored) == "'•••'"


@kinds
def test_a_description_makes_the_kind_in_another_process(kind):
    described = kind.describe()
    rebuilt = Kind.from_description(msgspec.msgpack.decode(msgspec.msgpack.encode(described)))
    assert described == rebuilt.describe()
    assert rebuilt == Kind.from_description(described)
    assert hash(rebuilt) == hash(Kind.from_description(described))
    assert described["kind"] == kind.name
    assert_plain(described)
    if "struct" not in str(described):  # a class stays where it is
        assert kind == rebuilt
        assert hash(kind) == hash(rebuilt)


@values
@laws
@given(data=st.data())
def test_a_kind_made_of_a_description_holds_every_bit_of_a_value(kind, values, data):
    wire = kind.dump(kind.check(data.draw(values)))
    remote = Kind.from_description(kind.describe())
    assert msgspec.msgpack.encode(wire) == msgspec.msgpack.encode(remote.dump(remote.load(wire)))


@kinds
def test_a_kind_travels_by_pickle_and_copy(kind):
    assert kind == pickle.loads(pickle.dumps(kind)) == deepcopy(kind)


@kinds
def test_a_kind_narrows_itself(kind):
    assert kind.narrows(kind)


@kinds
def test_a_kind_narrows_no_kind_of_another_name(kind):
    assert not any(kind.narrows(other) for other in KINDS if other.name != kind.name)


@kinds
def test_a_json_schema_is_one_and_can_be_written_as_json(kind):
    schema = kind.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema, allow_nan=False)


@values
@laws
@given(data=st.data())
def test_a_value_as_json_fits_the_schema_and_is_parsed_to_itself(kind, values, data):
    stored = kind.check(data.draw(values))
    try:
        text = json.dumps(as_json(kind.dump(stored), stored), allow_nan=False)
    except (TypeError, ValueError):
        return  # bytes, NaN, complex numbers: not in JSON
    jsonschema.Draft202012Validator(kind.json_schema()).validate(json.loads(text))
    if kind.name in {"string", "secret", "prompt"}:
        text = stored
    if kind.name not in {"tensor", "embedding", "list"}:  # whose text leaves the dtype open
        assert exactly(kind, stored) == exactly(kind, kind.parse(text))


def as_json(plain, stored):
    if isinstance(stored, np.ndarray):
        return stored.tolist()
    if isinstance(plain, list):
        return [as_json(*pair) for pair in zip(plain, stored, strict=True)]
    return plain


@kinds
def test_a_kind_that_needs_no_measuring_has_only_small_values(kind):
    assert kind.fixed == (kind.name in {"float", "integer", "boolean", "choice", "module"})


NASTY = [None, True, -1, 0, 1, 2**70, float("nan"), 1e308, "", "a", "(", "a{9999999999999}", b"x"]
NASTY += [[], [None], [[]], [-1], ["a", "a"], {}, {"kind": "float"}, {"kind": 3}, {"properties": []}]
NASTY += [{"required": 3}, {"properties": {"x": 3}, "required": [{}]}, range(3), object(), {1: 2}]


@pytest.mark.parametrize("name", OURS)
def test_a_hostile_description_is_refused_with_a_sentence_and_nothing_else(name):
    constraints = [field.name for field in attrs.fields(Kind.registry[name])]
    for constraint, value in product([*constraints, "kind", "unknown", 3], NASTY):
        described = {"kind": name, "item": {"kind": "float"}, constraint: value}
        if name != "list":
            del described["item"]
        refused, kind = outcome(Kind.from_description, described)
        assert refused.endswith(".") if refused else kind == Kind.from_description(kind.describe())


def test_a_description_nested_without_end_is_refused():
    described = {"kind": "float"}
    for _ in range(500):
        described = {"kind": "list", "item": described}
    with pytest.raises(LimitExceeded, match=r"^value is nested deeper than 32 levels; that is the limit\.$"):
        Kind.from_description(described)
