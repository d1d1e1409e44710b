"""
The settings that a DSPy-backed module takes: which there are, and what each may be. Plain functions, no dspy.

A value may come from a variable, so from whoever may set it. It can choose a model by name and shape the
prompt; it cannot say where prompts and keys are sent: that is part of an LM object, which only code can give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from dspex import errors
from dspex.variables import Variable

__all__ = [
    "ADAPTERS",
    "PARAMETERS",
    "Checks",
    "Settings",
    "check_declared",
    "checked",
    "count",
    "number",
    "or_none",
]

ADAPTERS = ("chat", "json", "terse", "xml")
"""The adapters that have a name, so that a variable can choose one."""

_ours = ("adapter", "demos", "instructions", "lm", "model", "stream")
_connection = (
    "api_base",
    "api_key",
    "api_version",
    "base_url",
    "custom_llm_provider",
    "engine",
    "extra_body",
    "extra_headers",
    "headers",
    "model_list",
    "organization",
    "timeout",
)

Checks = Mapping[str, Callable[[str, Any], Any]]
"""How settings are checked, by name: from name and value to the value, or `InvalidValue`."""


class Settings(TypedDict, total=False):
    """What every DSPy-backed module takes by keyword; each may be a variable, but for `lm`."""

    adapter: Any
    """A `dspy.Adapter`, or one of `chat`, `json`, `terse`, `xml`."""
    cache: bool | Variable[Any] | None
    demos: Any
    """Mappings, or objects with `toDict()`, that each predictor shows as examples."""
    frequency_penalty: float | Variable[Any] | None
    instructions: str | Variable[Any] | None
    """What each predictor is told to do, in place of what its signature says."""
    lm: Any
    """A `dspy.LM`."""
    logit_bias: Mapping[str, float] | Variable[Any] | None
    logprobs: int | bool | Variable[Any] | None
    max_completion_tokens: int | Variable[Any] | None
    max_tokens: int | Variable[Any] | None
    metadata: Mapping[str, str] | Variable[Any] | None
    model: str | Variable[Any] | None
    """What `dspy.LM` is made of, or `local` for the model of `dspex.lm.local()`."""
    n: int | Variable[Any] | None
    presence_penalty: float | Variable[Any] | None
    reasoning_effort: str | Variable[Any] | None
    rollout_id: int | Variable[Any] | None
    seed: int | Variable[Any] | None
    service_tier: str | Variable[Any] | None
    stop: Any
    """A text or a list of texts."""
    store: bool | Variable[Any] | None
    stream: bool | Variable[Any] | None
    """Whether `Program.stream` gives the text of this module, where `forward` calls it and does not yield."""
    temperature: float | Variable[Any] | None
    top_k: int | Variable[Any] | None
    top_logprobs: int | Variable[Any] | None
    top_p: float | Variable[Any] | None
    user: str | Variable[Any] | None
    verbosity: str | Variable[Any] | None


def check_declared(module: str, settings: Mapping[str, Any], own: Checks) -> None:
    """
    Refuse settings with which *module* could never be called.

    Raises:
        InvalidDeclaration: One is unknown, or cannot be what it is.
        InvalidValue: The plain value of one is not what it takes.
    """
    known = {*PARAMETERS, *_ours, *own}
    for name, value in settings.items():
        if name in _connection:
            raise errors.InvalidDeclaration(
                f"{module} takes no setting '{name}': where a model is and how it is reached belongs to the "
                f"LM. Give it one that knows: lm=dspy.LM(…, {name}=…).",
                name=name,
            )
        if name not in known:
            raise errors.InvalidDeclaration(
                f"{module} takes no setting '{name}'.{errors.did_you_mean(name, known)}",
                name=name,
                known=sorted(known),
            )
        if isinstance(value, Variable):
            if name == "lm":
                raise errors.InvalidDeclaration(
                    f"lm cannot be a variable (got {value}): an LM is no value of any kind. A variable can "
                    f"name one: model={value}.",
                    name=name,
                )
        else:
            checked(name, value, own)
    if settings.get("lm") is not None and settings.get("model") is not None:
        raise errors.InvalidDeclaration(f"{module} takes lm or model, not both.", name="lm")


def checked(name: str, value: Any, own: Checks) -> Any:
    """The value of one setting, as plain mutable data where it is data. Raises `InvalidValue`."""
    if name in own:
        return own[name](name, value)
    if value is None:
        return value
    if name == "lm":
        return _a(_is_object(value), "a dspy.LM", name, value)
    if name == "instructions":
        return _text(name, value)
    if name == "stream":
        return _flag(name, value)
    if name == "model":
        good = isinstance(value, str) and "://" not in value and value.isprintable() and value.strip() != ""
        return _a(good, "the name of a model, such as 'openai/gpt-4o-mini' or 'local'", name, value)
    if name == "adapter":
        good = value in ADAPTERS if isinstance(value, str) else _is_object(value)
        return _a(good, f"a dspy.Adapter or one of {errors.listed(ADAPTERS)}", name, value)
    if name == "demos":
        good = isinstance(value, list | tuple) and all(map(_is_demo, value))
        return [_plain(one) for one in _a(good, "a list of mappings", name, value)]
    return _plain(PARAMETERS[name](name, value))


def count(name: str, value: Any) -> Any:
    """A check: a whole number, and one at least."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return _a(good, "a whole number of at least 1", name, value)


def number(name: str, value: Any) -> Any:
    """A check: a number."""
    return _a(isinstance(value, int | float) and not isinstance(value, bool), "a number", name, value)


def _whole(name: str, value: Any) -> Any:
    return _a(isinstance(value, int) and not isinstance(value, bool), "a whole number", name, value)


def _flag(name: str, value: Any) -> Any:
    return _a(isinstance(value, bool), "True or False", name, value)


def _whole_or_flag(name: str, value: Any) -> Any:
    return _a(isinstance(value, int), "a whole number, True or False", name, value)


def _text(name: str, value: Any) -> Any:
    return _a(isinstance(value, str), "a text", name, value)


def _texts(name: str, value: Any) -> Any:
    listed = isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    return _a(listed or isinstance(value, str), "a text or a list of texts", name, value)


def _mapping(name: str, value: Any) -> Any:
    return _a(isinstance(value, Mapping), "a mapping", name, value)


def or_none(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """A check: None, or what *check* takes."""
    return lambda name, value: None if value is None else check(name, value)


def _a(good: bool, expected: str, name: str, value: Any) -> Any:
    if not good:
        raise errors.InvalidValue.expecting(expected, errors.shown(value)).at(name)
    return value


def _is_object(value: Any) -> bool:
    """Whether *value* may be an LM or an adapter: DSPy awaits both."""
    return hasattr(value, "acall") and not isinstance(value, type)


def _is_demo(one: Any) -> bool:
    return isinstance(one, Mapping) or hasattr(one, "toDict")


PARAMETERS: Checks = {
    "cache": _flag,
    "frequency_penalty": number,
    "logit_bias": _mapping,
    "logprobs": _whole_or_flag,
    "max_completion_tokens": count,
    "max_tokens": count,
    "metadata": _mapping,
    "n": count,
    "presence_penalty": number,
    "reasoning_effort": _text,
    "rollout_id": _whole,
    "seed": _whole,
    "service_tier": _text,
    "stop": _texts,
    "store": _flag,
    "temperature": number,
    "top_k": count,
    "top_logprobs": _whole,
    "top_p": number,
    "user": _text,
    "verbosity": _text,
}
"""What goes into the request as it is, once it was checked; None leaves it out."""


def _plain(value: Any) -> Any:
    """A copy of *value* that DSPy may change and pickle: what a session stores is read-only."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
