"""Kinds of lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

from attrs import field, frozen

from dspex.errors import InvalidValue

from .base import Kind
from .constraints import Must, NotBelow, count, if_set, is_sequence, names, to_names, within
from .plain import (
    HEADER,
    MAX_BYTES,
    MAX_ITEMS,
    brief,
    freeze,
    part,
    thaw,
    too_large,
    too_many,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Demos", "ListOf"]

T = TypeVar("T")


class _List(Kind[tuple[T, ...]]):
    """What lists share: how many items, and JSON."""

    __slots__ = ()

    def _items(self, value: object, most: int | None) -> Sequence[Any]:
        if not is_sequence(value):
            raise self.refusal("a list", value)
        if most is not None and len(value) > most:
            raise self.refusal(f"a list of at most {most} items", value)
        if len(value) > MAX_ITEMS:
            raise too_many(len(value))
        return value

    def parse(self, text: str) -> tuple[T, ...]:
        """Return the list that *text* is as JSON."""
        return self.check_json(text, "a list as JSON")


@frozen(repr=False)
class ListOf(_List[T], name="list"):
    """
    A list of values of one kind.

    Takes a list, a tuple or another sequence of what the kind takes; not text. Stores a tuple of what
    the kind stores.
    """

    item: Kind[T] = field(validator=Must("a kind, such as Float()", lambda item: isinstance(item, Kind)))
    """The kind of each item."""

    min_items: int | None = field(default=None, validator=if_set(count), kw_only=True)
    """The fewest items."""

    max_items: int | None = field(default=None, validator=if_set(count, NotBelow("min_items")), kw_only=True)
    """The most items."""

    @property
    def secret(self) -> bool:
        """True when the items are."""
        return self.item.secret

    def check(self, value: object) -> tuple[T, ...]:
        """Return *value* as a tuple of checked items."""
        return self._each(self.item.check, value)

    def load(self, plain: object) -> tuple[T, ...]:
        """Return the tuple that `dump` made *plain* of."""
        return self._each(self.item.load, plain)

    def _each(self, take: Callable[[object], T], value: object) -> tuple[T, ...]:
        items = self._items(value, self.max_items)
        if self.min_items is not None and len(items) < self.min_items:
            raise self.refusal(f"a list of at least {self.min_items} items", value)
        taken: list[T] = []
        for index, item in enumerate(items):
            try:
                taken.append(take(item))
            except InvalidValue as error:
                raise part(f"a list whose item {index}", error) from None
        size = self.size(tuple(taken))
        if size > MAX_BYTES:
            raise too_large(size)
        return tuple(taken)

    def dump(self, value: tuple[T, ...]) -> list[Any]:
        """Return the items as plain data."""
        return [self.item.dump(item) for item in value]

    def show(self, value: object) -> str:
        """Return *value* for people; of secrets not even their number."""
        return self.item.show(value) if self.secret else Kind.show(self, value)

    def size(self, value: tuple[T, ...]) -> int:
        """Return the bytes of the items, and a header."""
        return HEADER + sum(map(self.item.size, value))

    def json_schema(self) -> dict[str, Any]:
        """Return a list of the items' schema."""
        bounds = {"minItems": self.min_items, "maxItems": self.max_items}
        return {"type": "array", "items": self.item.json_schema()} | {
            k: v for k, v in bounds.items() if v is not None
        }

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether the items narrow the other's, and so do their numbers."""
        return (
            isinstance(other, ListOf)
            and self.item.narrows(other.item)
            and within(self.min_items or 0, other.min_items, sign=-1)
            and within(self.max_items, other.max_items)
        )

    def describe(self) -> dict[str, Any]:
        """Return this kind as plain data, the item's kind within."""
        return Kind.describe(self) | {"item": self.item.describe()}

    @classmethod
    def from_constraints(cls, constraints: Mapping[str, Any]) -> Self:
        """Make this kind; the item may be a kind or the description of one."""
        item = constraints.get("item")
        if isinstance(item, Mapping):
            constraints = {**constraints, "item": Kind.from_description(item)}
        return super().from_constraints(constraints)


@frozen(repr=False, kw_only=True)
class Demos(_List["Mapping[str, Any]"], name="demos"):
    """
    Examples for a prompt.

    Takes a list of mappings with text keys, or of objects with `toDict()` as DSPy's examples, that hold
    plain data: None, bool, int, float, str, bytes, lists and mappings of these. Stores a tuple of
    read-only mappings, which are private copies with tuples for lists.
    """

    fields: tuple[str, ...] | None = field(default=None, converter=to_names, validator=if_set(names))
    """The keys that every example must have; it may have more."""

    max_items: int | None = field(default=None, validator=if_set(count))
    """The most examples."""

    def check(self, value: object) -> tuple[Mapping[str, Any], ...]:
        """Return *value* as a tuple of read-only mappings."""
        examples = []
        for index, item in enumerate(self._items(value, self.max_items)):
            try:
                examples.append(self._example(item))
            except InvalidValue as error:
                raise part(f"a list whose item {index}", error) from None
        checked: tuple[Mapping[str, Any], ...] = freeze(examples)
        return checked

    def _example(self, item: Any) -> Mapping[str, Any]:
        example = item.toDict() if hasattr(item, "toDict") else item
        if not isinstance(example, Mapping):
            raise self.refusal("a mapping", item)
        for name in self.fields or ():
            if name not in example:
                raise self.refusal(f"a mapping with the field {brief(name)}", item)
        return example

    def dump(self, value: tuple[Mapping[str, Any], ...]) -> list[Any]:
        """Return the examples as plain data."""
        examples: list[Any] = thaw(value)
        return examples

    def json_schema(self) -> dict[str, Any]:
        """Return a list of objects with the fields."""
        example: dict[str, Any] = {"type": "object"}
        if self.fields is not None:
            example["required"] = list(self.fields)
        most = {} if self.max_items is None else {"maxItems": self.max_items}
        return {"type": "array", "items": example, **most}

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether examples have all the other's fields, and are not more."""
        return (
            isinstance(other, Demos)
            and set(other.fields or ()) <= set(self.fields or ())
            and within(self.max_items, other.max_items)
        )
