"""Variables that are instances of an attrs class."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any

import attrs
import pytest

from dspex.errors import InvalidValue, LimitExceeded
from dspex.kinds import Kind, ListOf, Struct


class Color(Enum):
    RED = "red"


class Mode(StrEnum):
    FAST = "fast"


class Level(IntEnum):
    LOW = 1


@attrs.frozen
class Point:
    x: int = attrs.field(validator=attrs.validators.ge(0))
    y: float = 0.0


@attrs.frozen
class Path:
    points: tuple[Point, ...]
    names: list[str] = attrs.Factory(list)
    tags: frozenset[int] = frozenset()
    marks: set[str] = attrs.Factory(set)
    pair: tuple[int, str] = (0, "")
    color: Color = Color.RED
    mode: Mode = Mode.FAST
    level: Level = Level.LOW
    weights: dict[str, float] = attrs.Factory(dict)
    limit: int | None = None
    exact: bool = False
    data: bytes = b""
    rest: Any = None
    _private: int = 0


@attrs.define
class Tree:
    name: str
    children: list[Tree] = attrs.Factory(list)


@attrs.frozen
class Price:
    amount: Any = attrs.field(converter=lambda amount: Decimal(str(amount)))


@attrs.frozen
class Fussy:
    x: int

    def __attrs_post_init__(self):
        error = RuntimeError()
        error.add_note("of its own")
        raise error


FULL = Path(
    points=(Point(1, -0.0),),
    names=["a"],
    tags=frozenset({2}),
    marks={"m"},
    pair=(1, "b"),
    weights={"w": 0.5},
    limit=3,
    exact=True,
    data=b"\0",
    rest=[{"a": 1}],
    private=7,
)


def test_an_instance_is_stored_as_a_copy_that_is_equal():
    stored = Struct(Point).check(point := Point(1, 2.0))
    assert point == stored
    assert point is not stored


def test_a_mutable_instance_is_not_connected_to_what_is_stored():
    given = Tree("a", [Tree("b")])
    stored = Struct(Tree).check(given)
    given.children[0].name = "c"
    assert Tree("a", [Tree("b")]) == stored


def test_every_type_of_field_comes_back_as_it_was():
    kind = Struct(Path)
    stored = kind.check(FULL)
    assert attrs.evolve(FULL, rest=(MappingProxyType({"a": 1}),)) == stored
    assert stored == kind.load(kind.dump(stored))
    assert [Mode, Level, Color, list, set, frozenset] == [
        type(part)
        for part in (stored.mode, stored.level, stored.color, stored.names, stored.marks, stored.tags)
    ]


def test_a_dump_is_plain():
    assert (dumped := Struct(Path).dump(Struct(Path).check(FULL))) == {
        "points": [{"x": 1, "y": -0.0}],
        "names": ["a"],
        "tags": [2],
        "marks": ["m"],
        "pair": [1, "b"],
        "color": "red",
        "mode": "fast",
        "level": 1,
        "weights": {"w": 0.5},
        "limit": 3,
        "exact": True,
        "data": b"\0",
        "rest": [{"a": 1}],
        "_private": 7,
    }
    assert type(dumped["mode"]) is str


PATH = {"points": []}
REFUSED = [
    (Point, 3, "a Point, or a mapping of its fields (got 3)."),
    (Point, Tree("a"), "a Point, or a mapping of its fields (got Tree(name='a', children=[]))."),
    (Point, {}, "a Point with the field 'x' (got {})."),
    (Point, {"x": 1, "z": 2, "w": 3}, "a Point without the unknown 'w', 'z' (got {'x': 1, 'z': 2, 'w': 3})."),
    (Point, {"x": "1"}, "a Point whose x is an integer (got '1')."),
    (Point, {"x": True}, "a Point whose x is an integer (got True)."),
    (Point, {"x": 1.0}, "a Point whose x is an integer (got 1.0)."),
    (Point, {"x": 1, "y": "0"}, "a Point whose y is a float (got '0')."),
    (Point, {"x": -1}, "a Point that is valid ('x' must be >= 0: -1) (got {'x': -1})."),
    (Point, {"x": 2**63}, "a mapping whose 'x' is a 64-bit integer (got 9223372036854775808)."),
    (Path, PATH | {"points": [{"x": 1.5}]}, "a Path whose points[0].x is an integer (got 1.5)."),
    (Path, {"points": [{}]}, "a Path with the field 'points[0].x' (got {'points': [{}]})."),
    (Path, {"points": [4]}, "a Path whose points[0] is of type Point (got {'points': [4]})."),
    (Path, {"points": {}}, "a Path whose points is a list (got mappingproxy({}))."),
    (Path, PATH | {"names": "abc"}, "a Path whose names is a list (got 'abc')."),
    (Path, PATH | {"tags": "12"}, "a Path whose tags is a list (got '12')."),
    (Path, PATH | {"marks": [1]}, "a Path whose marks[0] is text (got 1)."),
    (Path, PATH | {"pair": "ab"}, "a Path whose pair is a list (got 'ab')."),
    (Path, PATH | {"pair": [1]}, "a Path whose pair is a list of 2 items (got (1,))."),
    (
        Path,
        PATH | {"color": "blue"},
        "a Path whose color is of type Color (got {'points': [], 'color': 'blue'}).",
    ),
    (
        Path,
        PATH | {"mode": "slow"},
        "a Path whose mode is of type Mode (got {'points': [], 'mode': 'slow'}).",
    ),
    (Path, PATH | {"weights": {"w": "x"}}, "a Path whose weights['w'] is a float (got 'x')."),
    (Path, PATH | {"limit": "x"}, "a Path whose limit is an integer (got 'x')."),
    (Path, PATH | {"exact": 1}, "a Path whose exact is True or False (got 1)."),
    (Path, PATH | {"data": "x"}, "a Path whose data is bytes (got 'x')."),
    (Path, Path(points=3), "a Path that is valid ('int' object is not iterable) (got"),
    (
        Price,
        {"amount": "1"},
        (
            "a mapping whose 'amount' is None, a boolean, an integer, a float, text, bytes,"
            " a list or a mapping (got Decimal('1'))."
        ),
    ),
    (
        Price,
        {"amount": "x"},
        "a Price that is valid ([<class 'decimal.ConversionSyntax'>]) (got {'amount': 'x'}).",
    ),
    (Fussy, {"x": 1}, "a Fussy that is valid (RuntimeError) (got {'x': 1})."),
]


@pytest.mark.parametrize(("cls", "value", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_what_does_not_fit_is_refused_with_path_and_reason(cls, value, sentence):
    with pytest.raises(InvalidValue) as refused:
        Struct(cls).check(value)
    assert str(refused.value).startswith(f"value must be {sentence}")


def test_a_tree_without_end_is_refused():
    tree = Tree("a")
    tree.children.append(tree)
    with pytest.raises(InvalidValue, match=r"^value must be a Tree that is valid \(maximum recursion"):
        Struct(Tree).check(tree)


def test_a_deep_tree_is_over_the_limit():
    tree = {"name": "leaf"}
    for _ in range(20):
        tree = {"name": "a", "children": [tree]}
    with pytest.raises(LimitExceeded):
        Struct(Tree).check(tree)


def test_the_schema_stands_alone():
    schema = ListOf(Struct(Tree)).json_schema()
    assert "$ref" not in str(schema)
    assert schema["items"]["properties"]["children"]["items"] == {"type": "object"}


# Where the class is not


def test_a_process_without_the_class_holds_the_value():
    kind = Struct(Path)
    remote = Kind.from_description(kind.describe())
    wire = kind.dump(kind.check(FULL))
    held = remote.load(wire)
    assert isinstance(held, MappingProxyType)
    assert wire == remote.dump(held)
    assert FULL.points == kind.load(remote.dump(held)).points
    assert repr(remote) == "Struct(Path)"


HELD = [
    (3, "a mapping of the fields of Point (got 3)."),
    ({}, "a Point with the field 'x' (got {})."),
    ({"x": 1, "z": 2}, "a Point without the unknown 'z' (got {'x': 1, 'z': 2})."),
    ({"x": 2**63}, "a mapping whose 'x' is a 64-bit integer (got 9223372036854775808)."),
]


@pytest.mark.parametrize(("value", "sentence"), HELD)
def test_a_process_without_the_class_knows_the_names_of_its_fields(value, sentence):
    remote = Kind.from_description(Struct(Point).describe())
    with pytest.raises(InvalidValue) as refused:
        remote.check(value)
    assert f"value must be {sentence}" == str(refused.value)


def test_a_process_without_the_class_keeps_the_limits():
    remote = Kind.from_description(Struct(Point).describe())
    with pytest.raises(LimitExceeded):
        remote.check({"x": "x" * 2**20})
