"""Tools over the bridge: called in a worker, run in the process that made the call."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.kinds import Kind
from dspex.pool.values import PLAIN
from dspex.session import Session
from dspex.tools import Parameter, Tool, tools_of

if TYPE_CHECKING:
    from dspex.pool.running import Bridge

__all__ = ["Counter", "RemoteTools"]


class RemoteTools:
    """The tools of whoever made the call, as the worker sees them."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self.number = 0
        """Of the call that runs."""
        self._known: tuple[int, Mapping[str, Tool]] = -1, {}

    def offer(self, session: Session) -> None:
        """Let the programs of *session* find them."""
        tools_of(session).elsewhere = self.found

    def found(self) -> Mapping[str, Tool]:
        """All of them, by name; asked for once a call."""
        number = self.number
        if self._known[0] != number:
            described = PLAIN.unpack(self._bridge.ask(number, "tools"))
            self._known = number, {one[0]: self._tool(*one) for one in described}
        return self._known[1]

    def _tool(self, name: str, parameters: list[Any], result: Any, streams: bool, words: str) -> Tool:
        made = tuple(Parameter(one, _kind(kind), required) for one, kind, required in parameters)

        def call(**inputs: Any) -> Any:
            number = self.number
            data = PLAIN.pack(inputs, f"tool {name}")
            answer = PLAIN.unpack(self._bridge.ask(number, "call", name, data))
            return self._pieces(number, answer) if streams else answer

        parts = [
            inspect.Parameter(one, inspect.Parameter.KEYWORD_ONLY, annotation=Any) for one, _, _ in parameters
        ]
        call.__name__, call.__doc__ = name, words
        call.__signature__ = inspect.Signature(parts)  # type: ignore[attr-defined]
        return Tool(name, call, made, _kind(result), streams, words)

    def _pieces(self, number: int, stream: int) -> Iterator[Any]:
        done = False
        try:
            while not done:
                done, pieces = PLAIN.unpack(self._bridge.ask(number, "next", stream))
                yield from pieces
        finally:
            if not done:
                self._bridge.ask(number, "leave", stream)


def _kind(description: Any) -> Kind[Any] | None:
    return None if description is None else Kind.from_description(description)


def _described(tool: Tool) -> list[Any]:
    parameters = [
        [one.name, None if one.kind is None else one.kind.describe(), one.required] for one in tool.parameters
    ]
    result = None if tool.result is None else tool.result.describe()
    return [tool.name, parameters, result, tool.streams, tool.description]


class Counter:
    """The other end: answers the questions of one call, in the process that made it."""

    def __init__(self, session: Session | None) -> None:
        self._session = session
        self._streams: dict[int, Iterator[Any]] = {}
        self._ids = count(1)
        self._lock = threading.Lock()

    def answer(self, what: str, *details: Any) -> bytes:
        """
        The encoded answer to a question.

        Raises:
            What the tool raises; `UnknownTool`.
        """
        tools: Mapping[str, Tool] = {} if self._session is None else tools_of(self._session)
        if what == "tools":
            return PLAIN.pack([_described(one) for one in tools.values()], "tools")
        if what == "call":
            name, data = details
            if self._session is None:
                raise errors.UnknownTool(
                    f"a run without a session has no tool {errors.shown(name, 80)}. Offer it to a session, "
                    "and run on that.",
                    name=name,
                )
            tool = tools[name]
            made = tool(**PLAIN.unpack(data))
            if tool.streams:
                with self._lock:
                    stream = next(self._ids)
                    self._streams[stream] = made
                made = stream
            return PLAIN.pack(made, f"what tool {name} returned")
        stream = details[0]
        if what == "next":
            try:
                piece = next(self._streams[stream])
            except StopIteration:
                self._streams.pop(stream)
                return PLAIN.pack([True, []], "")
            return PLAIN.pack([False, [piece]], "what a tool yielded")
        self._leave(stream)
        return PLAIN.pack(None, "")

    def _leave(self, stream: int) -> None:
        left = self._streams.pop(stream, None)
        close = getattr(left, "close", None)
        if close is not None:
            close()

    def close(self) -> None:
        """The call has ended: so do the streams of its tools."""
        for stream in list(self._streams):
            self._leave(stream)
