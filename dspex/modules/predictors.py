"""
The modules that DSPy runs, under DSPy's names, and `wrap` for every other one.

Settings hold for every predictor inside a module and reach the requests that its language model gets. They
travel with the call, in a `dspy.context` around the whole of it, so calls at the same time with other
settings see only their own; no DSPy object is changed, and `dspy.configure` is never called.

A call uses the LM of its settings (`lm`, `model`), else the one that a wrapped predictor has, else the one
configured in DSPy, else `dspex.lm.default()`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from dspex import errors
from dspex.modules.base import BoundModule, Module, make_one
from dspex.modules.settings import Checks, Settings, check_declared, checked, count, number, or_none
from dspex.pieces import AsyncChannel, Channel, Output, in_threads, taker
from dspex.variables import Variable

if TYPE_CHECKING:
    from dspex.modules.dspy_bridge import Step

__all__ = [
    "BestOfN",
    "ChainOfThought",
    "DspyModule",
    "MultiChainComparison",
    "Predict",
    "ProgramOfThought",
    "ReAct",
    "Refine",
    "wrap",
]

_inside = "module."
"""Before the names of the settings that a module inside another one has."""


class DspyModule(Module):
    """The parent of the modules that DSPy runs. Takes the settings of `Settings` and its own."""

    own: ClassVar[Checks] = {}
    """The settings that only this module has."""

    def __init__(self, subject: Any, settings: Mapping[str, Any], inner: DspyModule | None = None) -> None:
        self._subject = subject
        self._inner = inner
        check_declared(self._title, settings, self.own)
        below = {} if inner is None else {_inside + name: value for name, value in inner.settings.items()}
        super().__init__(**settings, **below)

    @property
    def _title(self) -> str:
        """What a sentence calls it."""
        return type(self).__name__

    @abstractmethod
    def _any_step(self) -> Step:
        """The DSPy module under no settings, to show to a module around it."""

    @abstractmethod
    def _step(self, own: Mapping[str, Any], inner: Step | None) -> Step:
        """The DSPy module with the values of `own`, which nothing else may change."""

    def input_names(self) -> Collection[str]:
        inputs = self._any_step().inputs
        return inputs.takes if inputs is not None else ()

    def _checked(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Step:
        """What to call under *settings* with *inputs*."""
        step = self._prepared(settings)
        if step.inputs is not None and "signature" not in inputs:  # which DSPy takes in place of its own
            step.inputs.check(self._title, inputs)
        return step

    def _prepared(self, settings: Mapping[str, Any]) -> Step:
        """What to call under *settings*: those of a module inside, then those of this one."""
        inner = None
        if self._inner is not None:
            start = len(_inside)
            inner = self._inner._prepared(
                {name[start:]: value for name, value in settings.items() if name.startswith(_inside)}
            )
        own, common = {}, {}
        for name, value in settings.items():
            if name in self.own:
                own[name] = checked(name, value, self.own)
            elif name == "stream":
                checked(name, value, self.own)
            elif not name.startswith(_inside) and (value := checked(name, value, self.own)) is not None:
                common[name] = value
        return self._step(own, inner).under(common)

    def call(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        step, who = self._checked(inputs, settings), taker()
        if isinstance(who, Channel):
            who.check()
            if settings.get("stream"):
                return who.pass_on(self.stream(inputs, settings))
        return step.call(inputs)

    async def acall(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Any:
        """The same with the LM's async half; in a thread where DSPy has no async form."""
        step, who = self._checked(inputs, settings), taker()
        if isinstance(who, AsyncChannel) and settings.get("stream"):
            output = Output()
            return await who.pass_on(self.astream(inputs, settings, output), output)
        if step.awaitable:
            return await step.acall(inputs)
        import asyncio

        return await asyncio.to_thread(step.call, inputs)

    def speaks(self) -> bool:
        return bool(self.settings.get("stream"))

    def stream(self, inputs: Mapping[str, Any], settings: Mapping[str, Any]) -> Generator[str, None, Any]:
        """The text of the last output as the LM writes it; in the end the prediction."""
        from dspex.modules import dspy_streams

        return dspy_streams.stream(self._checked(inputs, settings), inputs)

    def astream(
        self, inputs: Mapping[str, Any], settings: Mapping[str, Any], output: Output
    ) -> AsyncGenerator[str, None]:
        """The same with the LM's async half; in threads where DSPy has no async form."""
        from dspex.modules import dspy_streams

        step = self._checked(inputs, settings)
        if step.awaitable:
            return dspy_streams.astream(step, inputs, output)
        return in_threads(dspy_streams.stream(step, inputs), output)

    def __repr__(self) -> str:
        subject = self._subject if isinstance(self._subject, DspyModule) else _named(self._subject)
        settings = [
            f"{name}={value if isinstance(value, Variable) else errors.shown(value, 40)}"
            for name, value in self.settings.items()
            if value is not None and not name.startswith(_inside)
        ]
        return f"{type(self).__name__}({', '.join([str(subject), *settings])})"


def _named(subject: Any) -> str:
    if isinstance(subject, str):
        return repr(subject)
    return subject.__name__ if isinstance(subject, type) else f"<{type(subject).__name__}>"


def _made(kind: str, *arguments: Any, **named: Any) -> Step:
    """A DSPy module of our own, or `MissingExtra`."""
    from dspex.modules import dspy_bridge

    for one in arguments:
        if isinstance(one, Variable):
            raise errors.InvalidDeclaration(
                f"{one} cannot stand there: what a {kind} is made of is fixed. Its settings may be variables."
            )
    return dspy_bridge.made(kind, *arguments, **named)


class _Fixed(DspyModule):
    """A module that is made once, however it is set."""

    _made: Step

    def _any_step(self) -> Step:
        return self._made

    def _step(self, own: Mapping[str, Any], inner: Step | None) -> Step:
        return self._made.having(own)


class Predict(_Fixed, name="Predict"):
    """
    Ask once: inputs in, outputs out.

    Args:
        signature: `"question -> answer"`, or a `dspy.Signature` class.
        settings: `temperature=…`, `instructions=…` and the others of `Settings`, each a value or a variable.
    """

    def __init__(self, signature: str | type[Any], **settings: Unpack[Settings]) -> None:
        super().__init__(signature, settings)
        self._made = _made("Predict", signature)


class ChainOfThought(_Fixed, name="ChainOfThought"):
    """
    Let the model write its `reasoning` before the outputs. Demos may have one too.

    Args:
        signature: As for `Predict`.
        rationale_field: The `dspy.OutputField` in place of DSPy's own.
        rationale_field_type: The type of the reasoning, where that is not given.
    """

    def __init__(
        self,
        signature: str | type[Any],
        rationale_field: Any = None,
        rationale_field_type: Any = str,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(signature, settings)
        self._made = _made("ChainOfThought", signature, rationale_field, rationale_field_type)


class ReAct(_Fixed, name="ReAct"):
    """
    Let the model call tools until it knows the outputs.

    Args:
        signature: As for `Predict`.
        tools: Functions with annotated parameters, or `dspy.Tool`s. What one raises is told to the model.
        max_iters: The most calls of tools; may be a variable.
    """

    own: ClassVar[Checks] = {"max_iters": count}

    def __init__(
        self,
        signature: str | type[Any],
        tools: list[Callable[..., Any]],
        max_iters: int | Variable[Any] = 20,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(signature, {"max_iters": max_iters, **settings})
        self._made = _made("ReAct", signature, tools)


class ProgramOfThought(_Fixed, name="ProgramOfThought"):
    """
    Let the model write Python and run it; it needs Deno, or an interpreter of yours.

    DSPy 3.4 calls its own deprecated, with a `DeprecationWarning` here.

    Args:
        signature: As for `Predict`.
        max_iters: The most programs that are tried; may be a variable.
        interpreter_factory: Makes the interpreter of one call; DSPy's by default.
    """

    own: ClassVar[Checks] = {"max_iters": count}

    def __init__(
        self,
        signature: str | type[Any],
        max_iters: int | Variable[Any] = 3,
        interpreter_factory: Callable[[], Any] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(signature, {"max_iters": max_iters, **settings})
        given = {} if interpreter_factory is None else {"interpreter_factory": interpreter_factory}
        self._made = _made("ProgramOfThought", signature, **given)


class MultiChainComparison(DspyModule, name="MultiChainComparison"):
    """
    Compare `completions=[…]`, earlier answers with their `reasoning`, and give a better one.

    Args:
        signature: As for `Predict`.
        M: How many completions a call gets; may be a variable.
    """

    own: ClassVar[Checks] = {"M": count}

    def __init__(
        self,
        signature: str | type[Any],
        M: int | Variable[Any] = 3,  # noqa: N803  DSPy's name
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(signature, {"M": M, **settings})
        # The number is part of its signature: one module each.
        self._for = lru_cache(maxsize=8)(lambda m: _made("MultiChainComparison", signature, m))
        self._some = self._for(3 if isinstance(M, Variable) else M)

    def _any_step(self) -> Step:
        return self._some

    def _step(self, own: Mapping[str, Any], inner: Step | None) -> Step:
        return self._for(own["M"])


class _Repeated(DspyModule):
    """A module that calls another one several times, each time with another `rollout_id`."""

    own: ClassVar[Checks] = {"N": count, "threshold": number, "fail_count": or_none(count)}

    def __init__(
        self,
        module: Any,
        N: int | Variable[Any],  # noqa: N803  DSPy's name
        reward_fn: Callable[[dict[str, Any], Any], float],
        threshold: float | Variable[Any] | None,
        fail_count: int | Variable[Any] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        inner = _as_dspy_module(module)
        own = {"N": N, "threshold": threshold, "fail_count": fail_count}
        super().__init__(inner, {**own, **settings}, inner)
        self._made = _made(type(self).__name__, inner._any_step().module, 1, reward_fn, 0.0)

    def _any_step(self) -> Step:
        return self._made

    def _step(self, own: Mapping[str, Any], inner: Step | None) -> Step:
        assert inner is not None
        return self._made.repeating(inner, own["N"], own["threshold"], own["fail_count"])


class BestOfN(_Repeated, name="BestOfN"):
    """
    Call a module up to *N* times and give the prediction with the highest reward.

    Args:
        module: A DSPy-backed module, a `dspy.Module`, or a signature, which stands for `Predict`. It keeps
            its own settings; those given here go first. Without a temperature it is called at 1.0.
        N: The most calls; may be a variable.
        reward_fn: From the inputs, as a dict, and a prediction to its reward.
        threshold: The reward that is good enough to stop at; may be a variable.
        fail_count: How many calls may raise, as DSPy counts; may be a variable. By default this raises when
            all of them did.
    """


class Refine(_Repeated, name="Refine"):
    """
    Like `BestOfN`, and after a call that was not good enough the model gives advice for the next one.

    Args: Those of `BestOfN`; with *threshold* None all *N* calls are made. DSPy shows the model the source
    code of the module and of *reward_fn*, so both must have one.
    """

    own: ClassVar[Checks] = {**_Repeated.own, "threshold": or_none(number)}


class _Wrapped(DspyModule, name="wrap"):
    """A `dspy.Module` of somebody else. What `wrap` makes."""

    def __init__(self, module: Any, settings: Mapping[str, Any]) -> None:
        super().__init__(module, settings)
        self._module = module

    @property
    def _title(self) -> str:
        return f"wrap({type(self._subject).__name__})"

    def _any_step(self) -> Step:
        from dspex.modules import dspy_bridge

        return dspy_bridge.step(self._module)

    def _step(self, own: Mapping[str, Any], inner: Step | None) -> Step:
        return self._any_step()  # each time: its predictors may be others now

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, "wrap", 1)


def wrap(module: Any, **settings: Unpack[Settings]) -> Module:
    """
    Any `dspy.Module` as a module: your own, an optimized one, one of those that have no class here.

    It is called as it is and never changed. *settings* hold for each of its predictors, and go before what
    that one has itself. For a predictor that is made during the call those of the LM hold as defaults.

    Raises:
        InvalidDeclaration: It is no `dspy.Module`, or a setting is unknown.
    """
    from dspex.modules import dspy_bridge

    if not dspy_bridge.is_module(module):
        raise errors.InvalidDeclaration(
            f"wrap() takes a dspy.Module (got {errors.shown(module, 80)}).{make_one(module)}", given=module
        )
    return _Wrapped(module, settings)


def _as_dspy_module(module: Any) -> DspyModule:
    from dspex.modules import dspy_bridge

    if isinstance(module, BoundModule):
        module = module.module
    if isinstance(module, DspyModule):
        return module
    if dspy_bridge.is_module(module):
        return _Wrapped(module, {})
    if isinstance(module, str) or dspy_bridge.is_signature(module):
        return Predict(module)
    raise errors.InvalidDeclaration(
        f"only what DSPy runs can be repeated: a DSPy-backed module, a dspy.Module or a signature (got "
        f"{errors.shown(module, 80)}).{make_one(module)}",
        given=module,
    )
