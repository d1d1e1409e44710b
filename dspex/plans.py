"""How a program class is laid out: what its metaclass reads off the body, and the slots of its instances."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, get_origin, overload

import msgspec

from dspex import errors
from dspex.commits import Declaration
from dspex.dispatch import Push
from dspex.kinds import ModuleChoice, as_kind
from dspex.records import check_name
from dspex.rules import Rule, first_refusal
from dspex.variables import Variable

if TYPE_CHECKING:
    from typing import Self

    from dspex.program import Program, ProgramType

__all__ = [
    "Plan",
    "Subprogram",
    "check_annotations",
    "check_body",
    "check_conditions",
    "check_inherited",
    "check_rules",
    "defprogram",
    "rules_of",
]

P = TypeVar("P", bound="Program")


class Subprogram(Generic[P]):
    """A program inside a program: what `defprogram` makes."""

    __slots__ = ("name", "owner", "program")

    def __init__(self, program: type[P]) -> None:
        self.program = program
        self.name = ""
        self.owner: type | None = None

    def __getattr__(self, name: str) -> Variable[Any]:
        variables = self.program.variables
        if name not in variables:
            raise AttributeError(f"{self.program.__name__} has no variable '{name}'")
        return variables[name].scoped(self.owner or self.program, f"{self.name}.{name}")

    def __repr__(self) -> str:
        return f"<Subprogram {self.name}: {self.program.__name__}>"

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> P: ...
        def __get__(self, instance: object | None, owner: type) -> Any: ...


def defprogram(program: type[P]) -> Subprogram[P]:
    """
    Compose: an instance of *program* under this name, bound to the same session.

    Its variables are called `name.variable` in the session.
    """
    if not hasattr(program, "variables"):
        raise errors.InvalidDeclaration(
            f"defprogram() takes a Program class (got {errors.shown(program, 80)})."
        )
    return Subprogram(program)


# ---- what a class body may say -------------------------------------------------------------------


def check_body(name: str, body: Mapping[str, Any], reserved: frozenset[str]) -> None:
    """Refuse declarations in a class body that could not work, whatever the parents are."""
    if "__init__" in body:
        raise errors.InvalidDeclaration(
            f"{name} must not define __init__: a program is made and bound by its session. Define "
            "init(self), which runs once per bound program."
        )
    seen: dict[int, str] = {}
    for key, value in body.items():
        if not isinstance(value, Variable | Subprogram):
            continue
        where = f"{name}.{key}"
        if key in reserved or key.startswith("_"):
            why = (
                "a name that begins with '_' is private" if key[0] == "_" else "the name is taken by Program"
            )
            raise errors.InvalidDeclaration(f"{where} cannot be a variable: {why}. Choose another.", name=key)
        first = seen.setdefault(id(value), where)
        if value.owner is not None:
            first = f"{value.owner.__name__}.{value.name}"
        if first != where:
            raise errors.InvalidDeclaration(
                f"{where} is the same object as {first}. Declare it again.", name=key
            )
        try:
            check_name(key)
        except errors.InvalidName as error:
            raise errors.InvalidDeclaration(f"{name}: {error.message}", name=key) from None


def check_inherited(name: str, mro: tuple[type, ...]) -> None:
    """Refuse what does not fit the declarations of the parents."""
    for base in mro[1:]:
        for key, inherited in vars(base).get("_declared", {}).items():
            mine = next(vars(c)[key] for c in mro if key in vars(c))
            if mine is inherited:
                continue
            if not isinstance(mine, type(inherited)):
                raise errors.InvalidDeclaration(
                    f"{name}.{key} hides the declaration of {base.__name__}.{key}. To give it another first "
                    f"value, declare it again: {key} = defvariable(…).",
                    name=key,
                )
            if isinstance(mine, Variable) and not mine.kind.narrows(inherited.kind):
                raise errors.InvalidDeclaration(
                    f"{name}.{key} is {mine.kind!r}, which takes what {base.__name__}.{key} refuses: "
                    f"{inherited.kind!r}. Declare the same kind, or a narrower one.",
                    name=key,
                )


def check_conditions(name: str, variables: Mapping[str, Variable[Any]]) -> None:
    """Refuse conditions on what the program does not have, on values that cannot be, and on each other."""
    for key, variable in variables.items():
        seen = {key}
        one = variable
        while one.when is not None:
            other, values = one.when
            declared = variables.get(other.name)
            if declared is None:
                raise errors.InvalidDeclaration(
                    f"{name}.{key}: when= names {errors.shown(other.name, 60)}, which is no variable of "
                    f"{name}.{errors.did_you_mean(other.name, variables)}",
                    name=key,
                )
            for value in values:
                if not declared.kind.takes(value):
                    raise errors.InvalidDeclaration(
                        f"{name}.{key}: when= names the value {errors.shown(value, 60)}, which "
                        f"{name}.{other.name} can never have: it is {declared.kind!r}.",
                        name=key,
                    )
            if other.name in seen:
                raise errors.InvalidDeclaration(
                    f"{name}.{key}: its when= leads back to {other.name}.", name=key
                )
            seen.add(other.name)
            one = declared


def rules_of(cls: type, declared: Mapping[str, Any]) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """The rules of a class and its parents; the same, and those of the programs inside."""
    body = {key: one for base in reversed(cls.__mro__) for key, one in vars(base).items()}
    own = tuple(one for one in body.values() if isinstance(one, Rule))
    inner = [
        one.under(f"{key}.")
        for key, sub in declared.items()
        if isinstance(sub, Subprogram)
        for one in sub.program._rules
    ]
    return own, (*own, *inner)


def check_rules(name: str, variables: Mapping[str, Variable[Any]], rules: tuple[Rule, ...]) -> None:
    """Refuse initial values that a rule is against: no session could begin."""
    broken = first_refusal(rules, {key: one.initial for key, one in variables.items()})
    if broken is not None:
        raise errors.InvalidDeclaration(
            f"{name}: the initial values break the rule {broken[0].name}: {broken[1]}", rule=broken[0].name
        )


def check_annotations(cls: type, declared: Mapping[str, Any]) -> None:
    """Refuse an annotation beside a declaration that says something else."""
    for key in vars(cls).get("__annotations__", {}).keys() & declared.keys():
        variable = declared[key]
        annotation = _annotation(cls, key)
        if isinstance(variable, Variable) and not _agrees(annotation, variable):
            shown = getattr(annotation, "__name__", None) or str(annotation)
            raise errors.InvalidDeclaration(
                f"{cls.__name__}.{key} is annotated as {shown} but declared as {variable.kind!r}.",
                name=key,
            )


def _annotation(cls: type, key: str) -> Any:
    """The annotation of *key*; Any where it has a name that only type checkers see."""
    body = {"__annotations__": {key: cls.__annotations__[key]}, "__module__": cls.__module__}
    alone = type("alone", (), body)
    try:
        return inspect.get_annotations(alone, eval_str=True)[key]
    except Exception:
        return Any


def _agrees(annotation: Any, variable: Variable[Any]) -> bool:
    if annotation is Any:
        return True
    if isinstance(variable.kind, ModuleChoice):
        return annotation is not str
    if get_origin(annotation) is Literal:
        return as_kind(annotation) == variable.kind
    if not isinstance(annotation, type) or issubclass(annotation, Variable):
        return True
    if isinstance(variable.initial, bool):
        return annotation in (bool, object)
    return isinstance(variable.initial, annotation)


# ---- what binding needs --------------------------------------------------------------------------


class Plan(msgspec.Struct, frozen=True, eq=False):
    """All that is needed to bind one program class under one prefix; made once."""

    leaf: type
    """The class of the instances: the user's class plus a slot for each variable."""
    prefix: str
    declarations: tuple[Declaration, ...]
    variables: Mapping[str, Variable[Any]]
    """By their names in the session."""
    pushes: Mapping[str, Push]
    values: tuple[tuple[str, Push], ...]
    """Name in the session and slot of every variable that is not a module."""
    modules: tuple[tuple[str, Push], ...]
    """The same of those that are."""
    programs: tuple[tuple[str, Push, ProgramType], ...]
    """Prefix, slot and class of every program inside."""
    slip: Callable[[str], str | None]
    """The variable that somebody means who assigns another name; None where that is a name of its own."""
    rules: tuple[Rule, ...]
    """What may not be set together."""
    alone: tuple[Plan, ...] = ()
    """A tuple of this plan, for all sessions to share that have no other."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "alone", (self,))

    @classmethod
    def of(cls, program: ProgramType, prefix: str) -> Plan:
        """The plan of *program* under *prefix*."""
        leaf = leaf_of(program)
        variables = {prefix + key: one for key, one in program.declared.items() if isinstance(one, Variable)}
        values, modules = [], []
        for name, variable in variables.items():
            store = vars(leaf)[variable.name].__set__
            if isinstance(variable.kind, ModuleChoice):
                modules.append((name, _module_push(store)))
            else:
                values.append((name, store))
        return cls(
            leaf,
            prefix,
            tuple(variable.declaration(prefix) for variable in variables.values()),
            variables,
            dict((*values, *modules)),
            tuple(values),
            tuple(modules),
            tuple(
                (f"{prefix}{key}.", vars(leaf)[key].__set__, cast("ProgramType", one.program))
                for key, one in program.declared.items()
                if isinstance(one, Subprogram)
            ),
            functools.lru_cache(maxsize=256)(lambda name: errors.slip_of(name, program.declared)),
            tuple(one.under(prefix) if prefix else one for one in program._own_rules),
        )


def _module_push(store: Callable[[Any, Any], object]) -> Push:
    def push(program: Any, name: str) -> None:
        store(program, program._chosen(name))

    return push


def leaf_of(program: ProgramType) -> type:
    """
    The class that instances of *program* really have: the same, with a slot for each variable.

    Slots are read at plain-attribute speed and stay so after `copy`, `vars` and `dir`, which slow the reads
    of a `__dict__` on CPython 3.11 for good. They are on a class of their own because two parents with slots
    could not be inherited together.
    """
    leaf: type = type.__new__(
        _leaf_type(type(program)),  # type: ignore[arg-type]  # mypy takes the metaclass for unhashable
        program.__name__,
        (program,),
        {
            "__slots__": tuple(program.declared),
            "__module__": program.__module__,
            "__qualname__": program.__qualname__,
            "__doc__": program.__doc__,
        },
    )
    return leaf


@functools.cache
def _leaf_type(metaclass: type) -> type:
    """A metaclass for leaves: to `type(program).temperature` the declaration answers, not the slot."""

    def answer(leaf: Any, name: str) -> Any:
        found = type.__getattribute__(leaf, name)
        is_slot = isinstance(found, MemberDescriptorType) and name in leaf.declared
        return leaf.declared[name] if is_slot else found

    return type(metaclass.__name__, (metaclass,), {"__getattribute__": answer})
