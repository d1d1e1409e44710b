"""
What a watcher may see: six promises of a watch, checked on what it was told.

A stream is a list of changes and of `Reset`s: a snapshot instead of what would have been next.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict

import attrs


@attrs.frozen
class Reset:
    """From here on the values are those of a snapshot."""

    epoch: str
    rev: int
    values: dict


class Violation(AssertionError):
    """A promise was broken."""


def _say(promise, stream, index, why):
    around = "\n".join(f"  {at}: {one}" for at, one in enumerate(stream) if abs(at - index) < 4)
    raise Violation(f"{promise}: {why} at {index}\n{around}")


def ordered(stream, truth):
    """Revisions never go back, except after a reset to another epoch."""
    last = None
    for index, one in enumerate(stream):
        if last is not None and one.epoch == last.epoch and one.rev < last.rev:
            _say("ordered", stream, index, f"revision {one.rev} after {last.rev}")
        if last is not None and one.epoch != last.epoch and not isinstance(one, Reset):
            _say("ordered", stream, index, "another epoch without a reset")
        last = one


def unique(stream, truth):
    """No change is told twice."""
    told = set()
    for index, one in enumerate(stream):
        if isinstance(one, Reset):
            continue
        key = one.epoch, one.rev, one.name
        if key in told:
            _say("unique", stream, index, f"{key} again")
        told.add(key)


def atomic(stream, truth):
    """The changes of one revision come together, and all of them."""
    groups = defaultdict(list)
    last = None
    for index, one in enumerate(stream):
        if isinstance(one, Reset):
            last = None
            continue
        key = one.epoch, one.rev
        if key in groups and key != last:
            _say("atomic", stream, index, f"revision {one.rev} in two pieces")
        groups[key].append(one.name)
        last = key
    for key, names in groups.items():
        if key in truth and sorted(truth[key]) != sorted(names):
            raise Violation(f"atomic: of revision {key} came {sorted(names)}, it was {sorted(truth[key])}")


def reliable(stream, truth):
    """Between two things that were told nothing is missing."""
    revs = sorted(rev for _, rev in truth)
    last = None
    for index, one in enumerate(stream):
        if isinstance(one, Reset):
            last = one.rev
            continue
        if last is not None and one.rev > last:
            first, end = bisect_right(revs, last), bisect_left(revs, one.rev)
            if first < end:
                _say("reliable", stream, index, f"{revs[first : min(end, first + 5)]} missing")
        last = one.rev


def true(stream, truth):
    """What is told is what happened."""
    for index, one in enumerate(stream):
        if not isinstance(one, Reset):
            happened = truth.get((one.epoch, one.rev))
            if happened is None or happened.get(one.name) != (one.value, one.version):
                _say("true", stream, index, f"not what happened: {happened}")


def chained(stream, truth):
    """The value before is the one that was told before; versions have no gap without a reset."""
    known = {}
    for index, one in enumerate(stream):
        if isinstance(one, Reset):
            known = dict(one.values)
            continue
        if one.name in known and known[one.name] != (one.old, one.version - 1):
            _say("chained", stream, index, f"it was {known[one.name]}")
        known[one.name] = one.value, one.version


ALL = (ordered, unique, atomic, reliable, true, chained)


def check(stream, truth):
    """All six; *truth* is `{(epoch, rev): {name: (value, version)}}`."""
    for validator in ALL:
        validator(stream, truth)
