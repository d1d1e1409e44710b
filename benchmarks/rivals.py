"""One bounded float, temperature, in dspex, in its peers and by hand; each checked before it is timed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import attrs
import param
import psygnal
import pydantic
import traitlets

from dspex import Float, Program, Session, defvariable

__all__ = ["HAND_MADE", "RIVALS", "Agent", "Settable", "checked", "distinct"]

Watcher = Callable[[Any], object]


class Agent(Program):
    """The program of most rows."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)


class HandMade:
    """What one writes by hand: bounds, a lock, a dict, a version, a loop over watchers; nothing more."""

    def __init__(self, watchers: Iterable[Watcher]) -> None:
        self.lock = threading.Lock()
        self.values = {"temperature": 0.7}
        self.version = 0
        self.watchers = tuple(watchers)

    def set(self, name: str, value: float) -> None:
        if not isinstance(value, float) or not 0.0 <= value <= 1.5:
            raise ValueError(value)
        with self.lock:
            self.values[name] = value
            self.version += 1
        for watcher in self.watchers:
            watcher(value)


class Traitlets(traitlets.HasTraits):
    temperature = traitlets.Float(0.7, min=0.0, max=1.5)


class Param(param.Parameterized):
    temperature = param.Number(0.7, bounds=(0.0, 1.5))


class Evented(psygnal.EventedModel, validate_assignment=True):
    temperature: float = pydantic.Field(0.7, ge=0.0, le=1.5)


class Model(pydantic.BaseModel, validate_assignment=True):
    temperature: float = pydantic.Field(0.7, ge=0.0, le=1.5)


@attrs.frozen
class Settable:
    """Something with a temperature, and the code that sets it to two values in turn."""

    target: Any
    read: Callable[[], float]
    write: Callable[[float], object]
    code: str = "target.temperature = 0.1; target.temperature = 0.2"
    program: Any = None
    """The bound program, which lives as long as somebody holds it."""

    @classmethod
    def attribute(cls, target: Any) -> Settable:
        """A *target* whose temperature is assigned."""
        return cls(target, lambda: target.temperature, lambda value: setattr(target, "temperature", value))


BY_NAME = 'target.set("temperature", 0.1); target.set("temperature", 0.2)'


def hand_made(watchers: Iterable[Watcher]) -> Settable:
    made = HandMade(watchers)
    return Settable(made, lambda: made.values["temperature"], partial(made.set, "temperature"), BY_NAME)


def dspex_session(watchers: Iterable[Watcher]) -> Settable:
    """`session.set`, which pushes into one bound program."""
    session = Session()
    program = Agent.bind(session)
    for watcher in watchers:
        session.watch("temperature", watcher)
    write = partial(session.set, "temperature")
    return Settable(session, lambda: program.temperature, write, BY_NAME, program)


def dspex_assigned(watchers: Iterable[Watcher]) -> Settable:
    """Assignment on the bound program."""
    return Settable.attribute(dspex_session(watchers).program)


def traitlets_observed(watchers: Iterable[Watcher]) -> Settable:
    made = Traitlets()
    for watcher in watchers:
        made.observe(watcher, "temperature")
    return Settable.attribute(made)


def param_watched(watchers: Iterable[Watcher]) -> Settable:
    made = Param()
    for watcher in watchers:
        made.param.watch(watcher, "temperature")
    return Settable.attribute(made)


def psygnal_connected(watchers: Iterable[Watcher]) -> Settable:
    made = Evented()
    for watcher in watchers:
        made.events.temperature.connect(watcher)
    return Settable.attribute(made)


HAND_MADE = "by hand: bounds, lock, dict, version, loop over watchers"

RIVALS: dict[str, Callable[[Iterable[Watcher]], Settable]] = {
    HAND_MADE: hand_made,
    "dspex session.set": dspex_session,
    "dspex program.temperature = …": dspex_assigned,
    "traitlets Float(min, max), observe": traitlets_observed,
    "param Number(bounds), watch": param_watched,
    "psygnal EventedModel(validate_assignment), connect": psygnal_connected,
}


def distinct(count: int, call: Callable[[], object] | None = None) -> list[Watcher]:
    """*count* different watchers, which do nothing but *call*."""
    if call is None:
        return [lambda _: None for _ in range(count)]
    return [lambda _: call() for _ in range(count)]


def checked(label: str, make: Callable[[Iterable[Watcher]], Settable], watchers: int) -> Settable:
    """
    What *make* makes, with *watchers* of them that do nothing.

    Another one made like it has shown that it tells every watcher once, and refuses 2.0 without a word to
    them.
    """
    told: list[int] = []
    tried = make(distinct(watchers, lambda: told.append(1)))
    tried.write(0.3)
    if tried.read() != 0.3 or len(told) != watchers:
        raise SystemExit(f"{label}: {len(told)} of {watchers} watchers were told, it holds {tried.read()}")
    try:
        tried.write(2.0)
    except Exception:
        pass
    else:
        raise SystemExit(f"{label}: took 2.0")
    if tried.read() != 0.3 or len(told) != watchers:
        raise SystemExit(f"{label}: refused 2.0 but did something with it")
    return make(distinct(watchers))
