"""The optimizer that a command line asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import typer

from dspex.cli.objects import named

if TYPE_CHECKING:
    from dspex.optimizers import Optimizer, Trial
    from dspex.program import Program

__all__ = ["SCREEN", "STORAGE", "TRIALS", "NewSpace", "Sampler", "Searcher", "made", "working"]

Searcher: TypeAlias = Literal["optuna", "joint", "dspy"]
Sampler: TypeAlias = Literal["tpe", "random", "grid", "nsga2"]
NewSpace: TypeAlias = Literal["refuse", "map"]

STORAGE = "sqlite:///dspex-studies.db"
"""The one that optimizers have by default, known here without importing them."""

SCREEN = 8
TRIALS = 40

ONLY = {
    "trials": ("optuna", "joint"),
    "screen": ("optuna", "joint"),
    "sampler": ("optuna", "joint"),
    "grid_points": ("optuna", "joint"),
    "candidates": ("optuna", "joint"),
    "on_new_space": ("optuna", "joint"),
    "teleprompter": ("joint", "dspy"),
}
"""The options that not all optimizers have."""


def made(
    searcher: Searcher,
    metric: Any,
    *,
    objectives: str | None,
    choose: str | None,
    candidates: Path | None,
    teleprompter: Sequence[str],
    **own: Any,
) -> Optimizer:
    """
    The optimizer of that kind; of *own* what is None was not asked for.

    Raises:
        BadParameter: It has no such option, or two of them do not go together.
    """
    from dspex.optimizers import DSPyOptimizer, JointOptimizer, OptunaOptimizer

    given = {name: one for name, one in own.items() if one is not None}
    asked = {**given, "candidates": candidates, "teleprompter": teleprompter or None}
    for name, kinds in ONLY.items():
        if asked.get(name) is not None and searcher not in kinds:
            raise typer.BadParameter(
                f"--optimizer {searcher} has no such option; {' and '.join(kinds)} have it.",
                param_hint=_option(name),
            )
    if "grid_points" in given and given.get("sampler") != "grid":
        raise typer.BadParameter("it is for --sampler grid.", param_hint="--grid-points")
    given.setdefault("storage", STORAGE)
    if objectives is not None:
        given["objectives"] = _objectives(objectives)
    given["choose"] = _rule(given.get("objectives", ("score",)), choose)
    proposers = [_teleprompter(one) for one in teleprompter or ("BootstrapFewShot",)]
    if searcher == "dspy":
        if len(proposers) > 1:
            raise typer.BadParameter("--optimizer dspy takes one.", param_hint="--teleprompter")
        name, settings = proposers[0]
        return DSPyOptimizer(metric, name, settings=settings, **given)
    given = {"trials": TRIALS, "screen": SCREEN, **given}
    given["screen"] = given["screen"] or None
    if candidates is not None:
        given["candidates"] = _candidates(candidates)
    if searcher == "optuna":
        return OptunaOptimizer(metric, **given)
    return JointOptimizer(metric, teleprompters=proposers, **given)


@contextmanager
def working(optimizer: Optimizer, program: type[Program], workers: int | None) -> Iterator[None]:
    """Have *optimizer* run its examples in so many processes while the block runs; None for in this one."""
    if workers is None:
        yield
        return
    from dspex.pool import Pool

    # All examples of a trial are of one session.
    with Pool([program], workers=workers, affinity="hint") as pool:
        optimizer.pool = pool
        yield


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _objectives(text: str) -> tuple[str, ...]:
    """What `score:max,seconds:min` names; the directions are as they are."""
    from dspex.optimizers.studies import MINIMIZED, OBJECTIVES

    names = []
    for part in text.split(","):
        name, colon, direction = part.strip().partition(":")
        right = "min" if name in MINIMIZED else "max"
        if name in OBJECTIVES and colon and direction != right:
            raise typer.BadParameter(f"{name} is looked for as {name}:{right}.", param_hint="--objectives")
        names.append(name)
    return tuple(names)


def _rule(objectives: Sequence[str], text: str | None) -> Callable[[Sequence[Trial]], Trial] | None:
    """The rule of `--choose`: a function, or the best in one of *objectives*."""
    from dspex.optimizers.studies import best_in

    if len(objectives) < 2:
        if text is not None:
            raise typer.BadParameter("it is for several --objectives.", param_hint="--choose")
        return None
    if text is None:
        raise typer.BadParameter(
            "of several no trial is best in all: say with --choose which to take, one of the objectives or "
            "package.module:rule.",
            param_hint="--objectives",
        )
    if text in objectives:
        return lambda trials: best_in(trials, text)
    rule: Callable[[Sequence[Trial]], Trial] = named(text, "the rule")
    return rule


def _teleprompter(text: str) -> tuple[str, Mapping[str, Any]]:
    """`NAME`, or `NAME={"setting": …}`."""
    name, equals, settings = text.partition("=")
    if not equals:
        return name, {}
    found = _json(lambda: settings, "--teleprompter")
    if not isinstance(found, dict):
        raise typer.BadParameter('settings are NAME={"setting": …}.', param_hint="--teleprompter")
    return name, found


def _candidates(path: Path) -> dict[str, list[Any]]:
    found = _json(lambda: path.read_text(encoding="utf-8"), "--candidates")
    if not isinstance(found, dict) or not all(isinstance(one, list) for one in found.values()):
        raise typer.BadParameter(f'{path} must have {{"NAME": [VALUE, …]}}.', param_hint="--candidates")
    return found


def _json(read: Callable[[], str], option: str) -> Any:
    try:
        return json.loads(read())
    except ValueError as error:
        raise typer.BadParameter(f"that is not JSON: {error}.", param_hint=option) from None
