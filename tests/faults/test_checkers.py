"""The checkers find what is planted."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import attrs
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import validators
from linear import Op, linearizable

from dspex.changes import Change


def run_of(seed, ops=60, clients=4):
    """A linearizable history: what clients of a correct register could have recorded."""
    chance = random.Random(seed)
    value, clock, history = 0, 0.0, []
    free = [0.0] * clients
    for number in range(1, ops):
        client = chance.randrange(clients)
        clock += 1
        begin = max(free[client], clock - chance.uniform(0, 3))
        at = max(begin, clock)
        clock = at
        end = at + chance.uniform(0, 3)
        kind = chance.choice(["read", "write", "swap"])
        if kind == "read":
            history.append(Op("read", "x", value, begin, end))
        elif kind == "write":
            history.append(Op("write", "x", number, begin, end))
            value = number
        else:
            expected = chance.choice([value, -1])
            history.append(Op("swap", "x", number, begin, end, expected, ok=expected == value))
            value = number if expected == value else value
        free[client] = end
    return history


@pytest.mark.parametrize("seed", range(20))
def test_what_could_have_happened_is_accepted(seed):
    assert linearizable(run_of(seed), 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_planted_bug_is_rejected(seed):
    history = run_of(seed, ops=200)
    chance = random.Random(seed)
    bugs = 0
    writes = [op for op in history if op.kind == "write"]
    late = chance.choice(writes[len(writes) // 2 :])
    stale = Op("read", "x", chance.choice(writes[: len(writes) // 4]).value, late.end + 50, late.end + 51)
    tail = [op for op in history if op.begin <= late.end]
    bugs += not linearizable([*tail, stale], 0)
    lost = Op("swap", "x", -5, 1e6, 1e6 + 1, expected=-99, ok=True)
    bugs += not linearizable([*history, lost], 0)
    assert bugs == 2


def test_a_call_of_unknown_outcome_may_have_happened_or_not():
    maybe = Op("write", "x", 1, 0, 1, maybe=True)
    assert linearizable([maybe, Op("read", "x", 0, 2, 3)], 0)
    assert linearizable([maybe, Op("read", "x", 1, 2, 3)], 0)
    assert linearizable([maybe, Op("read", "x", 0, 2, 3), Op("read", "x", 1, 4, 5)], 0)
    assert not linearizable([maybe, Op("read", "x", 1, 2, 3), Op("read", "x", 0, 4, 5)], 0)


def change(name, rev, value, version, old):
    return Change(name, value, version, rev, "e", None, None, 0.0, old)


GOOD = [change("a", 1, 1, 1, 0), change("b", 1, 1, 1, 0), change("a", 2, 2, 2, 1), change("a", 3, 3, 3, 2)]
TRUTH = {
    ("e", 1): {"a": (1, 1), "b": (1, 1)},
    ("e", 2): {"a": (2, 2)},
    ("e", 3): {"a": (3, 3)},
}


def test_a_good_stream_is_accepted():
    validators.check(GOOD, TRUTH)
    validators.check([GOOD[2], validators.Reset("e", 3, {"a": (3, 3)})], TRUTH)


def test_a_long_stream_is_not_compared_with_all_of_the_truth_again_and_again():
    compared = 0

    class Rev(int):
        def __lt__(self, other):
            nonlocal compared
            compared += 1
            return int(self) < int(other)

        def __gt__(self, other):
            return Rev(other) < self

        __hash__ = int.__hash__

    count = 2_000
    truth = {("e", Rev(rev)): {"a": (rev, rev)} for rev in range(1, count + 1)}
    validators.reliable([change("a", Rev(rev), rev, rev, rev - 1) for rev in range(1, count + 1)], truth)
    assert compared < 40 * count


@pytest.mark.parametrize(
    ("promise", "stream"),
    [
        ("ordered", [*GOOD[:2], GOOD[3], GOOD[2]]),
        ("unique", [*GOOD, GOOD[3]]),
        ("atomic", [GOOD[0], GOOD[2], GOOD[3]]),
        ("reliable", [GOOD[0], GOOD[1], GOOD[3]]),
        ("true", [*GOOD[:3], change("a", 3, 9, 3, 2)]),
        ("chained", [*GOOD[:3], change("a", 3, 3, 3, 7)]),
    ],
)
def test_a_broken_promise_is_named(promise, stream):
    with pytest.raises(validators.Violation, match=promise):
        getattr(validators, promise)(stream, TRUTH)
    assert attrs.has(validators.Reset)
