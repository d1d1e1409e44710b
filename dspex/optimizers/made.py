"""What was made for a study before its first trial, kept with it: nobody wants to pay for it again."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from dspex import wire

if TYPE_CHECKING:
    from dspex.optimizers.base import Search

__all__ = ["Proposed", "found_once", "keep_candidates", "kept_candidates"]

Proposed: TypeAlias = tuple[list[dict[str, Any]], list[str]]
"""Points that an optimizer of DSPy found, best first, values by name; and notes."""

CANDIDATES = "dspex.candidates"
"""The user attribute of a study with its candidates, whole: trials have only their labels."""

FOUND = "dspex.found"
"""The user attributes, one for each of DSPy's optimizers, with what it found."""


def kept_candidates(search: Search, study: Any) -> dict[str, list[Any]] | None:
    """The candidates by name that *study* was begun with; None if it was not."""
    kept = study.user_attrs.get(CANDIDATES)
    if kept is None:
        return None
    kinds = _kinds(search)
    return {
        name: [_unpacked(kinds[name], one) for one in values]
        for name, values in kept.items()
        if name in kinds
    }


def keep_candidates(search: Search, study: Any) -> None:
    """Have *study* remember the candidates of *search*, those that a variable had anyway among them."""
    space = search.space
    packed = {
        name: [_packed(space[name].kind, one) for one in space[name].points(1)]
        for name in search.candidates
        if name in space
    }
    study.set_user_attr(CANDIDATES, packed)


def found_once(search: Search, study: Any, part: str, find: Callable[[], Proposed]) -> Proposed:
    """
    What was found for *part* of *study*, or what *find* finds now; kept before it is given.

    A process that is killed while *find* is at it has to begin that part again.
    """
    kinds, key = _kinds(search), f"{FOUND}.{part}"
    kept = study.user_attrs.get(key)
    if kept is not None:
        return [_point(kinds, one, _unpacked) for one in kept["points"]], list(kept["notes"])
    points, notes = find()
    packed = [_point(kinds, one, _packed) for one in points]
    study.set_user_attr(key, {"points": packed, "notes": list(notes)})
    return points, notes


def _kinds(search: Search) -> dict[str, Any]:
    return {name: one.kind for name, one in search.program.variables.items()}


def _point(
    kinds: Mapping[str, Any], values: Mapping[str, Any], turned: Callable[[Any, Any], Any]
) -> dict[str, Any]:
    return {name: turned(kinds[name], value) for name, value in values.items() if name in kinds}


def _packed(kind: Any, value: Any) -> str:
    return base64.b64encode(wire.pack_value(kind, value)).decode()


def _unpacked(kind: Any, text: str) -> Any:
    return wire.unpack_value(kind, base64.b64decode(text))
