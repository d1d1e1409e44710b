"""Whether every value of one kind is a value of another, and never a wrong yes."""

from __future__ import annotations

import attrs
import pytest

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

Point = attrs.make_class("Point", {"x": attrs.field(type=int)})
Other = attrs.make_class("Other", {"x": attrs.field(type=int)})

NARROWER = [
    (Float(min=0, max=1), Float()),
    (Float(min=0, max=1), Float(min=0, max=1.5)),
    (Float(min=0.5, max=1), Float(min=0)),
    (Float(min=0, step=0.1), Float(min=0)),
    (Float(min=1e-3, log=True), Float(min=1e-3)),
    (Float(), Float(allow_nan=True)),
    (Integer(min=2, max=4), Integer(max=4)),
    (Integer(min=0, max=4, step=2), Integer(min=0, step=2)),
    (Text(max_length=3), Text(max_length=4)),
    (Text(min_length=1), Text(min_length=0)),
    (Text(), Text(min_length=0)),
    (Text(pattern="a+", max_length=3), Text(pattern="a+")),
    (Text(choices=["a", "aa"]), Text(pattern="a+", max_length=2)),
    (Text(choices=["a"]), Text(choices=["a", "b"])),
    (Choice("a"), Choice("a", "b")),
    (Choice("b", "a"), Choice("a", "b", ordered=True)),
    (ModuleChoice("a"), ModuleChoice("a", "b")),
    (Prompt(placeholders=["a"]), Prompt()),
    (Prompt(placeholders=["a", "b"], max_length=3), Prompt(placeholders=["b", "a"])),
    (Secret(min_length=3), Secret()),
    (ListOf(Float(min=0), min_items=1, max_items=2), ListOf(Float(), max_items=3)),
    (Demos(fields=["q", "a"], max_items=3), Demos(fields=["q"])),
    (Demos(max_items=3), Demos()),
    (Embedding(3), Embedding()),
    (Tensor(shape=(2, 3), dtype="int8"), Tensor(shape=(None, 3))),
    (Tensor(shape=()), Tensor()),
    (Boolean(), Boolean()),
    (Struct(Point), Struct(Point)),
]


@pytest.mark.parametrize(("narrow", "wide"), NARROWER)
def test_a_tighter_kind_narrows(narrow, wide):
    assert narrow.narrows(wide)


NOT_NARROWER = [
    (Float(min=0), Float(min=1)),
    (Float(max=2), Float(max=1)),
    (Float(allow_nan=True), Float()),
    (Float(), Float(step=0.1)),
    (Float(min=0.05, step=0.1), Float(step=0.1)),
    (Integer(), Float()),
    (Integer(step=4), Integer(step=3)),
    (Text(max_length=5), Text(max_length=4)),
    (Text(pattern="a"), Text(pattern="a+")),
    (Text(max_length=1), Text(choices=["a"])),
    (Text(choices=["a", "b"]), Text(choices=["a"])),
    (Text(choices=["a"]), Secret()),
    (Text(), Secret()),
    (Choice(1), Choice(True, 1.0)),
    (Choice("a"), ModuleChoice("a")),
    (Prompt(), Prompt(placeholders=["a"])),
    (Prompt(placeholders=["a", "b"]), Prompt(placeholders=["a"])),
    (ListOf(Float()), ListOf(Float(min=0))),
    (ListOf(Float()), ListOf(Float(), max_items=1)),
    (ListOf(Float()), ListOf(Float(), min_items=1)),
    (Demos(), Demos(fields=["q"])),
    (Embedding(3), Embedding(4)),
    (Embedding(), Embedding(4)),
    (Embedding(3), Tensor(shape=(3,))),
    (Tensor(), Tensor(shape=(None,))),
    (Tensor(shape=(None,)), Tensor(shape=(3,))),
    (Tensor(shape=(3,)), Tensor(shape=(3, 3))),
    (Tensor(dtype="int8"), Tensor(dtype="int16")),
    (Struct(Point), Struct(Other)),
]


@pytest.mark.parametrize(("one", "other"), NOT_NARROWER)
def test_a_kind_with_other_values_does_not_narrow(one, other):
    assert not one.narrows(other)
