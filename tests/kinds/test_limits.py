"""How much a variable may hold, and that what holds more is refused before anybody copies it."""

from __future__ import annotations

import numpy as np
import pytest

from dspex.errors import LimitExceeded
from dspex.kinds import Demos, Embedding, Integer, ListOf, Prompt, Secret, Tensor, Text


def ids(rows):
    return [f"{number}-{row[0]!r}" for number, row in enumerate(rows)]


MIB = 1024 * 1024


def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def endless():
    value = []
    value.append(value)
    return value


def doubled(times):
    value = [0]
    for _ in range(times):
        value = [value, value]
    return value


SIZE = "value is {} bytes; the limit is 1048576. Keep it elsewhere and store where it is."
LEAST = SIZE.replace("is {}", "is at least {}")
DEEP = "value is nested deeper than 32 levels; that is the limit."
MANY = "value has 10001 items in one list or mapping; the limit is 10000."

TOO_LARGE = [
    (Text(), "x" * (MIB + 1), LEAST.format(MIB + 1)),
    (Text(), "é" * (MIB // 2 + 1), SIZE.format(MIB + 2)),
    (Text(choices=("a",)), "x" * (MIB + 1), LEAST.format(MIB + 1)),
    (Prompt(), "x" * (MIB + 1), LEAST.format(MIB + 1)),
    (Secret(), "x" * (MIB + 1), LEAST.format(MIB + 1)),
    (ListOf(Text()), ["x" * (MIB // 2)] * 2, SIZE.format(MIB + 15)),
    (ListOf(Integer()), [1] * 10_001, MANY),
    (Embedding(), np.zeros(MIB // 8), SIZE.format(MIB)),
    (Tensor(), np.zeros((1,) * 33), DEEP),
    (Demos(), [{"q": "x" * MIB}], LEAST.format(MIB + 21)),
    (Demos(), [{"q": "x" * (MIB + 1)}], LEAST.format(MIB + 1)),
    (Demos(), [{}] * 10_001, MANY),
    (Demos(), [{"q": [0] * 10_001}], MANY),
    (Demos(), [dict.fromkeys(map(str, range(10_001)))], MANY),
    (Demos(), [{"q": nested(31)}], DEEP),
    (Demos(), [{"q": endless()}], DEEP),
    (Demos(), [{"q": doubled(28)}], LEAST.format(MIB + 2)),
]


@pytest.mark.parametrize(("kind", "value", "sentence"), TOO_LARGE, ids=ids(TOO_LARGE))
def test_refuses_what_is_too_large_with_a_sentence(kind, value, sentence):
    with pytest.raises(LimitExceeded) as refused:
        kind.check(value)
    assert sentence == str(refused.value)
    assert not kind.takes(value)


def test_takes_what_is_just_not_too_large():
    assert len(Text().check("x" * MIB)) == MIB
    assert Demos().takes([{"q": nested(30)}])
    assert Demos().takes([{"q": [0] * 10_000}])
    assert len(ListOf(Integer()).check([1] * 10_000)) == 10_000


def test_measures_no_text_whose_length_says_enough():
    class Unmeasured(str):
        __slots__ = ()

        def encode(self, *_):
            raise AssertionError

        isascii = encode

    with pytest.raises(LimitExceeded):
        Text().check(Unmeasured("é" * (MIB + 1)))
