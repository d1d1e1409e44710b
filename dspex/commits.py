"""What a store is asked to do, and what it answers: the messages of the state protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self
from weakref import WeakValueDictionary

import attrs
import msgspec

from dspex import deadlines, errors
from dspex.changes import Change
from dspex.kinds import Kind
from dspex.kinds.plain import freeze
from dspex.records import Record, Revision, check_name

__all__ = ["ClaimRequest", "Commit", "Condition", "Declaration", "Receipt", "Schema", "Write", "names_of"]


@attrs.frozen
class Condition:
    """That a variable matters only while another one has one of some values."""

    name: str
    """The other variable, as it is called in the session."""
    values: tuple[Any, ...]
    """As its kind stores them."""

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the other variable has one of them in *values*."""
        value = values.get(self.name)
        return any(type(one) is type(value) and one == value for one in self.values)


WORDS = 16 * 1024
"""Characters of a description, and of an owner."""


def _check_words(declared: Declaration, field: attrs.Attribute[str], words: Any) -> None:
    if not isinstance(words, str) or len(words) > WORDS:
        raise errors.InvalidDeclaration(
            f"the {field.name} of '{declared.name}' must be text of at most {WORDS} characters (got "
            f"{errors.shown(words)}).",
            name=declared.name,
        )


def _check_flag(declared: Declaration, field: attrs.Attribute[bool], flag: Any) -> None:
    if not isinstance(flag, bool):
        raise errors.InvalidDeclaration(
            f"{field.name} of '{declared.name}' must be True or False (got {errors.shown(flag, 80)}).",
            name=declared.name,
        )


def _check_kind(declared: Declaration, _field: attrs.Attribute[Any], kind: Kind[Any]) -> None:
    _check_travels(f"the kind of '{declared.name}'", kind.describe())


def _check_when(declared: Declaration, _field: attrs.Attribute[Any], when: Condition | None) -> None:
    if when is not None:
        _check_travels(f"when= of '{declared.name}'", when.values)


def _check_travels(what: str, plain: Any) -> None:
    # Where it is declared, and not only where it is sent: in memory the same is refused as over a wire.
    try:
        freeze(plain)
    except errors.LimitExceeded as error:
        raise errors.LimitExceeded(f"{what}: {error.message}", **error.facts) from None
    except errors.InvalidValue as error:
        raise errors.InvalidDeclaration(error.at(what).message) from None


@attrs.frozen
class Declaration:
    """That a session has a variable: its kind, its initial value, and who says so."""

    name: str = attrs.field(validator=lambda _self, _field, name: check_name(name))
    kind: Kind[Any] = attrs.field(validator=_check_kind)
    initial: Any
    """As the kind stores it."""
    description: str = attrs.field(default="", validator=_check_words)
    owner: str = attrs.field(default="", validator=_check_words)
    """The program class that declares it; empty for `Session.register`."""
    tunable: bool = attrs.field(default=True, validator=_check_flag)
    """Whether an optimizer may search for a better value."""
    when: Condition | None = attrs.field(default=None, validator=_check_when)
    """When the variable matters at all; an optimizer leaves it alone otherwise."""


class Schema:
    """
    The variables of a session; shared by all sessions with the same declarations, and never changed.

    A session stores only what differs from `initial`, which is why a thousand forks cost next to nothing.
    """

    __slots__ = ("__weakref__", "_grown", "declarations", "fixed", "initial", "kinds")

    def __init__(self, declarations: Mapping[str, Declaration]) -> None:
        self.declarations = declarations
        self._grown: WeakValueDictionary[tuple[int, ...], Schema] | None = None
        self.kinds = {name: declared.kind for name, declared in declarations.items()}
        self.fixed = all(kind.fixed for kind in self.kinds.values())
        """Whether no value can be so large that somebody should measure it."""
        self.initial: dict[str, Record] = {
            name: Change(
                name=name,
                value=declared.initial,
                version=0,
                rev=0,
                epoch="",
                source=declared.owner or None,
                metadata=None,
                time=0.0,
            )
            for name, declared in declarations.items()
        }

    def extended(self, declarations: tuple[Declaration, ...]) -> Schema:
        """
        Add *declarations*; the same schema when they say nothing new.

        Raises:
            VariableConflict: A name is declared here, or twice among them, with another kind.
        """
        asked = tuple(map(id, declarations))
        if self._grown is not None and (grown := self._grown.get(asked)) is not None:
            return grown
        new: dict[str, Declaration] = {}
        for declared in declarations:
            known = self.declarations.get(declared.name) or new.get(declared.name)
            if known is None:
                new[declared.name] = declared
            elif known.kind != declared.kind:
                raise _conflict(known, declared)
        if not new:
            return self
        schema = Schema({**self.declarations, **new})
        if len(new) == len(asked):
            # The schema keeps all that was asked for alive, so the ids stay theirs while it is found here.
            if self._grown is None:
                self._grown = WeakValueDictionary()
            self._grown[asked] = schema
        return schema

    def undeclared(self, declarations: Iterable[Declaration]) -> tuple[Declaration, ...]:
        """
        Those of *declarations* that this schema does not have.

        The class of a struct does not travel: of two declarations that agree one may know more.
        """
        new = []
        for one in declarations:
            known = self.kinds.get(one.name)
            if known is None or (known != one.kind and known.describe() != one.kind.describe()):
                new.append(one)
        return tuple(new)


def _conflict(known: Declaration, declared: Declaration) -> errors.VariableConflict:
    first, second = (one.owner or "Session.register()" for one in (known, declared))
    return errors.VariableConflict(
        f"'{declared.name}' is {known.kind!r} in {first} but {declared.kind!r} in {second}. Give one of "
        f"them another name, or run them in sessions of their own.",
        name=declared.name,
        owners=(first, second),
    )


class Write(msgspec.Struct, frozen=True, gc=False):
    """One name of a commit."""

    name: str
    value: Any
    expect: int | None = None
    """The version that the variable must have; the commit fails when it has another."""
    source: str | None = None
    """Who sets this one, if not who makes the commit."""


def names_of(names: Iterable[str]) -> tuple[str, ...]:
    """Each of *names* once, in their order; what is no text stays, for whoever knows the names to refuse."""
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise errors.InvalidValue.expecting("a list of names", errors.shown(names)).at("names")
    listed = tuple(names)
    return tuple(dict.fromkeys(listed)) if all(isinstance(name, str) for name in listed) else listed


class ClaimRequest(msgspec.Struct, frozen=True, gc=False):
    """
    Ask that only the bearer of *token* may set *names* for *ttl* seconds.

    A token that begins with another one and a slash has its rights too: a claim made under a claim.
    """

    names: tuple[str, ...]
    owner: str
    token: str
    ttl: float

    @classmethod
    def checked(cls, session: str, names: Iterable[str], owner: str, token: str, ttl: float) -> Self:
        """
        The request with each of *names* once.

        Raises:
            InvalidValue: There is no name, or they are no list; or *ttl* is no time.
            InvalidName: *owner* is not a name.
        """
        claimed = names_of(names)
        if not claimed:
            raise errors.InvalidValue.expecting("at least one name", "none").at("names", session)
        deadlines.check_seconds(ttl, "ttl", session, least="more than 0")
        return cls(claimed, check_name(owner), token, ttl)


class Commit(msgspec.Struct, frozen=True, gc=False):
    """One atomic request to a session: all of it happens, at one revision, or none."""

    writes: tuple[Write, ...] = ()
    declare: tuple[Declaration, ...] = ()
    claim: ClaimRequest | None = None
    release: str | None = None
    """The token of a claim that ends."""
    tag: str | None = None
    """A label for the revision that this commit makes."""
    source: str | None = None
    metadata: Mapping[str, Any] | None = None
    token: str | None = None
    """The claim under which this commit is made."""
    op: str | None = None
    """Names the commit: a second one with the same op is answered like the first, and does nothing."""
    given: tuple[tuple[str, int], ...] = ()
    """Variables that are not written but must have these versions; the commit fails when one has another."""

    def replacing(self, **fields: Any) -> Self:
        """The same commit with other *fields*."""
        return msgspec.structs.replace(self, **fields)


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """What a commit did."""

    epoch: str
    rev: int
    changes: tuple[Change, ...] = ()

    @property
    def revision(self) -> Revision:
        """The revision that the commit made."""
        return Revision(self.epoch, self.rev)
