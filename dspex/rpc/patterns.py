"""
What a regular expression may cost.

Who declares a variable over the wire may give it a regular expression, which the server then runs against
texts of theirs in the thread that serves everybody. Python's matcher goes back and tries again, and nothing
can stop it: `(a+)+` takes longer than the age of the universe for 60 letters. So the most that an
expression can take is worked out before it is let in:

* Where at each place the next character alone decides how to go on, a text is read once. That is so when the
  sets of characters that may follow one another are disjoint, and no two ways of repeating lead to the same
  place: the strongly deterministic expressions of Koch and Scherzinger, on the positions of Glushkov.
* Otherwise the ways through its parts are counted: those of parts in a row multiply, alternatives add up, and
  a repeat without end of what can be read in two ways has no bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from math import inf
from re import _compiler as compiler  # type: ignore[attr-defined]
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from dspex import errors
from dspex.kinds.plain import MAX_BYTES

__all__ = ["LONGEST", "STEPS", "check_patterns", "steps"]

STEPS = 10_000_000
"""What one check may take: about as long as it takes to receive the longest text."""

LONGEST = 512
"""Characters of an expression."""

SINGLE = (op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN)
REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)
ENUMERATED = 2_000

APART = [
    {op.CATEGORY_DIGIT, op.CATEGORY_SPACE},
    {op.CATEGORY_WORD, op.CATEGORY_SPACE},
    {op.CATEGORY_DIGIT, op.CATEGORY_NOT_DIGIT},
    {op.CATEGORY_DIGIT, op.CATEGORY_NOT_WORD},
    {op.CATEGORY_WORD, op.CATEGORY_NOT_WORD},
    {op.CATEGORY_SPACE, op.CATEGORY_NOT_SPACE},
]
"""Classes of characters that have none in common."""


def check_patterns(description: Any) -> None:
    """
    Refuse the expressions in the *description* of a kind, which nobody has looked at yet, that cost too much.

    Raises:
        InvalidDeclaration: One could take more than `STEPS`.
    """
    todo = [description]
    while todo:
        plain = todo.pop()
        if isinstance(plain, dict):
            todo += plain.values()
            if isinstance(pattern := plain.get("pattern"), str):
                most = plain.get("max_length")
                _check(pattern, most if isinstance(most, int) and 0 <= most < MAX_BYTES else MAX_BYTES)
        elif isinstance(plain, list):
            todo += plain


def _check(pattern: str, most: int) -> None:
    if len(pattern) > LONGEST:
        raise errors.InvalidDeclaration(
            f"a server takes regular expressions of at most {LONGEST} characters (got {len(pattern)})."
        )
    if steps(pattern, most) > STEPS:
        raise errors.InvalidDeclaration(
            f"the regular expression {errors.shown(pattern, 80)} could keep a server busy for very long "
            f"with a text of {most} characters. Give a smaller max_length, or let the next character always "
            "decide how to go on: '[a-z]+(-[a-z]+)*', not '([a-z]+-?)*'.",
            pattern=pattern,
        )


@lru_cache(maxsize=256)
def steps(pattern: str, most: int) -> float:
    """
    A bound of the steps that `re.fullmatch` takes with *pattern* and a text of *most* characters; `inf` for
    none. What is no regular expression takes none.
    """
    try:
        tree = parser.parse(pattern)
    except (re.error, RecursionError, OverflowError):
        return 0
    try:
        return _Cost(most, tree.state.flags)._of(tree)[1]
    except RecursionError:
        return inf


class _Cost:
    """Ways through an expression, and steps, of a text with *most* characters."""

    def __init__(self, most: int, flags: int) -> None:
        self._most = most
        self._flags = flags

    def _of(self, items: Sequence[Any]) -> tuple[float, float]:
        """The ways through *items* in a row, and the steps of trying them all."""
        if (alternatives := _Positions(self._flags).fan_out(items)) is not None:
            low, high = _width(items)
            return min(high - low, self._most) + 1.0, (min(high, self._most) + 1.0) * (alternatives + 1)
        ways, taken = 1.0, 1.0
        for item in items:
            more, each = self._one(item) if len(items) == 1 else self._of([item])
            taken += ways * each
            ways *= more
        return ways, taken

    def _one(self, item: Any) -> tuple[float, float]:
        what, about = item
        if what is op.SUBPATTERN:
            _, more, fewer, inner = about
            return _Cost(self._most, (self._flags | more) & ~fewer)._of(inner)
        if what is op.ATOMIC_GROUP:
            return self._of(about)
        if what is op.BRANCH:
            return _sums(map(self._of, about[1]))
        if what in (op.ASSERT, op.ASSERT_NOT):
            return 1.0, self._of(about[1])[1]
        if what is op.GROUPREF:
            return 1.0, self._most + 1.0
        if what is op.GROUPREF_EXISTS:
            return _sums(self._of(part) for part in about[1:] if part is not None)
        if what in REPEATS:
            return self._repeated(*about)
        return inf, inf

    def _repeated(self, low: int, high: float, items: Sequence[Any]) -> tuple[float, float]:
        ways, taken = self._of(items)
        shortest, longest = _width(items)
        if shortest:
            high = min(high, self._most // shortest + 1)
        if ways <= 1 and shortest == longest:
            return high - low + 1.0, (high + 1) * taken
        try:
            return ways ** (high + 1), (high + 1) * ways**high * taken
        except OverflowError:
            return inf, inf


def _sums(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    ways, taken = zip(*pairs, strict=True)
    return sum(ways), sum(taken)


def _width(items: Sequence[Any]) -> tuple[float, float]:
    tree: Any = items
    if not isinstance(items, parser.SubPattern):
        tree = parser.SubPattern(parser.State(), list(items))
    low, high = tree.getwidth()
    return low, high if high < op.MAXREPEAT else inf


class _Ambiguous(Exception):
    """The next character does not decide."""


class _Positions:
    """The places of an expression that take a character, and which may follow which."""

    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._taken: list[Any] = []
        self._follow: dict[int, list[int]] = {}
        self._apart: dict[tuple[str, str], bool] = {}

    def fan_out(self, items: Sequence[Any]) -> int | None:
        """
        How many alternatives there are at most at one place; None where the next character does not decide.
        """
        try:
            _, first, _ = self._row(items)
            found = {tuple(first), *map(tuple, self._follow.values())}
            for places in found:
                self._check(places)
        except _Ambiguous:
            return None
        return max(map(len, found))

    def _check(self, places: tuple[int, ...]) -> None:
        # A place that is there twice can be reached in two ways, and overlaps with itself.
        for one, other in combinations(places, 2):
            a, b = self._taken[one], self._taken[other]
            key = repr(a), repr(b)
            if key not in self._apart:
                self._apart[key] = not self._flags & re.IGNORECASE and _disjoint(a, b, self._flags)
            if not self._apart[key]:
                raise _Ambiguous

    # Of each part: whether it can be empty, the places where it begins, and those where it ends.

    def _row(self, items: Sequence[Any]) -> tuple[bool, list[int], list[int]]:
        first: list[int] = []
        last: list[int] = []
        empty = True
        for item in items:
            other, begin, end = self._one(item)
            for place in last:
                self._follow[place] += begin
            if empty:
                first = first + begin
            last = last + end if other else end
            empty = empty and other
        return empty, first, last

    def _one(self, item: Any) -> tuple[bool, list[int], list[int]]:
        what, about = item
        if what in SINGLE:
            place = len(self._taken)
            self._taken.append(item)
            self._follow[place] = []
            return False, [place], [place]
        if what is op.AT:
            return True, [], []
        if what is op.SUBPATTERN and not about[1] and not about[2]:
            return self._row(about[-1])
        if what is op.BRANCH:
            return self._branch(about[1])
        if what in REPEATS:
            low, high, items = about
            empty, first, last = self._row(items)
            if empty:
                raise _Ambiguous
            if high > 1:
                for place in last:
                    self._follow[place] = self._follow[place] + first
            return low == 0, first, last
        raise _Ambiguous

    def _branch(self, parts: Sequence[Any]) -> tuple[bool, list[int], list[int]]:
        first: list[int] = []
        last: list[int] = []
        empties = 0
        for part in parts:
            empty, begin, end = self._row(part)
            empties += empty
            first, last = first + begin, last + end
        if empties > 1:
            raise _Ambiguous
        return bool(empties), first, last


def _disjoint(a: Any, b: Any, flags: int) -> bool:
    """Whether no character is taken by both."""
    for one, other in ((a, b), (b, a)):
        if (characters := _characters(one)) is not None:
            takes = compiler.compile(parser.SubPattern(parser.State(), [other]), flags).match
            return not any(map(takes, characters))
    first, second = _classes(a), _classes(b)
    return bool(first and second) and all({x, y} in APART for x in first for y in second)


def _characters(item: Any) -> list[str] | None:
    """The characters that *item* takes, if they can be counted."""
    what, about = item
    if what is op.LITERAL:
        return [chr(about)]
    if what is not op.IN:
        return None
    found: list[str] = []
    for kind, which in about:
        if kind is op.LITERAL:
            found.append(chr(which))
        elif kind is op.RANGE and which[1] - which[0] < ENUMERATED:
            found += map(chr, range(which[0], which[1] + 1))
        else:
            return None
    return found


def _classes(item: Any) -> set[Any]:
    """The classes of characters that *item* is made of, if of nothing else."""
    what, about = item
    if what is op.IN and all(kind is op.CATEGORY for kind, _ in about):
        return {which for _, which in about}
    return set()
