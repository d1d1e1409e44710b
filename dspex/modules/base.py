"""
The module contract.

A module is a callable step of a program: named inputs in, a prediction out. Its settings are values or
`Variable`s; a variable is read at every call, from the program or session to which the module is bound.

An author writes `call`, `acall` where there is something to await, and `stream` and `astream` where a
prediction comes piece by piece. All may run in several threads at once, so they keep what belongs to one call
in that call. Inputs and settings arrive resolved; what they raise reaches the caller as it is.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    Callable,
    Collection,
    Generator,
    Iterator,
    Mapping,
    MutableMapping,
)
from typing import TYPE_CHECKING, Any, ClassVar, Never, Self

from dspex import errors, telemetry
from dspex.crossing import result_of
from dspex.modules.inputs import check_settings, inputs_of
from dspex.pieces import AsyncPieces, Output, Pieces, in_threads
from dspex.variables import Variable

if TYPE_CHECKING:
    from dspex.session import Session

__all__ = ["BoundModule", "FunctionModule", "Module", "Modules", "Reader", "as_module", "execute"]

Reader = Callable[[Variable[Any]], Any]
"""Gives the value that a variable has where a module is bound."""


class Module(ABC):
    """
    One step of a program.

    Args:
        settings: Values or variables, by name; every call is made with what they are then.
    """

    registry: ClassVar[dict[str, type[Module]]] = {}
    """The module classes by the name that they were given: `class Vote(Module, name="Vote")`."""

    def __init_subclass__(cls, *, name: str | None = None, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if name is not None:
            Module.registry[name] = cls

    def __init__(self, **settings: Any) -> None:
        self.settings: dict[str, Any] = settings

    @abstractmethod
    def call(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """Make one prediction from *inputs* under *settings*."""

    async def acall(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """The same, awaited; in a thread unless the module knows better."""
        import asyncio

        return await asyncio.to_thread(self.call, inputs, settings)

    def stream(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Generator[Any, None, Any]:
        """
        The pieces of the prediction, and in the end what `call` returns; it is the only piece unless the
        module knows better.
        """
        return _only_piece(self.call, inputs, settings)

    async def astream(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], output: Output
    ) -> AsyncGenerator[Any, None]:
        """The same, awaited; what comes in the end is given to *output*."""
        if type(self).stream is Module.stream:
            made = await self.acall(inputs, settings)
            if not isinstance(made, Generator):
                yield made
                output.give(made)
                return
        else:
            made = self.stream(inputs, settings)
        async for piece in in_threads(made, output):
            yield piece

    def __call__(self, *unnamed: Never, **inputs: Any) -> Any:
        """Call a module that is bound nowhere: its settings must be plain values."""
        return BoundModule(self, _unbound)(*unnamed, **inputs)

    def speaks(self) -> bool:
        """Whether a stream of a program whose `forward` does not yield may have pieces of this module."""
        return False

    def input_names(self) -> Collection[str]:
        """The names of the inputs, as far as they are known; for sentences."""
        return ()

    @classmethod
    def create(cls, *args: Any, store_as: str, session: Session, **settings: Any) -> Self:
        """Make a module and register it with *session*, where every program bound there finds it by name."""
        module = cls(*args, **settings)
        session_modules(session)[store_as] = module
        return module

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={_shown(value)}" for key, value in self.settings.items())
        return f"{type(self).__name__}({settings})"


def _only_piece(
    call: Callable[..., Any], inputs: Mapping[str, Any], settings: Mapping[str, Any]
) -> Generator[Any, None, Any]:
    made = call(inputs, settings)
    if isinstance(made, Generator):
        return (yield from made)
    yield made
    return made


def _shown(setting: object) -> str:
    return str(setting) if isinstance(setting, Variable) else errors.shown(setting, 40)


def _unbound(variable: Variable[Any]) -> Any:
    raise errors.UnknownVariable(
        f"{variable} has no value here: the module is bound to no program and no session. Put it into "
        "self.modules in init(), or register it with a session.",
        variable=variable,
    )


class BoundModule:
    """A module where its variables have values: what a program reads and calls."""

    __slots__ = ("__weakref__", "_read", "module")

    def __init__(self, module: Module, read: Reader) -> None:
        self.module = module
        self._read = read

    @property
    def settings(self) -> dict[str, Any]:
        """The settings as a call made now would get them."""
        read = self._read
        return {
            key: read(value) if isinstance(value, Variable) else value
            for key, value in self.module.settings.items()
        }

    def __call__(self, *unnamed: Never, **inputs: Any) -> Any:
        """
        Make one prediction from named *inputs*.

        Raises:
            InvalidCall: An input has no name, or one that the module does not take; or one is missing.
        """
        if unnamed:
            raise self._without_names(unnamed)
        settings = self.settings
        if telemetry.active is None:
            return self.module.call(inputs, settings)
        with telemetry.active.step(self.module, settings):
            return self.module.call(inputs, settings)

    async def acall(self, *unnamed: Never, **inputs: Any) -> Any:
        """The same, awaited."""
        if unnamed:
            raise self._without_names(unnamed)
        settings = self.settings
        if telemetry.active is None:
            return await self.module.acall(inputs, settings)
        with telemetry.active.step(self.module, settings):
            return await self.module.acall(inputs, settings)

    def stream(self, *unnamed: Never, **inputs: Any) -> Pieces:
        """
        Make one prediction piece by piece: `prediction = yield from self.ask.stream(question=question)`.

        The settings are those of now. Leaving it ends the prediction.

        Raises:
            InvalidCall: As for a call, at once.
        """
        if unnamed:
            raise self._without_names(unnamed)
        settings = self.settings
        made = self.module.stream(inputs, settings)
        return Pieces(telemetry.stepped(made, self._begun(settings)))

    def astream(self, *unnamed: Never, **inputs: Any) -> AsyncPieces:
        """The same for `async for`; its `output` is the prediction."""
        if unnamed:
            raise self._without_names(unnamed)
        settings, output = self.settings, Output()
        made = self.module.astream(inputs, settings, output)
        return AsyncPieces(telemetry.astepped(made, self._begun(settings)), output)

    def _begun(self, settings: Mapping[str, Any]) -> Callable[[telemetry.Telemetry], Any]:
        return lambda active: active.step_in_steps(self.module, settings)

    def _without_names(self, given: tuple[object, ...]) -> errors.InvalidCall:
        names = ", ".join(f"{name}=…" for name in self.module.input_names()) or "name=…"
        return errors.InvalidCall(
            f"{self.module!r} takes inputs by name, as in step({names}) (got {errors.shown(given[0], 40)}).",
            module=repr(self.module),
        )

    def bound_to(self, read: Reader) -> BoundModule:
        """The same module with the values of somewhere else."""
        return BoundModule(self.module, read)

    def __deepcopy__(self, memo: dict[int, Any]) -> BoundModule:
        # Of a program that is copied: the copy reads its own values, and modules are shared.
        return BoundModule(self.module, copy.deepcopy(self._read, memo))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BoundModule):
            return self.module is other.module and self._read == other._read
        return NotImplemented

    def __hash__(self) -> int:
        return hash((id(self.module), self._read))

    def __repr__(self) -> str:
        return f"<bound {self.module!r}>"


class FunctionModule(Module, name="Function"):
    """
    A plain function, sync or async, as a module: its parameters are the inputs, then the settings.

    One that yields is for `stream`, which gives its pieces.

    Raises:
        InvalidDeclaration: The function has no parameter of the name of a setting.
    """

    def __init__(self, function: Callable[..., Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.function = function
        if settings:
            check_settings(repr(self), function, settings)

    def call(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        result = self._called(inputs, settings)
        return result_of(result) if inspect.isawaitable(result) else result

    async def acall(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        function = self.function
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            return await self._called(inputs, settings)
        import asyncio

        return await asyncio.to_thread(self.call, inputs, settings)

    def _called(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        try:
            return self.function(**inputs, **settings)
        except TypeError:
            # Only now, so that a good call costs nothing. With the right names it is the function's own.
            takes = inputs_of(self.function, settings)
            if takes is not None:
                takes.check(repr(self), inputs)
            raise

    def input_names(self) -> Collection[str]:
        takes = inputs_of(self.function, self.settings)
        return takes.takes if takes is not None else ()

    def __repr__(self) -> str:
        return f"FunctionModule({getattr(self.function, '__qualname__', self.function)})"


def as_module(step: Any) -> Module:
    """*step* as a module: a `Module`, a bound one, a DSPy module, or any function that takes named inputs."""
    if isinstance(step, Module):
        return step
    if isinstance(step, BoundModule):
        return step.module
    if isinstance(step, type) or not callable(step):
        raise errors.InvalidDeclaration(
            f"a module must be a Module, a DSPy module or a function (got {errors.shown(step, 80)})."
            f"{make_one(step)}",
            given=step,
        )
    if hasattr(step, "named_predictors"):  # a dspy.Module, told without importing dspy
        from dspex.modules.predictors import wrap

        return wrap(step)
    return FunctionModule(step)


def make_one(given: Any) -> str:
    """What to say to somebody who gives a class in place of one of its instances; else nothing."""
    return f" It is a class: make one, {given.__name__}(…)." if isinstance(given, type) else ""


class Modules(MutableMapping[str, BoundModule]):
    """
    The modules of a program or of a session, by name; what is looked up comes bound.

    A name that a program does not have is looked for in its session.
    """

    __slots__ = ("_changed", "_fallback", "_hint", "_own", "_read", "_where")

    def __init__(
        self,
        where: str,
        read: Reader,
        own: dict[str, Module] | None = None,
        fallback: Callable[[], Mapping[str, BoundModule]] = dict,
        changed: Callable[[], object] = lambda: None,
        *,
        hint: str = "Put it there in init(): self.modules['{name}'] = …",
    ) -> None:
        self._where = where
        self._read = read
        self._own = {} if own is None else own
        self._fallback = fallback
        self._changed = changed
        self._hint = hint
        """How to add one, said to who looks for one that is not there."""

    def with_reader(self, read: Reader) -> Modules:
        """The same modules with the values of somewhere else."""
        return Modules(self._where, read, self._own, self._fallback)

    def __getitem__(self, name: str) -> BoundModule:
        module = self._own.get(name)
        if module is None:
            found = self._fallback().get(name)
            if found is None:
                raise self._unknown(name)
            module = found.module
        return BoundModule(module, self._read)

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401  this is that get

    def _unknown(self, name: str) -> errors.UnknownModule:
        known = sorted({*self._own, *self._fallback()})
        registered = f"registered are {errors.listed(known)}" if known else "none is registered"
        return errors.UnknownModule(
            f"{self._where} has no module {errors.shown(name, 80)}; {registered}."
            f"{errors.did_you_mean(name, known)} {self._hint.format(name=name)}",
            name=name,
            known=known,
        )

    def __setitem__(self, name: str, module: Any) -> None:
        self._own[name] = as_module(module)
        self._changed()

    def __delitem__(self, name: str) -> None:
        if name not in self._own:
            raise self._unknown(name)
        del self._own[name]
        self._changed()

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._fallback()

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._own, *self._fallback()]))

    def __len__(self) -> int:
        return len({*self._own, *self._fallback()})

    def __repr__(self) -> str:
        return f"<Modules of {self._where}: { {name: self[name].module for name in self} }>"


class NotYet:
    """Stands where the chosen module is not registered yet; looks again when it is called."""

    def __init__(self, modules: Modules, name: str) -> None:
        self._modules = modules
        self._name = name

    def __call__(self, *unnamed: Any, **inputs: Any) -> Any:
        return self._modules[self._name](*unnamed, **inputs)

    async def acall(self, *unnamed: Any, **inputs: Any) -> Any:
        return await self._modules[self._name].acall(*unnamed, **inputs)

    def stream(self, *unnamed: Any, **inputs: Any) -> Pieces:
        return self._modules[self._name].stream(*unnamed, **inputs)

    def astream(self, *unnamed: Any, **inputs: Any) -> AsyncPieces:
        return self._modules[self._name].astream(*unnamed, **inputs)

    def __repr__(self) -> str:
        return f"<module '{self._name}', not registered yet>"


def session_modules(session: Session) -> Modules:
    """The modules that are registered with *session*, or with the one that it is a fork of."""

    def made() -> Modules:
        # Looked up now: a push, which runs under the store's lock, may ask for them.
        above = session_modules(session.parent) if session.parent is not None else {}
        return Modules(
            f"session '{session.id}'",
            lambda variable: session.get(variable.name),
            fallback=lambda: above,
            hint="Register it: Predict.create(…, store_as='{name}', session=session). "
            "What a program has in self.modules is only its own.",
        )

    modules: Modules = session.attachment(Modules, made)
    return modules


def execute(name: str, inputs: Mapping[str, Any], *, session: Session) -> Any:
    """
    Call the module that is registered with *session* as *name*.

    Raises:
        UnknownModule: There is none.
    """
    return session_modules(session)[name](**inputs)
