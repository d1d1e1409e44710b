"""What each kind takes and stores, and the sentence with which it refuses all else."""

from __future__ import annotations

import math
from collections import deque
from decimal import Decimal
from enum import Enum, StrEnum
from fractions import Fraction
from types import MappingProxyType

import attrs
import numpy as np
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
    Tensor,
    Text,
)


class Color(Enum):
    RED = "red"
    NUMBER = 1


class Mode(StrEnum):
    FAST = "fast"


class Loud(str):
    __slots__ = ()

    def __str__(self):
        return "not the text"


class Broken:
    def __repr__(self):
        msg = "no repr"
        raise RuntimeError(msg)


@attrs.frozen
class Example:
    """As DSPy's: no mapping, but it can become one."""

    fields: dict

    def toDict(self):  # noqa: N802 - DSPy's name
        return self.fields


BIG = 10**5000


def ids(rows):
    return [f"{number}-{row[0]!r}" for number, row in enumerate(rows)]


TAKEN = [
    (Float(), 0.7, 0.7),
    (Float(), 1, 1.0),
    (Float(), -0.0, -0.0),
    (Float(min=0), -0.0, -0.0),
    (Float(), np.float32(0.5), 0.5),
    (Float(), np.float64(0.5), 0.5),
    (Float(), np.int8(3), 3.0),
    (Float(), Fraction(1, 4), 0.25),
    (Float(), 1.7976931348623157e308, 1.7976931348623157e308),
    (Float(min=0.0, max=1.5), 1.5, 1.5),
    (Float(min=0.0, max=1.5), 0, 0.0),
    (Float(max=1), 1, 1.0),
    (Float(step=0.1), 0.1 + 0.2 - 0.3, 0.1 + 0.2 - 0.3),
    (Float(allow_nan=True), math.inf, math.inf),
    (Float(allow_nan=True, max=1.0), -math.inf, -math.inf),
    (Float(step=0.1), 0.3, 0.3),
    (Float(min=0.05, step=0.1), 0.15, 0.15),
    (Float(min=-1, max=1, step=0.1), 0.7, 0.7),
    (Float(step=0.25), -1e15, -1e15),
    (Integer(), 3, 3),
    (Integer(), 3.0, 3),
    (Integer(), -0.0, 0),
    (Integer(), 2**63 - 1, 2**63 - 1),
    (Integer(), -(2**63), -(2**63)),
    (Integer(), np.uint8(7), 7),
    (Integer(), np.float32(7), 7),
    (Integer(), Fraction(8, 2), 4),
    (Integer(min=1, step=2), 7, 7),
    (Integer(step=5), -10, -10),
    (Boolean(), True, True),
    (Boolean(), False, False),
    (Text(), "", ""),
    (Text(), "a\0b", "a\0b"),
    (Text(), "\U0001f600é", "\U0001f600é"),
    (Text(), Loud("text"), "text"),
    (Text(), Mode.FAST, "fast"),
    (Text(), np.str_("text"), "text"),
    (Text(min_length=2, max_length=2), "éé", "éé"),
    (Text(pattern="a+"), "aa", "aa"),
    (Text(choices=("a", "b")), "b", "b"),
    (Choice("a", 1, 1.0, True, None), 1, 1),
    (Choice("a", 1, 1.0, True, None), 1.0, 1.0),
    (Choice("a", 1, 1.0, True, None), True, True),
    (Choice("a", 1, 1.0, True, None), None, None),
    (Choice(0.0), -0.0, 0.0),
    (Choice("red", "blue"), Color.RED, "red"),
    (Choice("red", 1), Color.NUMBER, 1),
    (Choice(0.5), np.float64(0.5), 0.5),
    (Choice("a"), np.str_("a"), "a"),
    (ModuleChoice("Predict", "ChainOfThought"), "Predict", "Predict"),
    (Prompt(), "no names {{here}}", "no names {{here}}"),
    (Prompt(), "{any} {name} {any}", "{any} {name} {any}"),
    (Prompt(placeholders=("q",), max_length=9), "Q: {q} {q}"[:6], "Q: {q}"),
    (ListOf(Float()), [1, 2.5], (1.0, 2.5)),
    (ListOf(Float()), (), ()),
    (ListOf(Integer()), range(3), (0, 1, 2)),
    (ListOf(Integer()), deque([1]), (1,)),
    (ListOf(ListOf(Text())), [["a"], []], (("a",), ())),
    (ListOf(Integer(), min_items=1, max_items=2), [1, 2], (1, 2)),
    (Demos(), [], ()),
    (Demos(fields=["q"]), [{"q": 1, "more": None}], ({"q": 1, "more": None},)),
    (Demos(), [Example({"q": "a"})], ({"q": "a"},)),
    (Demos(), ({"q": [1, {"b": b"x"}]},), ({"q": (1, {"b": b"x"})},)),
    (Demos(), [{"q": Mode.FAST, "n": np.float64(0.5)}], ({"q": "fast", "n": 0.5},)),
]


@pytest.mark.parametrize(("kind", "value", "stored"), TAKEN, ids=ids(TAKEN))
def test_stores_the_canonical_value(kind, value, stored):
    actual = kind.check(value)
    assert stored == actual
    assert type(stored) is type(actual)
    assert math.copysign(1, stored) == math.copysign(1, actual) if type(stored) is float else True


def test_a_secret_is_text_that_nothing_shows():
    stored = Secret().check("sk-1")
    assert isinstance(stored, str)
    assert "sk-1" == stored
    assert "key: sk-1" == f"key: {stored}"
    assert "('•••',)" == repr((stored,))
    assert str is type(Secret().dump(stored))
    assert "'•••'" == repr(Secret().load("sk-1"))


SCALARS = "None, a boolean, an integer, a float, text, bytes, a list or a mapping"

REFUSED = [
    # wrong type
    (Float(), "0.7", "value must be a float (got '0.7')."),
    (Float(), None, "value must be a float (got None)."),
    (Float(), 1 + 0j, "value must be a float (got (1+0j))."),
    (Float(), Decimal(1), "value must be a float (got Decimal('1'))."),
    (Float(), np.zeros((3, 4)), "value must be a float (got float64 array of shape (3, 4))."),
    (Float(), Broken(), "value must be a float (got an unprintable Broken)."),
    (Float(), "x" * 10_000, f"value must be a float (got '{'x' * 198}…)."),
    (Integer(), "3", "value must be an integer (got '3')."),
    (Integer(), 3.5, "value must be a whole number (got 3.5)."),
    (Boolean(), 1, "value must be True or False (got 1)."),
    (Boolean(), "true", "value must be True or False (got 'true')."),
    (Boolean(), None, "value must be True or False (got None)."),
    (Text(), 3, "value must be text (got 3)."),
    (Text(), b"text", "value must be text (got b'text')."),
    (Prompt(), None, "value must be text (got None)."),
    (ListOf(Float()), 3, "value must be a list (got 3)."),
    (ListOf(Text()), "text", "value must be a list (got 'text')."),
    (ListOf(Integer()), b"ab", "value must be a list (got b'ab')."),
    (ListOf(Integer()), {1}, "value must be a list (got {1})."),
    (Demos(), {"q": 1}, "value must be a list (got {'q': 1})."),
    (Demos(), [3], "value must be a list whose item 0 is a mapping (got 3)."),
    (Embedding(), "abc", "value must be a 1-D array of floats (got 'abc')."),
    (Embedding(), [True], "value must be a 1-D array of floats (got [True])."),
    (Tensor(), {}, "value must be an array of numbers (got {})."),
    (Tensor(), np.array([None]), "value must be an array of numbers (got object array of shape (1,))."),
    # bool for a number
    (Float(), True, "value must be a float (got True)."),
    (Integer(), False, "value must be an integer (got False)."),
    # out of range
    (Float(min=0.0, max=1.5), 2.0, "value must be at most 1.5 (got 2.0)."),
    (Float(min=0.0, max=1.5), -0.1, "value must be at least 0.0 (got -0.1)."),
    (Float(max=1.5), 2, "value must be at most 1.5 (got 2.0)."),
    (Float(step=0.1), 0.35, "value must be a multiple of 0.1 (got 0.35)."),
    (Float(min=0.0, step=0.1), 0.35, "value must be a multiple of 0.1 above 0.0 (got 0.35)."),
    (Float(step=1e-300), 1e300, "value must be a multiple of 1e-300 (got 1e+300)."),
    (Float(min=0.0, max=1.0, step=0.1), 1.1, "value must be at most 1.0 (got 1.1)."),
    (Integer(min=1), 0, "value must be at least 1 (got 0)."),
    (Integer(max=8), 9.0, "value must be at most 8 (got 9)."),
    (Integer(min=1, step=2), 2, "value must be a multiple of 2 above 1 (got 2)."),
    (Text(max_length=2), "abc", "value must be at most 2 characters long (got 'abc')."),
    (Text(min_length=2), "a", "value must be at least 2 characters long (got 'a')."),
    (Text(pattern="a+"), "aab", "value must be text that matches 'a+' (got 'aab')."),
    (Text(pattern="a+"), "aa\n", "value must be text that matches 'a+' (got 'aa\\n')."),
    (Text(choices=("a", "b")), "c", "value must be one of 'a', 'b' (got 'c')."),
    (ListOf(Integer(), max_items=1), [1, 2], "value must be a list of at most 1 items (got [1, 2])."),
    (ListOf(Integer(), min_items=1), [], "value must be a list of at least 1 items (got [])."),
    (ListOf(Integer(max=1)), [1, 2], "value must be a list whose item 1 is at most 1 (got 2)."),
    (
        ListOf(ListOf(Float())),
        [[1.0], ["x"]],
        "value must be a list whose item 1 is a list whose item 0 is a float (got 'x').",
    ),
    (Demos(max_items=1), [{}, {}], "value must be a list of at most 1 items (got [{}, {}])."),
    (
        Demos(fields=("q", "a")),
        [{"q": 1}],
        "value must be a list whose item 0 is a mapping with the field 'a' (got {'q': 1}).",
    ),
    (Embedding(3), [1.0, 2.0], "value must be a 1-D array of 3 floats (got [1.0, 2.0])."),
    (Embedding(), [[1.0]], "value must be a 1-D array of floats (got [[1.0]])."),
    (Tensor(shape=(None, 3)), [1], "value must be an array of numbers of shape (None, 3) (got [1])."),
    (Tensor(shape=(2,)), [1], "value must be an array of numbers of shape (2,) (got [1])."),
    (Tensor(), [[1], [2, 3]], "value must be an array of numbers (got [[1], [2, 3]])."),
    # what a dtype cannot hold
    (
        Tensor(dtype="float32"),
        np.zeros(2),
        "value must be an array of float32 (got float64 array of shape (2,)).",
    ),
    (Tensor(dtype="uint8"), [256], "value must be an array of uint8 (got int64 array of shape (1,))."),
    (Tensor(dtype="uint8"), [1.0], "value must be an array of uint8 (got float64 array of shape (1,))."),
    (
        Tensor(dtype="float32"),
        [1e300],
        "value must be an array of float32 (got float64 array of shape (1,)).",
    ),
    (Tensor(dtype="bool"), [1], "value must be an array of bool (got int64 array of shape (1,))."),
    # not listed
    (
        ModuleChoice("Predict", "ChainOfThought"),
        "ReAct",
        "value must be one of 'Predict', 'ChainOfThought' (got 'ReAct').",
    ),
    (Choice(1), True, "value must be one of 1 (got True)."),
    (Choice(1), 1.0, "value must be one of 1 (got 1.0)."),
    (Choice(1, "a"), [], "value must be one of 1, 'a' (got [])."),
    (Choice("red"), Color.NUMBER, "value must be one of 'red' (got <Color.NUMBER: 1>)."),
    (
        Choice(*range(22)),
        -1,
        (
            "value must be one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19"
            " and 2 more (got -1)."
        ),
    ),
    # NaN and the infinities
    (Float(), math.nan, "value must be a finite number (got nan)."),
    (Float(min=0.0), math.inf, "value must be a finite number (got inf)."),
    (Float(), -math.inf, "value must be a finite number (got -inf)."),
    (Float(step=0.1), math.nan, "value must be a finite number (got nan)."),
    (Float(allow_nan=True, max=1.0), math.inf, "value must be at most 1.0 (got inf)."),
    (Float(allow_nan=True, step=0.5), math.inf, "value must be a multiple of 0.5 (got inf)."),
    (Integer(), math.nan, "value must be a whole number (got nan)."),
    (Integer(), math.inf, "value must be a whole number (got inf)."),
    (Embedding(), [math.nan], "value must be an array without NaN and infinities (got [nan])."),
    # huge integers
    (Float(), BIG, "value must be a finite number (got an integer of 16610 bits)."),
    (Float(), 10**400, "value must be a finite number (got an integer of 1329 bits)."),
    (Integer(), 2**63, "value must be a 64-bit integer (got 9223372036854775808)."),
    (Integer(), -(2**63) - 1, "value must be a 64-bit integer (got -9223372036854775809)."),
    (Integer(), BIG, "value must be a 64-bit integer (got an integer of 16610 bits)."),
    (Integer(), 1e300, f"value must be a 64-bit integer (got an integer of {int(1e300).bit_length()} bits)."),
    (Boolean(), BIG, "value must be True or False (got an integer of 16610 bits)."),
    (
        Demos(),
        [{"n": 2**63}],
        (
            "value must be a list whose item 0 is a mapping whose 'n' is a 64-bit integer"
            " (got 9223372036854775808)."
        ),
    ),
    (Tensor(), [10**40], f"value must be an array of numbers (got [{10**40}])."),
    # lone surrogates
    (Text(), "a\ud800", "value must be valid UTF-8 text (got 'a\\ud800')."),
    (Prompt(), "a\ud800", "value must be valid UTF-8 text (got 'a\\ud800')."),
    (Choice("a"), "\ud800", "value must be one of 'a' (got '\\ud800')."),
    (
        Demos(),
        [{"q": "\ud800"}],
        "value must be a list whose item 0 is a mapping whose 'q' is valid UTF-8 text (got '\\ud800').",
    ),
    (
        Demos(),
        [{"\ud800": 1}],
        "value must be a list whose item 0 is a mapping whose keys are valid UTF-8 text (got '\\ud800').",
    ),
    # what is not plain data
    (
        Demos(),
        [{"q": {1}}],
        f"value must be a list whose item 0 is a mapping whose 'q' is {SCALARS} (got {{1}}).",
    ),
    (
        Demos(),
        [{"q": [{}, object]}],
        (
            "value must be a list whose item 0 is a mapping whose 'q' is a list whose item 1 is"
            f" {SCALARS} (got <class 'object'>)."
        ),
    ),
    (
        Demos(),
        [{1: 2}],
        "value must be a list whose item 0 is a mapping whose keys are valid UTF-8 text (got 1).",
    ),
    # placeholders
    (
        Prompt(placeholders=("context", "question")),
        "{question}",
        "value must be text with the placeholder {context} (got '{question}').",
    ),
    (
        Prompt(placeholders=("q",)),
        "{q} {r}",
        "value must be text without the unknown placeholder {r} (got '{q} {r}').",
    ),
    # secrets, whatever is wrong with them
    (Secret(max_length=3), "sk-1", "value must be at most 3 characters long (got '•••')."),
    (Secret(min_length=9), "sk-1", "value must be at least 9 characters long (got '•••')."),
    (Secret(), "sk-\ud800", "value must be valid UTF-8 text (got '•••')."),
    (Secret(), b"sk-1", "value must be text (got '•••')."),
    (ListOf(Secret()), "sk-1", "value must be a list (got '•••')."),
    (ListOf(Secret(), max_items=1), ["sk-1", "sk-2"], "value must be a list of at most 1 items (got '•••')."),
    (ListOf(Secret()), ["sk-1", 2], "value must be a list whose item 1 is text (got '•••')."),
] + [
    (Prompt(), text, f"value must be text with nothing but {{names}} in its braces (got '{text}').")
    for text in ("{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>9}", "{a:{b}}", "{a b}")
]


@pytest.mark.parametrize(("kind", "value", "sentence"), REFUSED, ids=ids(REFUSED))
def test_refuses_with_a_sentence(kind, value, sentence):
    with pytest.raises(InvalidValue) as refused:
        kind.check(value)
    assert sentence == str(refused.value)
    assert not kind.takes(value)


SECRETS = [row for row in REFUSED if row[0].secret]


@pytest.mark.parametrize(("kind", "value", "_"), SECRETS, ids=ids(SECRETS))
def test_a_refusal_keeps_no_other_error_that_shows_the_value(kind, value, _):
    with pytest.raises(InvalidValue) as refused:
        kind.check(value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_refusal_carries_its_facts_and_takes_a_place():
    with pytest.raises(InvalidValue) as refused:
        Float(min=0.0, max=1.5).check(2.0)
    assert (refused.value.expected, refused.value.given) == ("at most 1.5", "2.0")
    assert (
        str(refused.value.at("temperature", "demo"))
        == "temperature must be at most 1.5 (got 2.0) in session 'demo'."
    )


def test_what_is_stored_is_not_connected_to_what_was_given():
    given = [{"q": ["a"], "deep": {"b": [1]}}]
    stored = Demos().check(given)
    given[0]["q"].append("more")
    given[0]["deep"]["b"].append(2)
    given[0]["new"] = 1
    given.append({})
    assert stored == ({"q": ("a",), "deep": {"b": (1,)}},)


def test_stored_examples_cannot_change():
    stored = Demos().check([{"q": {"a": 1}}])
    assert isinstance(stored[0], MappingProxyType)
    with pytest.raises(TypeError):
        stored[0]["q"]["a"] = 2


def test_nan_keeps_its_payload():
    kind = Float(allow_nan=True)
    payload = np.array([0x7FF8_0000_0000_1234], dtype="uint64").view("float64")[0]
    stored = kind.check(payload)
    assert type(stored) is float
    assert np.array([stored]).view("uint64")[0] == 0x7FF8_0000_0000_1234
