"""Searching with Optuna: its samplers, its pruning and its storages, on forks of a live session."""

from __future__ import annotations

import contextvars
import threading
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.optimizers.base import Found, Optimizer, Search
from dspex.optimizers.screening import Screening
from dspex.optimizers.storage import KEY, NewSpace, need_optuna, open_study, quietly, trial_of
from dspex.optimizers.studies import Trial
from dspex.optimizers.trials import BudgetSpent, Outcome
from dspex.spaces import exports

if TYPE_CHECKING:
    from dspex.evaluation.metrics import Metric
    from dspex.evaluation.results import Scored
    from dspex.spaces import SearchSpace

__all__ = ["DEFAULT_STORAGE", "OptunaOptimizer"]

DEFAULT_STORAGE = "sqlite:///dspex-studies.db"
"""A file in the working directory; `optuna-dashboard` opens it as it is."""

SAMPLERS = ("tpe", "random", "grid", "nsga2")

IN_A_ROW = 100
"""Candidates that rules may refuse, or that were tried before, one after another, until the search ends."""


class OptunaOptimizer(Optimizer):
    """
    Search with Optuna.

    The first trial is what the session has. A trial that a rule refuses costs no run; nor does one that was
    tried before. A study of the same name in the same storage goes on where it was.

    Args:
        metric: As for `evaluate`.
        trials: How many there shall be, those of earlier runs of the study included.
        sampler: `tpe`, `random`, `grid`, `nsga2`, or a sampler of Optuna; by default `tpe`, for several
            objectives `nsga2`.
        grid_points: Values of each range, for `grid`.
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
        first: Sequence[Mapping[str, Any]] = (),
        pruner: Any = None,
        screen: int | None = None,
        parallel: int = 1,
        storage: Any = DEFAULT_STORAGE,
        on_new_space: NewSpace = "refuse",
        **options: Any,
    ) -> None:
        super().__init__(metric, **options)
        counts = {"trials": trials, "parallel": parallel, "grid_points": grid_points}
        for name, count in (counts if screen is None else {**counts, "screen": screen}).items():
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise errors.InvalidValue.expecting("at least 1", errors.shown(count)).at(name)
        if isinstance(sampler, str) and sampler not in SAMPLERS:
            expected = f"a sampler of Optuna or one of {errors.listed(SAMPLERS)}"
            raise errors.InvalidValue.expecting(expected, errors.shown(sampler)).at("sampler")
        if on_new_space not in ("refuse", "map"):
            raise errors.InvalidValue.expecting("'refuse' or 'map'", errors.shown(on_new_space)).at(
                "on_new_space"
            )
        self.trials = trials
        self.sampler = sampler
        self.grid_points = grid_points
        self.first = [dict(one) for one in first]
        self.pruner = pruner
        self.screen = screen
        self.parallel = parallel
        self.storage = storage
        self.on_new_space = on_new_space
        need_optuna()

    def _search(self, search: Search) -> Found:
        with quietly():
            study, notes = open_study(
                search,
                self.storage,
                sampler=self._sampler(search.space, 0),
                pruner=self.pruner if self.pruner is not None else Screening(),
                objectives=self.objectives,
                on_new_space=self.on_new_space,
            )
            # A sampler that begins with the same seed would propose again what it has proposed.
            study.sampler = self._sampler(search.space, len(study.get_trials(deepcopy=False)))
            asking = _Asking(self, search, study)
            asking.resume()
            self._work(asking)
            asking.settle()
            trials = [trial_of(one, search.space) for one in study.get_trials(deepcopy=False)]
            if not asking.tried and not any(one.state == "complete" for one in trials) and asking.refusals:
                raise search.space.refused_all(asking.refusals)
            storage = self.storage if isinstance(self.storage, str) else None
            return Found(trials, storage, [*notes, *asking.notes], study)

    def _sampler(self, space: SearchSpace, known: int) -> Any:
        """A sampler for a study that has *known* trials."""
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

    def _first(self, search: Search) -> Sequence[Mapping[str, Any]]:
        """A hook: the points to try first."""
        return self.first

    def _work(self, asking: _Asking) -> None:
        if self.parallel == 1:
            while asking.one():
                pass
            return

        def work() -> None:
            while asking.one():
                pass

        budget = asking.search.budget
        with ThreadPoolExecutor(self.parallel, thread_name_prefix="dspex-trial") as threads:
            workers = [threads.submit(contextvars.copy_context().run, work) for _ in range(self.parallel)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:
                budget.stopped = True  # the others end after the example that they are at
                raise


class _Asking:
    """The loop of one search: ask, fork, evaluate, tell."""

    def __init__(self, optimizer: OptunaOptimizer, search: Search, study: Any) -> None:
        self.optimizer = optimizer
        self.search = search
        self.study = study
        self.refusals: list[str] = []
        """What rules said to the candidates since the last one that was tried."""
        self.notes: list[str] = []
        self.tried = 0
        self.begun = False
        self._begun: Outcome | None = None
        """What was there before, looked at only a little."""
        self._complete = False
        self._lock = threading.Lock()
        self._states = need_optuna().trial.TrialState
        self._known: dict[str, Trial] = {}
        self._running = 0
        self._again = 0
        self._grid = search.space.grid(optimizer.grid_points) if optimizer.sampler == "grid" else None

    # ---- going on where it was --------------------------------------------------------------------

    def resume(self) -> None:
        """Take up what is in the storage: finished trials are known, unfinished ones are tried again."""
        space = self.search.space
        waiting = False
        for frozen in self.study.get_trials(deepcopy=False):
            trial = trial_of(frozen, space)
            if trial.state in ("complete", "screened"):
                self._known[_key(trial.shown)] = trial
                self._complete = self._complete or trial.state == "complete"
            elif frozen.state == self._states.WAITING:
                waiting = True
            elif frozen.state == self._states.RUNNING:
                self._end_unfinished(frozen)
                self._enqueue_again(frozen)
                waiting = True
        baseline = _key(space.encode(space.initial))
        if waiting or baseline in self._known:
            return
        params = exports.params_of(space.dimensions, space.initial)
        self.study.enqueue_trial(params, user_attrs={KEY: {"baseline": True}})
        for changed in self.optimizer._first(self.search):
            point = space.completed(changed)
            if space.refusal(point) is None:
                self.study.enqueue_trial(exports.params_of(space.dimensions, point))

    def _end_unfinished(self, frozen: Any) -> None:
        """Of a process that was killed in the middle of it."""
        self.study._storage.set_trial_user_attr(
            frozen._trial_id, KEY, {"state": "failed", "error": "its process ended"}
        )
        self.study.tell(frozen.number, state=self._states.FAIL)

    def _enqueue_again(self, frozen: Any) -> None:
        said = frozen.user_attrs.get(KEY, {})
        if frozen.params:
            self.study.enqueue_trial(
                frozen.params, user_attrs={KEY: {"baseline": said.get("baseline", False)}}
            )

    # ---- one after another ------------------------------------------------------------------------

    def one(self) -> bool:
        """Make one trial; whether to go on."""
        with self._lock:
            asked = self._ask()
            if asked is None:
                return False
            trial, point, baseline = asked
            self._running += 1
        try:
            outcome = self.search.trials.run(point, self._giving_up(trial, baseline=baseline))
        except BudgetSpent:
            self._stopped(trial, baseline, "the budget was spent in the middle of it")
            return False
        except BaseException as error:
            self._stopped(trial, baseline, f"{type(error).__name__}: {error}")
            raise
        with self._lock:
            self._running -= 1
            done = self._tell(trial, outcome, point, baseline)
        if self.optimizer.on_trial is not None:
            self.optimizer.on_trial(done)
        return True

    def _ask(self) -> tuple[Any, dict[str, Any], bool] | None:
        space = self.search.space
        while True:
            if self.search.budget.over or len(self._known) + self._running >= self.optimizer.trials:
                return None
            if self._again >= IN_A_ROW or len(self.refusals) >= IN_A_ROW:
                self.notes.append(
                    f"the search ended early: {IN_A_ROW} candidates in a row were refused or tried before"
                )
                return None
            if self._grid is not None and self.begun and not self._next_of_grid():
                return None
            self.begun = True
            trial = self.study.ask()
            baseline = trial.user_attrs.get(KEY, {}).get("baseline", False)
            point = space.suggest(trial)
            refused = space.refusal(point)
            if refused is not None:
                self.refusals.append(refused)
                shown = space.encode(point)
                self._note(trial, {"state": "refused", "error": refused, "shown": shown})
                self.study.tell(trial, state=self._states.PRUNED)
                continue
            known = self._known.get(_key(space.encode(point)))
            if known is not None:
                self._again += 1
                self._tell_again(trial, known)
                continue
            self.refusals = []
            self._again = 0
            self.tried += 1
            return trial, point, baseline

    def _next_of_grid(self) -> bool:
        assert self._grid is not None
        space = self.search.space
        for point in self._grid:
            if _key(space.encode(point)) not in self._known:
                self.study.enqueue_trial(exports.params_of(space.dimensions, point))
                return True
        return False

    def _giving_up(self, trial: Any, *, baseline: bool) -> Any:
        """What to ask after each stage of a trial; None where none is given up."""
        (name, *others) = self.optimizer.objectives
        if others or self.optimizer.screen is None:
            return None
        if baseline:
            # What is there before needs no more than a look, unless in the end nothing is clearly better.
            return lambda _: True

        def give_up(items: Sequence[Scored]) -> bool:
            values = [getattr(one, name) for one in items]
            if any(value is None for value in values):
                return False
            mean = sum(values) / len(values)
            with self._lock:
                trial.report(mean, len(items))
                begun = self._begun
                if begun is not None and not self._complete and name == "score":
                    seen = [one.score for one in begun.items[: len(items)]]
                    return bool(mean <= sum(seen) / len(seen))
                prune: bool = trial.should_prune()
                return prune

        return give_up

    def settle(self) -> None:
        """Look at the rest of what was there before, if it may still be the best."""
        found = [one for one in self._known.values() if one.baseline]
        if not found or found[0].state != "screened":
            return
        (name,) = self.optimizer.objectives
        baseline = found[0]
        scores = [
            one.score for one in self._known.values() if one.state == "complete" and one.score is not None
        ]
        if (
            scores
            and name == "score"
            and baseline.interval is not None
            and max(scores) > baseline.interval[1]
        ):
            return
        try:
            outcome = self.search.trials.run(baseline.point, None, self._begun)
        except BudgetSpent:
            self.notes.append("the budget was spent before it was certain that something is better")
            return
        params = exports.params_of(self.search.space.dimensions, baseline.point)
        self.study.enqueue_trial(params, user_attrs={KEY: {"baseline": True}})
        trial = self.study.ask()
        self.search.space.suggest(trial)
        self._tell(trial, outcome, dict(baseline.point), baseline=True)

    def _tell(self, trial: Any, outcome: Outcome, point: dict[str, Any], baseline: bool) -> Trial:
        import attrs

        done = attrs.evolve(outcome.trial(trial.number, point, self.search.space), baseline=baseline)
        self._known[_key(done.shown)] = done
        if baseline:
            self._begun = outcome if done.state == "screened" else None
        self._complete = self._complete or done.state == "complete"
        self._tell_again(trial, done)
        return done

    def _tell_again(self, trial: Any, known: Trial) -> None:
        """The same as of the trial that had this point."""
        if known.state == "screened":
            self._note(trial, _said(known))
            self.study.tell(trial, state=self._states.PRUNED)
        else:
            self._keep(trial, known, known.objectives(self.optimizer.objectives))

    def _keep(self, trial: Any, done: Trial, values: Sequence[float]) -> None:
        self._note(trial, _said(done))
        self.study.tell(trial, list(values))

    def _stopped(self, trial: Any, baseline: bool, why: str) -> None:
        with self._lock:
            self._running -= 1
            said = {"state": "failed", "error": why, "baseline": baseline}
            self._note(trial, {**said, "shown": self.search.space.encode(self._point(trial))})
            self.study.tell(trial, state=self._states.FAIL)
            self.study.enqueue_trial(trial.params, user_attrs={KEY: {"baseline": baseline}})

    def _point(self, trial: Any) -> dict[str, Any]:
        return exports.point_of(self.search.space.dimensions, trial.params)

    def _note(self, trial: Any, said: dict[str, Any]) -> None:
        trial.set_user_attr(KEY, said)


def _key(shown: Any) -> str:
    return repr(sorted((name, type(value).__name__, value) for name, value in shown.items()))


def _said(done: Trial) -> dict[str, Any]:
    """What Optuna does not keep of a trial."""
    names = ("state", "score", "interval", "items", "failures", "seconds", "cost", "lm_calls", "tokens")
    return {
        **{name: getattr(done, name) for name in names},
        "error": done.error,
        "baseline": done.baseline,
        "shown": dict(done.shown),
    }
