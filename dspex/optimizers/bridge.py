"""
A program as DSPy's optimizers know programs; one of the rooms that import dspy.

DSPy's optimizers copy a `dspy.Module`, change demos and instructions of its predictors, run the copies, and
look in the trace at what each predictor said. So a student has the DSPy modules of a program's steps as its
own, and a program on a fork of the session whose steps are these: every other setting, temperature, strategy,
model, is as the session has it. What the optimizer leaves in the predictors is read back as values of the
variables that the program's steps take their demos and instructions from.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import attrs

from dspex import errors
from dspex.kinds import ModuleChoice
from dspex.modules.base import BoundModule
from dspex.modules.predictors import DspyModule
from dspex.plans import Subprogram
from dspex.variables import Variable

try:
    import dspy
except ModuleNotFoundError as error:
    if error.name != "dspy":
        raise
    raise errors.missing_extra("DSPy's optimizers", "dspy") from error

from dspex.modules import dspy_bridge

if TYPE_CHECKING:
    from dspex.modules.dspy_bridge import Step
    from dspex.program import Program
    from dspex.session import Session

__all__ = ["Student", "as_dspy_module", "as_examples", "prompt_names", "values_of"]

TEXTS = ("instructions", "demos")
"""The settings that DSPy's optimizers find values for."""


@attrs.frozen
class _Place:
    """Where a step of a program is, and which variables its texts come from."""

    key: str
    """For a name in `modules` or an attribute, of the program or one inside."""
    module: DspyModule
    names: Mapping[str, str]
    """The setting, and the variable's name in the session."""


class _Step(DspyModule):
    """A step of a program whose predictors belong to a student."""

    def __init__(self, original: DspyModule, module: Any, *, without: Sequence[str]) -> None:
        self.own = original.own  # type: ignore[misc]  # those of the step that it stands for
        settings = {name: value for name, value in original.settings.items() if name not in without}
        super().__init__(module, settings)
        self._module = module

    def _any_step(self) -> Step:
        return dspy_bridge.step(self._module)

    def _step(self, own: Mapping[str, Any], inner: Step | None) -> Step:
        return self._any_step().having(own)  # each time: the optimizer changes its predictors


class _Host:
    """The program that runs a student's steps; each copy of a student binds one of its own."""

    def __init__(self, program: type[Program], session: Session, places: Sequence[_Place]) -> None:
        self.program = program
        self.session = session
        self.places = places
        self._bound: Program | None = None

    def __deepcopy__(self, memo: object) -> _Host:
        return _Host(self.program, self.session, self.places)

    def bound(self, steps: Mapping[str, Any]) -> Program:
        if self._bound is None:
            bound = self.program.bind(self.session.fork())
            for place in self.places:
                _put(bound, place, _Step(place.module, steps[place.key], without=tuple(place.names)))
            self._bound = bound
        return self._bound


class Student(dspy.Module):  # type: ignore[misc]  # dspy has no types
    """A program as a `dspy.Module`: its steps are the predictors, and calling it runs the program."""

    def __init__(self, program: type[Program], session: Session) -> None:
        super().__init__()
        places = list(_places(program, session))
        self.steps = {place.key: _made(place, session) for place in places}
        self.host = _Host(program, session, places)

    def forward(self, **inputs: Any) -> Any:
        return self.host.bound(self.steps)(**inputs)


def as_dspy_module(program: Any, session: Session | None = None) -> Student:
    """
    *program* as a `dspy.Module`, for DSPy's optimizers and everything else that takes one.

    Its predictors are those of the steps that are chosen now, with the demos and instructions that the
    session has. It runs on a fork of the session as it is when it is first called; the session never changes.

    Args:
        program: A `Program` class, or a bound program.
        session: Whose values; by default those of a bound program, or the initial ones.
    """
    from dspex.program import Program
    from dspex.session import Session

    if isinstance(program, Program):
        session = program.session if session is None else session
        program = type(program).__base__
    return Student(program, Session() if session is None else session)


def prompt_names(program: type[Program], session: Session) -> list[str]:
    """The variables that the chosen steps take demos and instructions from."""
    return list(dict.fromkeys(name for place in _places(program, session) for name in place.names.values()))


def values_of(student: Student) -> tuple[dict[str, Any], list[str]]:
    """
    The demos and instructions of *student* as values by name, and notes on those that no variable takes.

    Where several steps share a variable it gets those of the first.
    """
    values: dict[str, Any] = {}
    notes: list[str] = []
    untouched = Student(student.host.program, student.host.session)
    for place in student.host.places:
        predictors = student.steps[place.key].named_predictors()
        before = dict(untouched.steps[place.key].named_predictors())
        found = {"demos": lambda one: [_plain(demo) for demo in one.demos], "instructions": _instructions}
        for index, (name, predictor) in enumerate(predictors):
            for setting, read in found.items():
                value = read(predictor)
                variable = place.names.get(setting)
                if variable is not None and index == 0:
                    values.setdefault(variable, value)
                elif value != read(before[name]):
                    notes.append(
                        f"DSPy found {setting} for {place.key}.{name}, which no variable takes: pass "
                        f"{setting}={student.host.program.__name__}.… where the step is made"
                    )
    return values, notes


def as_examples(examples: Sequence[Any]) -> list[Any]:
    """Ours as DSPy's."""
    return [
        one
        if isinstance(one, dspy.Example)
        else dspy.Example(**one.toDict()).with_inputs(*one.inputs().keys())
        for one in examples
    ]


# ---- the steps of a program ----------------------------------------------------------------------


def _places(program: type[Program], session: Session) -> Iterator[_Place]:
    bound = session.attachment(program, lambda: program.bind(session))
    choices = {
        choice
        for variable in program.variables.values()
        if isinstance(variable.kind, ModuleChoice)
        for choice in variable.kind.choices
    }
    chosen = {
        session.get(name)
        for name, variable in program.variables.items()
        if isinstance(variable.kind, ModuleChoice)
    }
    yield from _below(bound, "", lambda name: name in chosen or name not in choices)


def _below(bound: Any, prefix: str, wanted: Callable[[str], bool]) -> Iterator[_Place]:
    modules = bound.modules
    for name in modules:
        if wanted(name) and _is_step(module := modules[name].module):
            yield _place(bound, f"{prefix}{name}", module)
    for key, one in vars(bound).items():
        if isinstance(one, BoundModule) and _is_step(one.module):
            yield _place(bound, f"{prefix}{key}", one.module)
    for key, one in type(bound).declared.items():
        if isinstance(one, Subprogram):
            yield from _below(getattr(bound, key), f"{prefix}{key}.", wanted)


def _is_step(module: Any) -> TypeGuard[DspyModule]:
    """Whether its predictors are its own: `BestOfN` and `Refine` call another module."""
    return isinstance(module, DspyModule) and module._inner is None


def _place(bound: Any, key: str, module: DspyModule) -> _Place:
    own, prefix = type(bound).variables, bound._plan.prefix
    names = {}
    for setting in TEXTS:
        variable = module.settings.get(setting)
        if isinstance(variable, Variable):
            names[setting] = prefix + variable.name if variable.name in own else variable.name
    return _Place(key, module, names)


def _put(bound: Any, place: _Place, step: DspyModule) -> None:
    *inside, name = place.key.split(".")
    for key in inside:
        bound = getattr(bound, key)
    if name in vars(bound):
        setattr(bound, name, step)
    else:
        bound.modules[name] = step


def _made(place: _Place, session: Session) -> Any:
    """The DSPy module of a step, with the texts that the session has."""
    module = copy.deepcopy(place.module._any_step().module)
    for _, predictor in module.named_predictors()[:1]:
        if (name := place.names.get("demos")) is not None:
            predictor.demos = [dspy.Example(**demo) for demo in session.get(name)]
        if (name := place.names.get("instructions")) is not None and session.get(name):
            predictor.signature = predictor.signature.with_instructions(session.get(name))
    return module


def _instructions(predictor: Any) -> str:
    return str(predictor.signature.instructions)


def _plain(demo: Any) -> dict[str, Any]:
    fields = demo.toDict() if hasattr(demo, "toDict") else dict(demo)
    return {name: value for name, value in fields.items() if name != "augmented"}
