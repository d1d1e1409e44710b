"""Regular expressions of strangers: what is let in is checked quickly, whatever the text."""

from __future__ import annotations

import random
import re
import time

import pytest
from soak import often

from dspex import InvalidDeclaration, Session, Text
from dspex.kinds.plain import MAX_BYTES
from dspex.rpc.patterns import LONGEST, STEPS, check_patterns, steps

USUAL = [
    "",
    "[a-z]+",
    ".*",
    "[a-z]+(-[a-z]+)*",
    r"\d{4}-\d{2}-\d{2}",
    r"(\d{1,3}\.){3}\d{1,3}",
    r"[\w.+-]+@[\w-]+\.[\w.-]+",
    r"https?://\S+",
    r'"(?:[^"\\]|\\.)*"',
    "(?i)(yes|no)",
    r"^(?!x).*$",
    r"\s*\S.*",
    "#[0-9a-f]{6}",
    "(ab|cd)*",
    "(a|ab)(c|bcd)",
    "[A-Z][a-z]*( [A-Z][a-z]*)*",
]
CATASTROPHIC = [
    "(a+)+",
    "(a*)*",
    "(a|a)*",
    "(a|ab|b)*",
    r"(\w+\s?)+",
    "(x+x+)+y",
    "([a-zA-Z]+)*",
    "(a?){30}a{30}",
    "(?:a{1,1000}){1,1000}",
    "(.*a){20}",
    "(?i:[a-z]+(Z[a-z]+)*)",
    "((a|b)*c?)*d",
    r"(a*)(a*)(a*)(a*)b",
    r"(.)(.*)\1*(.*)\1",
]


@pytest.mark.parametrize("pattern", USUAL)
def test_what_is_usual_is_taken_for_texts_of_any_length(pattern):
    assert steps(pattern, MAX_BYTES) <= STEPS
    check_patterns(Text(pattern=pattern).describe())


@pytest.mark.parametrize("pattern", CATASTROPHIC)
def test_what_could_take_for_ever_is_refused(pattern):
    assert steps(pattern, MAX_BYTES) > STEPS
    with pytest.raises(InvalidDeclaration, match="keep a server busy"):
        check_patterns(Text(pattern=pattern).describe())


def test_a_smaller_text_makes_more_expressions_possible():
    assert steps(".*foo.*", MAX_BYTES) > STEPS >= steps(".*foo.*", 1_000)
    check_patterns(Text(pattern=".*foo.*", max_length=1_000).describe())
    with pytest.raises(InvalidDeclaration, match="text of 10000 characters"):
        check_patterns(Text(pattern=".*foo.*", max_length=10_000).describe())


def test_an_expression_that_is_a_text_of_its_own_is_refused():
    check_patterns(Text(pattern="a" * LONGEST).describe())
    with pytest.raises(InvalidDeclaration, match="at most 512 characters"):
        check_patterns({"kind": "string", "pattern": "a" * (LONGEST + 1)})


def test_expressions_inside_other_kinds_are_found():
    inner = {"kind": "string", "pattern": "(a+)+"}
    for outer in ({"kind": "list", "items": inner}, {"kind": "x", "fields": [["a", inner]]}, [[inner]]):
        with pytest.raises(InvalidDeclaration):
            check_patterns(outer)


def _made(chance, depth=3):
    if depth == 0 or chance.random() < 0.3:
        return chance.choice(["a", "b", "[ab]", ".", r"\w", "[^a]", "ab", r"\d"])
    what = chance.randrange(5)
    if what == 0:
        return _made(chance, depth - 1) + _made(chance, depth - 1)
    if what == 1:
        return f"({_made(chance, depth - 1)}|{_made(chance, depth - 1)})"
    repeat = chance.choice(["*", "+", "?", "{2}", "{1,3}", "*?", "{2,}"])
    return f"({_made(chance, depth - 1)}){repeat}"


def test_what_is_taken_is_never_slow():
    """Random expressions, and texts on which they almost succeed; a bound that is too low is seen as time."""
    chance = random.Random(3)
    taken = refused = 0
    for _ in range(often(3_000, 20_000)):
        pattern = _made(chance, 4)
        length = chance.choice([30, 300, 3_000])
        if steps(pattern, length) > 1e6:
            refused += 1
            continue
        taken += 1
        compiled = re.compile(pattern)
        begin = time.thread_time()
        for letters in ("a", "b", "ab", "aab"):
            text = (letters * length)[: length - 1]
            for last in ("!", "\n", "a"):
                compiled.fullmatch(text + last)
        assert time.thread_time() - begin < 2, (pattern, length, steps(pattern, length))
    assert min(taken, refused) > 300


def test_a_server_refuses_to_be_kept_busy(server, store):
    with Session("demo", store=store) as session:
        with pytest.raises(InvalidDeclaration, match="keep a server busy"):
            session.register("slow", Text(pattern=r"(\w+\s?)+"), initial="a")
        session.register("quick", Text(pattern=r"\w+(\s\w+)*"), initial="a")
        session.set("quick", "b c")
        assert set(session.variables) == {"quick"}
