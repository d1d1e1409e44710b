"""What the fields of kinds share: lenient converters, and validators that refuse with a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard, TypeVar

import attrs
from attrs.validators import and_, optional

from dspex.errors import InvalidDeclaration

from .plain import brief, is_int64, is_text

if TYPE_CHECKING:
    from .base import Kind

__all__ = [
    "Must",
    "NotBelow",
    "count",
    "finite",
    "flag",
    "if_set",
    "int64",
    "is_sequence",
    "names",
    "positive",
    "refusal",
    "to_float",
    "to_int",
    "to_names",
    "to_tuple",
    "within",
]

T = TypeVar("T")
Validator: TypeAlias = Callable[[Any, Any, Any], None]


def refusal(kind: Kind[Any], constraint: str, expected: str, given: object) -> InvalidDeclaration:
    """Say that a constraint of *kind* must be *expected*, and was *given*."""
    owner = type(kind).__name__
    return InvalidDeclaration(
        f"{owner}: {constraint} must be {expected} (got {brief(given)}).",
        kind=owner,
        constraint=constraint,
        expected=expected,
    )


# Converters change what they understand and pass on the rest, so that the validator can name the
# constraint when it refuses.


def to_float(value: float | None) -> float | None:
    """Make a number a float, so that `min=0` and `min=0.0` declare equal kinds."""
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return value
    return value


def to_int(value: int | None) -> int | None:
    """Make a whole float an int."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_names(value: Sequence[str] | None) -> tuple[str, ...] | None:
    """Make a list of texts a tuple; a text is not a list of texts here."""
    return to_tuple(value)


def to_tuple(value: Sequence[T] | None) -> tuple[T, ...] | None:
    """Make a sequence a tuple."""
    return tuple(value) if is_sequence(value) else value  # type: ignore[return-value]


def is_sequence(value: object) -> TypeGuard[Sequence[Any]]:
    """Say whether *value* is a sequence of items: not text, not bytes."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


# Validators


@attrs.frozen(eq=False, repr=False)
class Must:
    """A validator: the constraint must be what *expected* says and *test* finds."""

    expected: str
    test: Callable[[Any], bool]

    def __call__(self, kind: Any, field: attrs.Attribute[Any], value: Any) -> None:
        """Refuse *value* unless it passes the test."""
        if not self.test(value):
            raise refusal(kind, field.name, self.expected, value)


@attrs.frozen(eq=False, repr=False)
class NotBelow:
    """A validator: the constraint must not be below *other*, which is declared before it."""

    other: str

    def __call__(self, kind: Any, field: attrs.Attribute[Any], value: Any) -> None:
        """Refuse *value* if both are there and it is the lesser."""
        least = getattr(kind, self.other)
        if None not in (least, value) and value < least:
            raise refusal(kind, self.other, f"at most {field.name}, which is {brief(value)}", least)


def if_set(*validators: Validator) -> Validator:
    """Join validators into one that lets None pass: the constraint is not set."""
    return optional(and_(*validators))


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and math.isfinite(value)


def _are_names(value: object) -> bool:
    return isinstance(value, tuple) and all(map(is_text, value)) and len(set(value)) == len(value) > 0


flag = Must("True or False", lambda value: isinstance(value, bool))
finite = Must("a finite number", _is_finite)
int64 = Must("a 64-bit integer", lambda value: _is_int(value) and is_int64(value))
positive = Must("above 0", lambda value: value > 0)
count = Must("a whole number from 0", lambda value: _is_int(value) and value >= 0)
names = Must("a list of different texts, at least one", _are_names)


def within(inner: float | None, outer: float | None, sign: int = 1) -> bool:
    """
    Say whether a bound is at least as tight as another; None bounds nothing.

    Upper bounds compare as they are, lower ones with *sign* -1.
    """
    return outer is None or (inner is not None and inner * sign <= outer * sign)
