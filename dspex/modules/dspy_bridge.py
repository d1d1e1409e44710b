"""
Where DSPy is called; only this file of the room and `dspy_streams` import it.

A step is a DSPy module with the settings of one call. They travel as an adapter in the `dspy.context` around
that call: DSPy hands every request of every predictor to its adapter, with LM, parameters, signature and
examples, so what the adapter changes is what the model gets, whoever made the predictor, wherever it hangs.
The adapter is the one that would have been used, in a subclass of its own class, with `_applied` added.
"""

from __future__ import annotations

import copy
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from functools import lru_cache
from typing import Any, Protocol

import attrs

from dspex import deadlines, errors, lm, telemetry
from dspex.crossing import result_of
from dspex.modules.inputs import Inputs, inputs_of

try:
    import dspy
    from dspy.adapters.utils import annotation_allows_none
    from dspy.utils.callback import BaseCallback
except ModuleNotFoundError as error:
    if error.name != "dspy":
        raise
    raise errors.missing_extra("DSPy modules", "dspy") from error

__all__ = ["Listener", "Step", "is_module", "is_signature", "made", "step"]

_around = "_dspex"
"""The key in DSPy's settings under which a call keeps what its caller had, for calls inside it."""


def is_module(value: Any) -> bool:
    """Whether *value* is a DSPy module, ready to call."""
    return isinstance(value, dspy.Module)


def is_signature(value: Any) -> bool:
    """Whether *value* is a DSPy signature."""
    return isinstance(value, type) and issubclass(value, dspy.Signature)


def made(kind: str, *arguments: Any, **named: Any) -> Step:
    """A step of DSPy's class *kind*, made for us alone."""
    cls: Any = _MultiChainComparison if kind == "MultiChainComparison" else getattr(dspy, kind)
    module: Any = cls(*arguments, **named)
    for _, one in module.named_sub_modules(dspy.Module):
        one.history = deque(maxlen=0)  # nobody can ask for it; the LM keeps its own
    repeats = isinstance(arguments[0], dspy.Module)  # and takes what that one takes
    return attrs.evolve(step(module), inputs=None if repeats else _inputs(kind, arguments[0]))


def step(module: Any) -> Step:
    """A step of a DSPy module as it is now."""
    predictors = tuple(one for _, one in module.named_sub_modules(dspy.Predict))
    cls = type(module)
    if cls in (dspy.Predict, dspy.ChainOfThought):
        inputs: Inputs | None = _inputs("Predict", predictors[0].signature)
    else:
        inputs = _inputs_of_method(getattr(cls, "forward", None) or getattr(cls, "aforward", None))
    return Step(module, predictors, _tasks(module), inputs)


_beside = frozenset(("config", "demos", "lm", "prediction", "signature"))
"""What `dspy.Predict` lets a call say beside its inputs."""

_more = {"MultiChainComparison": ("completions",)}
"""What a module needs beside the inputs of its signature."""


@lru_cache(maxsize=256)
def _inputs(kind: str, signature: Any) -> Inputs:
    """The inputs of a module that DSPy makes of *signature*."""
    checked = dspy.ensure_signature(signature)
    assert checked is not None  # it was given one
    fields = checked.input_fields
    more = _more.get(kind, ())
    needed = [
        name
        for name, field in fields.items()
        if field.is_required() and not annotation_allows_none(field.annotation)
    ]
    also = _beside | {"max_iters"} if kind == "ReAct" else _beside
    return Inputs((*fields, *more), (*needed, *more), also)


@lru_cache(maxsize=256)
def _inputs_of_method(method: Any) -> Inputs | None:
    """The inputs of a module that somebody wrote; None where they can be any."""
    inputs = None if method is None else inputs_of(method)
    if inputs is None or inputs.anything:
        return None
    return attrs.evolve(inputs, takes=inputs.takes[1:], needs=inputs.needs[1:])  # without self


class Listener(Protocol):
    """Hears what the language model says during one call; a callback of DSPy."""

    @abstractmethod
    def settings(self, chosen: Any, used: Any) -> dict[str, Any]:
        """What DSPy is told, where the call has *chosen* an LM, and *used* is that of the others."""


@attrs.frozen(eq=False)
class Step:
    """A DSPy module, what is inside, and the settings that hold for it."""

    module: Any
    predictors: tuple[Any, ...]
    tasks: Mapping[Any, str | None]
    """By the signature of each predictor: which part of its instructions is about the task. None: no part."""
    inputs: Inputs | None
    """What a call takes; None where nobody knows before it is made."""
    settings: Mapping[str, Any] = {}

    @property
    def awaitable(self) -> bool:
        """Whether DSPy has an async form of it."""
        return hasattr(self.module, "aforward")

    def having(self, own: Mapping[str, Any]) -> Step:
        """The same with other attributes."""
        return attrs.evolve(self, module=_altered(self.module, own)) if own else self

    def repeating(self, inner: Step, times: int, threshold: float | None, failures: int | None) -> Step:
        """The same `BestOfN` or `Refine`, over *inner*."""
        # DSPy counts in a way that gives None where 1 or 2 attempts all failed.
        fail_count = {1: -1, 2: 1}.get(times, times) if failures is None else failures
        own = {"module": inner.module, "N": times, "threshold": threshold, "fail_count": fail_count}
        return attrs.evolve(inner, module=_altered(self.module, own))

    def under(self, settings: Mapping[str, Any]) -> Step:
        """The same with *settings*, before those that it has."""
        if not settings:
            return self
        kept = self.settings
        if "lm" in settings or "model" in settings:
            kept = {name: value for name, value in kept.items() if name not in ("lm", "model")}
        return attrs.evolve(self, settings={**kept, **settings})

    def call(self, inputs: Mapping[str, Any], listener: Listener | None = None) -> Any:
        """Make one prediction, heard by *listener*."""
        if self.awaitable and not hasattr(type(self.module), "forward"):
            return result_of(self.acall(inputs, listener))
        with self._context(listener):
            return self.module(**inputs)

    async def acall(self, inputs: Mapping[str, Any], listener: Listener | None = None) -> Any:
        """The same, awaited."""
        with self._context(listener):
            return await self.module.acall(**inputs)

    def _context(self, listener: Listener | None) -> AbstractContextManager[None]:
        deadlines.check("a call of the language model")
        settings = dict(self.settings)
        named, model = settings.pop("lm", None), settings.pop("model", None)
        chosen = named if model is None else _named(model, os.environ.get("DSPEX_GGUF"))
        outer = _outer()
        used = chosen if chosen is not None else self._default(outer.lm)
        adapter = _adapter(settings.pop("adapter", None)) or outer.adapter or self._adapter_for(chosen, used)
        instructions, demos = settings.pop("instructions", None), settings.pop("demos", None)
        replacing = chosen is not None and any(one.lm is not None for one in self.predictors)
        if replacing or demos is not None or instructions is not None or settings:
            examples = None if demos is None else [_example(one) for one in demos]
            applied = _Applied(chosen, settings, instructions, examples, self.tasks)
            adapter = _applying(adapter or _chat, applied)
        elif deadlines.remaining() is not None:
            adapter = _applying(adapter or _chat, None)
        own_trace = isinstance(self.module, dspy.BestOfN | dspy.Refine)
        around: dict[str, Any] = {_around: _Around(outer, used, adapter, own_trace)}
        heard = list(dspy.settings.callbacks)
        if telemetry.active is not None and _requests not in heard:
            heard.append(_requests)
        if listener is not None:
            heard.append(listener)
            around |= listener.settings(chosen, used)
        around["callbacks"] = heard
        context: AbstractContextManager[None] = dspy.context(
            lm=used, adapter=adapter, trace=outer.trace, **around
        )
        return context

    def _default(self, outer: Any) -> Any:
        """The LM for predictors that have none."""
        if outer is not None:
            return outer
        owned = [one.lm for one in self.predictors]
        if owned and all(one is not None for one in owned):
            return owned[0]
        with dspy.context(lm=None):
            if owned:
                return lm.default()
            with suppress(errors.NoLanguageModel):  # perhaps it needs none
                return lm.default()
        return None

    def _adapter_for(self, chosen: Any, used: Any) -> Any:
        """The adapter that the LMs of this call need, if they agree."""
        if chosen is not None or not self.predictors:
            return lm.adapter_for(used)
        needed = [lm.adapter_for(one.lm if one.lm is not None else used) for one in self.predictors]
        return needed[0] if all(one is not None for one in needed) else None


class _Requests(BaseCallback):  # type: ignore[misc]  # DSPy has no types
    """Tells of each request to a language model."""

    def __init__(self) -> None:
        self._spans: dict[str, Any] = {}

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        if telemetry.active is not None:
            settings = {**instance.kwargs, **inputs.get("kwargs", {}), **inputs}
            self._spans[call_id] = telemetry.active, telemetry.active.chat(instance.model, settings)

    def on_lm_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        told, span = self._spans.pop(call_id, (None, None))
        if told is None:
            return
        if exception is not None:
            told.failed(span, exception)
        span.end()


_requests = _Requests()


def _altered(module: Any, attributes: Mapping[str, Any]) -> Any:
    altered = copy.copy(module)
    altered.__dict__.update(attributes)
    return altered


# ---- which LM and which adapter ------------------------------------------------------------------


@attrs.frozen(eq=False)
class _Outer:
    """What the user configured in DSPy."""

    lm: Any
    adapter: Any
    trace: Any


@attrs.frozen(eq=False)
class _Around:
    """What a call put into DSPy's settings, and what was there before."""

    outer: _Outer
    lm: Any
    adapter: Any
    own_trace: bool
    """Whether DSPy replaces the trace during the call, and takes all in it for predictors of that module."""


def _outer() -> _Outer:
    """What the user configured, also within another of our calls."""
    settings = dspy.settings
    now = _Outer(settings.lm, settings.adapter, settings.trace)
    around = settings.get(_around)
    if around is None:
        return now
    ours = now.adapter is around.adapter or isinstance(now.adapter, _Applying)
    return _Outer(
        around.outer.lm if now.lm is around.lm else now.lm,
        around.outer.adapter if ours else now.adapter,
        around.outer.trace if around.own_trace else now.trace,
    )


@lru_cache(maxsize=32)
def _named(model: str, _gguf: str | None) -> Any:
    """The one LM of that name."""
    if model == "local" or model.startswith("local/"):
        local = lm.local()
        if model not in ("local", local.model):
            raise errors.NoLanguageModel(
                f"There is no model '{model}'; the local one is '{local.model}'.", model=model
            )
        return local
    return dspy.LM(model)


_chat = dspy.ChatAdapter()


def _adapter(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given == "terse":
        return lm.TerseAdapter()
    return {"chat": dspy.ChatAdapter, "json": dspy.JSONAdapter, "xml": dspy.XMLAdapter}[given]()


# ---- applying settings ---------------------------------------------------------------------------


@attrs.frozen(eq=False)
class _Applied:
    """The settings of one call, for each of its requests."""

    lm: Any
    parameters: Mapping[str, Any]
    instructions: str | None
    demos: list[Any] | None
    tasks: Mapping[Any, str | None]

    def to(
        self, used: Any, parameters: Mapping[str, Any], signature: Any, demos: list[Any]
    ) -> tuple[Any, dict[str, Any], Any, list[Any]]:
        """What to ask instead."""
        callers = dspy.settings.caller_modules
        caller = callers[-1] if callers and isinstance(callers[-1], dspy.Predict) else None
        # `Refine` and decisions alter the signature on its way here; the predictor's own is what we know.
        known = signature if caller is None else caller.signature
        if known not in self.tasks:  # made during the call
            return used, _varied({**self.parameters, **parameters}, used), signature, demos
        if self.lm is not None:
            used = self._in_place_of(used)
        if self.instructions is not None:
            signature = _instructed(signature, self.tasks[known], self.instructions)
        if self.demos is not None:
            demos = list(self.demos)
        return used, _varied({**parameters, **self.parameters}, used), signature, demos

    def _in_place_of(self, used: Any) -> Any:
        """Our LM, with what `BestOfN` and `Refine` gave to theirs to make attempts differ."""
        given = getattr(used, "kwargs", {})
        if used is self.lm or "rollout_id" not in given:
            return self.lm
        return self.lm.copy(rollout_id=given["rollout_id"], temperature=given.get("temperature"))


def _varied(parameters: dict[str, Any], used: Any) -> dict[str, Any]:
    """As `dspy.Predict` does: several completions of one request must not be the same."""
    if (parameters.get("n") or 1) > 1:
        temperature = parameters.get("temperature") or getattr(used, "kwargs", {}).get("temperature")
        if temperature is None or temperature <= 0.15:
            parameters["temperature"] = 0.7
    return parameters


class _Applying:
    """An adapter that lets no request begin too late, and applies the settings of one call first."""

    _applied: _Applied | None = None

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        deadlines.check("a request to the language model")
        if self._applied is not None:
            lm, lm_kwargs, signature, demos = self._applied.to(lm, lm_kwargs, signature, demos)
        return super().__call__(lm, lm_kwargs, signature, demos, inputs)  # type: ignore[misc]

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        deadlines.check("a request to the language model")
        if self._applied is not None:
            lm, lm_kwargs, signature, demos = self._applied.to(lm, lm_kwargs, signature, demos)
        return await super().acall(lm, lm_kwargs, signature, demos, inputs)  # type: ignore[misc]


def _applying(adapter: Any, applied: _Applied | None) -> Any:
    """A copy of *adapter* that applies *applied*."""
    kind: Any = type(adapter)
    applying: Any = object.__new__(_applying_class(kind))
    applying.__dict__.update(adapter.__dict__, _applied=applied)
    return applying


@lru_cache(maxsize=32)
def _applying_class(adapter: type) -> type:
    # DSPy asks adapters for their class and its name, so it is a subclass of the same name.
    cls = type(adapter.__name__, (_Applying, adapter), {"__module__": adapter.__module__})
    # DSPy puts callbacks around these two in every subclass, so they would come twice.
    for name in ("format", "parse"):
        if name in vars(cls):
            delattr(cls, name)
    return cls


@lru_cache(maxsize=256)
def _instructed(signature: Any, task: str | None, instructions: str) -> Any:
    """*signature* with *instructions* for its task. Kept, because a signature takes 0.3 ms to make."""
    now = signature.instructions
    if task is None:
        new = f"{instructions}\n{now}"
    else:
        new = now.replace(task, instructions, 1) if task and task in now else instructions
    return signature.with_instructions(new)


def _tasks(module: Any) -> dict[Any, str | None]:
    """
    The signatures of all predictors, and which part of their instructions is about the task.

    Most are about nothing else. DSPy's agents write their own protocol around the task, which must stay.
    """
    tasks: dict[Any, str | None] = {
        one.signature: one.signature.instructions for _, one in module.named_sub_modules(dspy.Predict)
    }
    for _, agent in module.named_sub_modules(dspy.Module):
        bases = type(agent).__mro__
        if isinstance(agent, dspy.Predict) or not any(_is_predict(base) for base in bases):
            continue
        task = getattr(getattr(agent, "signature", None), "instructions", None)
        if task:
            for _, one in agent.named_sub_modules(dspy.Predict):
                tasks[one.signature] = task if task in one.signature.instructions else None
    return tasks


def _is_predict(cls: type) -> bool:
    return cls.__module__.startswith("dspy.predict.")


def _example(demo: Any) -> Any:
    return dspy.Example(demo) if isinstance(demo, dict | dspy.Example) else dspy.Example(demo.toDict())


class _MultiChainComparison(dspy.MultiChainComparison):  # type: ignore[misc]  # dspy has no types
    """DSPy's with an async form, and made without the argument for which DSPy warns of itself."""

    def __init__(self, signature: Any, count: int) -> None:
        dspy.Module.__init__(self)
        signature = dspy.ensure_signature(signature)
        self.M = count
        *_, self.last_key = signature.output_fields
        for index in range(count):
            field = dspy.InputField(desc="${reasoning attempt}")
            signature = signature.append(f"reasoning_attempt_{index + 1}", field)
        signature = signature.prepend("rationale", dspy.OutputField(desc="${corrected reasoning}"))
        self.predict = dspy.Predict(signature, temperature=0.7)

    async def aforward(self, completions: Any, **inputs: Any) -> Any:
        asking = _altered(self, {"predict": self.predict.acall})
        asked: Any = dspy.MultiChainComparison.forward(asking, completions, **inputs)
        return await asked
