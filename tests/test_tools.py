"""Tools: what may be one, how it is called, what it is checked against."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dspex import Float, InvalidDeclaration, InvalidName, InvalidValue, Session, UnknownTool, tool
from dspex.tools import tools_of


@tool
def scale(text: str, times: int = 1, by: Float(max=2.0) = 1.0) -> str:
    """Repeat a text."""
    return text * int(times * by)


def test_a_tool_is_called_like_its_function():
    assert scale("a") == scale(text="a") == "a"
    assert scale("a", 2, 1.5) == scale("a", by=1.5, times=2) == "aaa"


@pytest.mark.parametrize(
    ("args", "named", "sentence"),
    [
        (("a", 1, 1.0, 4), {}, r"^the inputs of tool scale must be at most 3 \(got 4 by position\)\."),
        (
            ("a",),
            {"text": "b"},
            r"^the inputs of tool scale must be each given once \(got 'text' by position",
        ),
        (("a",), {"tims": 2}, r"must be among 'text', 'times', 'by' Did you mean 'times'\? \(got 'tims'\)"),
        ((), {"times": 2}, r"^the inputs of tool scale must be complete, with 'text' \(got 'times'\)\."),
        ((), {}, r"must be complete, with 'text' \(got none\)\."),
        (("a", "two"), {}, r"^scale\(times=…\) must be an integer \(got 'two'\)"),
        (("a",), {"by": 3.0}, r"^scale\(by=…\) must be at most 2\.0 \(got 3\.0\)"),
    ],
)
def test_a_call_that_does_not_fit_says_how(args, named, sentence):
    with pytest.raises(InvalidValue, match=sentence):
        scale(*args, **named)


def test_only_functions_are_tools():
    for thing in (print, Session, 7):
        with pytest.raises(InvalidDeclaration, match=r"^@tool takes a function \(got "):
            tool(thing)


def test_a_method_is_a_tool_of_its_object():
    class Counter:
        count = 0

        def add(self, number: int) -> int:
            self.count += number
            return self.count

    counter = Counter()
    add = tool(counter.add)
    assert [add(2), add(number=3), counter.count] == [2, 5, 5]


def test_the_parameters_of_a_tool_have_names():
    def many(*texts: str) -> None: ...

    def positional(text: str, /) -> None: ...

    def named(**texts: str) -> None: ...

    for function in (many, positional, named):
        with pytest.raises(InvalidDeclaration, match=f"of tool {function.__name__} must all be named: "):
            tool(function)


def test_what_has_no_kind_is_not_checked():
    @tool
    def unclear(whatever: object, thing: Any, plain) -> Any:
        return [whatever, thing, plain]

    @tool
    def unreadable(number: NowhereToBeFound) -> int:  # noqa: F821 - that is the point
        return number

    things = [object(), {1}, print]
    assert unclear(*things) == things
    assert unreadable("seven") == "seven"


def test_a_tool_that_is_awaited_gives_what_it_returns():
    @tool
    async def soon(number: int) -> int:
        return number + 1

    @tool
    async def wrong() -> int:
        return "one"

    assert soon(1) == 2
    with pytest.raises(InvalidValue, match="what tool wrong returns must be an integer"):
        wrong()


def test_each_piece_of_a_tool_that_streams_is_checked_and_leaving_it_ends_it():
    ended = []

    @tool
    def lines(*, count: int) -> Iterator[str]:
        try:
            for number in range(count):
                yield "line" if number < 2 else number
        finally:
            ended.append(count)

    assert list(lines(count=2)) == ["line"] * 2
    pieces = lines(count=9)
    assert next(pieces) == "line"
    pieces.close()
    assert ended == [2, 9]
    with pytest.raises(InvalidValue, match="what tool lines returns must be text"):
        list(lines(count=3))
    assert ended == [2, 9, 3]


def test_the_tools_of_a_session_are_those_that_were_offered_to_it():
    with Session() as session:
        tools = tools_of(session)
        assert (len(tools), list(tools)) == (0, [])
        scale.offer(session)
        again = scale.offer(session, "again")
        assert (again.name, again("a", 2)) == ("again", "aa")
        assert (len(tools), sorted(tools)) == (2, ["again", "scale"])
        assert tools["scale"] is scale


def test_a_fork_has_the_tools_of_its_parent_and_its_own():
    @tool
    def other() -> int:
        return 1

    with Session() as session, session.fork() as fork:
        scale.offer(session)
        other.offer(fork)
        assert sorted(tools_of(fork)) == ["other", "scale"]
        other.offer(fork, "scale")
        assert tools_of(fork)["scale"]() == 1
        assert tools_of(session)["scale"] is scale


def test_a_tool_that_is_not_there_is_named_with_the_near_one():
    with Session("demo") as session:
        scale.offer(session)
        with pytest.raises(UnknownTool, match=r"^session 'demo' has no tool 'scal'\. Did you mean 'scale'"):
            tools_of(session)["scal"]


@pytest.mark.parametrize("name", ["", "no good", "1st"])
def test_a_tool_is_offered_under_a_name(name):
    with Session() as session, pytest.raises(InvalidName, match="a name must match"):
        scale.offer(session, name)
