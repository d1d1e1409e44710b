"""Points of a space that was declared differently, as points of the one that is declared now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from dspex import errors

if TYPE_CHECKING:
    from dspex.spaces.space import SearchSpace

__all__ = ["Mapped", "map_point"]


@attrs.frozen
class Mapped:
    """What became of a point."""

    point: Mapping[str, Any] | None
    """The point of the present space; None if there is no such point."""
    notes: tuple[str, ...]
    """What was dropped or filled in on the way, or why there is none."""


def map_point(space: SearchSpace, encoded: Mapping[str, Any], before: Mapping[str, Any]) -> Mapped:
    """See `SearchSpace.map`."""
    notes: list[str] = []
    point: dict[str, Any] = {}
    for name, scalar in encoded.items():
        if name in space:
            continue
        if name not in before or before[name] != scalar:
            return Mapped(
                None, (f"{name} is no dimension any more, and had been {errors.shown(scalar, 60)}",)
            )
        notes.append(f"{name} is no dimension any more, and had the value that it began with")
    for name, dimension in space.dimensions.items():
        if dimension.when is not None and not dimension.when.holds(point):
            if name in encoded:
                notes.append(f"{name} does not matter there now")
        elif name not in encoded:
            point[name] = dimension.initial
            notes.append(f"{name} is new, and stands at its initial value")
        else:
            try:
                point[name] = dimension.decode(encoded[name])
                dimension.encode(point[name])
            except (errors.InvalidValue, errors.LimitExceeded) as error:
                return Mapped(None, (error.message,))
    refused = space.refusal(point)
    if refused is not None:
        return Mapped(None, (refused,))
    return Mapped(point, tuple(notes))
