"""The loop of a search: ask for a point, fork, evaluate, tell; and going on with what a storage has."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from dspex.optimizers.storage import KEY, key_of, made_trial, need_optuna, said_of, trial_of
from dspex.optimizers.studies import Trial, surely_better
from dspex.optimizers.trials import BudgetSpent, Outcome
from dspex.spaces import exports

if TYPE_CHECKING:
    from dspex.evaluation.results import Scored
    from dspex.optimizers.base import Search
    from dspex.optimizers.kept import KeptOptimizer

__all__ = ["Asking"]

IN_A_ROW = 100
"""Candidates that rules may refuse, or that were tried before, one after another, until the search ends."""


class Asking:
    """
    The trials of one search, one after another or several at the same time.

    What Optuna keeps of a trial is asked for and told under a lock; what takes time is not.
    """

    def __init__(
        self,
        optimizer: KeptOptimizer,
        search: Search,
        study: Any,
        listed: Iterable[Mapping[str, Any]] | None,
    ) -> None:
        self.optimizer = optimizer
        self.search = search
        self.study = study
        self.refusals: list[str] = []
        """What rules said to the candidates since the last one that was tried."""
        self.notes: list[str] = []
        self.tried = 0
        self._baseline: Outcome | None = None
        """What was there before, looked at only a little."""
        self._complete = False
        """Whether a trial is."""
        self._exhausted = False
        """Whether the sampler has nothing more to suggest."""
        self._lock = threading.Lock()
        self._states = need_optuna().trial.TrialState
        self._known: dict[str, Trial] = {}
        self._running: list[str] = []
        self._again = 0
        self._listed = None if listed is None else iter(listed)

    # ---- going on where it was --------------------------------------------------------------------

    def resume(self, first: Sequence[Mapping[str, Any]]) -> None:
        """
        Take up what is in the storage: finished trials are known, unfinished ones are tried again.

        A study without any begins with what the session has, and then *first*.
        """
        space = self.search.space
        for frozen in self.study.get_trials(deepcopy=False):
            trial = trial_of(frozen, space)
            if trial.state in ("complete", "screened"):
                self._known[key_of(trial.shown)] = trial
                self._complete = self._complete or trial.state == "complete"
            elif frozen.state == self._states.RUNNING:
                self._end_unfinished(frozen)
                self._enqueue_params(frozen.params, frozen.user_attrs.get(KEY, {}))
        if self._waiting or key_of(space.encode(space.initial)) in self._known:
            return
        self._enqueue(space.initial, baseline=True)
        for changed in first:
            point = space.completed(changed)
            if space.refusal(point) is None:
                self._enqueue(point)

    def _end_unfinished(self, frozen: Any) -> None:
        """Of a process that was killed in the middle of it."""
        self.study._storage.set_trial_user_attr(
            frozen._trial_id, KEY, {"state": "failed", "error": "its process ended"}
        )
        self._close(frozen.number, state=self._states.FAIL)

    def _enqueue_params(self, params: Mapping[str, Any], said: Mapping[str, Any]) -> None:
        if params:  # else it had ended before it was known what to try
            self.study.enqueue_trial(params, user_attrs={KEY: {"baseline": said.get("baseline", False)}})

    def _enqueue(self, point: Mapping[str, Any], *, baseline: bool = False) -> None:
        params = exports.params_of(self.search.space.dimensions, point)
        self._enqueue_params(params, {"baseline": baseline})

    @property
    def _waiting(self) -> bool:
        return bool(self.study.get_trials(deepcopy=False, states=(self._states.WAITING,)))

    # ---- one after another ------------------------------------------------------------------------

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Let samplers say in the block that they are at their end: Optuna has it only in its own loop."""

        def stop() -> None:
            self._exhausted = True

        self.study.stop = stop
        try:
            yield
        finally:
            del self.study.stop

    def one(self) -> bool:
        """Make one trial; whether to go on."""
        with self._lock:
            asked = self._ask()
            if asked is None:
                return False
            trial, point, baseline = asked
            key = key_of(self.search.space.encode(point))
            self._running.append(key)
        try:
            outcome = self.search.trials.run(point, self._giving_up(trial, baseline=baseline))
        except BudgetSpent:
            self._stopped(trial, key, baseline, "the budget was spent in the middle of it")
            return False
        except BaseException as error:
            self._stopped(trial, key, baseline, f"{type(error).__name__}: {error}")
            raise
        with self._lock:
            self._running.remove(key)
            done = self._tell(trial, outcome, point, baseline)
        if self.optimizer.on_trial is not None:
            self.optimizer.on_trial(done)
        return True

    def _ask(self) -> tuple[Any, dict[str, Any], bool] | None:
        """The next trial that has to be run; None where there is none."""
        space = self.search.space
        while not self._over():
            trial = self.study.ask()
            baseline = trial.user_attrs.get(KEY, {}).get("baseline", False)
            point = space.suggest(trial)
            refused = space.refusal(point)
            if refused is not None:
                self.refusals.append(refused)
                if self._listed is not None:
                    self.notes.append(f"a rule is against something that was to be tried: {refused}")
                shown = space.encode(point)
                self._note(trial, {"state": "refused", "error": refused, "shown": shown})
                self._close(trial, state=self._states.PRUNED)
                continue
            known = self._known.get(key_of(space.encode(point)))
            if known is not None:
                self._again += 1
                self._tell_again(trial, known)
                continue
            self.refusals = []
            self._again = 0
            self.tried += 1
            return trial, point, baseline
        return None

    def _over(self) -> bool:
        if self.search.budget.over or len(self._known) + len(self._running) >= self.optimizer._most:
            return True
        if self._again >= IN_A_ROW or len(self.refusals) >= IN_A_ROW:
            self.notes.append(
                f"the search ended early: {IN_A_ROW} candidates in a row were refused or tried before"
            )
            return True
        if self._listed is None:
            return self._exhausted and not self._waiting
        return not self._waiting and not self._enqueue_next()

    def _enqueue_next(self) -> bool:
        """Have the next of the listed points tried; whether there is one."""
        space = self.search.space
        for point in self._listed or ():
            key = key_of(space.encode(point))
            if key not in self._known and key not in self._running:
                self._enqueue(point)
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
                # Until a trial is complete, what was seen of the baseline is all there is to compare with.
                before = self._baseline
                if before is not None and not self._complete and name == "score":
                    seen = [one.score for one in before.items[: len(items)]]
                    return bool(mean <= sum(seen) / len(seen))
                prune: bool = trial.should_prune()
                return prune

        return give_up

    def settle(self) -> None:
        """Say what was not tried, and look at the rest of what was there before, if it may be the best."""
        if self.search.budget.over and self._listed is not None and (self._waiting or self._enqueue_next()):
            self.notes.append("the budget was spent before all that was to be tried had been tried")
        found = [one for one in self._known.values() if one.baseline]
        if not found or found[0].state != "screened":
            return
        baseline = found[0]
        complete = [one for one in self._known.values() if one.state == "complete"]
        if self.optimizer.objectives == ("score",) and any(surely_better(one, baseline) for one in complete):
            return
        try:
            outcome = self.search.trials.run(baseline.point, None, self._baseline)
        except BudgetSpent:
            self.notes.append("the budget was spent before it was certain that something is better")
            return
        self._add(outcome, baseline.point)

    def _add(self, outcome: Outcome, point: Mapping[str, Any]) -> None:
        """A trial of what was there before that nobody asked for."""
        number = len(self.study.get_trials(deepcopy=False))
        done = attrs.evolve(outcome.trial(number, point, self.search.space), baseline=True)
        self._known[key_of(done.shown)] = done
        values = done.objectives(self.optimizer.objectives)
        self.study.add_trial(made_trial(self.search.space, point, values, said_of(done)))

    def _tell(self, trial: Any, outcome: Outcome, point: dict[str, Any], baseline: bool) -> Trial:
        done = attrs.evolve(outcome.trial(trial.number, point, self.search.space), baseline=baseline)
        self._known[key_of(done.shown)] = done
        if baseline:
            self._baseline = outcome if done.state == "screened" else None
        self._complete = self._complete or done.state == "complete"
        self._tell_again(trial, done)
        return done

    def _tell_again(self, trial: Any, known: Trial) -> None:
        """The same as of the trial that had this point."""
        self._note(trial, said_of(known))
        if known.state == "screened":
            self._close(trial, state=self._states.PRUNED)
        else:
            self._close(trial, list(known.objectives(self.optimizer.objectives)))

    def _close(self, trial: Any, values: Sequence[float] | None = None, **state: Any) -> None:
        try:
            self.study.tell(trial, values, **state)
        except KeyError as error:
            # The trial is kept; but Optuna's grid wants to know its point in it, which one that was enqueued,
            # as the first, or that is tried again, has not.
            if error.args != ("grid_id",):
                raise

    def _stopped(self, trial: Any, key: str, baseline: bool, why: str) -> None:
        with self._lock:
            self._running.remove(key)
            said = {"state": "failed", "error": why, "baseline": baseline}
            self._note(trial, {**said, "shown": self.search.space.encode(self._point(trial))})
            self._close(trial, state=self._states.FAIL)
            self._enqueue_params(trial.params, said)

    def _point(self, trial: Any) -> dict[str, Any]:
        return exports.point_of(self.search.space.dimensions, trial.params)

    def _note(self, trial: Any, said: dict[str, Any]) -> None:
        trial.set_user_attr(KEY, said)
