"""What is refused in process is refused over the wire: the same error, in the same words."""

from __future__ import annotations

import math

from hostile import NAMES

from dspex import Choice, Float, Integer, ListOf, Revision, Session, Text
from dspex.stores import MemoryStore

VALUES_OF_PYTHON = [
    None, True, 1, 1.5, math.nan, math.inf, -math.inf, 1e999, -0.0,
    2**53 + 1, 2**63 - 1, -(2**63), 2**63, 10**5000,
    "", "1", "a\0b", "\ud800", "x" * (1024 * 1024 + 1), "x" * (5 * 1024 * 1024), b"\0", [], [1], [[1]] * 3,
    {}, {"a": 1}, {1: 2}, {"lc": 1, "type": "constructor"}, [0] * 100_000, ["x"] * 10_001, float, ...,
]  # fmt: skip


def _nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


VALUES_OF_PYTHON += [_nested(levels) for levels in (31, 32, 33, 500)]


def _attempts():
    for value in VALUES_OF_PYTHON:
        for name in ("n", "temperature", "note", "items"):
            yield lambda s, n=name, v=value: s.set(n, v)
            yield lambda s, n=name, v=value: s.update({"a": 1, n: v})
        yield lambda s, v=value: s.set("n", 1, {"why": v})
        yield lambda s, v=value: s.set("n", 1, v)
        yield lambda s, v=value: s.set("n", 1, source=v) if v is not None else s.get("nothing")
        yield lambda s, v=value: s.set("n", 1, expect=v)
        yield lambda s, v=value: s.update({"a": 1, "n": 1}, expect={"n": v})
        yield lambda s, v=value: s.update({"n": 1}, expect=v)
        yield lambda s, v=value: s.register("late", Integer(), initial=v)
    for name in [*NAMES, "\ud800", 7, None]:
        yield lambda s, n=name: s.set(n, 1)
        yield lambda s, n=name: s.update({n: 1, "a": 1})
        yield lambda s, n=name: s.tag(n)
        yield lambda s, n=name: s.snapshot(n) if n is not None else s.get("nothing")
        yield lambda s, n=name: s.history(n) if n is not None else s.get("nothing")
        yield lambda s, n=name: s.rollback(n, 1)
        yield lambda s, n=name: s.rollback(to=n)
        yield lambda s, n=name: s.claim([n], owner="me", ttl=0.001)
        yield lambda s, n=name: s.claim(["b"], owner=n, ttl=0.001)
        yield lambda s, n=name: s.register(n, Integer(), initial=0)
    for ttl in [0, -1, math.nan, math.inf, "1", None, 10**400]:
        yield lambda s, t=ttl: s.claim(["b"], owner="me", ttl=t)
    for names in [3, [], "n", b"n", [["b"]], ["b"] * 50_000]:
        yield lambda s, n=names: s.claim(n, owner="me", ttl=0.001)
    for version in ["1", -1, 1.0, 2**70]:
        yield lambda s, v=version: s.rollback("n", v)
        yield lambda s, v=version: s.changes(since=Revision(s.revision.epoch, v)).close()
    yield lambda s: s.rollback()
    yield lambda s: s.rollback("n")
    for label in [[], {}, 3]:
        yield lambda s, n=label: s.snapshot(n)
        yield lambda s, n=label: s.rollback(to=n)
    yield lambda s: s.register("wide", Choice(*range(20_000)), initial=1)
    yield lambda s: s.register("long", Choice(*(f"{n}{'x' * 1_000}" for n in range(2_000))), initial="0")
    yield lambda s: s.fork({"temperature": -1})
    yield lambda s: s.update({f"x{index}": 1 for index in range(10_000)})
    for words in [7, None, "x" * 16_385]:
        yield lambda s, w=words: s.register("described", Integer(), initial=0, description=w)
    yield lambda s: s.set([], 1)
    yield lambda s: s.history([])
    yield lambda s: s.set("n", 1, expect=-1)
    yield lambda s: s.set("n", 1, {"k": "x" * 20_000})
    yield lambda s: s.set("n", 1, source="x" * 300)
    yield lambda s: s.register("n", Text(), initial="")
    yield lambda s: s.register("f", Float(min=2, max=1), initial=1)


def _outcome(session, attempt):
    try:
        attempt(session)
    except Exception as error:
        return type(error), str(error).replace("'far'", "'here'"), str(getattr(error, "code", ""))
    return None


def test_what_is_refused_in_process_is_refused_over_the_wire_in_the_same_words(
    server, remote, demo, beside, state
):
    here, far = demo(MemoryStore(), "here"), demo(remote(server.url, max_staleness=77), "far")
    with Session("far", store=server.store) as beneath:
        for session in (here, far):
            session.register("items", ListOf(Integer()), initial=[])
        outcomes = set()
        for attempt in _attempts():
            expected = _outcome(here, attempt)
            before = state(beneath)
            assert _outcome(far, attempt) == expected
            if expected is not None:
                assert state(beneath) == before, expected
                outcomes.add(expected[0])
        assert dict(here.snapshot()) == dict(far.snapshot()) == dict(beneath.snapshot())
    assert len(outcomes) >= 6
