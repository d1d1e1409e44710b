"""
The optimizer contract.

An optimizer looks for better values of a program's variables. `compile` is called as with DSPy's optimizers,
and works on a live session: it claims the names that it tunes, so that nobody sets them meanwhile; it tries
every candidate on a fork, so that trials see neither one another nor the live session; and it commits the
winner, if one was better than what was there, in one commit with study, trial and score in its metadata.

**Errors.** A program that fails on an example is a low score. What is wrong with the search itself, an empty
dataset, a metric that raises, nothing to tune, names that are claimed, is raised as a `DspexError`. Whatever
is raised, Ctrl-C included, the live values are as they were.

**Threads.** `compile` may be called from any thread, for several sessions at the same time.

An author writes `_search`, which spends the budget on trials and returns them.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from dspex import deadlines, errors
from dspex.evaluation.datasets import dataset
from dspex.evaluation.evaluate import class_of
from dspex.optimizers.studies import (
    MINIMIZED,
    OBJECTIVES,
    Choose,
    Study,
    Trial,
    baseline_of,
    new_name,
    pareto,
    surely_better,
)
from dspex.optimizers.trials import TTL, Budget, Trials, kept, nothing_to_tune
from dspex.program import Program
from dspex.records import check_name
from dspex.session import Session

if TYPE_CHECKING:
    from dspex.commits import Receipt
    from dspex.evaluation.evaluate import Pool
    from dspex.evaluation.metrics import Metric
    from dspex.spaces import SearchSpace

__all__ = ["Found", "Optimizer", "Search", "check_counts"]


@attrs.frozen
class Search:
    """What a search works on."""

    name: str
    program: type[Program]
    session: Session
    space: SearchSpace
    trainset: Sequence[Any]
    valset: Sequence[Any]
    trials: Trials
    budget: Budget
    names: Sequence[str]
    """What is claimed, and may be set."""
    candidates: Mapping[str, Sequence[Any]] = attrs.field(factory=dict)
    """What was made on the way, by name."""
    points: Sequence[Mapping[str, Any]] = ()
    """What was found on the way, best first: values by name."""
    notes: Sequence[str] = ()
    """What became known on the way."""

    def with_candidates(self, candidates: Mapping[str, Sequence[Any]], *, only: bool = False) -> Search:
        """The same search with *candidates*, over all variables or *only* over those of them."""
        space = self.program.search_space(candidates, at=self.session.snapshot())
        if only:
            space = space.only(candidates)
        return attrs.evolve(
            self, space=space, trials=attrs.evolve(self.trials, space=space), candidates=candidates
        )


@attrs.frozen
class Found:
    """What a search found."""

    trials: Sequence[Trial]
    storage: str | None = None
    notes: Sequence[str] = ()
    optuna: Any = None
    space: SearchSpace | None = None
    """The space of the trials, where it became known on the way."""


class Optimizer(ABC):
    """
    The parent of the optimizers.

    Args:
        metric: As for `evaluate`.
        objectives: What to look for: `score`, and any of `seconds`, `cost`, `lm_calls`, `tokens`.
        choose: Picks the winner of the Pareto set; needed where there are several objectives.
        seconds: The time that the search may take.
        lm_calls: The calls of language models that it may make.
        num_threads: Examples of one trial at the same time.
        deadline: Seconds for each example.
        pool: Where to run the examples, if not in this process.
        seed: The same one gives the same candidates, as far as the models give the same answers.
        study: The name of the study.
        commit: Whether the winner is committed to the session.
        on_trial: Called with each finished trial. What is tuned it cannot set either: `Claimed`.
        unknown: Is refused.
    """

    screen: int | None = None
    """Examples after which a trial that is clearly worse than the best is given up; None for never."""

    candidates: Mapping[str, Sequence[Any]] = MappingProxyType({})
    """Values to choose from, by name, where the declaration names none."""

    def __init__(
        self,
        metric: Metric,
        *,
        objectives: Sequence[str] = ("score",),
        choose: Choose | None = None,
        seconds: float | None = None,
        lm_calls: int | None = None,
        num_threads: int = 1,
        deadline: float | None = None,
        pool: Pool | None = None,
        seed: int = 0,
        study: str | None = None,
        commit: bool = True,
        on_trial: Callable[[Trial], object] | None = None,
        **unknown: Any,
    ) -> None:
        for wrong in unknown:
            raise _no_option(type(self), wrong)
        if not callable(metric):
            raise errors.InvalidValue.expecting("a function", errors.shown(metric)).at("metric")
        for name, bound in (("seconds", seconds), ("lm_calls", lm_calls)):
            if bound is not None and not bound > 0:
                raise errors.InvalidValue.expecting("more than 0", errors.shown(bound)).at(name)
        check_counts(num_threads=num_threads)
        if deadline is not None:
            deadlines.check_seconds(deadline, "deadline", least="more than 0")
        strange = [one for one in objectives if one not in OBJECTIVES]
        if strange or not objectives or len(set(objectives)) < len(tuple(objectives)):
            expected = f"some of {errors.listed(OBJECTIVES)}, each once"
            raise errors.InvalidValue.expecting(expected, errors.shown(objectives)).at("objectives")
        if len(tuple(objectives)) > 1 and choose is None:
            raise errors.InvalidDeclaration(
                "With several objectives no trial is best in all: say which to take with choose=, a function "
                "that is given the Pareto set and returns one of it."
            )
        if lm_calls is not None and pool is not None:
            raise errors.InvalidDeclaration(
                "lm_calls cannot be counted in a pool, whose processes ask the models: give seconds= or "
                "trials= instead, or leave pool= out."
            )
        if choose is not None and not callable(choose):
            raise errors.InvalidValue.expecting("a function", errors.shown(choose)).at("choose")
        self.metric = metric
        self.objectives = tuple(objectives)
        self.choose = choose
        self.seconds = seconds
        self.lm_calls = lm_calls
        self.num_threads = num_threads
        self.deadline = deadline
        self.pool = pool
        self.seed = seed
        self.study = None if study is None else check_name(study)
        self.commit = commit
        self.on_trial = on_trial

    def tuned(self, program: type[Program], session: Session, space: SearchSpace) -> list[str]:
        """The variables that a search on *session* would claim and set: by default those of *space*."""
        return list(space)

    @abstractmethod
    def _search(self, search: Search) -> Found:
        """Spend the budget of *search* on trials."""

    def compile(
        self,
        program: Any,
        *,
        trainset: Any,
        valset: Any = None,
        session: Session | None = None,
    ) -> Study:
        """
        Search for better values of *program*'s variables on *session*, and commit them if there are.

        Args:
            program: A `Program` class, or a bound program.
            trainset: Examples, as for `dspex.evaluation.dataset`. Trials are scored on them where there is no
                *valset*.
            valset: Examples that trials are scored on instead; *trainset* then is for making candidates.
            session: Whose values; by default those of a bound program, or of a private session.

        Raises:
            InvalidDeclaration: There is nothing to tune.
            InvalidValue: A dataset is empty or does not fit.
            Claimed: Another study, or somebody else, has claimed a name.
            MetricFailed: The metric raised, or gave no finite number.
            LimitExceeded: The rules of the program refuse every candidate.
        """
        if isinstance(program, Program):
            session = program.session if session is None else session
            program = class_of(program)
        session = Session() if session is None else session
        train = dataset(trainset, program=program)
        val = train if valset is None else dataset(valset, program=program)
        session.attachment(program, lambda: program.bind(session))
        space = program.search_space(self.candidates, at=session.snapshot())
        names = self.tuned(program, session, space)
        if not names:
            raise nothing_to_tune(space)
        name = self.study if self.study is not None else new_name(program)
        budget = Budget(self.seconds, self.lm_calls)
        trials = Trials(
            program,
            session,
            space,
            val,
            self.metric,
            budget,
            self.screen,
            self.num_threads,
            self.deadline,
            self.pool,
        )
        search = Search(name, program, session, space, train, val, trials, budget, names)
        owner = check_name(f"study-{name}"[:128])
        claim = session.claim(names, owner=owner, ttl=TTL)
        try:
            # Not in the block of the claim: what runs here is the user's, too, and shall not set them either.
            with kept(claim, budget):
                found = self._search(search)
            best = self._picked(found.trials)
        except BaseException:
            with suppress(errors.DspexError):  # it ends with its time; what was raised is what to hear of
                claim.release()
            raise
        with claim:
            receipt = self._committed(search, found.trials, best) if self.commit else None
        return Study(
            name=name,
            program=program,
            session=session,
            space=found.space or search.space,
            objectives=self.objectives,
            trials=tuple(found.trials),
            best=best,
            seconds=budget.elapsed,
            lm_calls=budget.spent_calls if budget.counted else None,
            storage=found.storage,
            notes=tuple(found.notes),
            receipt=receipt,
            optuna=found.optuna,
        )

    async def acompile(
        self, program: Any, *, trainset: Any, valset: Any = None, session: Session | None = None
    ) -> Study:
        """`compile`, awaited; in a thread."""
        import asyncio

        return await asyncio.to_thread(
            self.compile, program, trainset=trainset, valset=valset, session=session
        )

    def _picked(self, trials: Sequence[Trial]) -> Trial | None:
        done = [one for one in trials if one.state == "complete"]
        if not done:
            return None
        if len(self.objectives) > 1:
            assert self.choose is not None
            best = pareto(done, self.objectives)
            chosen = self.choose(best)
            if chosen not in best:
                raise errors.InvalidValue.expecting(
                    "one of the trials that it was given", errors.shown(chosen, 80)
                ).at("what choose() returns")
            return chosen
        name = next(iter(self.objectives))
        sign = -1.0 if name in MINIMIZED else 1.0

        def worth(one: Trial) -> tuple[float, int, float, int]:
            # Of equals the one that more is known of, then the faster, then the earlier.
            return sign * one.objectives((name,))[0], one.items, -(one.seconds or 0.0), -one.number

        return max(done, key=worth)

    def _committed(self, search: Search, trials: Sequence[Trial], best: Trial | None) -> Receipt | None:
        """Commit *best* unless it is what was there."""
        live = search.session.snapshot()
        kinds = {name: search.session.variables[name].kind for name in search.names}
        if best is None or all(
            kinds[name].dump(live[name]) == kinds[name].dump(value) for name, value in best.point.items()
        ):
            return None
        baseline = baseline_of(trials)
        if baseline is not None and len(self.objectives) == 1 and self._no_better(best, baseline):
            return None
        fork = search.session.fork(best.point)
        metadata = {
            "study": search.name,
            "trial": best.number,
            "items": best.items,
            **{name: getattr(best, name) for name in self.objectives},
            "baseline": None if baseline is None else baseline.score,
        }
        source = f"study {search.name}"
        return fork.commit_to_parent(list(best.point), metadata, source=source[:256])

    def _no_better(self, best: Trial, baseline: Trial) -> bool:
        name = next(iter(self.objectives))
        if baseline.state != "complete":
            return name != "score" or not surely_better(best, baseline)
        ours, theirs = best.objectives((name,))[0], baseline.objectives((name,))[0]
        return ours >= theirs if name in MINIMIZED else ours <= theirs


def _no_option(cls: type[Optimizer], name: str) -> errors.InvalidCall:
    """*cls* cannot be made with *name*."""
    known = [
        option.name
        for one in cls.__mro__
        if "__init__" in vars(one) and issubclass(one, Optimizer)
        for option in inspect.signature(one.__init__).parameters.values()
        if option.kind is not option.VAR_KEYWORD and option.name != "self"
    ]
    near = errors.did_you_mean(name, known)
    return errors.InvalidCall(f"{cls.__name__} has no option '{name}'.{near}", name=name)


def check_counts(**counts: int | None) -> None:
    """
    Check options that count something; None for one that is not given.

    Raises:
        InvalidValue: One of them is no number from 1.
    """
    for name, count in counts.items():
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise errors.InvalidValue.expecting("at least 1", errors.shown(count)).at(name)
