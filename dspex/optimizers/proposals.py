"""Finding demos and instructions with DSPy's optimizers, as candidates for variables."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from dspex import errors, lm
from dspex.evaluation.meter import metered
from dspex.evaluation.metrics import score_of
from dspex.kinds import Demos

if TYPE_CHECKING:
    from dspex.evaluation.metrics import Metric
    from dspex.optimizers.base import Search
    from dspex.session import Session

__all__ = ["TELEPROMPTERS", "Proposal", "labelled", "prompts_of"]

TELEPROMPTERS = (
    "BootstrapFewShot",
    "BootstrapFewShotWithRandomSearch",
    "COPRO",
    "GEPA",
    "MIPROv2",
    "SIMBA",
)
"""DSPy's optimizers that were tried with dspex; any other may be given as an object."""


def prompts_of(program: Any, session: Session) -> list[str]:
    """
    The variables that the chosen steps of *program* take demos and instructions from.

    Raises:
        InvalidDeclaration: There is none, so what DSPy finds would have nowhere to go.
    """
    from dspex.optimizers.bridge import prompt_names

    names = [name for name in prompt_names(program, session) if program.variables[name].tunable]
    if not names:
        raise errors.InvalidDeclaration(
            f"{program.__name__} has no variable for what DSPy finds: give a step demos= or instructions= "
            "from a variable, such as Predict(…, demos=Agent.demos).",
            program=program.__name__,
        )
    return names


def _known(_self: object, _field: object, asked: Any) -> None:
    if isinstance(asked, str) and asked not in TELEPROMPTERS:
        raise errors.InvalidValue.expecting(
            f"one of {errors.listed(TELEPROMPTERS)}, or a DSPy optimizer", errors.shown(asked)
        ).at("teleprompter")


@attrs.frozen
class Proposal:
    """What to ask of one of DSPy's optimizers."""

    asked: Any = attrs.field(validator=_known)
    """Its name, or an object."""
    settings: Mapping[str, Any]
    """What it is made with."""
    compiling: Mapping[str, Any] = attrs.field(factory=dict)
    """What its `compile` is called with beside the examples."""
    model: Any = None
    """The LM to propose with, where the steps of the program have none of their own."""
    seed: int = 0

    @property
    def name(self) -> str:
        """How studies call it."""
        return self.asked if isinstance(self.asked, str) else type(self.asked).__name__

    def found(self, search: Search, metric: Metric) -> tuple[list[dict[str, Any]], list[str]]:
        """
        What it finds for the program of *search*, best first: values by name; and notes.

        Its calls of language models are counted in the budget of *search*, which cannot stop it on the way.
        """
        from dspex.optimizers.bridge import values_of

        notes: list[str] = []
        points: list[dict[str, Any]] = []
        compiled = self._compiled(search, metric)
        for one in [compiled, *_others(compiled)]:
            values, more = values_of(one)
            values = {
                name: fitting
                for name, value in values.items()
                if (fitting := _fitting(search.program.variables[name].kind, name, value, more)) is not None
            }
            notes += [note for note in more if note not in notes]
            if values and values not in points:
                points.append(values)
        return points, notes

    def _compiled(self, search: Search, metric: Metric) -> Any:
        import dspy

        from dspex.optimizers.bridge import as_dspy_module, as_examples

        used = self.model or dspy.settings.lm or lm.default()
        context = {"lm": used, "adapter": dspy.settings.adapter or lm.adapter_for(used)}
        # What a program cannot answer scores 0, however often that is: DSPy gives up after ten.
        with metered() as meter, dspy.context(**context, max_errors=sys.maxsize):
            made = _made(self.asked, self.settings, metric, self.seed)
            arguments: dict[str, Any] = {"trainset": as_examples(search.trainset)}
            takes = inspect.signature(made.compile).parameters
            if "valset" in takes and search.valset is not search.trainset:
                arguments["valset"] = as_examples(search.valset)
            if "seed" in takes and not hasattr(made, "seed"):
                arguments["seed"] = self.seed
            if "eval_kwargs" in takes:
                arguments["eval_kwargs"] = {"num_threads": 1, "display_progress": False}
            arguments.update(self.compiling)
            try:
                return made.compile(as_dspy_module(search.program, search.session), **arguments)
            finally:
                if meter is not None:
                    search.budget.spend(meter.calls)


def _fitting(kind: Any, name: str, value: Any, notes: list[str]) -> Any:
    """*value* as far as *kind* takes it, as it stores it: of too many demos the first; None if not that."""
    if isinstance(kind, Demos) and kind.max_items is not None and len(value) > kind.max_items:
        notes.append(
            f"DSPy found {len(value)} demos for {name}, which takes {kind.max_items}: the first ones"
        )
        value = value[: kind.max_items]
    try:
        return kind.check(value)
    except (errors.InvalidValue, errors.LimitExceeded) as error:
        notes.append(f"DSPy found something for {name} that it cannot be: {error}")
        return None


def _others(compiled: Any) -> Iterator[Any]:
    """The programs that were nearly as good, where the optimizer keeps them."""
    for one in getattr(compiled, "candidate_programs", None) or ():
        program = one.get("program") if isinstance(one, Mapping) else one
        if hasattr(program, "steps"):
            yield program


def _made(teleprompter: Any, settings: Mapping[str, Any], metric: Metric, seed: int) -> Any:
    import dspy

    if not isinstance(teleprompter, str):
        return teleprompter
    cls = getattr(dspy, teleprompter)
    given = dict(settings)
    if "seed" in inspect.signature(cls).parameters:
        given.setdefault("seed", seed)
    if teleprompter == "GEPA":
        given.setdefault("reflection_lm", dspy.settings.lm)
        return cls(metric=_with_feedback(metric), **given)
    return cls(metric=_with_trace(metric), **given)


def _with_trace(metric: Metric) -> Any:
    def scored(gold: Any, pred: Any, _trace: Any = None) -> float:
        return score_of(metric, gold, pred)

    return scored


def _with_feedback(metric: Metric) -> Any:
    def scored(gold: Any, pred: Any, trace: Any = None, pred_name: Any = None, pred_trace: Any = None) -> Any:
        import dspy

        try:
            if len(inspect.signature(metric).parameters) >= 5:
                return metric(gold, pred, trace, pred_name, pred_trace)
        except ValueError:  # it does not say
            pass
        score = score_of(metric, gold, pred)
        expected = {key: value for key, value in gold.items() if key not in gold.inputs()}
        feedback = f"It scored {score:g}. Expected were {expected}."
        return dspy.Prediction(score=score, feedback=feedback)

    return scored


def labelled(
    kind: Any, examples: Sequence[Any], sets: int, sizes: Sequence[int], seed: int
) -> list[list[dict[str, Any]]]:
    """Sets of *examples* as demos: those that have the fields that the kind asks for, *sets* of them."""
    if not isinstance(kind, Demos):
        return []
    rows = [one.toDict() if hasattr(one, "toDict") else dict(one) for one in examples]
    fit = [row for row in rows if kind.takes([row])]
    dice = random.Random(seed)  # noqa: S311  which examples, not a key
    most = min(len(fit), kind.max_items if kind.max_items is not None else len(fit))
    found: list[list[dict[str, Any]]] = []
    for number in range(sets):
        size = min(sizes[number % len(sizes)], most)
        if size:
            chosen = dice.sample(fit, size)
            if chosen not in found:
                found.append(chosen)
    return found
