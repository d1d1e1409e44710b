"""Kinds of text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from dspex.errors import InvalidValue

from .base import Kind, one_of
from .constraints import Must, NotBelow, count, if_set, names, refusal, to_names, within
from .plain import HEADER, MAX_BYTES, brief, too_large, utf8_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    import attrs

__all__ = ["Prompt", "Secret", "Text"]

REDACTED = "'•••'"


@frozen(repr=False, kw_only=True)
class _Words(Kind[str]):
    """What all text is: valid UTF-8 of a length."""

    min_length: int | None = field(default=None, validator=if_set(count))
    """The fewest characters."""

    max_length: int | None = field(default=None, validator=if_set(count, NotBelow("min_length")))
    """The most characters."""

    def check(self, value: object) -> str:
        """Return *value* as a plain str."""
        if not isinstance(value, str):
            raise self.refusal("text", value)
        if self.max_length is not None and len(value) > self.max_length:
            raise self.refusal(f"at most {self.max_length} characters long", value)
        if self.min_length is not None and len(value) < self.min_length:
            raise self.refusal(f"at least {self.min_length} characters long", value)
        try:
            size = utf8_size(value)
        except UnicodeEncodeError:
            raise self.refusal("valid UTF-8 text", value) from None
        if size > MAX_BYTES:
            raise too_large(size)
        return str.__str__(value)  # not the text of a subclass, which might be anything

    def size(self, value: str) -> int:
        """Return the bytes of *value* as UTF-8, and a header."""
        return HEADER + utf8_size(value)

    def json_schema(self) -> dict[str, Any]:
        """Return type and lengths."""
        lengths = {"minLength": self.min_length, "maxLength": self.max_length}
        return {"type": "string"} | {k: v for k, v in lengths.items() if v is not None}

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether the lengths are inside the other's."""
        return (
            isinstance(other, type(self))
            and within(self.min_length or 0, other.min_length, sign=-1)
            and within(self.max_length, other.max_length)
        )


def _is_pattern(value: object) -> bool:
    try:
        return isinstance(value, str) and re.compile(value) is not None
    except (re.error, RecursionError, OverflowError):
        return False


def _possible(kind: Text, _: attrs.Attribute[Any], choices: tuple[str, ...]) -> None:
    for choice in choices:
        try:
            kind._constrained(choice)
        except InvalidValue as error:
            raise refusal(kind, "choices", f"possible: {error.expected}", choice) from None


@frozen(repr=False, kw_only=True)
class Text(_Words, name="string"):
    """
    Text.

    Takes and stores valid UTF-8 text: a str without lone surrogates.
    """

    pattern: str | None = field(default=None, validator=if_set(Must("a regular expression", _is_pattern)))
    """A regular expression that matches the whole text."""

    choices: tuple[str, ...] | None = field(
        default=None, converter=to_names, validator=if_set(names, _possible)
    )
    """The only values."""

    def check(self, value: object) -> str:
        """Return *value* as a plain str."""
        text = self._constrained(value)
        if self.choices is not None and text not in self.choices:
            raise self.refusal(one_of(self.choices), text)
        return text

    def _constrained(self, value: object) -> str:
        text = _Words.check(self, value)
        if self.pattern is not None and not re.fullmatch(self.pattern, text):
            raise self.refusal(f"text that matches {brief(self.pattern)}", text)
        return text

    def json_schema(self) -> dict[str, Any]:
        """Return type, lengths, pattern and choices."""
        schema = _Words.json_schema(self)
        if self.pattern is not None:
            schema["pattern"] = f"^(?:{self.pattern})$"
        if self.choices is not None:
            schema["enum"] = list(self.choices)
        return schema

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether the other takes all choices, or has no pattern and choices but the same ones."""
        if not isinstance(other, Text):
            return False
        if self.choices is not None:
            return all(map(other.takes, self.choices))
        return _Words.narrows(self, other) and other.pattern in (None, self.pattern) and other.choices is None


def _placeholders(template: str) -> Iterator[str]:
    """Yield the names in braces; ValueError for braces that do more than stand for a name."""
    from string import Formatter

    for _, name, spec, conversion in Formatter().parse(template):
        if name is not None:
            # `{a.b}`, `{a[0]}`, `{a!r}`, `{a:>9999999}` would let whoever writes the text reach into
            # the values, or make them huge.
            if spec or conversion or not name.isidentifier():
                raise ValueError(name)
            yield name


def _are_identifiers(value: tuple[object, ...]) -> bool:
    return all(isinstance(name, str) and name.isidentifier() for name in value)


def _as_set(placeholders: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if placeholders is None else frozenset(placeholders)


@frozen(repr=False, kw_only=True)
class Prompt(_Words, name="prompt"):
    """
    A text with `{placeholders}`, to be filled in with `str.format`.

    Takes and stores text whose braces hold nothing but names: no attributes, indexes, conversions or
    format specs. `{{` and `}}` stand for the braces themselves.
    """

    placeholders: tuple[str, ...] | None = field(
        default=None,
        converter=to_names,
        validator=if_set(names, Must("names as in Python", _are_identifiers)),
        eq=_as_set,
    )
    """The names that must all occur, and no others; None for any names."""

    def check(self, value: object) -> str:
        """Return *value* as a plain str."""
        text = _Words.check(self, value)
        try:
            found = set(_placeholders(text))
        except ValueError:
            raise self.refusal("text with nothing but {names} in its braces", text) from None
        if self.placeholders is not None:
            self._compare(found, text)
        return text

    def _compare(self, found: set[str], text: str) -> None:
        required = self.placeholders or ()
        for name in required:
            if name not in found:
                raise self.refusal(f"text with the placeholder {{{name}}}", text)
        for name in sorted(found.difference(required)):
            raise self.refusal(f"text without the unknown placeholder {{{name[:60]}}}", text)

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether the lengths are inside the other's, and the placeholders are its own."""
        return _Words.narrows(self, other) and (
            isinstance(other, Prompt) and _as_set(other.placeholders) in (None, _as_set(self.placeholders))
        )


class _Unsaid(str):
    """A text that can be used, but is not shown by whatever contains it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return REDACTED


@frozen(repr=False, kw_only=True)
class Secret(_Words, name="secret"):
    """
    A text that nobody prints: an API key, a password.

    Takes valid UTF-8 text. Stores it as text whose repr says nothing, so that records, changes and logs may
    be printed; to use it is to use it as text. No sentence and no `show` has any of it.
    """

    def check(self, value: object) -> str:
        """Return *value* as text whose repr says nothing."""
        return _Unsaid(_Words.check(self, value))

    def dump(self, value: str) -> str:
        """Return the text itself."""
        return str.__str__(value)

    @property
    def secret(self) -> bool:
        """True."""
        return True

    def show(self, value: object) -> str:
        """Return the same for every value, valid or not."""
        return REDACTED

    def json_schema(self) -> dict[str, Any]:
        """Return type and lengths, marked for forms as a password that nobody reads back."""
        return _Words.json_schema(self) | {"format": "password", "writeOnly": True}
