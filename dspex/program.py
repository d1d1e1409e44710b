"""Programs: classes that declare variables, and instances that read them live."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from dspex import errors, runs
from dspex.modules.base import BoundModule, Module, Modules, NotYet, session_modules
from dspex.plans import (
    Plan,
    Subprogram,
    check_annotations,
    check_body,
    check_conditions,
    check_inherited,
    check_rules,
    defprogram,
    rules_of,
)
from dspex.records import Snapshot
from dspex.rules import Rule, abide
from dspex.runnable import Runnable
from dspex.searchable import Searchable
from dspex.session import Session
from dspex.variables import Variable

if TYPE_CHECKING:
    from dspex.tools import Tools

__all__ = ["Program", "ProgramType", "defprogram"]

_RESERVED: frozenset[str] = frozenset()
"""What a variable cannot be called; filled once `Program` is made."""


class ProgramType(type):
    """
    The metaclass of programs.

    It reads the declarations off the class body and refuses those that cannot work; it keeps
    `ResearchAgent.temperature = 0.2` from wiping one out; and calling a class binds an instance.
    """

    declared: Mapping[str, Variable[Any] | Subprogram[Any]]
    """Variables and programs by attribute, parents first, in the order of declaration."""
    variables: Mapping[str, Variable[Any]]
    """All variables of the tree, by the names that they have in a session."""
    _own_rules: tuple[Rule, ...]
    """The rules of the class and its parents."""
    _rules: tuple[Rule, ...]
    """The same, and those of the programs inside."""
    _plans: dict[str, Plan]

    def __new__(mcls, name: str, bases: tuple[type, ...], body: dict[str, Any], **keywords: Any) -> Any:
        check_body(name, body, _RESERVED)
        mine = {key: value for key, value in body.items() if isinstance(value, Variable | Subprogram)}
        body["_declared"] = mine
        cls = super().__new__(mcls, name, bases, body, **keywords)
        check_inherited(name, cls.__mro__)
        check_annotations(cls, mine)
        for key, value in mine.items():
            value.name, value.owner = key, cls
        declared: dict[str, Variable[Any] | Subprogram[Any]] = {}
        for base in reversed(cls.__mro__):
            for key in vars(base).get("_declared", {}):
                declared[key] = next(vars(c)[key] for c in cls.__mro__ if key in vars(c))
        variables: dict[str, Variable[Any]] = {}
        for key, value in declared.items():
            if isinstance(value, Variable):
                variables[key] = value
            else:
                for inner, variable in value.program.variables.items():
                    variables[f"{key}.{inner}"] = variable.scoped(cls, f"{key}.{inner}")
        own_rules, rules = rules_of(cls, declared)
        check_conditions(name, variables)
        check_rules(name, variables, own_rules)
        type.__setattr__(cls, "_own_rules", own_rules)
        type.__setattr__(cls, "_rules", rules)
        type.__setattr__(cls, "declared", MappingProxyType(declared))
        type.__setattr__(cls, "variables", MappingProxyType(variables))
        type.__setattr__(cls, "_plans", {})
        return cls

    if not TYPE_CHECKING:  # to type checkers, `Program.__init__` says what a call gives

        def __call__(cls, session: Session | None = None, *inputs: Any, **values: Any) -> Any:
            if inputs or values:
                raise runs.no_values(cls, inputs, values)
            return _bind(cls, Session() if session is None else session, "")

    def __setattr__(cls, name: str, value: Any) -> None:
        if name in cls.declared:
            raise errors.InvalidDeclaration(
                f"{cls.__name__}.{name} is a declaration and cannot be assigned. To change its value: "
                f"session.set('{name}', …), or assign on a bound program.",
                name=name,
            )
        if isinstance(value, Variable | Subprogram):
            raise errors.InvalidDeclaration(
                f"{cls.__name__}.{name} cannot be declared any more: the class is made. Declare it in the "
                "class body, or register it with a session.",
                name=name,
            )
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        if name in cls.declared:
            raise errors.InvalidDeclaration(f"{cls.__name__}.{name} is a declaration and stays.", name=name)
        super().__delattr__(name)


class Program(Runnable, Searchable, metaclass=ProgramType):
    """
    The parent of every program.

    Declare variables with `defvariable`, make modules in `init`, and do the work in `forward` (or `async
    aforward`), reading the variables as plain attributes. `Agent.run(…, session=session)` calls it.
    """

    __slots__ = ("__dict__", "__weakref__", "_made", "_modules", "_pin", "_plan", "session")

    declared: ClassVar[Mapping[str, Variable[Any] | Subprogram[Any]]]
    variables: ClassVar[Mapping[str, Variable[Any]]]
    _own_rules: ClassVar[tuple[Rule, ...]]
    _rules: ClassVar[tuple[Rule, ...]]

    session: Session
    """The session that the program is bound to."""
    _plan: Plan
    _pin: Snapshot | None
    _modules: Modules | None
    _made: bool
    """True once `init` has run; not set before, nor on a pinned copy."""

    if TYPE_CHECKING:

        def __init__(self, session: Session | None = None) -> None: ...

    def init(self) -> None:
        """
        Called once per bound program, before the first run: make modules here.

        Who awaits a run has it called in a thread, where the store of the session may wait.
        """

    # ---- binding ----------------------------------------------------------------------------------

    @classmethod
    def bind(cls, session: Session) -> Self:
        """A new program whose attributes *session* keeps up to date for as long as it lives."""
        bound: Self = _bind(cls, session, "")
        return bound

    @classmethod
    async def abind(cls, session: Session) -> Self:
        """`bind`, awaited."""
        return await runs.checked(session)._call(cls.bind, session)

    def _record_in(
        self,
        pool: Any,
        snapshot: Snapshot,
        inputs: tuple[Any, ...],
        named: Mapping[str, Any],
        *,
        timeout: float | None,
    ) -> runs.Run:
        """`record` with the values of *snapshot* in a worker of *pool*, which reads them from a fork."""
        cls: Any = type(self).__mro__[1]
        with self.session.fork() as fork:
            now = fork.snapshot()
            different = {name: snapshot[name] for name in snapshot if now[name] is not snapshot[name]}
            if different:
                fork.update(different)
            began = time.perf_counter()
            output = pool.complete(cls, inputs, named, session=fork, deadline=timeout, pin=True)
            seconds = time.perf_counter() - began
        at = snapshot.revision
        values = {name: snapshot[name] for name in cls.variables}
        return runs.Run(cls.__name__, self.session.id, output, at, at, True, values, seconds)

    def pinned(self, snapshot: Snapshot | None = None) -> Self:
        """
        A copy whose reads all come from *snapshot*, or from the present revision, and never change.

        Its variables cannot be set. `copy.copy` does the same; `copy.deepcopy` also copies what you have set
        on the program yourself. Session and modules are shared in any case.
        """
        pinned: Self = _pinned(self, snapshot if snapshot is not None else self.session.snapshot())
        return pinned

    async def apinned(self, snapshot: Snapshot | None = None) -> Self:
        """`pinned`, awaited."""
        return self.pinned(snapshot if snapshot is not None else await self.session.asnapshot())

    @property
    def modules(self) -> Modules:
        """The program's modules by name; what it does not have is looked for in its session."""
        if self._modules is None:
            session = self.session
            modules = Modules(
                type(self).__name__, self._read, None, lambda: session_modules(session), self._choose
            )
            _set_modules(self, modules)
            return modules
        return self._modules

    @property
    def tools(self) -> Tools:
        """What this program may call back, by name; see `dspex.tool`."""
        from dspex.tools import tools_of

        return tools_of(self.session)

    def _read(self, variable: Variable[Any]) -> Any:
        own = type(self).variables
        name = self._plan.prefix + variable.name if variable.name in own else variable.name
        return self._pin[name] if self._pin is not None else self.session.get(name)

    def _choose(self) -> None:
        """Look up the chosen modules again: the registered ones have changed."""
        _fill(self, self._plan.modules)

    def _chosen(self, name: str) -> Any:
        modules = self.modules
        return modules[name] if name in modules else NotYet(modules, name)

    def __setattr__(self, name: str, value: Any) -> None:
        declared = type(self).declared.get(name)
        if declared is None:
            if name in Program.__slots__:
                raise _bound_for_good(self, name)
            if (near := self._plan.slip(name)) is not None:
                self._check_own(name, near)
            if isinstance(value, BoundModule):
                value = value.bound_to(self._read)
            elif isinstance(value, Module):
                value = BoundModule(value, self._read)
            object.__setattr__(self, name, value)
        elif not isinstance(declared, Variable):
            raise errors.InvalidAssignment(
                f"{type(self).__name__}.{name} is a program and cannot be assigned; set its variables.",
                name=name,
            )
        elif self._pin is not None:
            raise _pinned_for_good(self, name, self._pin)
        else:
            self.session.set(self._plan.prefix + name, value, source=type(self).__name__)

    def _check_own(self, name: str, near: str) -> None:
        """Refuse *name*, which looks like the variable *near*, unless there is such an attribute already."""
        cls = type(self)
        in_init = self._pin is None and not hasattr(self, "_made")
        if in_init or name.startswith("_") or hasattr(cls, name) or name in self.__dict__:
            return
        raise errors.InvalidAssignment(
            f"{cls.__name__} has no variable '{name}'. Did you mean '{near}'? An attribute of that name "
            f"needs a first value, in init() or in the class: {name} = None.",
            name=name,
            near=near,
        )

    def __delattr__(self, name: str) -> None:
        if name in Program.__slots__ or name in type(self).declared:
            raise _bound_for_good(self, name)
        object.__delattr__(self, name)

    def __copy__(self) -> Self:
        return self.pinned(self._pin)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self.session)] = self.session
        copied: Self = _pinned(self, self._pin or self.session.snapshot(), memo)
        return copied

    def __reduce__(self) -> Any:
        raise TypeError("a bound program cannot be pickled; bind its class again on the other side")

    def __repr__(self) -> str:
        how = f"pinned at {self._pin.revision}" if self._pin is not None else "bound"
        return f"<{type(self).__name__} {how} to session '{self.session.id}'>"


_RESERVED = frozenset(dir(Program)) | {"forward", "aforward"}

_set_session = vars(Program)["session"].__set__
_set_plan = vars(Program)["_plan"].__set__
_set_pin = vars(Program)["_pin"].__set__
_set_modules = vars(Program)["_modules"].__set__
_set_made = vars(Program)["_made"].__set__


def _bound_for_good(program: Program, name: str) -> errors.InvalidAssignment:
    return errors.InvalidAssignment(
        f"{type(program).__name__}.{name} belongs to the binding of the program and stays. Bind another one: "
        f"{type(program).__name__}.bind(session).",
        name=name,
    )


def _pinned_for_good(program: Program, name: str, pin: Snapshot) -> errors.InvalidAssignment:
    return errors.InvalidAssignment(
        f"{type(program).__name__}.{name} cannot be set: the program is pinned at revision {pin.revision}. "
        f"Set it in the session: session.set('{program._plan.prefix}{name}', …).",
        name=name,
        session=program.session.id,
        revision=pin.revision,
    )


def _plan(cls: ProgramType, prefix: str) -> Plan:
    # Two threads may make one at the same time; all use that of the first.
    return cls._plans.get(prefix) or cls._plans.setdefault(prefix, Plan.of(cls, prefix))


def _bind(cls: Any, session: Session, prefix: str) -> Any:
    plan = cls._plans.get(prefix) or _plan(cls, prefix)
    try:
        session.declare(plan)
    except AttributeError:
        runs.checked(session)  # here, because binding is fast
        raise
    abide(session.ledger, plan.rules)
    program = object.__new__(plan.leaf)
    _set_session(program, session)
    _set_plan(program, plan)
    _set_pin(program, None)
    _set_modules(program, None)
    if plan.modules:
        session_modules(session)  # made now: a push runs under the store's lock and must find it
    session.attach(program, plan.pushes)
    _fill(program, plan.values)
    if plan.modules:
        _fill(program, plan.modules)
    for inner, store, sub in plan.programs:
        store(program, _bind(sub, session, inner))
    program.init()
    _set_made(program, True)
    return program


def _fill(program: Any, slots: tuple[tuple[str, Callable[[Any, Any], object]], ...]) -> None:
    """Read what the session has into *slots*, in step with the commits that push into them meanwhile."""
    session = program.session
    while True:
        ledger = session.ledger
        rev = ledger.rev
        records = ledger.records
        try:
            for name, store in slots:
                store(program, records[name].value)
        except errors.SessionMoved:
            if session.ledger is ledger:
                raise
        # If the session has moved, others have set in the new place what was read in the old one.
        if ledger.rev == rev and session.ledger is ledger:
            return


def _pinned(live: Any, snapshot: Snapshot, memo: dict[int, Any] | None = None) -> Any:
    """A copy of *live* with the values of *snapshot*; with the *memo* of a deep copy it is one."""
    plan: Plan = live._plan
    program: Any = object.__new__(plan.leaf)
    _set_session(program, live.session)
    _set_plan(program, plan)
    _set_pin(program, snapshot)
    modules = live._modules
    _set_modules(program, None if modules is None else modules.with_reader(program._read))
    if memo is not None:
        memo[id(live)] = program
    records = snapshot._records
    try:
        for name, store in plan.values:
            store(program, records[name].value)
        for name, store in plan.modules:
            store(program, records[name].value)
    except KeyError as missing:
        snapshot.record(missing.args[0])  # says which variable the snapshot does not have
        raise
    if plan.programs:
        for (_, store, _), key in zip(plan.programs, _programs_of(live), strict=True):
            store(program, _pinned(getattr(live, key), snapshot, memo))
    if live.__dict__:
        for key, value in list(live.__dict__.items()):
            if isinstance(value, BoundModule):
                value = value.bound_to(program._read)  # noqa: PLW2901  as the copy has it
            elif memo is not None:
                value = copy.deepcopy(value, memo)  # noqa: PLW2901
            object.__setattr__(program, key, value)
    return program


def _programs_of(program: Program) -> list[str]:
    return [key for key, one in type(program).declared.items() if isinstance(one, Subprogram)]
