"""DSPy's optimizers on a program: what they find becomes values of its variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from dspex import errors
from dspex.optimizers import made, proposals
from dspex.optimizers.base import check_counts
from dspex.optimizers.kept import DEFAULT_STORAGE, KeptOptimizer

if TYPE_CHECKING:
    from dspex.evaluation.metrics import Metric
    from dspex.optimizers.base import Search
    from dspex.program import Program
    from dspex.session import Session
    from dspex.spaces import SearchSpace

__all__ = ["DSPyOptimizer"]


class DSPyOptimizer(KeptOptimizer):
    """
    Run one of DSPy's optimizers, and commit the demos and instructions that it finds if they are better.

    The first trial is what the session has, the next ones are what the optimizer found, all on the same
    examples. The optimizer itself works at the temperature, strategy and so on that the session has.

    A study of the same name in the same storage goes on where it was: what the optimizer had found is not
    paid for again, nor is a trial. An optimizer that was in the middle begins anew.

    Args:
        metric: As for `evaluate`. For GEPA it may take five arguments and return a `dspy.Prediction` with
            `score` and `feedback`, as GEPA describes.
        teleprompter: `BootstrapFewShot`, `MIPROv2`, `GEPA`, `SIMBA`, `COPRO`, or a DSPy optimizer of yours.
        settings: What it is made with: `{"max_bootstrapped_demos": 4}`.
        compiling: What its own `compile` is called with beside the examples: `{"num_trials": 10}`.
        lm: The LM to propose with, where the steps of the program have none of their own; by default the one
            that they would use.
        most: How many of the programs that it found are tried.
        parallel: Trials at the same time, each on a fork of its own.
        storage: A URL, a storage of Optuna, or None for memory.
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
        parallel: int = 1,
        storage: Any = DEFAULT_STORAGE,
        **options: Any,
    ) -> None:
        super().__init__(metric, parallel=parallel, storage=storage, **options)
        check_counts(most=most)
        self.most = most
        self._proposal = proposals.Proposal(
            teleprompter, settings or {}, compiling=compiling or {}, model=lm, seed=self.seed
        )

    def tuned(self, program: type[Program], session: Session, space: SearchSpace) -> list[str]:
        return proposals.prompts_of(program, session)

    def _settings(self) -> dict[str, Any]:
        return {"teleprompter": self._proposal.name}

    def _extended(self, search: Search, study: Any) -> Search:
        now = {name: search.session.get(name) for name in search.names}

        def find() -> made.Proposed:
            points, notes = self._proposal.found(search, self.metric)
            own = [{name: point.get(name, now[name]) for name in now} for point in points]
            return own, notes

        points, notes = made.found_once(search, study, self._proposal.name, find)
        kept = made.kept_candidates(search, study)
        if kept is not None:
            notes = [*notes, f"what is tried for {errors.listed(kept)} is what the study began with"]
        candidates = kept if kept is not None else {name: [one[name] for one in points] for name in now}
        return attrs.evolve(search.with_candidates(candidates, only=True), points=points, notes=notes)

    def _listed(self, search: Search) -> Iterator[Mapping[str, Any]]:
        return (search.space.completed(point) for point in search.points[: self.most])
