"""What the optimizers share whose studies are kept: a storage of Optuna, and trials one after another."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from dspex.optimizers.asking import Asking
from dspex.optimizers.base import Found, Optimizer, Search, check_counts
from dspex.optimizers.storage import NewSpace, need_optuna, of_space, open_study, quietly, trials_of

if TYPE_CHECKING:
    from dspex.evaluation.metrics import Metric
    from dspex.spaces import SearchSpace

__all__ = ["DEFAULT_STORAGE", "KeptOptimizer"]

DEFAULT_STORAGE = "sqlite:///dspex-studies.db"
"""A file in the working directory; `optuna-dashboard` opens it as it is."""


class KeptOptimizer(Optimizer):
    """
    The parent of the optimizers whose studies survive their process.

    The first trial is what the session has. A trial that a rule refuses costs no run; nor does one that was
    tried before. A study of the same name in the same storage goes on where it was.

    Args:
        metric: As for `evaluate`.
        parallel: Trials at the same time, each on a fork of its own.
        storage: A URL, a storage of Optuna, or None for memory.
        options: Those of `Optimizer`.
    """

    on_new_space: NewSpace = "refuse"
    _most: float = math.inf
    """Trials, those of earlier runs of the study included."""

    def __init__(self, metric: Metric, *, parallel: int, storage: Any, **options: Any) -> None:
        super().__init__(metric, **options)
        check_counts(parallel=parallel)
        self.parallel = parallel
        self.storage = storage
        need_optuna()

    # ---- hooks ------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """What must be the same in all runs of a study, beside program, examples and objectives."""
        return {}

    def _extended(self, search: Search, study: Any) -> Search:
        """*search* with more candidates, made within its budget or kept with *study*."""
        return search

    def _first(self, search: Search) -> Sequence[Mapping[str, Any]]:
        """The points to try right after what is there, each as what differs from that."""
        return ()

    def _listed(self, search: Search) -> Iterable[Mapping[str, Any]] | None:
        """All points that there are to try; None where the sampler has to be asked."""
        return None

    def _sampler(self, space: SearchSpace, known: int) -> Any:
        """The sampler of a study that has *known* trials."""
        return need_optuna().samplers.RandomSampler(seed=self.seed + known)

    def _pruner(self) -> Any:
        """What gives trials up, of those that are screened."""
        return need_optuna().pruners.NopPruner()

    # ---- the search -------------------------------------------------------------------------------

    def _search(self, search: Search) -> Found:
        with quietly():
            study = open_study(search, self.storage, self.objectives, **self._settings())
            search = self._extended(search, study)
            study, moved = of_space(search, study, self.storage, self.on_new_space)
            study.pruner = self._pruner()
            # A sampler that begins with the same seed would propose again what it has proposed.
            study.sampler = self._sampler(search.space, len(study.get_trials(deepcopy=False)))
            asking = Asking(self, search, study, self._listed(search))
            with asking.stoppable():
                asking.resume(self._first(search))
                self._work(asking)
                asking.settle()
            trials = trials_of(study, search.space)
        if not asking.tried and not any(one.state == "complete" for one in trials) and asking.refusals:
            raise search.space.refused_all(asking.refusals)
        storage = self.storage if isinstance(self.storage, str) else None
        notes = [*search.notes, *moved, *asking.notes]
        return Found(trials, storage, notes, study, search.space)

    def _work(self, asking: Asking) -> None:
        def work() -> None:
            while asking.one():
                pass

        if self.parallel == 1:
            return work()
        with ThreadPoolExecutor(self.parallel, thread_name_prefix="dspex-trial") as threads:
            workers = [threads.submit(contextvars.copy_context().run, work) for _ in range(self.parallel)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:
                asking.search.budget.stopped = True  # the others end after the example that they are at
                raise
