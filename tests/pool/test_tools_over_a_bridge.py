"""Tools of another process, without that process: what a worker asks, and what it is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dspex import Integer, InvalidValue, Session, UnknownTool, tool
from dspex.pool.bridging import Counter, RemoteTools
from dspex.pool.values import PLAIN
from dspex.tools import tools_of


class Straight:
    """A bridge without a river: questions go to the counter at once."""

    def __init__(self, counter):
        self.counter = counter
        self.asked = []

    def ask(self, number, what, *details):
        self.asked.append((number, what))
        return self.counter.answer(what, *details)


@tool
def half(number: Integer(min=0), rest: object = None) -> int:
    """Divide by two."""
    return number // 2


@pytest.fixture
def ended():
    return []


@pytest.fixture
def lines(ended):
    @tool
    def lines(count: int) -> Iterator[str]:
        try:
            for number in range(count):
                yield f"line {number}"
        finally:
            ended.append(count)

    return lines


@pytest.fixture
def there():
    """The session of whoever calls."""
    with Session() as session:
        half.offer(session)
        yield session


@pytest.fixture
def bridge(there):
    return Straight(Counter(there))


@pytest.fixture
def here(bridge):
    """The tools in the worker, in its own session."""
    with Session() as session:
        remote = RemoteTools(bridge)
        remote.offer(session)
        yield remote, tools_of(session)


def test_a_tool_of_another_process_looks_as_it_does_there(here):
    _, tools = here
    assert list(tools) == ["half"]
    found = tools["half"]
    assert (found.name, found.description, found.streams) == ("half", "Divide by two.", False)
    assert found.parameters == half.parameters
    assert found.result == half.result
    assert found(9) == found(number=9) == 4


def test_what_does_not_fit_is_refused_before_it_travels(here, bridge):
    _, tools = here
    found = tools["half"]
    before = list(bridge.asked)
    with pytest.raises(InvalidValue, match=r"^half\(number=…\) must be at least 0"):
        found(-1)
    with pytest.raises(InvalidValue, match=r"^tool half\['rest'\] must be plain data"):
        found(1, object())
    assert bridge.asked == before


def test_tools_are_asked_for_once_a_call(here, bridge):
    remote, tools = here
    for number in (7, 7, 8):
        remote.number = number
        assert tools["half"](4) == 2
    assert bridge.asked == [(7, "tools"), (7, "call"), (7, "call"), (8, "tools"), (8, "call")]


def test_a_stream_that_is_left_ends_where_it_runs(here, there, lines, ended):
    lines.offer(there)
    _, tools = here
    pieces = tools["lines"](9)
    assert [next(pieces), next(pieces)] == ["line 0", "line 1"]
    assert ended == []
    pieces.close()
    assert ended == [9]
    assert list(tools["lines"](2)) == ["line 0", "line 1"]
    assert ended == [9, 2]


def test_the_end_of_a_call_ends_the_streams_that_it_has_open(there, lines, ended):
    lines.offer(there)
    counter = Counter(there)
    for count in (3, 4):
        stream = PLAIN.unpack(counter.answer("call", "lines", PLAIN.pack({"count": count}, "")))
        assert PLAIN.unpack(counter.answer("next", stream)) == [False, ["line 0"]]
    counter.close()
    assert ended == [3, 4]
    counter.close()
    assert ended == [3, 4]


def test_who_called_without_a_session_offers_no_tools():
    counter = Counter(None)
    assert PLAIN.unpack(counter.answer("tools")) == []
    with pytest.raises(UnknownTool, match="a run without a session has no tool 'half'") as raised:
        counter.answer("call", "half", PLAIN.pack({"number": 1}, ""))
    assert raised.value.name == "half"
