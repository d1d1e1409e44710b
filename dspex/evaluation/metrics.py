"""Ready metrics, and how any metric is called."""

from __future__ import annotations

import inspect
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeAlias

import attrs

from dspex import errors

__all__ = [
    "ChoiceAccuracy",
    "ExactMatch",
    "Metric",
    "TokenF1",
    "choice_accuracy",
    "exact_match",
    "score_of",
    "token_f1",
]

Metric: TypeAlias = Callable[..., Any]
"""DSPy's: called with the example, what the program returned, and a trace, which is None here."""

_articles = re.compile(r"\b(a|an|the)\b")
_punctuation = str.maketrans("", "", string.punctuation)


def _field(thing: Any, name: str) -> Any:
    """The field of an example or prediction; a program may return the bare answer."""
    if isinstance(thing, Mapping):
        return thing.get(name)
    return getattr(thing, name, None) if hasattr(thing, name) else thing


def _normal(text: Any) -> str:
    """As SQuAD compares: no case, punctuation, articles, nor extra white space."""
    plain = str(text).lower().translate(_punctuation)
    return " ".join(_articles.sub(" ", plain).split())


@attrs.frozen
class ExactMatch:
    """1.0 where the answer is the expected one but for case, punctuation and articles; of a list any."""

    field: str = "answer"

    def __call__(self, gold: Any, pred: Any, trace: Any = None) -> float:
        wanted = _field(gold, self.field)
        given = _normal(_field(pred, self.field))
        several = wanted if isinstance(wanted, list | tuple) else [wanted]
        return float(any(_normal(one) == given for one in several))


@attrs.frozen
class TokenF1:
    """The harmonic mean of precision and recall of the answer's words; of several expected ones the best."""

    field: str = "answer"

    def __call__(self, gold: Any, pred: Any, trace: Any = None) -> float:
        wanted = _field(gold, self.field)
        given = _normal(_field(pred, self.field)).split()
        several = wanted if isinstance(wanted, list | tuple) else [wanted]
        return max((_f1(_normal(one).split(), given) for one in several), default=0.0)


def _f1(wanted: list[str], given: list[str]) -> float:
    if not wanted or not given:
        return float(wanted == given)
    common = (Counter(wanted) & Counter(given)).total()
    return 2 * common / (len(wanted) + len(given))


@attrs.frozen
class ChoiceAccuracy:
    """1.0 where the label is exactly the expected one, white space and case aside."""

    field: str = "label"

    def __call__(self, gold: Any, pred: Any, trace: Any = None) -> float:
        wanted, given = (str(_field(one, self.field)).strip().casefold() for one in (gold, pred))
        return float(wanted == given)


exact_match = ExactMatch()
"""`ExactMatch` of the field `answer`."""

token_f1 = TokenF1()
"""`TokenF1` of the field `answer`."""

choice_accuracy = ChoiceAccuracy()
"""`ChoiceAccuracy` of the field `label`."""


def score_of(metric: Metric, gold: Any, pred: Any, index: int | None = None) -> float:
    """
    What *metric* says, as a finite number; *index* is that of the example in its dataset, if it is known.

    Raises:
        MetricFailed: It raised, or said something else.
    """
    name = getattr(metric, "__name__", type(metric).__name__)
    try:
        said = metric(gold, pred, None) if _takes_trace(metric) else metric(gold, pred)
        score = float(said.score if hasattr(said, "score") else said)
    except Exception as error:
        raise errors.MetricFailed(
            f"metric {name} must give a number for each example; it raised {type(error).__name__}: {error} "
            f"(for {errors.shown(pred, 80)}, given for {_told(gold, index)}).",
            metric=name,
        ) from error
    if not math.isfinite(score):
        raise errors.MetricFailed(
            f"metric {name} must give a finite number (got {score} for {errors.shown(pred, 80)}, given for "
            f"{_told(gold, index)}).",
            metric=name,
        )
    return score


def _told(gold: Any, index: int | None) -> str:
    """Which example *gold* is."""
    try:
        fields = gold.inputs()
        fields = fields.toDict() if hasattr(fields, "toDict") else dict(fields)
    except Exception:  # an example of the user's making
        fields = gold
    where = "the example" if index is None else f"example {index} of the dataset,"
    return f"{where} {errors.shown(fields, 80)}"


@lru_cache(maxsize=256)
def _arguments(metric: Metric) -> int:
    try:
        parameters = inspect.signature(metric).parameters.values()
    except (TypeError, ValueError):
        return 3
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return 3
    return sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters)


def _takes_trace(metric: Metric) -> bool:
    try:
        return _arguments(metric) >= 3
    except TypeError:  # not hashable
        return True
