"""What differs between two points in the life of one session or of two."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import typer

from dspex import history
from dspex.cli.rendering import as_json, short
from dspex.kinds import Kind
from dspex.session import Session
from dspex.wire import pack_value

__all__ = ["Difference", "between", "point"]


@attrs.frozen
class _Value:
    """A value and its kind, at one point."""

    kind: Kind[Any]
    value: Any

    @property
    def exact(self) -> tuple[str, bytes]:
        """The value bit for bit: what two values must share to be the same."""
        return self.kind.name, pack_value(self.kind, self.value)


Point = Mapping[str, _Value]


@attrs.frozen
class Difference:
    """One name that has two values, or a value at one of the two points only."""

    name: str
    before: _Value | None
    after: _Value | None

    def as_json(self) -> dict[str, Any]:
        """The name, and the values of those points that have one."""
        sides = {"before": self.before, "after": self.after}
        return {"name": self.name} | {
            side: as_json(one.kind, one.value) for side, one in sides.items() if one is not None
        }

    def lines(self) -> Iterator[str]:
        """For people: texts of several lines are compared line by line."""
        texts = [_text(one) for one in (self.before, self.after)]
        if any("\n" in text for text in texts):
            yield self.name
            old, new = (text.splitlines() for text in texts)
            for line in list(difflib.unified_diff(old, new, lineterm="", n=2))[2:]:
                yield f"  {line}"
        else:
            yield f"{self.name} {_brief(self.before)} -> {_brief(self.after)}"


def _brief(one: _Value | None) -> str:
    return "(not there)" if one is None else short(one.kind, one.value)


def _text(one: _Value | None) -> str:
    return one.value if one is not None and isinstance(one.value, str) and not one.kind.secret else ""


def point(session: Session, at: str | None, name: str | None) -> Point:
    """The values of *session* now, at a tag, or those of *name* only, which may be at a version."""
    kinds = {one: declared.kind for one, declared in session.variables.items()}
    if name is not None:
        session.record(name)
    if at is not None and at.isdecimal():
        if name is None:
            raise typer.BadParameter(f"{at} is the version of one variable: give its --name.")
        return {name: _Value(kinds[name], history.value_at(session, name, int(at)))}
    values = session.snapshot(at)
    return {one: _Value(kinds[one], value) for one, value in values.items() if name in (None, one)}


def between(before: Point, after: Point) -> list[Difference]:
    """What differs, in the order of declaration."""
    found = [Difference(name, before.get(name), after.get(name)) for name in {**before, **after}]
    return [one for one in found if _exact(one.before) != _exact(one.after)]


def _exact(one: _Value | None) -> object:
    return None if one is None else one.exact
