"""The inputs of a call: which names a module takes and needs, and the sentences for all others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs

from dspex import errors

__all__ = ["Inputs", "check_settings", "inputs_of"]

_named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@attrs.frozen
class Inputs:
    """The names that a call may have, and those that it must."""

    takes: tuple[str, ...]
    needs: tuple[str, ...]
    also: frozenset[str] = frozenset()
    """Names that are taken and never suggested: what DSPy lets a call say beside its inputs."""
    anything: bool = False
    """Whether all other names are taken too."""

    def check(self, module: str, given: Collection[str]) -> None:
        """
        Refuse a call of *module* with the names of *given*.

        Raises:
            InvalidCall: One is not taken, or one is missing.
        """
        for name in given:
            if name not in self.takes and name not in self.also and not self.anything:
                takes = f"It takes {errors.listed(self.takes)}." if self.takes else "It takes none."
                near = errors.did_you_mean(name, self.takes)
                raise errors.InvalidCall(
                    f"{module} takes no input {errors.shown(name, 80)}.{near} {takes}",
                    module=module,
                    name=name,
                    known=list(self.takes),
                )
        for name in self.needs:
            if name not in given:
                raise errors.InvalidCall(
                    f"{module} needs the input '{name}' (got {errors.listed(given) or 'none'}).",
                    module=module,
                    name=name,
                    known=list(self.takes),
                )


def inputs_of(function: Callable[..., Any], settings: Collection[str] = ()) -> Inputs | None:
    """What a call of *function* takes beside *settings*; None where Python does not know."""
    parameters = _parameters(function)
    if parameters is None:
        return None
    named = [one for one in parameters if one.kind in _named and one.name not in settings]
    return Inputs(
        tuple(one.name for one in named),
        tuple(one.name for one in named if one.default is one.empty),
        anything=_any_name(parameters),
    )


def check_settings(module: str, function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """
    Refuse settings with which *function* could never be called.

    Raises:
        InvalidDeclaration: It has no parameter of that name.
    """
    parameters = _parameters(function)
    if parameters is None or _any_name(parameters):
        return
    known = [one.name for one in parameters if one.kind in _named]
    for name in settings:
        if name not in known:
            raise errors.InvalidDeclaration(
                f"{module} takes no setting '{name}'.{errors.did_you_mean(name, known)}",
                name=name,
                known=known,
            )


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # written in C, or signed by hand
        return None


def _any_name(parameters: list[inspect.Parameter]) -> bool:
    return any(one.kind is one.VAR_KEYWORD for one in parameters)
