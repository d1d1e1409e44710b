"""What goes into a call and comes out of one, as bytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import attrs
import msgspec
import pytest

from dspex import InvalidValue, LimitExceeded, Program
from dspex.pool.values import DEPTH, DESCRIBED, PLAIN, values_of

pydantic = pytest.importorskip("pydantic")


class Side(Enum):
    LEFT = 1
    RIGHT = 2


@dataclass
class Point:
    x: int
    side: Side


class Shape(pydantic.BaseModel):
    points: list[Point]
    title: str = ""


@attrs.define
class Drawing:
    _shape: Shape
    sides: tuple[Side, ...] = ()


class Drawer(Program):
    def forward(self, drawing: Drawing) -> Drawing:
        return drawing


class Riddle(Program):
    def forward(self, thing: NowhereToBeFound) -> None:  # noqa: F821 - that is the point
        """Has annotations that nobody can read."""


DRAWING = Drawing(Shape(points=[Point(1, Side.LEFT), Point(2, Side.RIGHT)], title="two"), (Side.RIGHT,))


def test_instances_within_instances_come_as_they_were():
    values = values_of(Drawer)
    assert values.unpack(values.pack([DRAWING, {"of": Shape(points=[])}], "it")) == [
        DRAWING,
        {"of": Shape(points=[])},
    ]


def test_who_has_not_the_classes_gets_mappings_and_the_names_of_members():
    packed = values_of(Drawer).pack(DRAWING, "it")
    points = [{"x": 1, "side": "LEFT"}, {"x": 2, "side": "RIGHT"}]
    expected = {"_shape": {"points": points, "title": "two"}, "sides": ("RIGHT",)}
    assert expected == DESCRIBED.unpack(packed)


def test_a_class_that_the_annotations_do_not_name_is_refused_on_both_ends():
    with pytest.raises(InvalidValue, match=r"^it\[0\] must be plain data, .* \(got Drawing Drawing\("):
        PLAIN.pack([DRAWING], "it")
    with pytest.raises(InvalidValue, match=r"must be of a class that the annotations of forward name"):
        PLAIN.unpack(values_of(Drawer).pack(Side.LEFT, "it"))


def test_annotations_that_nobody_can_read_name_no_classes():
    with pytest.raises(InvalidValue, match=r"must be plain data, .* \(got Point "):
        values_of(Riddle).pack(Point(1, Side.LEFT), "it")
    assert values_of(Riddle).unpack(values_of(Riddle).pack((1, {"a": b""}), "it")) == (1, {"a": b""})


def test_what_is_refused_inside_an_instance_is_named_by_its_fields():
    drawing = Drawing(Shape(points=[Point(object(), Side.LEFT)]))
    with pytest.raises(InvalidValue, match=r"^it\._shape\.points\[0\]\.x must be plain data"):
        values_of(Drawer).pack(drawing, "it")


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"a": [2**70]}, r"^it must be made of 64-bit integers \(got \{'a': \[1180591620717411303424\]\}\)"),
        (["\ud800"], r"^it must be valid UTF-8 text \(got "),
        ([{"a": {1: 2}}], r"^it\[0\]\['a'\] must be a mapping with text keys \(got 1\)"),
        ([{1, 2}], r"^it\[0\] must be plain data, .* \(got set \{1, 2\}\)"),
    ],
)
def test_what_has_no_bytes_is_refused_with_its_place(value, sentence):
    with pytest.raises(InvalidValue, match=sentence):
        PLAIN.pack(value, "it")


def nested(levels):
    value = 0
    for _ in range(levels):
        value = [value]
    return value


def test_a_value_is_nested_so_deep_and_no_deeper():
    assert PLAIN.unpack(PLAIN.pack(nested(DEPTH), "it")) == nested(DEPTH)
    with pytest.raises(LimitExceeded, match=f"^it is nested deeper than {DEPTH} levels") as raised:
        PLAIN.pack(nested(DEPTH + 2), "it")
    assert raised.value.limit == DEPTH


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode(msgspec.msgpack.Ext(2, b"\x90"))])
def test_bytes_that_stand_for_nothing_are_refused(data):
    with pytest.raises(InvalidValue, match=rf"value must be in MessagePack \(.+\) \(got {len(data)} bytes\)"):
        PLAIN.unpack(data)


def test_a_prediction_comes_with_its_completions_and_what_it_cost():
    dspy = pytest.importorskip("dspy")
    one = dspy.Prediction.from_completions([{"answer": "yes"}, {"answer": "no"}])
    one.set_lm_usage({"some/model": {"total_tokens": 7}})
    got = PLAIN.unpack(PLAIN.pack(one, "it"))
    assert (type(got), got.answer, got.completions.answer) == (dspy.Prediction, "yes", ["yes", "no"])
    assert got.get_lm_usage() == {"some/model": {"total_tokens": 7}}
    with pytest.raises(InvalidValue, match=r"^it\.answer must be plain data"):
        PLAIN.pack(dspy.Prediction(answer=object()), "it")
    assert PLAIN.unpack(PLAIN.pack(dspy.Prediction(answer=1), "it")).toDict() == {"answer": 1}


def test_a_program_that_is_awaited_has_annotations_too():
    class Awaited(Program):
        async def aforward(self, side: Side) -> None:
            """Takes a side."""

    values = values_of(Awaited)
    assert values.unpack(values.pack(Side.LEFT, "it")) is Side.LEFT
