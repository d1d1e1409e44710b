"""One budget over numbers, choices, modules, prompts and demos together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from dspex import errors
from dspex.optimizers import made, proposals
from dspex.optimizers.optuna_search import OptunaOptimizer

if TYPE_CHECKING:
    from dspex.evaluation.metrics import Metric
    from dspex.optimizers.base import Search
    from dspex.program import Program
    from dspex.session import Session
    from dspex.spaces import SearchSpace

__all__ = ["JointOptimizer"]


class JointOptimizer(OptunaOptimizer):
    """
    Search prompts and demos in the same study as temperature and strategy.

    Before the study begins, candidates are made for the variables that the program's steps take demos and
    instructions from: sets of labelled examples of the trainset, and what DSPy's optimizers find. The calls
    that this takes count in the budget. Then each of them is a choice like any other.

    Args:
        metric: As for `evaluate`.
        teleprompters: DSPy's optimizers to ask, by name or with their settings: `("BootstrapFewShot", {…})`.
        demo_sets: How many sets of labelled examples to make.
        demo_sizes: How many examples the sets have, in turn.
        lm: The LM to propose with; by default the one that the steps would use.
        options: Those of `OptunaOptimizer`.
    """

    def __init__(
        self,
        metric: Metric,
        *,
        teleprompters: Sequence[Any] = ("BootstrapFewShot",),
        demo_sets: int = 6,
        demo_sizes: Sequence[int] = (4, 6, 8),
        lm: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(metric, **options)
        self.proposals = [
            proposals.Proposal(asked, dict(settings), model=lm, seed=self.seed)
            for asked, settings in (one if isinstance(one, tuple) else (one, {}) for one in teleprompters)
        ]
        self.demo_sets = demo_sets
        self.demo_sizes = tuple(demo_sizes)

    def tuned(self, program: type[Program], session: Session, space: SearchSpace) -> list[str]:
        return list(dict.fromkeys([*space, *proposals.prompts_of(program, session)]))

    def _first(self, search: Search) -> Sequence[Mapping[str, Any]]:
        """What DSPy alone would try, here and at the points that the user wants tried first."""
        found = {}
        for name in proposals.prompts_of(search.program, search.session):
            if name in search.space:
                others = [one for one in search.space[name].points(1) if one != search.space[name].initial]
                found.update({name: others[0]} if others else {})
        return [*({**found, **one} for one in self.first), found, *self.first] if found else self.first

    def _extended(self, search: Search, study: Any) -> Search:
        kept = made.kept_candidates(search, study)
        if kept is not None:
            for name, values in self.candidates.items():
                kept.setdefault(name, []).extend(values)
            note = f"the candidates for {errors.listed(kept)} are those that the study began with"
            return attrs.evolve(search.with_candidates(kept), notes=[note] if kept else [])
        prompts = proposals.prompts_of(search.program, search.session)
        found: dict[str, list[Any]] = {name: list(values) for name, values in self.candidates.items()}
        for name in prompts:
            kind = search.program.variables[name].kind
            found.setdefault(name, []).extend(
                proposals.labelled(kind, search.trainset, self.demo_sets, self.demo_sizes, self.seed)
            )
        notes: list[str] = []
        for number, proposal in enumerate(self.proposals):
            points, more = made.found_once(
                search, study, f"{number}.{proposal.name}", partial(proposal.found, search, self.metric)
            )
            notes += more
            for point in points:
                for name in prompts:
                    found[name] += [point[name]] if name in point else []
        search = search.with_candidates({name: values for name, values in found.items() if values})
        return attrs.evolve(search, notes=notes)
