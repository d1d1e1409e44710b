"""Values as typed on a command line or into a form, and what forms are told."""

from __future__ import annotations

import attrs
import pytest

from dspex.errors import InvalidValue
from dspex.kinds import (
    Boolean,
    Choice,
    Demos,
    Embedding,
    Float,
    Integer,
    ListOf,
    ModuleChoice,
    Prompt,
    Secret,
    Struct,
    Tensor,
    Text,
)


@attrs.frozen
class Point:
    x: int
    y: float = 0.0


PARSED = [
    (Float(), "0.7", 0.7),
    (Float(), " 1e-3 ", 0.001),
    (Float(), "3", 3.0),
    (Integer(), "8", 8),
    (Integer(), "8.0", 8),
    (Integer(), "8e3", 8000),
    (Integer(), "9223372036854775807", 2**63 - 1),
    *((Boolean(), text, True) for text in ("true", "True", "yes", "ON", "1", " on ")),
    *((Boolean(), text, False) for text in ("false", "no", "off", "0")),
    (Text(), " as it is ", " as it is "),
    (Text(), '"quoted"', '"quoted"'),
    (Secret(), "sk-1", Secret().check("sk-1")),
    (Prompt(), "{q}", "{q}"),
    (Choice("a", "b"), "a", "a"),
    (Choice("a", "b"), '"a"', "a"),
    (Choice(1, "1", True), "1", 1),
    (Choice(1, "1", True), '"1"', "1"),
    (Choice(1, "1", True), "true", True),
    (Choice("1", True), "1", "1"),
    (Choice("1", True), "True", True),
    (Choice(True, "True"), "True", "True"),
    (Choice(None, 1.0), "None", None),
    (Choice(None, 1.0), "null", None),
    (Choice(None, 1.0), "1.0", 1.0),
    (ModuleChoice("Predict"), "Predict", "Predict"),
    (ListOf(Float()), "[1, 2.5]", (1.0, 2.5)),
    (ListOf(ListOf(Text())), '[["a"], []]', (("a",), ())),
    (Demos(), '[{"q": ["a", null]}]', ({"q": ("a", None)},)),
    (Struct(Point), '{"x": 1}', Point(1, 0.0)),
    (Struct(Point), '{"x": 1, "y": 2}', Point(1, 2.0)),
]


@pytest.mark.parametrize(("kind", "text", "value"), PARSED)
def test_text_is_understood(kind, text, value):
    parsed = kind.parse(text)
    assert value == parsed
    assert type(value) is type(parsed)


def test_arrays_are_json():
    assert Embedding().parse("[1, 2]").tolist() == [1.0, 2.0]
    assert Tensor(shape=(2, 1), dtype="int8").parse("[[1], [2]]").tolist() == [[1], [2]]


REFUSED = [
    (Float(), "warm", "value must be a float (got 'warm')."),
    (Float(max=1.5), "2", "value must be at most 1.5 (got 2.0)."),
    (Float(), "nan", "value must be a finite number (got nan)."),
    (Integer(), "many", "value must be an integer (got 'many')."),
    (Integer(), "0.5", "value must be a whole number (got 0.5)."),
    (Integer(max=3), "4", "value must be at most 3 (got 4)."),
    (Boolean(), "maybe", "value must be true, false, yes, no, on, off, 1 or 0 (got 'maybe')."),
    (Choice("a", 1), "b", "value must be one of 'a', 1 (got 'b')."),
    (Choice(1.0), "1", "value must be one of 1.0 (got '1')."),
    (ListOf(Float()), "1, 2", "value must be a list as JSON (got '1, 2')."),
    (ListOf(Secret()), "sk-1", "value must be a list as JSON (got '•••')."),
    (Demos(), "{}", "value must be a list (got {})."),
    (Struct(Point), "x=1", "value must be an object as JSON (got 'x=1')."),
    (Embedding(), "[1", "value must be an array as JSON (got '[1')."),
]


@pytest.mark.parametrize(("kind", "text", "sentence"), REFUSED)
def test_text_that_is_not_understood_is_refused_with_a_sentence(kind, text, sentence):
    with pytest.raises(InvalidValue) as refused:
        kind.parse(text)
    assert sentence == str(refused.value)


SCHEMAS = [
    (Float(), {"type": "number"}),
    (Float(min=0, max=1.5, step=0.1), {"type": "number", "minimum": 0.0, "maximum": 1.5}),
    (Integer(min=1), {"type": "integer", "minimum": 1}),
    (Boolean(), {"type": "boolean"}),
    (Text(min_length=1, max_length=2), {"type": "string", "minLength": 1, "maxLength": 2}),
    (
        Text(pattern="a|b", choices=["a"]),
        {"type": "string", "pattern": "^(?:a|b)$", "enum": ["a"]},
    ),
    (Prompt(max_length=9), {"type": "string", "maxLength": 9}),
    (Secret(), {"type": "string", "format": "password", "writeOnly": True}),
    (Choice("a", 1), {"enum": ["a", 1]}),
    (ModuleChoice("a"), {"enum": ["a"]}),
    (
        ListOf(Float(), min_items=1, max_items=2),
        {"type": "array", "items": {"type": "number"}, "minItems": 1, "maxItems": 2},
    ),
    (Demos(), {"type": "array", "items": {"type": "object"}}),
    (
        Demos(fields=["q"], max_items=8),
        {"type": "array", "items": {"type": "object", "required": ["q"]}, "maxItems": 8},
    ),
    (Embedding(), {"type": "array", "items": {"type": "number"}}),
    (Embedding(3), {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}),
    (Tensor(), {"type": ["array", "number", "boolean"]}),
    (
        Tensor(shape=(None, 2), dtype="bool"),
        {
            "type": "array",
            "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2},
        },
    ),
    (Tensor(shape=(), dtype="int8"), {"type": "number"}),
    (
        Struct(Point),
        {
            "title": "Point",
            "type": "object",
            "properties": {"x": {"type": "integer"}, "y": {"type": "number", "default": 0.0}},
            "required": ["x"],
            "additionalProperties": False,
        },
    ),
]


@pytest.mark.parametrize(("kind", "schema"), SCHEMAS)
def test_the_json_schema_says_what_the_kind_takes(kind, schema):
    assert schema == kind.json_schema()


DESCRIPTIONS = [
    (Float(min=0, max=1.5), {"kind": "float", "min": 0.0, "max": 1.5}),
    (Boolean(), {"kind": "boolean"}),
    (Choice("a", 1, ordered=True), {"kind": "choice", "choices": ["a", 1], "ordered": True}),
    (
        ListOf(Text(max_length=3), max_items=2),
        {"kind": "list", "item": {"kind": "string", "max_length": 3}, "max_items": 2},
    ),
    (Tensor(shape=(None, 3)), {"kind": "tensor", "shape": [None, 3]}),
]


@pytest.mark.parametrize(("kind", "described"), DESCRIPTIONS)
def test_a_description_has_the_constraints_that_are_set(kind, described):
    assert described == kind.describe()
