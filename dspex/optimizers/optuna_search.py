"""Searching with Optuna: its samplers, its pruning and its storages, on forks of a live session."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from dspex import errors
from dspex.optimizers.base import check_counts
from dspex.optimizers.kept import DEFAULT_STORAGE, KeptOptimizer
from dspex.optimizers.screening import Screening
from dspex.optimizers.storage import NewSpace, need_optuna

if TYPE_CHECKING:
    from dspex.evaluation.metrics import Metric
    from dspex.optimizers.base import Search
    from dspex.spaces import SearchSpace

__all__ = ["SAMPLERS", "OptunaOptimizer"]

SAMPLERS = ("tpe", "random", "grid", "nsga2")


class OptunaOptimizer(KeptOptimizer):
    """
    Search with Optuna.

    Args:
        metric: As for `evaluate`.
        trials: How many there shall be, those of earlier runs of the study included.
        sampler: `tpe`, `random`, `grid`, `nsga2`, or a sampler of Optuna; by default `tpe`, for several
            objectives `nsga2`.
        grid_points: Values of each range, for `grid`.
        candidates: Values to choose from, by name, for prompts, demos and free text.
        first: Points to try right after what is there, each as what differs from that: `{"temperature":
            0.0}`.
        pruner: A pruner of Optuna, asked at each stage of the screening; by default one that gives up what
            is, with 80 % confidence, worse than the best so far.
        screen: Examples after which a trial that is clearly worse than the best is given up; None for never.
        parallel: Trials at the same time, each on a fork of its own.
        storage: A URL, a storage of Optuna, or None for memory.
        on_new_space: `refuse` or `map` the trials of a study whose variables were declared differently.
        options: Those of `Optimizer`.
    """

    def __init__(
        self,
        metric: Metric,
        *,
        trials: int = 40,
        sampler: Any = None,
        grid_points: int = 5,
        candidates: Mapping[str, Iterable[Any]] | None = None,
        first: Sequence[Mapping[str, Any]] = (),
        pruner: Any = None,
        screen: int | None = None,
        parallel: int = 1,
        storage: Any = DEFAULT_STORAGE,
        on_new_space: NewSpace = "refuse",
        **options: Any,
    ) -> None:
        super().__init__(metric, parallel=parallel, storage=storage, **options)
        check_counts(trials=trials, grid_points=grid_points, screen=screen)
        if isinstance(sampler, str) and sampler not in SAMPLERS:
            expected = f"a sampler of Optuna or one of {errors.listed(SAMPLERS)}"
            raise errors.InvalidValue.expecting(expected, errors.shown(sampler)).at("sampler")
        if on_new_space not in get_args(NewSpace):
            expected = f"one of {errors.listed(get_args(NewSpace))}"
            raise errors.InvalidValue.expecting(expected, errors.shown(on_new_space)).at("on_new_space")
        self.trials = self._most = trials
        self.sampler = sampler
        self.grid_points = grid_points
        self.candidates = {name: list(values) for name, values in (candidates or {}).items()}
        self.first = [dict(one) for one in first]
        self.pruner = pruner
        self.screen = screen
        self.on_new_space = on_new_space

    def _sampler(self, space: SearchSpace, known: int) -> Any:
        samplers = need_optuna().samplers
        if self.sampler is not None and not isinstance(self.sampler, str):
            return self.sampler
        seed = (self.seed * 10_007 + known) % 2**32
        conditional = any(one.when is not None for one in space.values())
        kind = self.sampler or ("tpe" if len(self.objectives) == 1 else "nsga2")
        if kind == "tpe":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that `group` is experimental
                return samplers.TPESampler(
                    seed=seed, multivariate=True, group=conditional, n_startup_trials=8
                )
        if kind == "nsga2":
            return samplers.NSGAIISampler(seed=seed, population_size=max(4, min(20, self.trials // 4)))
        return samplers.RandomSampler(seed=seed)

    def _pruner(self) -> Any:
        return self.pruner if self.pruner is not None else Screening()

    def _first(self, search: Search) -> Sequence[Mapping[str, Any]]:
        return self.first

    def _listed(self, search: Search) -> Iterator[Mapping[str, Any]] | None:
        return search.space.grid(self.grid_points) if self.sampler == "grid" else None
