"""Kinds with a few values, all of them declared."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from attrs import Factory, field, frozen

from .base import Kind, one_of
from .constraints import flag, is_sequence, refusal
from .plain import exact, is_int64, is_text, parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import attrs

__all__ = ["Boolean", "Choice", "ModuleChoice"]

T = TypeVar("T")

_WORDS: dict[str, bool] = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


@frozen(repr=False)
class Boolean(Kind[bool], name="boolean"):
    """
    True or False.

    Takes and stores bool, and no number or text in its place.
    """

    fixed: ClassVar[bool] = True

    def check(self, value: object) -> bool:
        """Return *value*."""
        if value is True or value is False:
            return value
        raise self.refusal("True or False", value)

    def parse(self, text: str) -> bool:
        """Return what *text* means: true or false, yes or no, on or off, 1 or 0."""
        try:
            return _WORDS[text.strip().lower()]
        except KeyError:
            raise self.refusal("true, false, yes, no, on, off, 1 or 0", text) from None

    def json_schema(self) -> dict[str, Any]:
        """Return the type."""
        return {"type": "boolean"}


def _key(value: object) -> tuple[type, object]:
    """Tell apart what Python holds for equal: 1, 1.0 and True."""
    return type(value), value


def _keys(choices: tuple[object, ...]) -> tuple[tuple[type, object], ...]:
    return tuple(map(_key, choices))


def _value(choice: object) -> object:
    """An enum's member stands for its value, also where nobody knows the enum."""
    return exact(choice.value if isinstance(choice, Enum) else choice)


def _are_different(kind: _Listed[Any], _: attrs.Attribute[Any], choices: tuple[Any, ...]) -> None:
    if not choices:
        raise refusal(kind, "choices", "at least one value", choices)
    for choice in choices:
        if not kind.possible(choice):
            raise refusal(kind, "choices", kind.expected, choice)
    if len(set(_keys(choices))) < len(choices):
        raise refusal(kind, "choices", "different from each other", choices)


def _by_key(kind: _Listed[T]) -> Mapping[object, T]:
    return {_key(choice): choice for choice in kind.choices if kind.possible(choice)}


@frozen(repr=False, init=False)
class _Listed(Kind[T]):
    """What kinds of declared values share."""

    fixed: ClassVar[bool] = True

    expected: ClassVar[str]
    """What choices may be declared, for a sentence."""

    @staticmethod
    @abstractmethod
    def possible(choice: object) -> bool:
        """Say whether *choice* may be declared."""

    choices: tuple[T, ...] = field(validator=_are_different, eq=_keys)
    """The values, in the order of their declaration."""

    _stored: Mapping[object, T] = field(default=Factory(_by_key, takes_self=True), init=False, eq=False)

    def _gathered(self, options: tuple[T, ...], choices: Sequence[T] | None) -> tuple[T, ...]:
        """Return the choices, which may be given by position or by name."""
        if len(options) == 1 and isinstance(options[0], Iterable) and not isinstance(options[0], str | bytes):
            cls = type(self).__name__
            expected = f"given one by one, {cls}('a', 'b'), or by name, {cls}(choices=['a', 'b'])"
            raise refusal(self, "choices", expected, options[0])
        if choices is None:
            choices = options
        elif options:
            raise refusal(self, "choices", "given by position or by name, not both", choices)
        if not is_sequence(choices):
            raise refusal(self, "choices", "a list of values", choices)
        return tuple(map(_value, choices))  # type: ignore[arg-type]

    def check(self, value: object) -> T:
        """Return the choice that *value* is, in type as well, or whose member of an enum it is."""
        try:
            return self._stored[_key(_value(value))]
        except (KeyError, TypeError):  # not listed, not hashable
            raise self.refusal(one_of(self.choices), value) from None

    def parse(self, text: str) -> T:
        """Return the choice that *text* is as JSON, else the one that looks like it."""
        with suppress(ValueError):
            return self.check(parse_json(text))
        for choice in sorted(self.choices, key=lambda choice: not isinstance(choice, str)):
            if str(choice) == text:
                return choice
        raise self.refusal(one_of(self.choices), text)

    def json_schema(self) -> dict[str, Any]:
        """Return the choices."""
        return {"enum": list(self.choices)}

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether all choices are the other's too."""
        return isinstance(other, type(self)) and all(map(other.takes, self.choices))


@frozen(repr=False, init=False)
class Choice(_Listed[T], name="choice"):
    """
    One of the listed values: None, booleans, integers, floats, texts, in any mixture.

    Takes a listed value of the same type (`1`, `1.0` and `True` are three), or a member of an Enum with
    such a value. Stores the listed value.
    """

    expected: ClassVar[str] = "None, booleans, 64-bit integers, finite floats or valid text"

    ordered: bool = field(default=False, validator=flag)
    """A hint to whoever searches: neighbours in the list are alike."""

    def __init__(self, *options: T, choices: Sequence[T] | None = None, ordered: bool = False) -> None:
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue] - attrs makes it
            choices=self._gathered(options, choices), ordered=ordered
        )

    @staticmethod
    def possible(choice: object) -> bool:
        """Say whether *choice* is a scalar that every wire keeps as it is."""
        if isinstance(choice, float):
            return math.isfinite(choice)
        if isinstance(choice, int):
            return is_int64(choice)
        return choice is None or is_text(choice)


@frozen(repr=False, init=False)
class ModuleChoice(_Listed[str], name="module"):
    """
    The name of one of the listed modules.

    Takes and stores the name. A program's attribute of this kind reads as the module itself.
    """

    expected: ClassVar[str] = "names of modules"

    def __init__(self, *options: str, choices: Sequence[str] | None = None) -> None:
        self.__attrs_init__(  # pyright: ignore[reportAttributeAccessIssue] - attrs makes it
            choices=self._gathered(options, choices)
        )

    @staticmethod
    def possible(choice: object) -> bool:
        """Say whether *choice* can be a name."""
        return is_text(choice) and choice != ""
