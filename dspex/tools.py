"""
Tools: functions that a program calls back, wherever it runs.

A tool belongs to the process that offers it to a session. A program finds it in `self.tools`; in a worker of
a pool the call travels to that process and back. What goes in and out is checked against the annotations
first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

import attrs

from dspex import errors
from dspex.crossing import result_of
from dspex.kinds import Kind, as_kind
from dspex.records import check_name

if TYPE_CHECKING:
    from dspex.session import Session

__all__ = ["Parameter", "Tool", "Tools", "tool", "tools_of"]


@attrs.frozen
class Parameter:
    """One input of a tool."""

    name: str
    kind: Kind[Any] | None
    """
    What it takes; None where the annotation is of no kind, or there is none: then anything that can travel.
    """
    required: bool


@attrs.frozen
class Tool:
    """A function with a name and checked types. Called like the function, by position or by name."""

    name: str
    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    result: Kind[Any] | None
    """What it returns, or what each piece is if it streams."""
    streams: bool
    """Whether a call gives an iterator."""
    description: str = ""

    def offer(self, session: Session, name: str | None = None) -> Tool:
        """Let the programs of *session* call this, here, under *name*; the same name again replaces it."""
        offered = self if name is None else attrs.evolve(self, name=check_name(name))
        tools_of(session)._own[offered.name] = offered
        return offered

    def arguments(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        """
        The inputs of a call by name, each as its kind has it.

        Raises:
            InvalidValue: One is missing, unknown, or none of its kind's.
        """
        known = {one.name: one for one in self.parameters}
        if len(args) > len(known):
            raise self._wrong(f"at most {len(known)}", f"{len(args)} by position")
        given = dict(zip(known, args, strict=False))
        for name in named:
            if name in given:
                raise self._wrong("each given once", f"'{name}' by position and by name")
            if name not in known:
                raise self._wrong(
                    f"among {_listed(known)}{errors.did_you_mean(name, known)}", errors.shown(name, 80)
                )
        given |= named
        missing = [one.name for one in self.parameters if one.required and one.name not in given]
        if missing:
            raise self._wrong(f"complete, with {errors.listed(missing)}", _listed(given))
        return {
            name: self._checked(f"{self.name}({name}=…)", known[name].kind, value)
            for name, value in given.items()
        }

    def _wrong(self, expected: str, given: str) -> errors.InvalidValue:
        return errors.InvalidValue.expecting(expected, given).at(f"the inputs of tool {self.name}")

    @staticmethod
    def _checked(where: str, kind: Kind[Any] | None, value: Any) -> Any:
        if kind is None:
            return value
        try:
            stored = kind.check(value)
        except errors.InvalidValue as error:
            raise error.at(where) from None
        # A list of texts is stored as a tuple, and a function that takes lists wants one.
        return stored if isinstance(stored, int | float | str) else value

    def returned(self, value: Any) -> Any:
        """What the tool returned, or one piece of it, as its kind has it."""
        return self._checked(f"what tool {self.name} returns", self.result, value)

    def _pieces(self, made: Any) -> Iterator[Any]:
        try:
            for piece in made:
                yield self.returned(piece)
        finally:
            made.close()

    def __call__(self, *args: Any, **named: Any) -> Any:
        made = self.function(**self.arguments(args, named))
        if self.streams:
            return self._pieces(made)
        return self.returned(result_of(made) if inspect.isawaitable(made) else made)


def tool(function: Callable[..., Any]) -> Tool:
    """
    Make a tool of *function*: its name, its first line, and its annotations as types that are checked.

    A generator function makes a tool that streams.
    """
    if not inspect.isfunction(function) and not inspect.ismethod(function):
        raise errors.InvalidDeclaration(
            f"@tool takes a function (got {errors.shown(function, 80)}). Call that in a function of your own."
        )
    name = function.__name__
    try:
        hints = get_type_hints(function)
    except Exception:  # names that only type checkers see
        hints = {}
    parameters = []
    for one in inspect.signature(function).parameters.values():
        if one.kind not in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
            why = "has no name for callers" if one.kind is one.POSITIONAL_ONLY else "takes any number"
            raise errors.InvalidDeclaration(
                f"the parameters of tool {name} must all be named: {one} {why}. Name it, or take one list."
            )
        parameters.append(Parameter(one.name, _kind(hints.get(one.name)), one.default is one.empty))
    streams = inspect.isgeneratorfunction(function)
    result = hints.get("return")
    if streams:
        result = next(iter(getattr(result, "__args__", ())), None)
    described = inspect.getdoc(function) or ""
    return Tool(check_name(name), function, tuple(parameters), _kind(result), streams, described)


def _kind(annotation: Any) -> Kind[Any] | None:
    if annotation in (None, Any, type(None)):
        return None
    try:
        return as_kind(annotation)
    except errors.InvalidDeclaration:
        return None


def _listed(names: Collection[str]) -> str:
    return errors.listed(names) or "none"


class Tools(Mapping[str, Tool]):
    """The tools of a session, by name: those of this process, then those of whoever asked for the run."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._own: dict[str, Tool] = {}
        self.elsewhere: Callable[[], Mapping[str, Tool]] = dict
        """Gives the tools that another process offers."""

    def __getitem__(self, name: str) -> Tool:
        found = self._own.get(name) or self.elsewhere().get(name)
        if found is None:
            known = sorted(self)
            raise errors.UnknownTool(
                f"{self._where} has no tool {errors.shown(name, 80)}.{errors.did_you_mean(name, known)} "
                "Offer it: tool(function).offer(session).",
                name=name,
                known=known,
            )
        return found

    def __iter__(self) -> Iterator[str]:
        return iter({**self.elsewhere(), **self._own})

    def __len__(self) -> int:
        return len({**self.elsewhere(), **self._own})


def tools_of(session: Session) -> Tools:
    """The tools that *session* has here; a fork has those of its parent too."""

    def made() -> Tools:
        tools = Tools(f"session '{session.id}'")
        parent = session.parent
        if parent is not None:
            tools.elsewhere = lambda: tools_of(parent)
        return tools

    tools: Tools = session.attachment(Tools, made)
    return tools
