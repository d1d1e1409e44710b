"""Declaring variables: `defvariable`, and what it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from dspex import errors
from dspex.changes import ChangeSignal
from dspex.commits import Condition, Declaration
from dspex.kinds import Kind, ModuleChoice, as_kind
from dspex.locks import ForkSafeLock

if TYPE_CHECKING:
    from typing import Self, _SpecialForm  # what `Literal["a", "b"]` is to mypy

__all__ = ["MISSING", "Variable", "defvariable", "listened"]

T = TypeVar("T")

MISSING: Any = type("Missing", (), {"__repr__": lambda _self: "<missing>"})()
"""Stands for an argument that was not given, where None could be."""


When = tuple[Any, ...]
"""How `when=` is written: a variable, then values."""

_making = ForkSafeLock()

listened: set[int] = set()
"""The variables whose `changed` anyone ever asked for, by identity: in most processes none."""


class Variable(Generic[T]):
    """
    One declared variable: a kind, an initial value, a description.

    On a program class the name gives this object; on a bound program it gives the live value, from storage of
    the instance that the session writes to. Nothing of this class runs when a program reads.
    """

    __slots__ = ("_changed", "_origin", "description", "initial", "kind", "name", "owner", "tunable", "when")

    def __init__(
        self,
        kind: Kind[Any],
        initial: Any,
        description: str = "",
        *,
        tunable: bool = True,
        when: tuple[Variable[Any], tuple[Any, ...]] | None = None,
    ) -> None:
        self.name = ""
        """As it is called on its class, or with the names of the programs between: `retriever.k`."""
        self.owner: type | None = None
        """The class that declares it."""
        self.kind = kind
        self.initial = initial
        """As the kind stores it."""
        self.description = description
        """What it is for, in the words of its declaration."""
        self.tunable = tunable
        """Whether an optimizer may search for a better value."""
        self.when = when
        """The variable of the same program, and its values, with which this one matters; None for always."""
        self._changed: ChangeSignal | None = None
        self._origin: Variable[T] | None = None

    def scoped(self, owner: type, name: str) -> Variable[T]:
        """The same variable as *owner* sees it, which composes the program that declares it."""
        when = self.when
        if when is not None:
            other = when[0]
            when = other.scoped(owner, name.removesuffix(self.name) + other.name), when[1]
        scoped: Variable[T] = Variable(
            self.kind, self.initial, self.description, tunable=self.tunable, when=when
        )
        scoped.owner, scoped.name, scoped._origin = owner, name, self
        return scoped

    @property
    def changed(self) -> ChangeSignal:
        """
        A `blinker.Signal` of its changes in every session in which a program that has it is bound.

        Receivers are called as `receiver(session, change=change)`.
        """
        if self._origin is not None:
            return self._origin.changed
        if self._changed is None:
            with _making:
                self._changed = self._changed or ChangeSignal(f"{self} changed")
                listened.add(id(self))
        return self._changed

    @property
    def listened(self) -> bool:
        """Whether anyone ever asked for `changed`."""
        return self._changed is not None

    def declaration(self, prefix: str = "") -> Declaration:
        """What a session is told of it when its program is bound under *prefix*."""
        owner = self.owner.__name__ if self.owner is not None else ""
        when = None if self.when is None else Condition(prefix + self.when[0].name, self.when[1])
        name, words = prefix + self.name, self.description
        return Declaration(name, self.kind, self.initial, words, owner, self.tunable, when)

    def __repr__(self) -> str:
        return f"<Variable {self}: {self.kind!r} initial={self.kind.show(self.initial)}>"

    def __str__(self) -> str:
        return f"{self.owner.__name__}.{self.name}" if self.owner is not None else self.name

    if TYPE_CHECKING:
        # For type checkers only: at run time the slots of the instance answer.
        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> T: ...
        def __get__(self, instance: object | None, owner: type) -> Any: ...
        def __set__(self, instance: object, value: T) -> None: ...


@overload
def defvariable(
    kind: ModuleChoice, *, initial: str, description: str = ..., tunable: bool = ..., when: When | None = ...
) -> Variable[Callable[..., Any]]: ...
@overload
def defvariable(
    kind: Kind[T], *, initial: T, description: str = ..., tunable: bool = ..., when: When | None = ...
) -> Variable[T]: ...
@overload
def defvariable(
    kind: type[T], *, initial: T, description: str = ..., tunable: bool = ..., when: When | None = ...
) -> Variable[T]: ...
@overload
def defvariable(
    kind: Literal["module"],
    *,
    initial: str,
    constraints: Mapping[str, Any] | None = ...,
    description: str = ...,
    tunable: bool = ...,
    when: When | None = ...,
) -> Variable[Callable[..., Any]]: ...
@overload
def defvariable(
    kind: _SpecialForm,
    *,
    initial: Any,
    description: str = ...,
    tunable: bool = ...,
    when: When | None = ...,
) -> Variable[Any]: ...
@overload
def defvariable(
    kind: str,
    *,
    initial: Any,
    constraints: Mapping[str, Any] | None = ...,
    description: str = ...,
    tunable: bool = ...,
    when: When | None = ...,
) -> Variable[Any]: ...
def defvariable(
    kind: Any,
    *,
    initial: Any = MISSING,
    constraints: Mapping[str, Any] | None = None,
    description: str = "",
    tunable: bool = True,
    when: When | None = None,
    **unknown: Any,
) -> Variable[Any]:
    """
    Declare a variable on a `Program` class.

    Args:
        kind: A kind (`Float(min=0.0)`), a Python type as shorthand (`float`, `bool`, an `Enum`, `Literal[…]`,
            an attrs class), or the name of a kind with *constraints* (`"float"`, `{"min": 0.0}`).
        initial: The value in a session in which nobody has set it.
        constraints: For a kind given by name.
        description: What it is for; optimizers and people read it.
        tunable: Whether an optimizer may search for a better value.
        when: A variable of the same class and one or more of its values, `(strategy, "ReAct")`: the variable
            matters only while that one has one of these. It can always be read and set; optimizers leave it
            alone meanwhile.

    Raises:
        InvalidDeclaration: The kind cannot be made, or refuses the initial value.
    """
    if unknown:
        names = ", ".join(unknown)
        hint = " The first value is given as initial=…" if "default" in unknown else ""
        raise errors.InvalidDeclaration(f"defvariable() takes no {names}.{hint}", unknown=tuple(unknown))
    if initial is MISSING:
        raise errors.InvalidDeclaration("defvariable() needs an initial value: defvariable(…, initial=…).")
    if not isinstance(tunable, bool):
        raise errors.InvalidDeclaration(
            f"defvariable(): tunable must be True or False (got {errors.shown(tunable, 80)})."
        )
    made = as_kind(kind, constraints)
    stored = checked_initial(made, initial)
    return Variable(made, stored, description, tunable=tunable, when=None if when is None else _when(when))


def _when(when: When) -> tuple[Variable[Any], tuple[Any, ...]]:
    if not isinstance(when, tuple) or len(when) < 2 or not isinstance(when[0], Variable):
        raise errors.InvalidDeclaration(
            "when= must be a variable declared before and one or more of its values, such as "
            f"(strategy, 'ReAct') (got {errors.shown(when, 80)})."
        )
    variable, *values = when
    try:
        return variable, tuple(map(variable.kind.check, values))
    except errors.InvalidValue as error:
        raise errors.InvalidDeclaration(
            error.at("a value in when=").message, kind=variable.kind, **error.facts
        ) from None


def checked_initial(kind: Kind[Any], initial: Any) -> Any:
    """*initial* as *kind* stores it, or `InvalidDeclaration`."""
    try:
        return kind.check(initial)
    except errors.InvalidValue as error:
        raise errors.InvalidDeclaration(
            error.at("the initial value").message, kind=kind, **error.facts
        ) from None
