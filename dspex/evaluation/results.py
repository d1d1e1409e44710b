"""What an evaluation gives: every item, and what they say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import attrs

__all__ = ["Evaluation", "Scored", "interval_of"]


@attrs.frozen
class Scored:
    """One example, and what became of it."""

    example: Any
    output: Any
    """What the program returned; None if it failed."""
    score: float
    seconds: float
    """Of the run; in a pool from being sent to the answer, with the wait for a worker."""
    error: str | None = None
    """Why the program failed; None if it did not."""
    lm_calls: int | None = None
    """Calls of language models that were not answered from a cache; None where nobody could count."""
    tokens: int | None = None
    """In and out; None where the models do not say."""
    cost: float | None = None
    """US dollars; None where the models do not say."""


@attrs.frozen
class Evaluation:
    """
    How good a program was on a dataset.

    `print(evaluation)` shows the summary, `rows()` are the items for a table.
    """

    program: str
    session: str
    revision: str
    items: tuple[Scored, ...]
    seconds: float
    """From the first item to the last."""
    values: Mapping[str, Any]
    """The program's variables in all runs."""

    @property
    def score(self) -> float:
        """The mean score."""
        return statistics.fmean(one.score for one in self.items)

    @property
    def interval(self) -> tuple[float, float]:
        """The mean lies in it with 95 % confidence: Wilson's for scores 0 and 1, else Student's."""
        return interval_of([one.score for one in self.items])

    @property
    def failures(self) -> int:
        """Items for which the program raised."""
        return sum(one.error is not None for one in self.items)

    @property
    def seconds_per_item(self) -> float:
        """The mean time of a run; in a pool with the wait for a worker."""
        return statistics.fmean(one.seconds for one in self.items)

    @property
    def lm_calls(self) -> int | None:
        """Calls of language models, together; None if nobody could count."""
        return _sum([one.lm_calls for one in self.items], 0)

    @property
    def tokens(self) -> int | None:
        """Tokens in and out, together."""
        return _sum([one.tokens for one in self.items], 0)

    @property
    def cost(self) -> float | None:
        """US dollars, together; None if a model does not say."""
        return _sum([one.cost for one in self.items], 0.0)

    def rows(self) -> list[dict[str, Any]]:
        """The items as flat mappings: the fields of the example, then what became of it."""
        return [
            {
                **(dict(one.example.toDict()) if hasattr(one.example, "toDict") else {}),
                "output": one.output,
                "score": one.score,
                "seconds": one.seconds,
                "lm_calls": one.lm_calls,
                "error": one.error,
            }
            for one in self.items
        ]

    def __str__(self) -> str:
        low, high = self.interval
        parts = [
            f"{self.score:.3f} (95 % {low:.3f} to {high:.3f}) on {len(self.items)} examples",
            f"{self.seconds_per_item:.3f} s each",
        ]
        parts.append("LM calls not counted" if self.lm_calls is None else f"{self.lm_calls} LM calls")
        if self.cost is not None:
            parts.append(f"${self.cost:.4f}")
        if self.failures:
            parts.append(f"{self.failures} failed")
        return ", ".join(parts)


N = TypeVar("N", int, float)


def _sum(numbers: Sequence[N | None], nothing: N) -> N | None:
    known = [one for one in numbers if one is not None]
    return sum(known, nothing) if len(known) == len(numbers) else None


def interval_of(scores: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """See `Evaluation.interval`."""
    count = len(scores)
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    if set(scores) <= {0.0, 1.0}:
        mean = sum(scores) / count
        middle = mean + z * z / (2 * count)
        spread = z * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count))
        scale = 1 + z * z / count
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
    if count < 2:
        return -math.inf, math.inf
    middle = statistics.fmean(scores)
    spread = _student(z, count - 1) * math.sqrt(statistics.variance(scores, middle) / count)
    return middle - spread, middle + spread


def _student(z: float, freedom: int) -> float:
    """The quantile of Student's t for the normal one *z* (Cornish and Fisher, to the second order)."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2
