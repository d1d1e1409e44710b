"""What a user may write where a kind is meant."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, overload

import attrs

from dspex.errors import InvalidDeclaration

from .base import Kind, kind_named
from .choices import Boolean, Choice
from .lists import ListOf
from .numbers import Float, Integer
from .plain import brief
from .structs import Struct
from .text import Text

__all__ = ["as_kind"]

T = TypeVar("T")

_TYPES: dict[type, type[Kind[Any]]] = {bool: Boolean, float: Float, int: Integer, str: Text}


@overload
def as_kind(spec: Kind[T], constraints: None = None) -> Kind[T]: ...
@overload
def as_kind(spec: type[list[T]], constraints: None = None) -> Kind[tuple[T, ...]]: ...
@overload
def as_kind(spec: type[Enum], constraints: None = None) -> Kind[Any]: ...
@overload
def as_kind(spec: type[T], constraints: None = None) -> Kind[T]: ...
@overload
def as_kind(spec: object, constraints: Mapping[str, Any] | None = None) -> Kind[Any]: ...


def as_kind(spec: object, constraints: Mapping[str, Any] | None = None) -> Kind[Any]:
    """
    Return the kind that *spec* means.

    - a kind: itself
    - a Python type: `float`, `int`, `str`, `bool`, an Enum (a `Choice` of its members' values),
      `Literal["a", 1]`, `list[X]`, an attrs class
    - a wire name with its constraints: `"float", {"min": 0.0, "max": 1.5}`

    All three give equal kinds.

    Raises:
        InvalidDeclaration: *spec* is none of these, or its constraints can never work.

    """
    if isinstance(spec, str):
        return kind_named(spec).from_constraints(_constraints(constraints))
    if constraints is not None:
        raise InvalidDeclaration(
            f"Constraints go with a kind's wire name, such as 'float', or into the kind itself"
            f" (got {brief(constraints)} beside {brief(spec)})."
        )
    return spec if isinstance(spec, Kind) else _from_type(spec)


def _constraints(constraints: object) -> Mapping[str, Any]:
    if constraints is None:
        return {}
    if not isinstance(constraints, Mapping):
        raise InvalidDeclaration(f"Constraints must be a mapping (got {brief(constraints)}).")
    return constraints


def _from_type(spec: Any) -> Kind[Any]:
    origin, arguments = get_origin(spec), get_args(spec)
    if origin is Literal:
        return Choice(choices=arguments)
    if origin is list:
        return ListOf(as_kind(arguments[0]))
    if isinstance(spec, type):
        if spec in _TYPES:
            return _TYPES[spec]()
        if issubclass(spec, Kind):
            raise InvalidDeclaration(f"{spec.__name__} is a class of kinds: write {spec.__name__}(…).")
        if issubclass(spec, Enum):
            return Choice(choices=tuple(spec))
        if attrs.has(spec):
            return Struct(spec)
    raise InvalidDeclaration(
        "A kind is given as one, such as Float(); as float, int, str, bool, an Enum, a Literal, list[…]"
        f" or an attrs class; or by its wire name (got {brief(spec)}).{_instead(spec)}"
    )


def _instead(spec: Any) -> str:
    """What to write for a type that is often tried, and is none of these."""
    if get_origin(spec) in (Union, UnionType):
        if NoneType in get_args(spec):
            return " A variable always has a value: let one stand for none, or list them, Choice(None, 'a')."
        return " A variable has one kind: declare one for each type."
    if isinstance(spec, type) and hasattr(spec, "__dataclass_fields__"):
        return f" {spec.__name__} is a dataclass: decorate it with @attrs.frozen."
    return ""
