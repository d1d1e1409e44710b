"""What kinds refuse when they are made, and when they are registered."""

from __future__ import annotations

import math
from datetime import datetime
from enum import Enum

import attrs
import pytest

from dspex.errors import InvalidDeclaration
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
class When:
    at: datetime


@attrs.frozen
class Lost:
    what: "Nowhere"  # noqa: F821, UP037 - a type that cannot be found


SCALARS = "None, booleans, 64-bit integers, finite floats or valid text"
FLOAT_TAKES = "It takes 'allow_nan', 'log', 'max', 'min', 'step'."

REFUSED = [
    # unknown constraints
    (Float, {"minn": 0}, f"Float has no constraint 'minn'. Did you mean 'min'? {FLOAT_TAKES}"),
    (Float, {"colour": 0}, f"Float has no constraint 'colour'. {FLOAT_TAKES}"),
    (Float, {"_low": 0}, f"Float has no constraint '_low'. {FLOAT_TAKES}"),
    (Boolean, {"min": 0}, "Boolean has no constraint 'min'. It takes none."),
    (
        Choice,
        {"choises": ["a"]},
        "Choice has no constraint 'choises'. Did you mean 'choices'? It takes 'choices', 'ordered'.",
    ),
    (
        ModuleChoice,
        {"ordered": True},
        "ModuleChoice has no constraint 'ordered'. It takes 'choices'.",
    ),
    # bounds
    (Float, {"min": 2.0, "max": 1}, "Float: min must be at most max, which is 1.0 (got 2.0)."),
    (Float, {"min": "0"}, "Float: min must be a finite number (got '0')."),
    (Float, {"max": True}, "Float: max must be a finite number (got True)."),
    (Float, {"min": math.nan}, "Float: min must be a finite number (got nan)."),
    (Float, {"max": math.inf}, "Float: max must be a finite number (got inf)."),
    (Float, {"max": 10**400}, "Float: max must be a finite number (got an integer of 1329 bits)."),
    (Float, {"step": 0}, "Float: step must be above 0 (got 0.0)."),
    (Float, {"step": "0.1"}, "Float: step must be a finite number (got '0.1')."),
    (Float, {"log": True}, "Float: min must be above 0 when log is True (got None)."),
    (Float, {"log": True, "min": 0}, "Float: min must be above 0 when log is True (got 0.0)."),
    (
        Float,
        {"log": True, "min": 1, "max": 2, "step": 0.5},
        "Float: step must be left out when log is True (got 0.5).",
    ),
    (Float, {"log": True, "min": 1, "step": 1}, "Float: step must be left out when log is True (got 1.0)."),
    (Float, {"log": 1, "min": 1}, "Float: log must be True or False (got 1)."),
    (Float, {"allow_nan": None}, "Float: allow_nan must be True or False (got None)."),
    (Integer, {"min": 3, "max": 1}, "Integer: min must be at most max, which is 1 (got 3)."),
    (Integer, {"min": 0.5}, "Integer: min must be a 64-bit integer (got 0.5)."),
    (Integer, {"max": 2**63}, "Integer: max must be a 64-bit integer (got 9223372036854775808)."),
    (Integer, {"max": False}, "Integer: max must be a 64-bit integer (got False)."),
    (Integer, {"step": -1}, "Integer: step must be above 0 (got -1)."),
    (Integer, {"log": True, "min": 1, "step": 2}, "Integer: step must be left out when log is True (got 2)."),
    (Integer, {"log": True, "min": -1}, "Integer: min must be above 0 when log is True (got -1)."),
    # lengths
    (
        Text,
        {"min_length": 3, "max_length": 2},
        "Text: min_length must be at most max_length, which is 2 (got 3).",
    ),
    (Text, {"max_length": -1}, "Text: max_length must be a whole number from 0 (got -1)."),
    (Secret, {"min_length": 1.5}, "Secret: min_length must be a whole number from 0 (got 1.5)."),
    (Prompt, {"max_length": True}, "Prompt: max_length must be a whole number from 0 (got True)."),
    (
        ListOf,
        {"item": Float(), "min_items": 2, "max_items": 1},
        "ListOf: min_items must be at most max_items, which is 1 (got 2).",
    ),
    (Demos, {"max_items": "8"}, "Demos: max_items must be a whole number from 0 (got '8')."),
    # patterns and names
    (Text, {"pattern": "("}, "Text: pattern must be a regular expression (got '(')."),
    (Text, {"pattern": b"a"}, "Text: pattern must be a regular expression (got b'a')."),
    (Text, {"choices": ()}, "Text: choices must be a list of different texts, at least one (got ())."),
    (Text, {"choices": "ab"}, "Text: choices must be a list of different texts, at least one (got 'ab')."),
    (
        Text,
        {"choices": ["a", "a"]},
        "Text: choices must be a list of different texts, at least one (got ('a', 'a')).",
    ),
    (
        Text,
        {"choices": ["a", 1]},
        "Text: choices must be a list of different texts, at least one (got ('a', 1)).",
    ),
    (
        Text,
        {"choices": ["ok", "long"], "max_length": 2},
        "Text: choices must be possible: at most 2 characters long (got 'long').",
    ),
    (
        Prompt,
        {"placeholders": []},
        "Prompt: placeholders must be a list of different texts, at least one (got ()).",
    ),
    (Prompt, {"placeholders": ["a.b"]}, "Prompt: placeholders must be names as in Python (got ('a.b',))."),
    (
        Demos,
        {"fields": ["q", "\ud800"]},
        "Demos: fields must be a list of different texts, at least one (got ('q', '\\ud800')).",
    ),
    # choices
    (Choice, {}, "Choice: choices must be at least one value (got ())."),
    (Choice, {"choices": []}, "Choice: choices must be at least one value (got ())."),
    (Choice, {"choices": "ab"}, "Choice: choices must be a list of values (got 'ab')."),
    (Choice, {"choices": 3}, "Choice: choices must be a list of values (got 3)."),
    (Choice, {"choices": [1, 1]}, "Choice: choices must be different from each other (got (1, 1))."),
    (
        Choice,
        {"choices": [0.0, -0.0]},
        "Choice: choices must be different from each other (got (0.0, -0.0)).",
    ),
    (Choice, {"choices": [math.nan]}, f"Choice: choices must be {SCALARS} (got nan)."),
    (Choice, {"choices": [2**63]}, f"Choice: choices must be {SCALARS} (got 9223372036854775808)."),
    (Choice, {"choices": [["a"]]}, f"Choice: choices must be {SCALARS} (got ['a'])."),
    (Choice, {"choices": ["\ud800"]}, f"Choice: choices must be {SCALARS} (got '\\ud800')."),
    (Choice, {"choices": [1], "ordered": 1}, "Choice: ordered must be True or False (got 1)."),
    (ModuleChoice, {}, "ModuleChoice: choices must be at least one value (got ())."),
    (ModuleChoice, {"choices": ["a", ""]}, "ModuleChoice: choices must be names of modules (got '')."),
    (ModuleChoice, {"choices": [1]}, "ModuleChoice: choices must be names of modules (got 1)."),
    # arrays
    (Embedding, {"dimensions": -1}, "Embedding: dimensions must be a whole number from 0 (got -1)."),
    (Tensor, {"shape": 3}, "Tensor: shape must be a list of sizes, each from 0 or None (got 3)."),
    (Tensor, {"shape": (1, -1)}, "Tensor: shape must be a list of sizes, each from 0 or None (got (1, -1))."),
    (Tensor, {"shape": [True]}, "Tensor: shape must be a list of sizes, each from 0 or None (got (True,))."),
    (
        Tensor,
        {"dtype": "object"},
        (
            "Tensor: dtype must be one of bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64,"
            " float16, float32, float64, complex64, complex128 (got 'object')."
        ),
    ),
    # parts
    (ListOf, {"item": float}, "ListOf: item must be a kind, such as Float() (got <class 'float'>)."),
    (Struct, {"cls": 3}, "Struct: cls must be an attrs class (got 3)."),
    (Struct, {"cls": int}, "Struct: cls must be an attrs class (got <class 'int'>)."),
    (Struct, {"cls": When(None)}, "Struct: cls must be an attrs class (got When(at=None))."),
    (Struct, {}, "Struct: class_name must be the name of a class (got '')."),
    (
        Struct,
        {"class_name": "A", "schema": 3},
        "Struct: schema must be the JSON Schema of an object (got b'3').",
    ),
    (
        Struct,
        {"class_name": "A", "schema": {"properties": []}},
        """Struct: schema must be the JSON Schema of an object (got b'{"properties":[]}').""",
    ),
    (
        Struct,
        {"class_name": "A", "schema": object()},
        "Struct: schema must be the JSON Schema of an object (got b'').",
    ),
    (
        Struct,
        {"cls": When},
        (
            f"Struct: cls must be an attrs class of plain data (got {When!r}: Unsupported type:"
            " <class 'datetime.datetime'>. Register a structure hook for it.)."
        ),
    ),
    (
        Struct,
        {"cls": Lost},
        f"Struct: cls must be an attrs class of plain data (got {Lost!r}: name 'Nowhere' is not defined).",
    ),
]


def ids(rows):
    return [f"{number}-{row[0].__name__}" for number, row in enumerate(rows)]


@pytest.mark.parametrize(("cls", "constraints", "sentence"), REFUSED, ids=ids(REFUSED))
def test_a_declaration_that_can_never_work_says_why(cls, constraints, sentence):
    with pytest.raises(InvalidDeclaration) as refused:
        cls(**constraints)
    assert sentence == str(refused.value)
    assert cls.__name__ == refused.value.kind


def test_choices_are_given_once():
    with pytest.raises(InvalidDeclaration) as refused:
        Choice("a", choices=["b"])
    assert str(refused.value) == "Choice: choices must be given by position or by name, not both (got ['b'])."


EQUAL = [
    (Float(min=0, max=1), Float(min=0.0, max=1.0)),
    (Integer(min=1.0), Integer(min=1)),
    (Choice("a", "b"), Choice(choices=["a", "b"])),
    (ModuleChoice("a"), ModuleChoice(choices=("a",))),
    (Text(choices=["a"]), Text(choices=("a",))),
    (Tensor(shape=[None, 3]), Tensor(shape=(None, 3))),
    (Prompt(placeholders=("a", "b")), Prompt(placeholders=("b", "a"))),
    (Struct(attrs.make_class("A", {"x": attrs.field(type=int)})),) * 2,
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_kinds_with_equal_constraints_are_equal(one, other):
    assert one == other
    assert hash(one) == hash(other)


DIFFERENT = [
    (Float(), Float(allow_nan=True)),
    (Float(), Integer()),
    (Choice(1), Choice(True)),
    (Choice(1), Choice(1.0)),
    (Choice("a", "b"), Choice("b", "a")),
    (Choice("a"), ModuleChoice("a")),
    (Prompt(), Prompt(placeholders=("a",))),
    (ListOf(Float()), ListOf(Integer())),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_kinds_with_other_constraints_are_different(one, other):
    assert one != other


@pytest.mark.parametrize("cls", [Choice, ModuleChoice])
@pytest.mark.parametrize("options", [["a", "b"], ("a",), {"a"}, Enum("Mode", {"A": "a"}), iter("ab")])
def test_options_in_one_list_are_refused_with_how_to_give_them(cls, options):
    with pytest.raises(InvalidDeclaration) as refused:
        cls(options)
    name = cls.__name__
    assert str(refused.value).startswith(
        f"{name}: choices must be given one by one, {name}('a', 'b'), or by name, "
        f"{name}(choices=['a', 'b']) (got "
    )


REPRS = [
    (Float(min=0, max=1.5), "Float(min=0.0, max=1.5)"),
    (Boolean(), "Boolean()"),
    (Choice("a", 1), "Choice(choices=('a', 1))"),
    (ListOf(Text(max_length=3), max_items=2), "ListOf(item=Text(max_length=3), max_items=2)"),
    (Struct(attrs.make_class("Point", {"x": attrs.field(type=int)})), "Struct(Point)"),
]


@pytest.mark.parametrize(("kind", "expected"), REPRS)
def test_the_repr_has_the_constraints_that_are_set(kind, expected):
    assert expected == repr(kind)


def test_a_kind_does_not_change():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Float().min = 3.0


def test_a_kind_has_no_dict_and_no_room_for_more():
    assert not hasattr(Float(), "__dict__")


# Registering


def test_the_registry_has_every_kind_as_its_author_sees_it():
    known = {"float": Float, "module": ModuleChoice, "list": ListOf, "string": Text}
    assert known == {name: Kind.registry[name] for name in known}
    with pytest.raises(TypeError):
        Kind.registry["mine"] = Float


def test_a_kind_made_again_in_its_place_takes_the_name():
    def cell():
        @attrs.frozen
        class Again(Kind[int], name="test.again"):
            def check(self, value):
                return value

        return Again

    cell()
    latest = cell()
    assert Kind.registry["test.again"] is latest
    assert type(Kind.from_description({"kind": "test.again"})) is latest


def test_a_name_belongs_to_one_kind():
    with pytest.raises(InvalidDeclaration) as refused:

        class Mine(Kind[float], name="float"):
            pass

    assert str(refused.value) == "Mine: the wire name 'float' is taken by dspex.kinds.numbers.Float."
    assert Kind.registry["float"] is Float


@pytest.mark.parametrize("name", ["", "Money", "9", "a b", "é", "a" * 65, 3])
def test_a_name_must_be_well_formed(name):
    with pytest.raises(InvalidDeclaration) as refused:

        class Mine(Kind[float], name=name):
            pass

    assert f"Mine: the wire name must match [a-z][a-z0-9_.-]{{0,63}} (got {name!r})." == str(refused.value)


def test_a_kind_that_derives_from_another_needs_its_own_name():
    with pytest.raises(InvalidDeclaration) as refused:

        class Percent(Float):
            pass

    assert str(refused.value) == "Percent needs a wire name of its own: class Percent(…, name='…')."


def test_a_kind_without_check_cannot_be_made():
    @attrs.frozen
    class Nothing(Kind[int], name="test.nothing"):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()


def test_the_defaults_serve_a_kind_that_only_checks():
    @attrs.frozen
    class Even(Kind[int], name="test.even"):
        most: int = 8

        def check(self, value):
            if value in range(0, self.most + 1, 2):
                return value
            raise self.refusal("even", value)

    kind = Even(most=4)
    assert kind == Kind.from_description(kind.describe())
    assert kind.load(kind.dump(kind.check(2))) == 2
    assert kind.json_schema() == {}
    assert kind.show(2) == "2"
    assert kind.size(2) == 1
    assert not kind.fixed
    assert not kind.secret
    assert kind.narrows(Even(most=4))
    assert not kind.narrows(Even())
    with pytest.raises(ValueError, match=r"^value must be even \(got '2'\)\.$"):
        kind.parse("2")
    with pytest.raises(InvalidDeclaration, match=r"^Even has no constraint 'mst'\. Did you mean 'most'\?"):
        Even(mst=3)
