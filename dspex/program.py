"""Programs: classes that declare variables, and instances that read them live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType, MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

from dspex import errors, runs
from dspex.modules.base import BoundModule, Module, Modules, session_modules
from dspex.plans import (
    Plan,
    Subprogram,
    check_annotations,
    check_body,
    check_inherited,
    defprogram,
)
from dspex.records import Snapshot
from dspex.runs import Run
from dspex.session import Session
from dspex.variables import Variable

__all__ = ["Program", "ProgramType", "defprogram"]

P = ParamSpec("P")
R = TypeVar("R")

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
        type.__setattr__(cls, "declared", MappingProxyType(declared))
        type.__setattr__(cls, "variables", MappingProxyType(variables))
        type.__setattr__(cls, "_plans", {})
        return cls

    if not TYPE_CHECKING:  # to type checkers, `Program.__init__` says what a call gives

        def __call__(cls, session: Session | None = None) -> Any:
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


class _Either:
    """A method of the class and of its instances: `Agent.run(…)` and `agent.run(…)`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __get__(self, instance: Any, owner: type) -> Any:
        return MethodType(self._function, owner if instance is None else instance)


if TYPE_CHECKING:

    def _either(function: Callable[Concatenate[Any, P], R]) -> classmethod[Any, P, R]: ...

else:
    _either = _Either


class Program(metaclass=ProgramType):
    """
    The parent of every program.

    Declare variables with `defvariable`, make modules in `init`, and do the work in `forward` (or `async
    aforward`), reading the variables as plain attributes. `Agent.run(…, session=session)` calls it.
    """

    __slots__ = ("__dict__", "__weakref__", "_modules", "_pin", "_plan", "session")

    declared: ClassVar[Mapping[str, Variable[Any] | Subprogram[Any]]]
    variables: ClassVar[Mapping[str, Variable[Any]]]

    session: Session
    """The session that the program is bound to."""
    _plan: Plan
    _pin: Snapshot | None
    _modules: Modules | None

    if TYPE_CHECKING:

        def __init__(self, session: Session | None = None) -> None: ...

    def init(self) -> None:
        """Called once per bound program, before the first run: make modules here."""

    # ---- running ----------------------------------------------------------------------------------

    @_either
    def run(
        target: Any,  # noqa: N805  the class, or an instance
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> Any:
        """
        Call `forward(*inputs, **named)` and return what it returns.

        Args:
            session: Where the values are. The same class and session share one bound program. Without a
                session a private one with the initial values is used.
            pin: Let all reads come from the revision at the start. By default reads are live.
            timeout: Seconds after which `DeadlineExceeded` is raised.

        Raises:
            What `forward` raises, with a note that names program, session and revision.
        """
        with _ready(target, session, pin) as program:
            return runs.run(program, inputs, named, timeout)

    @_either
    async def arun(
        target: Any,  # noqa: N805
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> Any:
        """`run`, awaited: calls `aforward`, or `forward` in a thread."""
        with _ready(target, session, pin) as program:
            return await runs.arun(program, inputs, named, timeout)

    @_either
    def record(
        target: Any,  # noqa: N805
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> Run:
        """`run`, and return a `Run`: output, revisions, the values in effect, seconds."""
        with _ready(target, session, pin) as program:
            return runs.recorded(program, inputs, named, timeout)

    @_either
    async def arecord(
        target: Any,  # noqa: N805
        /,
        *inputs: Any,
        session: Session | None = None,
        pin: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> Run:
        """`record`, awaited."""
        with _ready(target, session, pin) as program:
            return await runs.arecorded(program, inputs, named, timeout)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """The same as `run` on this program."""
        return runs.run(self, inputs, named, None)

    async def acall(self, *inputs: Any, **named: Any) -> Any:
        """The same as `arun` on this program."""
        return await runs.arun(self, inputs, named, None)

    # ---- binding ----------------------------------------------------------------------------------

    @classmethod
    def bind(cls, session: Session) -> Self:
        """A new program whose attributes *session* keeps up to date for as long as it lives."""
        bound: Self = _bind(cls, session, "")
        return bound

    def pinned(self, snapshot: Snapshot | None = None) -> Self:
        """A copy whose reads all come from *snapshot*, or from the present revision, and never change."""
        copy: Self = _pinned(self, snapshot if snapshot is not None else self.session.snapshot())
        return copy

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

    def _read(self, variable: Variable[Any]) -> Any:
        own = type(self).variables
        name = self._plan.prefix + variable.name if variable.name in own else variable.name
        return self._pin[name] if self._pin is not None else self.session.get(name)

    def _choose(self) -> None:
        """Look up the chosen modules again: the registered ones have changed."""
        _fill(self, self._plan.modules)

    def _chosen(self, name: str) -> Any:
        modules = self.modules
        return modules[name] if name in modules else _NotYet(modules, name)

    def __setattr__(self, name: str, value: Any) -> None:
        declared = type(self).declared.get(name)
        if declared is None:
            if name in Program.__slots__:
                raise _bound_for_good(self, name)
            if isinstance(value, Module | BoundModule):
                module = value if isinstance(value, Module) else value.module
                value = BoundModule(module, self._read)
            object.__setattr__(self, name, value)
        elif isinstance(declared, Variable):
            self.session.set(self._plan.prefix + name, value, source=type(self).__name__)
        else:
            raise errors.InvalidDeclaration(
                f"{type(self).__name__}.{name} is a program and cannot be assigned; set its variables.",
                name=name,
            )

    def __delattr__(self, name: str) -> None:
        if name in Program.__slots__ or name in type(self).declared:
            raise _bound_for_good(self, name)
        object.__delattr__(self, name)

    def __copy__(self) -> Self:
        return self.pinned(self._pin)

    def __deepcopy__(self, memo: object) -> Self:
        return self.pinned(self._pin)

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


def _bound_for_good(program: Program, name: str) -> errors.InvalidDeclaration:
    return errors.InvalidDeclaration(
        f"{type(program).__name__}.{name} belongs to the binding of the program and stays. Bind another one: "
        f"{type(program).__name__}.bind(session).",
        name=name,
    )


class _NotYet:
    """Stands where the chosen module is not registered yet; looks again when it is called."""

    def __init__(self, modules: Modules, name: str) -> None:
        self._modules = modules
        self._name = name

    def __call__(self, **inputs: Any) -> Any:
        return self._modules[self._name](**inputs)

    async def acall(self, **inputs: Any) -> Any:
        return await self._modules[self._name].acall(**inputs)

    def __repr__(self) -> str:
        return f"<module '{self._name}', not registered yet>"


def _plan(cls: ProgramType, prefix: str) -> Plan:
    # Two threads may make one at the same time; all use that of the first.
    return cls._plans.get(prefix) or cls._plans.setdefault(prefix, Plan.of(cls, prefix))


def _bind(cls: Any, session: Session, prefix: str) -> Any:
    plan = cls._plans.get(prefix) or _plan(cls, prefix)
    session.declare(plan)
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
    return program


def _fill(program: Any, slots: tuple[tuple[str, Callable[[Any, Any], object]], ...]) -> None:
    """Read what the session has into *slots*, in step with the commits that push into them meanwhile."""
    ledger = program.session.ledger
    while True:
        rev = ledger.rev
        records = ledger.records
        for name, store in slots:
            store(program, records[name].value)
        if ledger.rev == rev:
            return


def _pinned(live: Any, snapshot: Snapshot) -> Any:
    plan: Plan = live._plan
    program: Any = object.__new__(plan.leaf)
    _set_session(program, live.session)
    _set_plan(program, plan)
    _set_pin(program, snapshot)
    modules = live._modules
    _set_modules(program, None if modules is None else modules.with_reader(program._read))
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
            store(program, _pinned(getattr(live, key), snapshot))
    if live.__dict__:
        for key, value in list(live.__dict__.items()):
            object.__setattr__(
                program,
                key,
                value.bound_to(program._read) if isinstance(value, BoundModule) else value,
            )
    return program


def _programs_of(program: Program) -> list[str]:
    return [key for key, one in type(program).declared.items() if isinstance(one, Subprogram)]


class _ready:  # noqa: N801  reads as what it gives
    """The program that a run uses: of this session, pinned or live; a private session ends with the run."""

    def __init__(self, target: Any, session: Session | None, pin: bool) -> None:
        self._private: Session | None = None
        if isinstance(target, Program):
            if session is not None and session is not target.session:
                raise errors.VariableConflict(
                    f"{target!r} cannot run on session '{session.id}'; call {type(target).__name__}.run.",
                    session=session.id,
                )
            program = target
        else:
            if session is None:
                session = self._private = Session()
            program = session.attachment(target, lambda: _bind(target, session, ""))
        self._program = program.pinned() if pin else program

    def __enter__(self) -> Any:
        return self._program

    def __exit__(self, *_: object) -> None:
        if self._private is not None:
            self._private.close()
