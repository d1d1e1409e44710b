"""Search spaces in the words of other libraries, each imported when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dspex import errors
from dspex.spaces.dimensions import Dimension, Options, Range

__all__ = ["params_of", "point_of", "suggest", "to_configspace", "to_json_schema", "to_optuna"]

MOST_STEPS = 1_000
"""Steps of a range that ConfigSpace, which has none, gets as a list."""


def suggest(dimensions: Mapping[str, Dimension], trial: Any) -> dict[str, Any]:
    """See `SearchSpace.suggest`."""
    point: dict[str, Any] = {}
    for name, one in dimensions.items():
        if one.when is not None and not one.when.holds(point):
            continue
        over = one.over
        if isinstance(over, Options):
            if over.ordered:
                point[name] = over.values[trial.suggest_int(name, 0, len(over.values) - 1)]
            else:
                point[name] = one.decode(trial.suggest_categorical(name, over.labels))
        elif over.whole:
            step = int(over.step or 1)
            high = _reached(over)
            point[name] = one.kind.check(
                trial.suggest_int(name, int(over.low), int(high), step=step, log=over.log)
            )
        else:
            point[name] = _near(
                one, trial.suggest_float(name, over.low, _reached(over), step=over.step, log=over.log)
            )
    return point


def point_of(dimensions: Mapping[str, Dimension], params: Mapping[str, Any]) -> dict[str, Any]:
    """The point of what a trial suggested: the other way of `params_of`."""
    point = {}
    for name, scalar in params.items():
        one = dimensions[name]
        if isinstance(one.over, Options) and one.over.ordered:
            point[name] = one.over.values[scalar]
        else:
            point[name] = one.decode(scalar)
    return point


def params_of(dimensions: Mapping[str, Dimension], point: Mapping[str, Any]) -> dict[str, Any]:
    """*point* as a trial would suggest it, to enqueue it."""
    params: dict[str, Any] = {}
    for name, value in point.items():
        one = dimensions[name]
        label = one.encode(value)
        if isinstance(one.over, Options) and one.over.ordered:
            params[name] = one.over.labels.index(label)
        else:
            params[name] = label
    return params


def _reached(over: Range) -> float:
    """The highest value on the grid: engines complain of one that steps do not reach."""
    if over.step is None:
        return over.high
    steps = math.floor((over.high - over.low) / over.step + 1e-9)
    return over.low + steps * over.step


def _near(one: Dimension, number: float) -> Any:
    assert isinstance(one.over, Range)
    return one.kind.check(one.over.near(number))


def to_optuna(dimensions: Mapping[str, Dimension]) -> dict[str, Any]:
    """See `SearchSpace.to_optuna`."""
    try:
        from optuna import distributions
    except ImportError:
        raise errors.missing_extra("Optuna's distributions", "optuna") from None
    found: dict[str, Any] = {}
    for name, one in dimensions.items():
        over = one.over
        if isinstance(over, Options):
            found[name] = (
                distributions.IntDistribution(0, len(over.values) - 1)
                if over.ordered
                else distributions.CategoricalDistribution(over.labels)
            )
        elif over.whole:
            found[name] = distributions.IntDistribution(
                int(over.low), int(_reached(over)), log=over.log, step=int(over.step or 1)
            )
        else:
            found[name] = distributions.FloatDistribution(
                over.low, _reached(over), log=over.log, step=over.step
            )
    return found


def to_configspace(program: str, dimensions: Mapping[str, Dimension]) -> Any:
    """See `SearchSpace.to_configspace`."""
    try:
        import ConfigSpace as Cs
    except ImportError:
        raise errors.missing_extra("ConfigSpace's spaces", "configspace") from None
    space = Cs.ConfigurationSpace(name=program)
    added = {name: _hyperparameter(Cs, one) for name, one in dimensions.items()}
    space.add(*added.values())
    for name, one in dimensions.items():
        if one.when is None:
            continue
        values = [dimensions[one.when.name].encode(value) for value in one.when.values]
        space.add(Cs.InCondition(added[name], added[one.when.name], values))
    return space


def _hyperparameter(cs: Any, one: Dimension) -> Any:
    over, initial = one.over, one.encode(one.initial)
    if isinstance(over, Options):
        if over.ordered:
            return cs.OrdinalHyperparameter(one.name, list(over.labels), default_value=initial)
        return cs.CategoricalHyperparameter(one.name, list(over.labels), default_value=initial)
    if over.low == over.high:
        return cs.Constant(one.name, initial)
    if over.step is not None and not (over.whole and over.step == 1):
        count = int((over.high - over.low) / over.step + 1e-9) + 1
        if count > MOST_STEPS:
            raise errors.InvalidDeclaration(
                f"{one.name} has {count} steps, and ConfigSpace has none: more than {MOST_STEPS} are too "
                "many to list.",
                name=one.name,
            )
        steps = one.points(count)
        nearest = min(steps, key=lambda step: abs(step - one.initial))
        return cs.OrdinalHyperparameter(one.name, list(steps), default_value=nearest)
    kind = cs.UniformIntegerHyperparameter if over.whole else cs.UniformFloatHyperparameter
    return kind(one.name, over.low, over.high, log=over.log, default_value=initial)


def to_json_schema(program: str, dimensions: Mapping[str, Dimension]) -> dict[str, Any]:
    """See `SearchSpace.to_json_schema`."""
    properties: dict[str, Any] = {}
    conditions: list[dict[str, Any]] = []
    for name, one in dimensions.items():
        dump = one.kind.dump
        schema = one.kind.json_schema() | {"default": dump(one.initial)}
        if isinstance(one.over, Options):
            schema["enum"] = [dump(value) for value in one.over.values]
        if one.description:
            schema["description"] = one.description
        properties[name] = schema
        if one.when is not None:
            parent = dimensions[one.when.name].kind
            has = {one.when.name: {"enum": [parent.dump(value) for value in one.when.values]}}
            conditions.append(
                {
                    "if": {"properties": has, "required": [one.when.name]},
                    "then": {"required": [name]},
                    "else": {"properties": {name: False}},
                }
            )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": program,
        "type": "object",
        "properties": properties,
        "required": [name for name, one in dimensions.items() if one.when is None],
        "additionalProperties": False,
        **({"allOf": conditions} if conditions else {}),
    }
