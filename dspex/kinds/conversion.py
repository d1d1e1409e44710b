"""
How cattrs makes instances of attrs classes; the one place that imports it.

Imported with the first `Struct`: cattrs takes a fifth of the time of all imports.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, get_args, get_origin

from cattrs import AttributeValidationNote, Converter, IterableValidationNote
from cattrs.cols import (
    homogenous_tuple_structure_factory,
    is_frozenset,
    is_mutable_sequence,
    is_sequence,
    is_set,
    list_structure_factory,
)
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError

from dspex.errors import InvalidValue

from .plain import brief

__all__ = ["ForbiddenExtraKeysError", "converter", "first_error"]

Hook = Callable[[Any, Any], Any]

# cattrs is lenient where a variable is not: it makes `int("3")`, and of a text a list of its letters. So
# these hooks stand before its own. What comes to them is frozen plain data.

_SCALARS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("True or False", (bool,)),
    int: ("an integer", (int,)),
    float: ("a float", (float, int)),
    str: ("text", (str,)),
    bytes: ("bytes", (bytes,)),
}


def _scalar(value: object, wanted: type) -> Any:
    if wanted not in _SCALARS:  # a subclass: an enum of texts or of numbers
        return wanted(value)
    expected, taken = _SCALARS[wanted]
    if type(value) not in taken:
        raise InvalidValue.expecting(expected, brief(value))
    return wanted(value)


def _list(make: Callable[[Any, Converter], Hook], result: type | None, wanted: Any, own: Converter) -> Hook:
    structure = make(wanted, own)

    def hook(value: object, _: Any) -> Any:
        if not isinstance(value, tuple):
            raise InvalidValue.expecting("a list", brief(value))
        items = structure(value, wanted)
        return items if result is None else result(items)

    return hook


def _is_record(wanted: Any) -> bool:
    return get_origin(wanted) is tuple and ... not in get_args(wanted)


def _record(wanted: Any, own: Converter) -> Hook:
    """Make the hook of a tuple with a type for each place, `tuple[int, str]`."""
    types = get_args(wanted)

    def structure(value: Any, _: Any) -> tuple[Any, ...]:
        if len(value) != len(types):
            raise InvalidValue.expecting(f"a list of {len(types)} items", brief(value))
        return tuple(map(own.structure, value, types))

    return structure


def _strict() -> Converter:
    strict = Converter(forbid_extra_keys=True, unstruct_collection_overrides={set: list, frozenset: list})
    for scalar in _SCALARS:
        strict.register_structure_hook(scalar, _scalar)
    for predicate, make, result in (  # the last that says yes is taken: a list is a sequence too
        (is_sequence, homogenous_tuple_structure_factory, None),
        (is_mutable_sequence, list_structure_factory, None),
        (is_set, list_structure_factory, set),
        (is_frozenset, list_structure_factory, frozenset),
        (_is_record, _record, None),
    ):
        strict.register_structure_hook_factory(predicate, partial(_list, make, result))
    return strict


converter = _strict()


# What went wrong, and where


def first_error(error: BaseException, path: str = "") -> tuple[BaseException, str, Any]:
    """Find the first error in groups of groups: itself, its path, and the type expected there."""
    wanted = None
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            path, wanted = f"{path}.{note.name}", note.type
        elif isinstance(note, IterableValidationNote):
            path, wanted = f"{path}[{note.index!r}]", note.type
    if isinstance(error, BaseValidationError):
        return first_error(error.exceptions[0], path)
    return error, path.removeprefix("."), wanted
