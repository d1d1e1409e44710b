"""What a user may write where a kind is meant."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Literal, Optional

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
    ListOf,
    ModuleChoice,
    Prompt,
    Secret,
    Struct,
    Tensor,
    Text,
    as_kind,
)


class Color(Enum):
    RED = "red"
    BLUE = "blue"
    ROT = "red"  # noqa: PIE796 - an alias


class Level(IntEnum):
    LOW = 1
    HIGH = 3


class Odd(Enum):
    PAIR = (1, 2)


class Empty(Enum):
    pass


@attrs.frozen
class Point:
    x: int


@dataclass
class Data:
    x: int


SHORTHANDS = [
    (float, Float()),
    (int, Integer()),
    (str, Text()),
    (bool, Boolean()),
    (Color, Choice("red", "blue")),
    (Level, Choice(1, 3)),
    (Literal["a", 1, True, None], Choice("a", 1, True, None)),  # noqa: PYI061 - not an Optional
    (Literal[Color.RED, "x"], Choice("red", "x")),
    (Point, Struct(Point)),
    (list[float], ListOf(Float())),
    (list[list[Literal["a"]]], ListOf(ListOf(Choice("a")))),
    (list[Point], ListOf(Struct(Point))),
]


@pytest.mark.parametrize(("spec", "kind"), SHORTHANDS)
def test_a_python_type_means_a_kind(spec, kind):
    assert kind == as_kind(spec)


def test_a_kind_means_itself():
    kind = Float(min=0.0)
    assert as_kind(kind) is kind


SPELLINGS = [
    ("float", {"min": 0.0, "max": 1.5}, Float(min=0.0, max=1.5)),
    ("float", {"min": 0, "max": 1.5}, Float(min=0.0, max=1.5)),
    ("float", None, Float()),
    ("integer", {"step": 2}, Integer(step=2)),
    ("boolean", {}, Boolean()),
    ("string", {"choices": ["a"]}, Text(choices=["a"])),
    ("choice", {"choices": ["a", 1], "ordered": True}, Choice("a", 1, ordered=True)),
    ("module", {"choices": ["Predict", "ChainOfThought"]}, ModuleChoice("Predict", "ChainOfThought")),
    ("prompt", {"placeholders": ["q"]}, Prompt(placeholders=("q",))),
    ("secret", None, Secret()),
    ("demos", {"fields": ["q"]}, Demos(fields=("q",))),
    ("embedding", {"dimensions": 3}, Embedding(dimensions=3)),
    ("tensor", {"shape": [None, 3], "dtype": "float32"}, Tensor(shape=(None, 3), dtype="float32")),
    ("list", {"item": {"kind": "float", "min": 0}, "max_items": 2}, ListOf(Float(min=0), max_items=2)),
    ("list", {"item": Float()}, ListOf(Float())),
    ("struct", {"cls": Point}, Struct(Point)),
]


@pytest.mark.parametrize(("name", "constraints", "kind"), SPELLINGS)
def test_a_wire_name_with_constraints_means_the_same_kind(name, constraints, kind):
    assert kind == as_kind(name, constraints)
    assert hash(kind) == hash(as_kind(name, constraints))


KINDS = "The kinds are 'boolean', 'choice', "
OTHER = (
    "A kind is given as one, such as Float(); as float, int, str, bool, an Enum, a Literal, list[…]"
    " or an attrs class; or by its wire name (got {})."
)
BESIDE = (
    "Constraints go with a kind's wire name, such as 'float', or into the kind itself"
    " (got {'min': 0} beside {})."
)

REFUSED = [
    ("flaot", None, f"There is no kind 'flaot'. Did you mean 'float'? {KINDS}"),
    ("int", None, f"There is no kind 'int'. Did you mean 'integer'? {KINDS}"),
    ("\n" * 500, None, "There is no kind '" + "\\n" * 66),
    ("float", {"minn": 0}, "Float has no constraint 'minn'. Did you mean 'min'?"),
    ("float", {3: 0}, "Float has no constraint 3. It takes"),
    ("float", [("min", 0)], "Constraints must be a mapping (got [('min', 0)])."),
    ("float", {"min": 2, "max": 1}, "Float: min must be at most max, which is 1.0 (got 2.0)."),
    ("list", None, "ListOf needs the constraint 'item'."),
    ("choice", {}, "Choice needs the constraint 'choices'."),
    ("list", {"item": "float"}, "ListOf: item must be a kind, such as Float() (got 'float')."),
    ("list", {"item": {"min": 0}}, "A kind's description must be a mapping with 'kind' (got {'min': 0})."),
    ("list", {"item": {"kind": "flaot"}}, "There is no kind 'flaot'. Did you mean 'float'?"),
    (
        "list",
        {"item": {"kind": "float", "min": object}},
        "A kind's description must be a mapping whose 'min' is None, a boolean, an integer, a float, text,",
    ),
    (Float(), {"min": 0}, BESIDE.replace("{}", "Float()")),
    (float, {"min": 0}, BESIDE.replace("{}", "<class 'float'>")),
    (Float, None, "Float is a class of kinds: write Float(…)."),
    (dict, None, OTHER.format("<class 'dict'>")),
    (list, None, OTHER.format("<class 'list'>")),
    (Data, None, OTHER.format("")[:-3]),
    (dict[str, int], None, OTHER.format("dict[str, int]")),
    (Optional[float], None, OTHER.format("typing.Optional[float]")),  # noqa: UP045 - as users write it
    (None, None, OTHER.format("None")),
    (3, None, OTHER.format("3")),
    ([float], None, OTHER.format("[<class 'float'>]")),
    (list[dict], None, OTHER.format("<class 'dict'>")),
    (
        Odd,
        None,
        "Choice: choices must be None, booleans, 64-bit integers, finite floats or valid text (got (1, 2)).",
    ),
    (Empty, None, "Choice: choices must be at least one value (got ())."),
    (
        Literal[b"x"],
        None,
        "Choice: choices must be None, booleans, 64-bit integers, finite floats or valid text",
    ),
]


@pytest.mark.parametrize(("spec", "constraints", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_what_means_no_kind_is_refused_with_a_sentence(spec, constraints, sentence):
    with pytest.raises(InvalidDeclaration) as refused:
        as_kind(spec, constraints)
    assert str(refused.value).startswith(sentence)


@pytest.mark.parametrize(
    ("spec", "instead"),
    [
        (Data, " Data is a dataclass: decorate it with @attrs.frozen."),
        (
            Optional[float],  # noqa: UP045 - as users write it
            " A variable always has a value: let one stand for none, or list them, Choice(None, 'a').",
        ),
        (
            str | None,
            " A variable always has a value: let one stand for none, or list them, Choice(None, 'a').",
        ),
        (float | str, " A variable has one kind: declare one for each type."),
    ],
)
def test_what_is_often_tried_is_refused_with_what_to_write(spec, instead):
    with pytest.raises(InvalidDeclaration) as refused:
        as_kind(spec)
    assert str(refused.value).endswith(f").{instead}")


def test_constraints_stay_as_they_were():
    constraints = {"item": {"kind": "float", "min": 0}}
    as_kind("list", constraints)
    assert constraints == {"item": {"kind": "float", "min": 0}}
