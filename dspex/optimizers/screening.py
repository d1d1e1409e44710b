"""Giving up a trial that is clearly worse than the best, after a small sample."""

from __future__ import annotations

import math
import statistics
from typing import Any

from dspex.optimizers.storage import need_optuna

__all__ = ["Screening"]


def Screening(confidence: float = 0.8) -> Any:  # noqa: N802  stands for a class that needs Optuna
    """
    A pruner of Optuna for scores from 0 to 1.

    It ends a trial when the mean that its sample allows, at most, with *confidence*, is below that of the
    best complete trial. A mean of numbers from 0 to 1 varies at most as much as one of zeros and ones, whose
    upper bound is Wilson's.
    """
    optuna = need_optuna()

    class Pruner(optuna.pruners.BasePruner):  # type: ignore[name-defined,misc]
        def prune(self, study: Any, trial: Any) -> bool:
            step = trial.last_step
            if step is None:
                return False
            mean = trial.intermediate_values[step]
            states = (optuna.trial.TrialState.COMPLETE,)
            best = max((one.value for one in study.get_trials(deepcopy=False, states=states)), default=None)
            if best is None or study.direction != optuna.study.StudyDirection.MAXIMIZE:
                return False
            return bool(0.0 <= mean <= 1.0 and _upper(mean, step, confidence) < best)

    return Pruner()


def _upper(mean: float, count: int, confidence: float) -> float:
    z = statistics.NormalDist().inv_cdf(confidence)
    spread = z * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count))
    return (mean + z * z / (2 * count) + spread) / (1 + z * z / count)
