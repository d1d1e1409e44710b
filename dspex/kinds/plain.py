"""
Plain data, and how much of it a variable may hold.

Plain means what MessagePack writes and reads back bit for bit: None, booleans, 64-bit integers, floats,
text, bytes, lists, and mappings with text keys. Frozen plain data is the same with tuples and read-only
mappings, so that what one reader got can never change under another.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeAlias, TypeGuard

import attrs

from dspex.errors import InvalidValue, LimitExceeded, shown

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_ITEMS",
    "Plain",
    "brief",
    "exact",
    "freeze",
    "is_int64",
    "is_text",
    "parse_json",
    "part",
    "thaw",
    "too_deep",
    "too_large",
    "too_many",
    "utf8_size",
]

MAX_BYTES = 1024 * 1024
"""The most bytes of one value, encoded."""

MAX_DEPTH = 32
"""The most lists and mappings inside one another."""

MAX_ITEMS = 10_000
"""The most items of one list or mapping."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

HEADER = 5
"""The most bytes that MessagePack puts in front of a text, a list or a mapping of our sizes."""

NUMBER = 9
"""The most bytes of one number in MessagePack."""

Plain: TypeAlias = bool | int | float | str | bytes | list[Any] | dict[str, Any] | None


def is_int64(number: int) -> bool:
    """Say whether *number* fits into a signed 64-bit integer."""
    return INT64_MIN <= number <= INT64_MAX


def utf8_size(text: str) -> int:
    """
    Count the bytes of *text* as UTF-8.

    Raises:
        LimitExceeded: there are more characters than a value may have bytes; nothing was encoded.
        UnicodeEncodeError: *text* has a lone surrogate.

    """
    if len(text) > MAX_BYTES:
        raise too_large(len(text), uncounted=True)
    return len(text) if text.isascii() else len(text.encode())


def exact(value: object) -> object:
    """Return the int, float or text that a subclass is (an Enum's, NumPy's), whatever that overrides."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int.__int__(value)
    return value


def is_text(value: object) -> TypeGuard[str]:
    """Say whether *value* is valid UTF-8 text."""
    try:
        return isinstance(value, str) and utf8_size(value) >= 0
    except UnicodeEncodeError:
        return False


# Sentences


def brief(value: object) -> str:
    """*value* for a sentence, also where its repr would be huge, or fails."""
    try:
        return _array(value) if getattr(value, "shape", ()) else shown(value)
    except Exception:
        return shown(value)


def _array(value: Any) -> str:
    return f"{value.dtype} array of shape {value.shape}"


def part(where: str, error: InvalidValue) -> InvalidValue:
    """*error* of a part, said of the whole: *where* reads like `a list whose item 2`."""
    return InvalidValue.expecting(f"{where} is {error.expected}", error.given)


def too_large(size: int, *, uncounted: bool = False) -> LimitExceeded:
    """Say that a value has *size* bytes, the *uncounted* ones aside, and what to do about it."""
    return LimitExceeded(
        f"value is {'at least ' if uncounted else ''}{size} bytes; the limit is {MAX_BYTES}."
        " Keep it elsewhere and store where it is.",
        size=size,
        limit=MAX_BYTES,
    )


def too_many(count: int) -> LimitExceeded:
    """Say that a list or mapping has *count* items."""
    return LimitExceeded(
        f"value has {count} items in one list or mapping; the limit is {MAX_ITEMS}.",
        size=count,
        limit=MAX_ITEMS,
    )


def too_deep() -> LimitExceeded:
    """Say that lists and mappings are too deep inside one another."""
    return LimitExceeded(
        f"value is nested deeper than {MAX_DEPTH} levels; that is the limit.", limit=MAX_DEPTH
    )


# Freezing


def freeze(value: object) -> Any:
    """
    Copy plain data into its frozen form: lists become tuples, mappings read-only ones.

    Raises:
        InvalidValue: something in *value* is not plain; the sentence says where.
        LimitExceeded: *value* is over a limit, which also ends what refers to itself.

    """
    return _Freezer(room=MAX_BYTES).freeze(value, depth=0)


def thaw(value: Any) -> Any:
    """Copy frozen plain data into lists and dicts that the caller may keep and change."""
    if isinstance(value, tuple | list):
        return [thaw(item) for item in value]
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    return exact(value)


@attrs.define(eq=False, repr=False)
class _Freezer:
    room: int
    """
    Bytes left. Counting them on the way, not the nodes, bounds the work as well: a small object graph
    that mentions one list many times over unfolds to an endless value.
    """

    def freeze(self, value: object, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, depth + 1)
        if isinstance(value, list | tuple):
            return self._list(value, depth + 1)
        return self._scalar(exact(value))

    def _scalar(self, value: object) -> object:
        if isinstance(value, str):
            if not is_text(value):
                raise InvalidValue.expecting("valid UTF-8 text", brief(value))
            self._take(HEADER + utf8_size(value))
        elif isinstance(value, bytes):
            self._take(HEADER + len(value))
        elif isinstance(value, int) and not is_int64(value):
            raise InvalidValue.expecting("a 64-bit integer", brief(value))
        elif value is None or isinstance(value, int | float):
            self._take(NUMBER)
        else:
            raise InvalidValue.expecting(
                "None, a boolean, an integer, a float, text, bytes, a list or a mapping", brief(value)
            )
        return value

    def _list(self, items: list[Any] | tuple[Any, ...], depth: int) -> tuple[Any, ...]:
        self._enter(len(items), depth)
        frozen = []
        for index, item in enumerate(items):
            try:
                frozen.append(self.freeze(item, depth))
            except InvalidValue as error:
                raise part(f"a list whose item {index}", error) from None
        return tuple(frozen)

    def _mapping(self, mapping: Mapping[Any, Any], depth: int) -> Mapping[str, Any]:
        self._enter(len(mapping), depth)
        frozen: dict[str, Any] = {}
        for key, item in mapping.items():
            if not is_text(key):
                raise InvalidValue.expecting("a mapping whose keys are valid UTF-8 text", brief(key))
            self._take(HEADER + utf8_size(key))
            try:
                frozen[str.__str__(key)] = self.freeze(item, depth)
            except InvalidValue as error:
                raise part(f"a mapping whose {brief(key)}", error) from None
        return MappingProxyType(frozen)

    def _enter(self, count: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise too_deep()
        if count > MAX_ITEMS:
            raise too_many(count)
        self._take(HEADER)

    def _take(self, size: int) -> None:
        self.room -= size
        if self.room < 0:
            raise too_large(MAX_BYTES - self.room, uncounted=True)


def parse_json(text: str) -> Any:
    """
    Read *text* as JSON.

    Raises:
        ValueError: it is not JSON, or is nested too deep to read.

    """
    try:
        import json  # only forms and command lines need it

        return json.loads(text)
    except RecursionError:
        msg = "nested too deep"
        raise ValueError(msg) from None
