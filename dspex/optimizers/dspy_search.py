"""DSPy's optimizers on a program: what they find becomes values of its variables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from dspex.optimizers import proposals
from dspex.optimizers.base import Found, Optimizer, Search
from dspex.optimizers.studies import Trial
from dspex.optimizers.trials import BudgetSpent

if TYPE_CHECKING:
    from dspex.evaluation.metrics import Metric
    from dspex.program import Program
    from dspex.session import Session
    from dspex.spaces import SearchSpace

__all__ = ["DSPyOptimizer"]


class DSPyOptimizer(Optimizer):
    """
    Run one of DSPy's optimizers, and commit the demos and instructions that it finds if they are better.

    The first trial is what the session has, the next ones are what the optimizer found, all on the same
    examples. The optimizer itself works at the temperature, strategy and so on that the session has.

    Args:
        metric: As for `evaluate`. For GEPA it may take five arguments and return a `dspy.Prediction` with
            `score` and `feedback`, as GEPA describes.
        teleprompter: `BootstrapFewShot`, `MIPROv2`, `GEPA`, `SIMBA`, `COPRO`, or a DSPy optimizer of yours.
        settings: What it is made with: `{"max_bootstrapped_demos": 4}`.
        compiling: What its own `compile` is called with beside the examples: `{"num_trials": 10}`.
        lm: The LM to propose with, where the steps of the program have none of their own; by default the one
            that they would use.
        most: How many of the programs that it found are tried.
        options: Those of `Optimizer`.
    """

    def __init__(
        self,
        metric: Metric,
        teleprompter: Any = "BootstrapFewShot",
        *,
        settings: Mapping[str, Any] | None = None,
        compiling: Mapping[str, Any] | None = None,
        lm: Any = None,
        most: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(metric, **options)
        self.teleprompter = teleprompter
        self.settings = dict(settings or {})
        self.compiling = dict(compiling or {})
        self.lm = lm
        self.most = most

    def tuned(self, program: type[Program], session: Session, space: SearchSpace) -> list[str]:
        return proposals.prompts_of(program, session)

    def _search(self, search: Search) -> Found:
        points, notes = proposals.proposed(
            search,
            self.teleprompter,
            self.metric,
            settings=self.settings,
            model=self.lm,
            seed=self.seed,
            compiling=self.compiling,
        )
        points = [{name: point[name] for name in search.names if name in point} for point in points]
        candidates = {name: [point[name] for point in points if name in point] for name in search.names}
        search = search.with_candidates(candidates, only=True)
        space = search.space
        initial = space.initial
        wanted = [initial, *({**initial, **point} for point in points[: self.most])]
        trials: list[Trial] = []
        for number, point in enumerate(wanted):
            stored = {name: space[name].kind.check(value) for name, value in point.items()}
            if number and stored == initial:
                continue
            try:
                outcome = search.trials.run(stored)
            except BudgetSpent:
                notes.append("the budget was spent before all that was found had been tried")
                break
            done = attrs.evolve(outcome.trial(number, stored, space), baseline=number == 0)
            trials.append(done)
            if self.on_trial is not None:
                self.on_trial(done)
        return Found(trials, notes=notes, space=space)
