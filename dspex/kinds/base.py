"""
The contract of all kinds.

A kind is the type of a variable with its constraints. It is an immutable value itself: two kinds with the
same constraints are equal, and any number of threads may use one at the same time.

**Values.** `check` turns what a caller gives into what is stored: canonical, immutable, and no longer
connected to the caller's object. `dump` turns a stored value into plain data for any wire or file, `load`
turns that back. Both ways keep every bit: `load(dump(stored))` is `stored`.

**Refusals.** A value that a kind does not take is an `InvalidValue`, one that is too large a
`LimitExceeded`; `load` and `parse` raise nothing else either, whatever they are given. A constraint that
can never work is an `InvalidDeclaration` where the kind is made. No kind has a default value.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import attrs
import msgspec

from dspex.errors import InvalidDeclaration, InvalidValue, LimitExceeded, did_you_mean, listed

from .plain import MAX_BYTES, MAX_DEPTH, MAX_ITEMS, Plain, brief, freeze, parse_json, thaw

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_ITEMS", "Kind", "one_of"]

T = TypeVar("T")

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_kinds: dict[str, type[Kind[Any]]] = {}


@attrs.frozen
class Kind(ABC, Generic[T]):
    """
    The type of a variable with its constraints; `T` is the type of what is stored.

    To add a kind, write a frozen attrs class with its wire name, `class Money(Kind[Decimal],
    name="money")`. Its fields are its constraints. Only `check` must be written; override `dump` and
    `load` when what is stored is not plain data, the rest when the default does not say enough.
    """

    name: ClassVar[str]
    """The wire name: how other processes and other languages call this kind."""

    registry: ClassVar[Mapping[str, type[Kind[Any]]]] = MappingProxyType(_kinds)
    """Every kind by its wire name."""

    fixed: ClassVar[bool] = False
    """True where no value can be too large, so that nobody needs to measure one."""

    def __init_subclass__(cls, *, name: str | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if name is not None:
            cls.name = name
        if "name" in cls.__dict__:
            _register(cls)
        elif hasattr(cls, "name"):
            raise InvalidDeclaration(
                f"{cls.__name__} needs a wire name of its own: class {cls.__name__}(…, name='…').",
                kind=cls.__name__,
            )

    if not TYPE_CHECKING:  # pragma: no branch - the signature that matters is the one that attrs makes

        def __new__(cls, /, *_: object, **constraints: object) -> Self:
            """Refuse unknown constraints with the near name, where attrs has only a TypeError."""
            refuse_unknown(cls, constraints)
            return super().__new__(cls)

    def __repr__(self) -> str:
        constraints = ", ".join(f"{name}={value!r}" for name, value in self._set())
        return f"{type(self).__name__}({constraints})"

    def _set(self) -> Iterator[tuple[str, Any]]:
        """Yield the constraints that are set, by name."""
        for field in constraints_of(type(self)):
            value = getattr(self, field.name)
            if value != field.default:
                yield field.name, value

    @property
    def secret(self) -> bool:
        """True where a value must never be printed, logged or exported."""
        return False

    @abstractmethod
    def check(self, value: object) -> T:
        """
        Return what is stored for *value*.

        Raises:
            InvalidValue: this kind does not take it.
            LimitExceeded: it is too large for any variable.

        """

    def dump(self, value: T) -> Plain:
        """Return a stored value as plain data: None, bool, int, float, str, bytes, list or dict."""
        return value  # type: ignore[return-value]

    def load(self, plain: object) -> T:
        """
        Return the stored value that `dump` made *plain* of.

        Raises:
            InvalidValue: no value of this kind looks like that.
            LimitExceeded: as in `check`.

        """
        return self.check(plain)

    def parse(self, text: str) -> T:
        """
        Return what is stored for *text*, as typed on a command line or into a form.

        Raises:
            InvalidValue: *text* is none of this kind's.

        """
        return self.check(text)

    def show(self, value: object) -> str:
        """Return *value*, which need not be valid, for people: one short line."""
        return brief(value)

    def size(self, value: T) -> int:
        """Return the bytes of a stored value once encoded, or slightly more."""
        return len(msgspec.msgpack.encode(self.dump(value)))

    def json_schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of values in JSON; stands alone, so it nests anywhere."""
        return {}

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether every value of this kind is one of *other*; False when that is not certain."""
        return self == other

    def describe(self) -> dict[str, Any]:
        """Return this kind as plain data: its wire name, and the constraints that are set."""
        return {"kind": self.name} | {name: thaw(value) for name, value in self._set()}

    @staticmethod
    def from_description(description: Mapping[str, Any]) -> Kind[Any]:
        """
        Make the kind that *description*, from `describe` in any process, tells of.

        Raises:
            InvalidDeclaration: it tells of no kind that this process knows.
            LimitExceeded: it is larger than a value may be.

        """
        if not isinstance(description, Mapping) or not isinstance(description.get("kind"), str):
            raise InvalidDeclaration(
                f"A kind's description must be a mapping with 'kind' (got {brief(description)})."
            )
        try:
            constraints = thaw(freeze(description))
        except InvalidValue as error:
            raise InvalidDeclaration(
                f"A kind's description must be {error.expected} (got {error.given})."
            ) from None
        return kind_named(constraints.pop("kind")).from_constraints(constraints)

    @classmethod
    def from_constraints(cls, constraints: Mapping[str, Any]) -> Self:
        """
        Make this kind with *constraints* by name, as `describe` gives them.

        Raises:
            InvalidDeclaration: one is missing, unknown, or can never work.

        """
        refuse_unknown(cls, constraints)
        for field in constraints_of(cls):
            if field.default is attrs.NOTHING and field.name not in constraints:
                raise InvalidDeclaration(
                    f"{cls.__name__} needs the constraint '{field.name}'.",
                    kind=cls.__name__,
                    constraint=field.name,
                )
        return cls(**constraints)

    def check_json(self, text: str, expected: str) -> T:
        """Return what is stored for *text* read as JSON; what `parse` does where the values have parts."""
        try:
            value = parse_json(text)
        except ValueError:
            raise self.refusal(expected, text) from None
        return self.check(value)

    def takes(self, value: object) -> bool:
        """Say whether `check` returns."""
        try:
            self.check(value)
        except (InvalidValue, LimitExceeded):
            return False
        return True

    def refusal(self, expected: str, value: object) -> InvalidValue:
        """Return the error for a *value* that must be *expected*, to be raised by `check`."""
        return InvalidValue.expecting(expected, self.show(value))


def _register(cls: type[Kind[Any]]) -> None:
    if not isinstance(cls.name, str) or not _NAME.fullmatch(cls.name):
        raise InvalidDeclaration(
            f"{cls.__name__}: the wire name must match {_NAME.pattern} (got {brief(cls.name)}).",
            kind=cls.__name__,
        )
    # attrs makes a class with slots twice, and a notebook runs its cells again: the last one counts.
    # Another class of that name is somebody else's.
    known = _kinds.get(cls.name)
    if known is not None and _place(known) != _place(cls):
        raise InvalidDeclaration(
            f"{cls.__name__}: the wire name '{cls.name}' is taken by {'.'.join(_place(known))}.",
            kind=cls.__name__,
        )
    _kinds[cls.name] = cls


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def kind_named(name: str) -> type[Kind[Any]]:
    """Return the kind of that wire name, or raise InvalidDeclaration with the near one."""
    try:
        return _kinds[name]
    except KeyError:
        raise InvalidDeclaration(
            f"There is no kind {brief(name)}.{did_you_mean(name, _kinds)}"
            f" The kinds are {listed(sorted(_kinds))}.",
            kind=name,
        ) from None


def constraints_of(cls: type[Kind[Any]]) -> list[attrs.Attribute[Any]]:
    """Return the fields of a kind that its author and its users set."""
    return [field for field in attrs.fields(cls) if field.init]


def refuse_unknown(cls: type[Kind[Any]], constraints: Collection[str]) -> None:
    """Raise InvalidDeclaration for the first of *constraints* that *cls* does not have."""
    known = sorted(field.name for field in constraints_of(cls))
    for constraint in constraints:
        if constraint not in known:
            takes = f"It takes {listed(known)}." if known else "It takes none."
            raise InvalidDeclaration(
                f"{cls.__name__} has no constraint {brief(constraint)}."
                f"{did_you_mean(str(constraint), known)} {takes}",
                kind=cls.__name__,
                constraint=constraint,
            )


def one_of(choices: Collection[object]) -> str:
    """*choices* as an expectation; of very many only the first."""
    few = list(choices)[:20]
    more = f" and {len(choices) - len(few)} more" if len(choices) > len(few) else ""
    return f"one of {listed(few)}{more}"
