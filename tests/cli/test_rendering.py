"""How values look."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspex import Boolean, Choice, Demos, Float, Integer, ListOf, ModuleChoice, Prompt, Secret, Tensor, Text
from dspex.cli.rendering import as_json, as_typed, output_json, short
from dspex.evaluation import Example
from dspex.wire import pack_value

words = st.text(st.characters(codec="utf-8"), max_size=20)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
numbers = st.floats(allow_nan=False) | st.just(math.nan)  # no text has the bits of other NaNs
CHOICES = ("brief", "true", "1", "null", '"', 1, 1.0, True, None, -0.5)

valued = st.one_of(
    st.tuples(st.just(Float(allow_nan=True)), numbers),
    st.tuples(st.just(Integer()), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just(Boolean()), st.booleans()),
    st.tuples(st.just(Text()), words),
    st.tuples(st.just(Prompt()), words.filter(Prompt().takes)),
    st.tuples(st.just(Choice(*CHOICES)), st.sampled_from(CHOICES)),
    st.tuples(st.just(ModuleChoice("a", "1", "null")), st.sampled_from(["a", "1", "null"])),
    st.tuples(st.just(ListOf(Text())), st.lists(words, max_size=3)),
    st.tuples(st.just(Demos()), st.lists(st.dictionaries(words, plain, max_size=3), max_size=3)),
)

busy = settings(max_examples=200, deadline=None)  # the machine may be: no time is wrong


@busy
@given(valued)
def test_what_is_printed_is_read_back_exactly(pair):
    kind, value = pair
    stored = kind.check(value)
    assert pack_value(kind, kind.parse(as_typed(kind, stored))) == pack_value(kind, stored)


@busy
@given(valued)
def test_every_value_has_json(pair):
    kind, value = pair
    json.loads(json.dumps(as_json(kind, kind.check(value)), allow_nan=False), parse_constant=pytest.fail)


def test_arrays_are_read_back():
    numpy = pytest.importorskip("numpy")
    kind = Tensor(dtype="float32")
    stored = kind.check(numpy.array([[0.1, math.nan], [math.inf, -0.0]], "float32"))
    assert pack_value(kind, kind.parse(as_typed(kind, stored))) == pack_value(kind, stored)


def test_text_that_means_something_else_is_quoted():
    kind = Choice("1", 1, "plain")
    assert [as_typed(kind, value) for value in ("1", 1, "plain")] == ['"1"', "1", "plain"]


def test_arrays_and_predictions_that_programs_give_have_json():
    numpy = pytest.importorskip("numpy")
    assert output_json({"a": numpy.array([[1.0, math.inf]])}) == {"a": [[1.0, "Infinity"]]}
    example = Example({"question": "q", "score": math.nan}, ["question"])
    assert output_json([Given(example)]) == [{"question": "q", "score": "NaN"}]


class Given:
    """As DSPy's predictions: no mapping, but it can be made one."""

    def __init__(self, example):
        self.toDict = example.toDict


def test_bytes_have_json():
    kind = Demos()
    assert as_json(kind, kind.check([{"image": b"\xff"}])) == [{"image": {"base64": "/w=="}}]


def test_demos_look_as_they_were_given():
    kind = Demos()
    assert short(kind, kind.check([{"a": 1, "b": {"c": (2,)}}])) == "[{'a': 1, 'b': {'c': [2]}}]"


def test_a_secret_has_no_look():
    for kind, value in ((Secret(), "canary"), (ListOf(Secret()), ["canary"])):
        stored = kind.check(value)
        assert "canary" not in as_typed(kind, stored) + short(kind, stored)
        assert as_json(kind, stored) is None
