"""One budget over numbers, choices, modules, prompts and demos together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.optimizers import proposals
from dspex.optimizers.optuna_search import OptunaOptimizer
from dspex.optimizers.storage import kept_candidates

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
        self.teleprompters = tuple(teleprompters)
        self.demo_sets = demo_sets
        self.demo_sizes = tuple(demo_sizes)
        self.lm = lm

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

    def _extend(self, search: Search) -> Search:
        prompts = proposals.prompts_of(search.program, search.session)
        if self.storage is not None and (kept := kept_candidates(search, self.storage)):
            for name, values in self.candidates.items():
                kept.setdefault(name, []).extend(values)
            return search.with_candidates(
                kept, notes=[f"the candidates for {errors.listed(kept)} are those that the study began with"]
            )
        found: dict[str, list[Any]] = {name: list(values) for name, values in self.candidates.items()}
        for name in prompts:
            kind = search.program.variables[name].kind
            found.setdefault(name, []).extend(
                proposals.labelled(kind, search.trainset, self.demo_sets, self.demo_sizes, self.seed)
            )
        notes: list[str] = []
        for one in self.teleprompters:
            asked, settings = one if isinstance(one, tuple) else (one, {})
            points, more = proposals.proposed(
                search, asked, self.metric, settings=dict(settings), model=self.lm, seed=self.seed
            )
            notes += more
            for point in points:
                for name, value in point.items():
                    if name in prompts:
                        found[name].append(value)
        return search.with_candidates({name: values for name, values in found.items() if values}, notes=notes)
