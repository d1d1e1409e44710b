"""Tools over the bridge: called in a worker, run in the process that made the call."""

from __future__ import annotations

import inspect
import logging
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

_log = logging.getLogger("dspex.pool")


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


class _Stream:
    """The pieces of a tool that streams; whoever leaves it need not wait for the next one."""

    def __init__(self, made: Iterator[Any]) -> None:
        self._made = made
        self._running = threading.Lock()
        self._left = False

    def next(self) -> Any:
        try:
            with self._running:
                return next(self._made)
        finally:
            if self._left:  # meanwhile
                self.leave()

    def leave(self) -> None:
        """End it, now or when it has yielded."""
        self._left = True
        if self._running.acquire(blocking=False):
            try:
                self._made.close()  # type: ignore[attr-defined]  # tools yield in generators
            finally:
                self._running.release()


class Counter:
    """The other end: answers the questions of one call, in the process that made it."""

    def __init__(self, session: Session | None) -> None:
        self._session = session
        self._streams: dict[int, _Stream] = {}
        self._closed = False
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
                    self._streams[stream] = _Stream(made)
                made = stream
                if self._closed:  # meanwhile
                    self._leave(stream)
            return PLAIN.pack(made, f"what tool {name} returned")
        stream = details[0]
        if what == "next":
            try:
                piece = self._streams[stream].next()
            except StopIteration:
                self._streams.pop(stream, None)
                return PLAIN.pack([True, []], "")
            return PLAIN.pack([False, [piece]], "what a tool yielded")
        self._leave(stream)
        return PLAIN.pack(None, "")

    def _leave(self, stream: int) -> None:
        left = self._streams.pop(stream, None)
        if left is not None:
            left.leave()

    def close(self) -> None:
        """The call has ended: so do the streams of its tools. Nobody is there to hear what they raise."""
        self._closed = True
        for stream in list(self._streams):
            try:
                self._leave(stream)
            except BaseException:
                _log.exception("a tool that was left by its call has failed")
